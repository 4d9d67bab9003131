"""Whether a process that wrote something down is still there: its number alone does not say, for numbers are used
again.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether there is such a process and it has not ended; in a container without an init nobody buries the dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    fields = _stat(pid)
    return fields is None or fields[0] != "Z"


def born(pid: int) -> str:
    """When a process began, in a form that only serves to be compared; empty where it cannot be asked."""
    fields = _stat(pid)
    # Clock ticks since boot, the 22nd field of /proc/PID/stat; the first two are cut off.
    return "" if fields is None else fields[19]


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in RAM now, shared pages included; None where it cannot be asked."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str] | None:
    """Fields from the state on; the name before it may hold any character."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
