"""How many threads compute, and how they wait; decided before torch is imported, which reads both from the environment.

OpenMP's threads spin while they wait for each other. On a machine with other busy processes they then burn the time
slices that the thread they wait for needs: measured with two threads beside two busy loops on two cores, products took
3.5 times as long as alone, and twice, which is the fair share, once threads sleep. Waiting asleep costs a tenth when
nothing else runs.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

COUNT = "OMP_NUM_THREADS"
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""For GNU's and LLVM's OpenMP."""
MOST = 16
"""More do not make products of a context with an SAE faster; they wait for each other."""
CGROUP = Path("/sys/fs/cgroup")


def wait_asleep() -> None:
    """Threads that wait give their core away, unless the user says otherwise."""
    for name, value in ASLEEP.items():
        os.environ.setdefault(name, value)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, or the quota of its container if that is smaller; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota() or cores))


def limit(*, spare: int = 0) -> int:
    """Let torch compute with the usable cores but `spare`; what the user set in OMP_NUM_THREADS wins.

    Returns:
        The number of threads.
    """
    wait_asleep()
    cores = usable_cores()
    asked = os.environ.setdefault(COUNT, str(max(1, min(MOST, cores - spare))))
    return int(asked) if asked.isdigit() else cores


def _quota() -> int | None:
    """Cores of the control group, rounded up; None without one or without a limit."""
    try:
        quota, _, period = (CGROUP / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ArithmeticError):  # `max` is no number
        return None
