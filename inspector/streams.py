"""The three standard streams, which may be closed, full, or a pipe whose reader went away.

A closed one (`>&-`) is `None` in Python, and its number goes to the next file that is opened, into which libraries then
write. So each is given something to write to before anything else is opened: that output has no reader.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def provide() -> None:
    """Open the null device in the place of every standard stream that is closed. To be called first of all."""
    for number, (name, flags, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def print_anything() -> None:
    """A terminal or pipe that is not UTF-8 shows question marks instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def nobody_reads() -> bool:
    """Whether stdout or stderr is a pipe without a reader."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def stdout_fails() -> bool:
    """Whether what was printed, or anything at all, cannot be written. What waits stays, so this can be asked again."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"")
    except OSError:
        return True
    except ValueError:
        return False
    return False


def settle() -> None:
    """Let the interpreter end with the program's code: it flushes stdout once more, and fails with 120 if it cannot."""
    if stdout_fails():
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
