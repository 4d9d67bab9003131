"""Any exception as the message a view can show: two sentences and an exit code. The traceback goes to the log."""

from __future__ import annotations

import logging

from inspector.errors import ExitCode, InspectorError
from inspector.session.protocol import Failed

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_cpu")
"""How torch's allocators say it: CUDA and MPS, then the CPU's, which raises a bare RuntimeError."""


def failed(error: BaseException, request: int = 0) -> Failed:
    """What to tell; call it in the `except` clause, where the traceback still is."""
    if isinstance(error, InspectorError):
        log.info("request %d failed: %s", request, error)
        return Failed(request=request, exit_code=error.exit_code, message=str(error))
    log.exception("request %d failed unexpectedly", request)
    said = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
        message = (
            "The device is out of memory. Load fewer SAEs (--widths, --l0) or shorter contexts (--context-length)."
        )
        return Failed(request=request, exit_code=ExitCode.RESOURCE, message=message)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    message = f"Something unexpected happened ({what[:300]}). The session's log has the traceback."
    return Failed(request=request, exit_code=ExitCode.UNEXPECTED, message=message)
