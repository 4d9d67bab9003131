"""The life of a session process: how it is started and detached, its threads and signals, its record, its end.

`python -m inspector.session.process` starts one session and returns as soon as it can be connected to. What to load
comes as JSON on stdin, not as arguments, which every user can read in the process list. The socket listens before the
process detaches, so the process that started it need not poll: exit code 0 means that connecting works.

The main thread computes (`service`) and the other one talks to views (`server`). SIGTERM and Stop end it after the step
under way; if that step does not end, it is ended all the same after a few seconds: a hanging driver must not keep a
device for ever.

`--in-process` has the same service and messages in a thread of the view's own process, for debugging: nothing is
encoded, nothing outlives the process, and a computation that holds the interpreter makes the view stutter.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from inspector import __version__, threads
from inspector.disk.folders import RUNTIME_VARIABLE
from inspector.errors import ExitCode, InspectorError, ResourceError
from inspector.session import discovery
from inspector.session.protocol import PROTOCOL_VERSION, SessionMessage, Stop, ViewMessage, Welcome
from inspector.session.server import Server, Views
from inspector.spec import TargetSpec

if TYPE_CHECKING:
    from types import FrameType

    from inspector.session.protocol import Ready

NICENESS = 5
"""Behind the view, which must answer a key within a frame while this computes with every core it can get."""
Parts = tuple[
    Welcome,
    Callable[[], Awaitable[SessionMessage | None]],
    Callable[[ViewMessage], Awaitable[None]],
    Callable[[], Awaitable[None]],
]
"""What a SessionClient is made of: first words, receive, transmit, hang up."""

STOP_SECONDS = 5.0
"""After a request to stop, for the step under way to end."""
IDLE_VARIABLE = "DM_INSPECT_IDLE_MINUTES"
IDLE_MINUTES = 10.0

log = logging.getLogger(__name__)


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
        sys.stderr.write(f"No session can be started: {error}. Free some memory or disk, or set {RUNTIME_VARIABLE}.\n")
        return ExitCode.RESOURCE
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


class Ended(BaseException):
    """SIGTERM while loading: there is no step to wait for. Not an Exception, so that no library swallows it."""


def run_process(target: TargetSpec, session_id: str, listening: socket.socket, log_path: str) -> int:
    """Serve until stopped, idle, or loading failed; returns the exit code. Leaves no file behind but the log."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faulthandler.enable()
    # While libraries are imported the interpreter is busy for seconds; a view that attaches needs it a dozen times.
    sys.setswitchinterval(0.001)
    log.info("session %s, pid %d, %d threads, %s", session_id, os.getpid(), threads.limit(spare=1), target)
    views = Views()
    server = Server(
        views,
        listening,
        session_id=session_id,
        log_path=log_path,
        on_stop=lambda: _stop_from_any_thread(views, server.session_id),
    )
    server.start()
    code = int(ExitCode.UNEXPECTED)
    try:
        code = _serve(target, views, server)
    except Ended:
        code = ExitCode.CANCELLED
    except BaseException:
        log.exception("the session ends")
    finally:
        discovery.remove_files(server.session_id)
        server.stop()
        log.info("session %s ended with %d", server.session_id, code)
        logging.shutdown()
    return code


def _serve(target: TargetSpec, views: Views, server: Server) -> int:
    """One target after the other, as long as they are of the same model; the exit code of the last."""
    loading = True

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        views.stop()
        if loading:
            raise Ended

    def on_state(state: str, ready: Ready | None) -> None:
        nonlocal loading
        loading = state == "loading"
        if state == "failed":
            discovery.remove_files(server.session_id)
        else:
            update_record(server.session_id, state, ready)

    def on_move(other: TargetSpec) -> str:
        server.session_id = discovery.rename(server.session_id, other)
        return server.session_id

    signal.signal(signal.SIGTERM, on_term)
    from inspector.session.service import Service

    following: TargetSpec | None = target
    model, code = None, int(ExitCode.DONE)
    while following is not None and not views.stopping.is_set():
        service = Service(
            following,
            views,
            on_state=on_state,
            idle_seconds=idle_seconds(),
            session_id=server.session_id,
            model=model,
            on_move=on_move,
        )
        code, following, model = service.run(), service.next, service.model
        del service  # SAEs, texts and maps of the target before go, before the next ones come
        gc.collect()
    return code


def update_record(session_id: str, state: str, ready: Ready | None) -> None:
    """Tell `dm-inspect sessions list` how far it is."""
    record = discovery.read_record(session_id)
    if record is None:
        return
    known: dict[str, object] = {}
    if ready is not None:
        memory = device_bytes(ready.device)
        known = {"model": ready.model, "hook": ready.hook_name, "device": ready.device, "device_bytes": memory}
    record = msgspec.structs.replace(record, state=state, **known)
    with contextlib.suppress(ResourceError):  # a full disk is no reason to end a session
        discovery.write_record(record)


def device_bytes(device: str) -> int | None:
    """Memory of the device that this process holds; None on a CPU, whose memory the system counts."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if device.startswith("cuda"):
        return int(torch.cuda.memory_reserved(device))
    if device.startswith("mps"):
        return int(torch.mps.driver_allocated_memory())
    return None


def idle_seconds() -> float:
    """How long a session without views stays; DM_INSPECT_IDLE_MINUTES wins, 0 or less means for ever."""
    try:
        minutes = float(os.environ.get(IDLE_VARIABLE, IDLE_MINUTES))
    except ValueError:
        log.warning("%s=%r is not a number; %g is used", IDLE_VARIABLE, os.environ[IDLE_VARIABLE], IDLE_MINUTES)
        minutes = IDLE_MINUTES
    return minutes * 60.0 if minutes > 0 else float("inf")


def _stop_from_any_thread(views: Views, session_id: str) -> None:
    views.stop()
    # To the main thread by name: any other would take it, and the main thread go on waiting for what it waits for.
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)

    def end_all_the_same() -> None:
        log.error("the step under way did not end within %g s; the session ends without it", STOP_SECONDS)
        discovery.remove_files(session_id)
        logging.shutdown()
        os._exit(ExitCode.CANCELLED)

    timer = threading.Timer(STOP_SECONDS, end_all_the_same)
    timer.daemon = True
    timer.start()


def in_this_process(target: TargetSpec) -> Parts:
    """Start the service in a thread, for `--in-process`. Call it inside the event loop that will receive."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[SessionMessage | None] = asyncio.Queue()
    views = Views()
    threads.limit(spare=1)

    def tell(message: SessionMessage | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(arrived.put_nowait, message)

    def serve() -> None:
        try:
            from inspector.session.service import Service

            Service(target, views, on_state=lambda *_: None, idle_seconds=0.0).run()
        finally:
            tell(None)

    welcome = Welcome(request=1, version=PROTOCOL_VERSION, program_version=__version__, pid=os.getpid(), log_path="")
    arrived.put_nowait(welcome)
    view = views.attach(tell)
    threading.Thread(target=serve, name="session", daemon=True).start()

    async def transmit(message: ViewMessage) -> None:
        if isinstance(message, Stop):
            views.stop()
        else:
            views.ask(view, message)

    async def hang_up() -> None:
        views.detach(view)
        views.stop()
        arrived.put_nowait(None)

    return welcome, arrived.get, transmit, hang_up


if __name__ == "__main__":
    sys.exit(main())
