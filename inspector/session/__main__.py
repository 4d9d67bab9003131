"""`python -m inspector.session`: starts one session and returns as soon as it can be connected to.

What to load comes as JSON on stdin, not as arguments that everybody could read in the process list. The socket listens
before the process detaches, so whoever started it need not poll: exit code 0 means that connecting works. Started by
`inspector.session.client`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import msgspec

from inspector import __version__
from inspector.errors import ExitCode, InspectorError
from inspector.session import discovery
from inspector.session.protocol import PROTOCOL_VERSION
from inspector.spec import TargetSpec

NICENESS = 5
"""Behind the view, which must answer a key within a frame while this computes with every core it can get."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What stdin brings."""

    session_id: str
    target: TargetSpec


def main() -> int:
    """Start the session that stdin describes, unless it is there already."""
    try:
        launch = msgspec.json.decode(sys.stdin.buffer.read(), type=Launch)
        with discovery.locked():
            if discovery.is_alive(discovery.socket_path(launch.session_id)):
                return ExitCode.DONE
            listening = listen(launch.session_id)
            log = discovery.log_path(launch.session_id)
            pid = os.fork()
            if pid:
                discovery.write_record(first_record(launch, pid, str(log)))
                return ExitCode.DONE
        detach(str(log))
    except InspectorError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except msgspec.MsgspecError as error:
        sys.stderr.write(
            f"stdin does not describe a session: {error}. `dm-inspect` starts sessions; this is not for typing.\n"
        )
        return ExitCode.USAGE
    except OSError as error:
        sys.stderr.write(
            f"No session can be started: {error}. Free some memory or disk, or set DM_INSPECT_RUNTIME_DIR.\n"
        )
        return ExitCode.RESOURCE
    from inspector.session.process import run_process

    os._exit(run_process(launch.target, launch.session_id, listening, str(log)))


def listen(session_id: str) -> socket.socket:
    """A socket that listens in the private folder, for its owner only."""
    path = discovery.socket_path(session_id)
    discovery.remove_files(session_id)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(16)
    return listening


def first_record(launch: Launch, pid: int, log: str) -> discovery.SessionRecord:
    """What is known before anything is loaded."""
    target = launch.target
    return discovery.SessionRecord(
        id=launch.session_id,
        pid=pid,
        model=target.model,
        layers=target.layers,
        hook=target.hook or target.site,
        device=target.device,
        started=time.time(),
        program_version=__version__,
        protocol_version=PROTOCOL_VERSION,
        state="loading",
        log=log,
        target=target,
    )


def detach(log: str) -> None:
    """Leave the terminal for good: its own session, no standard streams but the log, deaf to hang-up and Ctrl-C."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.path.exists(log):
        os.replace(log, log + ".1")
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, standard in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(descriptor, standard)
    os.close(nothing)
    os.close(written)
    os.nice(NICENESS)
    os.chdir("/")  # not to keep a file system busy; every path of the target is absolute


if __name__ == "__main__":
    sys.exit(main())
