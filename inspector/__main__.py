"""The program's entry: `dm-inspect`, `python -m inspector`, `python cli.py`.

The only module that knows both the command line and the app, and it imports the app when a person asked for it.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.cli.doors import AppRequest


def open_app(request: AppRequest) -> int:
    """Open the app in this terminal; returns the exit code."""
    from inspector.tui.app import open_app as open_in_terminal

    return open_in_terminal(
        request.target,
        theme=request.theme,
        new_session=request.new_session,
        in_process=request.in_process,
        session_id=request.session_id,
    )


def main() -> None:
    """Run one command and end the process with its exit code."""
    gc.disable()  # until the command is known: imports make no garbage, and a list of experiments is mostly imports
    from inspector.cli.failures import run_command
    from inspector.cli.main import dm_inspect

    if sys.argv[1:2] != ["experiments"]:
        gc.enable()
    sys.exit(run_command(dm_inspect, sys.argv[1:], open_app=open_app))


if __name__ == "__main__":
    main()
