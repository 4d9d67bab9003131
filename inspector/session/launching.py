"""Starting and stopping session processes, for the client and for `dm-inspect sessions`. Everything here blocks: not
for an event loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import inspector
from inspector.disk.locks import is_running
from inspector.errors import BY_EXIT_CODE, InspectorError, ResourceError
from inspector.session import discovery, frames
from inspector.session.protocol import PROTOCOL_VERSION, Hello, Stop, Welcome

if TYPE_CHECKING:
    from inspector.session.discovery import SessionRecord
    from inspector.spec import TargetSpec

START_SECONDS = 60.0
"""The starting process imports no torch; a loaded machine with a cold disk needs a few seconds."""

FOLDERS = ("DM_INSPECT_RUNTIME_DIR", "DM_INSPECT_RESULTS_DIR", "DM_INSPECT_JOBS_DIR", "DM_INSPECT_EXPERIMENTS_DIR")
"""Variables that name folders, perhaps relative to where the user is."""


def launch(target: TargetSpec, session_id: str) -> None:
    """Start the session, detached, unless one of this id is alive; returns when its socket listens.

    Raises:
        InspectorError: the starting process failed; with what it wrote.
    """
    asked = msgspec.json.encode({"session_id": session_id, "target": discovery.resolved(target)})
    # -P: a module of the user's in the current folder must not take the place of one of ours. The package's own folder
    # is named because in a checkout nothing else makes it importable.
    home = str(Path(inspector.__file__).resolve().parents[1])
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH"))))
    for name in FOLDERS:  # a session works from / and must mean the same folder
        if environment.get(name):
            environment[name] = os.path.abspath(environment[name])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "inspector.session"],
            input=asked,
            capture_output=True,
            timeout=START_SECONDS,
            env=environment,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ResourceError(
            f"The session had not started after {START_SECONDS:g} s. Try again when the machine is less busy."
        ) from error
    except OSError as error:
        raise ResourceError(
            f"No process could be started for the session: {error}. Free some memory and try again."
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        message = said[-1] if said else f"The session could not be started (exit code {done.returncode}). Try again."
        raise BY_EXIT_CODE.get(done.returncode, InspectorError)(message)


def mismatch(welcome: Welcome) -> str | None:
    """Two sentences if a session runs another version of this program, whose numbers may mean something else; None if
    not.
    """
    if welcome.version == PROTOCOL_VERSION and welcome.program_version == inspector.__version__:
        return None
    return (
        f"The session (pid {welcome.pid}) runs dm-inspect {welcome.program_version} with protocol {welcome.version}; "
        f"this is {inspector.__version__} with protocol {PROTOCOL_VERSION}. "
        "Stop it with `dm-inspect sessions stop`, or start another beside it with --new-session."
    )


def stop_session(session_id: str | None, seconds: float = 15.0) -> SessionRecord:
    """Ask a session to end and wait until it has; SIGTERM after half the time, SIGKILL in the end. Returns its last
    record.

    Raises:
        UsageError: there is no such session; with the nearest.
    """
    record = discovery.find_session(session_id)
    path = discovery.socket_path(record.id)
    pid = record.pid
    with contextlib.suppress(OSError):
        connection = discovery.connect(path)
        if connection is None:
            return record
        with contextlib.closing(connection):
            # As the kernel knows it: the record could be of a process that died, and its number another's by now.
            pid = discovery.peer_pid(connection) or pid
            connection.sendall(frames.encode(Hello(request=1)) + frames.encode(Stop(request=2)))
            if _gone(pid, seconds / 2):
                return record
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid, seconds / 2):
            os.kill(pid, signal.SIGKILL)
            _gone(pid, 2.0)
            discovery.remove_files(record.id)
    return record


def _gone(pid: int, seconds: float) -> bool:
    """Whether the process ends within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False
