"""The one place that turns an error into text and an exit code.

Everything a user can cause ends as `error: what happened. What to do.` on stderr, with the code of `errors.ExitCode`.
A traceback is for bug reports: it goes into a log file, and to the terminal only with --debug or DM_INSPECT_DEBUG=1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import click

from inspector import streams
from inspector.cli import interrupts
from inspector.errors import Cancelled, ExitCode, InspectorError, ResourceError, is_out_of_memory, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inspector.spec import OpenApp

PROGRAM = "dm-inspect"
DEBUG_VARIABLE = "DM_INSPECT_DEBUG"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_command(command: click.Command, args: Sequence[str], *, open_app: OpenApp) -> int:
    """Run `command` on `args` and say what went wrong, if anything did.

    Args:
        command: the group of all commands.
        args: the words after the program's name.
        open_app: what opens the app; see `spec.OpenApp`.
    """
    streams.print_anything()
    with interrupts.noted():
        try:
            code = _invoke(command, list(args), open_app)
            sys.stdout.flush()
        except BaseException as error:
            interrupts.heard()
            # `| head` has what it wanted; a session that hangs up breaks a pipe too, and that is an error.
            if isinstance(error, BrokenPipeError) and streams.nobody_reads():
                code = ExitCode.DONE
            elif interrupts.pressed() and not isinstance(error, Cancelled | ResourceError):
                code = report(KeyboardInterrupt())
            else:
                code = report(error)
            streams.settle()
    return code


def _invoke(command: click.Command, args: list[str], open_app: OpenApp) -> int:
    if "_DM_INSPECT_COMPLETE" in os.environ:
        command.main(args, prog_name=PROGRAM)  # answers a shell's request for completions, and exits
    try:
        with command.make_context(PROGRAM, args, obj=open_app) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:  # after --help and --version, and with the app's own code
        return end.exit_code
    return ExitCode.DONE


def report(error: BaseException) -> ExitCode:
    """Write the error to stderr; returns the exit code that belongs to it."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return ExitCode.USAGE
    code, message = describe(error)
    if code is ExitCode.UNEXPECTED and not isinstance(error, InspectorError):
        message += f" {_where_the_traceback_is(error)}"
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    from inspector.drawing.safe_text import visible

    with contextlib.suppress(OSError, ValueError):
        print(visible(f"error: {message}"), file=sys.stderr)
    return code


def describe(error: BaseException) -> tuple[ExitCode, str]:
    """The exit code, and what happened and what to do in about two sentences."""
    match error:
        case InspectorError():
            return ExitCode(error.exit_code), str(error)
        case click.ClickException():
            return ExitCode.USAGE, _usage(error)
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.CANCELLED, "Cancelled at your request. Nothing unfinished was written."
        case OSError() if error.errno in _DISK_FULL:
            name = error.filename or ("stdout" if streams.stdout_fails() else None)
            where = f" while writing {name}" if name else ""
            return ExitCode.RESOURCE, f"The disk is full{where}. Free some space, or write somewhere else."
        case OSError() if streams.stdout_fails():
            reason = error.strerror or type(error).__name__
            return (
                ExitCode.RESOURCE,
                f"The output cannot be written: {reason}. Send it somewhere else.",
            )
    if is_out_of_memory(error):
        return (
            ExitCode.RESOURCE,
            "There was not enough memory. Lower --batch-size or --context-length, or take fewer SAEs with --widths.",
        )
    text = str(error)
    return ExitCode.UNEXPECTED, f"{type(error).__name__}{': ' if text else ''}{text.rstrip('.')}."


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        return f"There is no option {error.option_name!r}.{nearest(error.option_name, _options(error.ctx))}"
    if type(error) is click.BadParameter and error.param is not None:
        message = f"{error.param.get_error_hint(error.ctx).strip(chr(39))}: {error.message}"
    if not message.endswith((".", "?", "!")):
        message += "."
    context = getattr(error, "ctx", None)
    # Click's own messages say what is wrong and not what to do.
    if message.count(". ") or context is None:
        return message
    return f"{message} See `{context.command_path} --help`."


def _options(context: click.Context | None) -> list[str]:
    return [] if context is None else [name for param in context.command.get_params(context) for name in param.opts]


def _where_the_traceback_is(error: BaseException) -> str:
    try:
        path = _write_traceback(error)
    except OSError:
        return f"Please report it with what {PROGRAM} prints with --debug."
    return f"Please report it with {path} and the output of `{PROGRAM} info`."


def _write_traceback(error: BaseException) -> Path:
    import time
    import traceback

    from inspector.session.discovery import log_dir

    path = log_dir() / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    return path
