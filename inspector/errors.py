"""Every error a user can cause, and the exit code it ends in.

    InspectorError              1  unexpected
    ├── UsageError              2  the command line contradicts itself or a value is out of range
    ├── TargetError             3  model, hook or SAE is missing, gated, mismatched, or failed the load gate
    ├── DataError               4  the data cannot support the request: too few tokens, no usable text
    ├── ResourceError           5  out of memory or disk
    └── Cancelled               6  the user asked for it to stop

A message is two sentences at most: what happened, with the value; what to do. One place turns errors into text
(`inspector.cli.failures`), so nothing else prints them.
"""

from __future__ import annotations

from contextlib import contextmanager
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class ExitCode(IntEnum):
    """What the process returns; scripts depend on these numbers."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    TARGET = 3
    DATA = 4
    RESOURCE = 5
    CANCELLED = 6


class InspectorError(Exception):
    """Base of all errors that are reported in two sentences instead of a traceback."""

    exit_code = ExitCode.UNEXPECTED


class UsageError(InspectorError):
    """The command line contradicts itself, or a value is out of range."""

    exit_code = ExitCode.USAGE


class TargetError(InspectorError):
    """Model, hook or SAE is missing, gated, mismatched, or failed the load gate."""

    exit_code = ExitCode.TARGET


class DataError(InspectorError):
    """The data cannot support the request."""

    exit_code = ExitCode.DATA


class ResourceError(InspectorError):
    """Out of memory or disk."""

    exit_code = ExitCode.RESOURCE


class Cancelled(InspectorError):
    """The user asked for the work to stop."""

    exit_code = ExitCode.CANCELLED


def error_of(exit_code: int, message: str) -> InspectorError:
    """To raise in this process what another one ended with, or told through a socket."""
    kinds = (UsageError, TargetError, DataError, ResourceError, Cancelled)
    return next((kind for kind in kinds if kind.exit_code == exit_code), InspectorError)(message)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator")
"""How torch's allocators, CUDA's, MPS's and the CPU's, and the system say it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, Python's or a device's; torch is not imported to find out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in OUT_OF_MEMORY)


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says, as far as it fits into a sentence; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def is_panic(error: BaseException) -> bool:
    """Whether a Rust library gave up inside: its exception is no `Exception`, so that no `except` clause expects it."""
    return any(base.__name__ == "PanicException" for base in type(error).__mro__)


@contextmanager
def panics_are_errors() -> Iterator[None]:
    """Raise a panic of a Rust library within as an `InspectorError`, which those who contain failures contain."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        what = next(iter(str(error).splitlines()), "")[:200].rstrip(".")
        raise InspectorError(f"A library gave up inside ({what}). Try another text, or another model.") from error


def nearest(wrong: str, known: Iterable[str], n: int = 3) -> str:
    """The sentence that ends an error about a name: ' Nearest: a, b.', or the first few known names."""
    names = list(known)
    close = get_close_matches(wrong, names, n=n, cutoff=0.4)
    if close:
        return f" Nearest: {', '.join(close)}."
    if not names:
        return " None are known."
    more = f", ... ({len(names)} in all)" if len(names) > n else ""
    return f" Known: {', '.join(names[:n])}{more}."


def only_one(wanted: str, known: Sequence[str], what: str, *, none: str) -> str:
    """The id that is meant: itself, or the only one that begins so.

    Args:
        wanted: as typed.
        known: all ids there are.
        what: they are of: 'job', 'result'.
        none: the sentence that says how to get one where there are none, with a space before it.

    Raises:
        UsageError: there is none, or several begin so.
    """
    found = [wanted] if wanted in known else [each for each in known if wanted and each.startswith(wanted)]
    if len(found) > 1:
        raise UsageError(
            f"'{wanted}' is the beginning of {len(found)} {what}s: {', '.join(found[:4])}. Write more of it."
        )
    if not found:
        raise UsageError(f"There is no {what} {wanted!r}.{nearest(wanted, known) if known else none}")
    return found[0]
