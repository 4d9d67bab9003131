"""Where sessions are found, how they are started and how they are stopped.

Each has one socket, one record and one log, in places only the user can enter. The folder is `dm-inspect-UID` in the
system's temporary directory, as tmux does it, and not $XDG_RUNTIME_DIR: systemd removes that one at logout, and a
session has to be found again after the logout. Never trusts what it finds: the folder must be the user's own and closed
to others, and a record counts only while its socket answers.

Everything here blocks: not for an event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import inspector
from inspector.disk.files import SMALL, read_file, write_whole
from inspector.disk.folders import APP, RUNTIME_VARIABLE, child_environment, user_folder
from inspector.disk.locks import is_running
from inspector.errors import InspectorError, ResourceError, UsageError, error_of, nearest
from inspector.session import frames
from inspector.session.protocol import PROTOCOL_VERSION, Hello, Stop, Welcome
from inspector.spec import OPTIONS, TargetSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET_PATH_LIMIT = 103
"""Bytes of a socket's path: 108 with the closing NUL on Linux, 104 on macOS."""
START_SECONDS = 60.0
"""The starting process imports no torch; a loaded machine with a cold disk needs a few seconds."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a session from its file; written by the session, read by every command."""

    id: str
    pid: int
    model: str
    layers: tuple[int, ...] | None
    hook: str
    """The full hook name once it is known; before that what was asked for."""
    device: str
    started: float
    """Seconds since the epoch."""
    program_version: str
    protocol_version: int
    state: str
    """'loading', 'fitting', 'ready' or 'failed'."""
    log: str
    target: TargetSpec = TargetSpec()
    """What it was asked to load, with absolute paths."""
    device_bytes: int | None = None
    """Memory of a GPU that it holds, as of the last change of its state; None on a CPU."""


def runtime_dir() -> Path:
    """The folder of sockets and records, made if missing.

    DM_INSPECT_RUNTIME_DIR names another one; a path too long for a socket is replaced by a short one under /tmp.

    Raises:
        InspectorError: the folder is another user's or a link.
        ResourceError: it cannot be made.
    """
    asked = os.environ.get(RUNTIME_VARIABLE)
    # Under systemd and Slurm TMPDIR can differ between two logins of one user on one machine; /tmp does not.
    system = (
        Path("/tmp") if sys.platform.startswith("linux") and os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    )
    folder = Path(asked).absolute() if asked else system / f"{APP}-{os.getuid()}"
    if len(os.fsencode(folder)) > SOCKET_PATH_LIMIT - 32:
        folder = Path("/tmp") / f"{APP}-{os.getuid()}-{_digest(str(folder))[:8]}"
    try:
        with contextlib.suppress(FileExistsError):  # looked at below
            folder.mkdir(mode=0o700, parents=bool(asked))
        found = folder.lstat()
    except OSError as error:
        raise ResourceError(
            f"The sessions' folder {folder} cannot be made ({error.strerror}). Set {RUNTIME_VARIABLE} to one that can."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InspectorError(
            f"The sessions' folder {folder} is not a directory of yours. "
            f"Remove it, or set {RUNTIME_VARIABLE} to another one."
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def log_dir() -> Path:
    """Where sessions write their logs; in the runtime folder if the user's own log folder cannot be written."""
    folder = user_folder("log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return runtime_dir()


def socket_path(session_id: str) -> Path:
    """The session's socket."""
    return runtime_dir() / f"{session_id}.sock"


def record_path(session_id: str) -> Path:
    """The session's record."""
    return runtime_dir() / f"{session_id}.json"


def log_path(session_id: str) -> Path:
    """The session's log."""
    return log_dir() / f"session-{session_id}.log"


def resolved(target: TargetSpec) -> TargetSpec:
    """The same target with its local paths made absolute: a session must not depend on where it was started."""

    def absolute(text: str | None) -> str | None:
        if text is None or not os.path.exists(os.path.expanduser(text)):
            return text
        path = str(Path(text).expanduser().resolve())
        try:
            path.encode()
        except UnicodeEncodeError as error:
            shown = path.encode("utf-8", "replace").decode()
            raise UsageError(f"{shown} is no UTF-8 name, and a session takes no other. Rename it.") from error
        return path

    changed: dict[str, object] = {}
    for name, option in OPTIONS.items():
        value = getattr(target, name)
        if not option.is_path or value in option.built_in:
            continue
        changed[name] = tuple(absolute(each) for each in value) if isinstance(value, tuple) else absolute(value)
    return replace(target, **changed)  # type: ignore[arg-type]  # each keeps its type


def session_key(target: TargetSpec) -> str:
    """Twelve hex digits that are equal exactly for targets that load the same things onto the same device."""
    fields = {name: value for name, value in asdict(resolved(target)).items() if OPTIONS[name].of_session}
    return _digest(msgspec.json.encode(fields, order="sorted").decode())[:12]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Holds the folder's lock: starting a session and removing leftovers wait for each other."""
    descriptor = os.open(runtime_dir() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def connect(path: Path, timeout: float = 2.0) -> socket.socket | None:
    """A socket connected to a live session of this user; None if no such session listens there.

    Raises:
        TimeoutError: a session listens but accepts no view for that long. Not the same as None: its files must stay.
    """
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except (BlockingIOError, TimeoutError) as error:  # the queue of those who wait to be accepted is full
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"The session at {path} accepts no view. Stop it, or wait.") from error
            time.sleep(0.01)
        except OSError:
            connection.close()
            return None
        else:
            if same_user(connection):
                return connection
            connection.close()
            return None


def is_alive(path: Path) -> bool:
    """Whether a session listens there, even one too busy to accept."""
    try:
        connection = connect(path)
    except TimeoutError:
        return True
    if connection is not None:
        connection.close()
    return connection is not None


def same_user(connection: socket.socket) -> bool:
    """Whether the other end belongs to this user; where the kernel cannot be asked, the folder's mode has to do."""
    other = peer(connection)
    return other is None or other[1] == os.getuid()


def peer(connection: socket.socket) -> tuple[int, int] | None:
    """Process and user id of the other end as the kernel knows them; None where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return pid, uid


def write_record(record: SessionRecord) -> None:
    """Write it whole or not at all.

    Raises:
        ResourceError: the disk does not take it.
    """
    write_whole(record_path(record.id), msgspec.json.encode(record))


def read_record(session_id: str) -> SessionRecord | None:
    """The record of a session; None if there is none or it is damaged."""
    try:
        return msgspec.json.decode(read_file(record_path(session_id), SMALL), type=SessionRecord)
    except (OSError, ValueError, RecursionError):  # msgspec's are ValueErrors
        return None


def rename(session_id: str, target: TargetSpec) -> str:
    """Give a running session the name of another target, under which it is found from now on; returns its new id.

    Raises:
        UsageError: there is a session of that target.
    """
    name = session_key(target)
    if name == session_id:
        return name
    with locked():
        if is_alive(socket_path(name)):
            raise UsageError(f"There is a session {name} of that target already. Open that one.")
        remove_files(name)
        record = read_record(session_id)
        os.rename(socket_path(session_id), socket_path(name))
        if record is not None:
            hook = target.hook or target.site
            write_record(
                msgspec.structs.replace(
                    record, id=name, target=target, layers=target.layers, hook=hook, state="loading"
                )
            )
        record_path(session_id).unlink(missing_ok=True)
    return name


def remove_files(session_id: str) -> None:
    """Remove socket and record; the log stays."""
    for path in (socket_path(session_id), record_path(session_id)):
        path.unlink(missing_ok=True)


def list_sessions() -> list[SessionRecord]:
    """Every live session of this user on this machine, oldest first; what dead ones left behind is removed."""
    with locked():
        alive = []
        for path in runtime_dir().glob("*.sock"):
            if not is_alive(path):
                remove_files(path.stem)
                continue
            record = read_record(path.stem)
            if record is not None:
                alive.append(record)
        for path in runtime_dir().glob("*.json"):
            if not path.with_suffix(".sock").exists():
                path.unlink(missing_ok=True)
    return sorted(alive, key=lambda record: (record.started, record.id))


def find_session(session_id: str | None) -> SessionRecord:
    """The session of that id, or the only one there is.

    Raises:
        UsageError: no such session, none at all, or several and no id.
    """
    sessions = list_sessions()
    if session_id is None and len(sessions) == 1:
        return sessions[0]
    for record in sessions:
        if record.id == session_id:
            return record
    if not sessions:
        wanted = "There is no session" if session_id is None else f"There is no session {session_id!r}"
        raise UsageError(f"{wanted}: none is running. Start one with `dm-inspect`.")
    ids = [record.id for record in sessions]
    if session_id is None:
        raise UsageError(f"{len(sessions)} sessions are running: {', '.join(ids)}. Name the one you mean.")
    raise UsageError(f"There is no session {session_id!r}.{nearest(session_id, ids)}")


def launch(target: TargetSpec, session_id: str) -> None:
    """Start the session, detached, unless one of this id is alive; returns when its socket listens.

    Raises:
        InspectorError: the starting process failed; with what it wrote.
    """
    asked = msgspec.json.encode({"session_id": session_id, "target": resolved(target)})
    # -P: a module of the user's in the current folder must not take the place of one of the program's.
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "inspector.session.process"],
            input=asked,
            capture_output=True,
            timeout=START_SECONDS,
            env=child_environment(),
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
        raise error_of(done.returncode, message)


def mismatch(welcome: Welcome) -> str | None:
    """Two sentences if a session runs another version of the program, whose numbers may mean something else."""
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
    record = find_session(session_id)
    path = socket_path(record.id)
    pid = record.pid
    with contextlib.suppress(OSError):
        connection = connect(path)
        if connection is None:
            return record
        with contextlib.closing(connection):
            # As the kernel knows it: the record could be of a process that died, and its number another's by now.
            pid, _ = peer(connection) or (pid, 0)
            connection.sendall(frames.encode(Hello(request=1)) + frames.encode(Stop(request=2)))
            if _gone(pid, seconds / 2):
                return record
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid, seconds / 2):
            os.kill(pid, signal.SIGKILL)
            _gone(pid, 2.0)
            remove_files(record.id)
    return record


def _gone(pid: int, seconds: float) -> bool:
    """Whether the process ends within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False
