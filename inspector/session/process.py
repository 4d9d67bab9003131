"""The life of a session process: threads, signals, its record, its end. What it computes is `service`'s business.

The main thread computes and the other one talks to views. SIGTERM and Stop end it after the step under way; if that
step does not end, it is ended all the same after a few seconds: a hanging driver must not keep a device for ever.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import msgspec

from inspector import threads
from inspector.errors import ExitCode
from inspector.session import discovery
from inspector.session.endpoint import Endpoint
from inspector.session.hub import Hub

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from inspector.session.protocol import Ready
    from inspector.spec import TargetSpec

STOP_SECONDS = 5.0
"""After a request to stop, for the step under way to end."""
IDLE_VARIABLE = "DM_INSPECT_IDLE_MINUTES"
IDLE_MINUTES = 10.0

log = logging.getLogger(__name__)


class Ended(BaseException):
    """SIGTERM while loading: there is no step to wait for. Not an Exception, so that no library swallows it."""


def run_process(target: TargetSpec, session_id: str, listening: socket.socket, log_path: str) -> int:
    """Serve until stopped, idle, or loading failed; returns the exit code. Leaves no file behind but the log."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faulthandler.enable()
    # While libraries are imported the interpreter is busy for seconds; a view that attaches needs it a dozen times.
    sys.setswitchinterval(0.001)
    log.info("session %s, pid %d, %d threads, %s", session_id, os.getpid(), threads.limit(spare=1), target)
    hub = Hub()
    endpoint = Endpoint(
        hub, listening, session_id=session_id, log_path=log_path, on_stop=lambda: _stop_from_any_thread(hub, session_id)
    )
    endpoint.start()
    code = int(ExitCode.UNEXPECTED)
    try:
        code = _serve(target, hub, session_id)
    except Ended:
        code = ExitCode.CANCELLED
    except BaseException:
        log.exception("the session ends")
    finally:
        discovery.remove_files(session_id)
        endpoint.stop()
        log.info("session %s ended with %d", session_id, code)
        logging.shutdown()
    return code


def _serve(target: TargetSpec, hub: Hub, session_id: str) -> int:
    loading = True

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        hub.stop()
        if loading:
            raise Ended

    def on_state(state: str, ready: Ready | None) -> None:
        nonlocal loading
        loading = state == "loading"
        if state == "failed":
            discovery.remove_files(session_id)
        else:
            update_record(session_id, state, ready)

    signal.signal(signal.SIGTERM, on_term)
    from inspector.session.service import Service

    return Service(target, hub, on_state=on_state, idle_seconds=idle_seconds(), session_id=session_id).run()


def update_record(session_id: str, state: str, ready: Ready | None) -> None:
    """Tell `dm-inspect sessions list` how far it is."""
    record = discovery.read_record(session_id)
    if record is None:
        return
    record = msgspec.structs.replace(record, state=state)
    if ready is not None:
        record = msgspec.structs.replace(
            record,
            model=ready.model,
            hook=ready.hook_name,
            device=ready.device,
            device_bytes=device_bytes(ready.device),
        )
    with contextlib.suppress(OSError):  # a full disk is no reason to end a session
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


def _stop_from_any_thread(hub: Hub, session_id: str) -> None:
    hub.stop()
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
