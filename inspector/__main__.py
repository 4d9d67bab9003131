"""The program's entry: `dm-inspect`, `python -m inspector`, `python cli.py`.

The only module that knows both the command line and the app, and it imports the app when a person asked for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from inspector import streams, threads

if TYPE_CHECKING:
    from inspector.spec import AppRequest


CANCELLED = 6
"""`errors.ExitCode.CANCELLED`, which may not have been imported yet."""


def open_app(request: AppRequest) -> int:
    """Open the app in this terminal; returns the exit code."""
    from inspector.tui.app import open_app as open_in_terminal

    return open_in_terminal(
        request.target,
        theme=request.theme,
        new_session=request.new_session,
        in_process=request.in_process,
        session_id=request.session_id,
        prompts=request.prompts,
    )


def main() -> None:
    """Run one command and end the process with its exit code.

    `run_command` answers Ctrl-C with the others. Before it is there, and once it is done and the interpreter only
    tidies up, nothing else catches it: a traceback, or a death by signal instead of the code.
    """
    code = 0
    try:
        code = _run()
    except KeyboardInterrupt:
        code = CANCELLED
        os.write(2, b"error: Cancelled at your request. Nothing unfinished was written.\n")
    # Ignored, because the interpreter takes handlers away as it ends, and the signal would end it instead of the code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == CANCELLED:
        # Who pressed Ctrl-C waits for the prompt, and tidying up after torch takes a second. Nothing needs it.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    gc.disable()  # until the command is known: imports make no garbage, and a list of experiments is mostly imports
    streams.provide()
    threads.wait_asleep()
    from inspector.cli.failures import run_command
    from inspector.cli.main import dm_inspect

    if sys.argv[1:2] != ["experiments"]:
        gc.enable()
    return run_command(dm_inspect, sys.argv[1:], open_app=open_app)


if __name__ == "__main__":
    main()
