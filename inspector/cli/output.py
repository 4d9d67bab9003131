"""Where data leaves a command: JSON and tables on stdout, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.disk.sealed import jsonable, to_json
from inspector.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from inspector.store.results import Record

__all__ = [
    "check_file_place", "is_stream", "jsonable", "output_folder", "print_data", "print_json",
    "print_json_list", "print_rows", "print_text", "stored", "to_json", "whole_file",
]  # fmt: skip

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_PLAIN = re.compile(
    "[\n -~\u00a1-\u00ac\u00ae-\u02ff\u0391-\u03c9\u2010-\u2027\u2030-\u205e\u2070-\u20bf\u2100-\u22ff\u2500-\u25ff]*"
)
"""Letters, signs and lines that `visible` leaves alone, if they are printable."""


def print_text(text: str, *, end: str = "\n", coloured: bool = False) -> None:
    """Text for people on stdout: the one way by which it leaves a command.

    Names, definitions and logs come from files of unknown origin. So nothing in them acts on the terminal.

    Args:
        text: one line or several.
        end: as `print` has it.
        coloured: `drawing.lines` coloured it, and has made what it coloured safe: colour codes stay.
    """
    if not (_PLAIN.fullmatch(text) and text.replace("\n", "").isprintable()):
        from inspector.drawing.safe_text import visible_block  # brings Rich, which a plain list need not pay for

        parts = _COLOUR.split(text) if coloured else [text]
        text = "".join(part if place % 2 else visible_block(part) for place, part in enumerate(parts))
    sys.stdout.write(text + end)
    sys.stdout.flush()


def print_rows(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table without figures, a line per row."""
    from inspector.drawing.figures import Column, Table
    from inspector.drawing.terminal_figures import render_table

    columns = tuple(Column(title=title) for title in titles)
    print_text(render_table(Table(title="", columns=columns, rows=tuple(tuple(row) for row in rows))), end="")


def print_data(text: str) -> None:
    """A file's content on stdout: to the byte, unless a terminal would obey it."""
    if sys.stdout.isatty():
        print_text(text, end="")
    else:
        sys.stdout.write(text)


def print_json(value: Any) -> None:
    """One JSON object on a line of its own, at once, so that a reader sees each result as it is made."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def print_json_list(name: str, rows: Iterable[Any], **more: Iterable[Any]) -> None:
    """`{"<name>": [...]}`, a row per line and written as the rows come; further lists follow the first if not empty."""
    lists = [(name, iter(rows)), *((key, iter(found)) for key, found in more.items())]
    opening = "{"
    for key, found in lists:
        first = next(found, None)
        if first is None and key != name:
            continue
        sys.stdout.write(f'{opening}"{key}": [')
        for place, row in enumerate(() if first is None else chain([first], found)):
            sys.stdout.write((",\n" if place else "\n") + to_json(row))
        sys.stdout.write("]" if first is None else "\n]")
        opening = ",\n"
    sys.stdout.write("}\n")
    sys.stdout.flush()


def stored(save: Callable[[], Record], *, quiet: bool) -> list[str]:
    """Store a result; what to say of it. A full disk costs the copy, not the numbers that are still to be printed."""
    try:
        record = save()
    except ResourceError as error:
        return [f"warning: the result is not kept. {error}"]
    return [] if quiet else [f"kept as {record.id}; `dm-inspect results show {record.id}` shows it again"]


def check_file_place(path: Path) -> None:
    """Find out before any work is done whether a file can be written there.

    Raises:
        UsageError: it is a directory, a socket or a disk, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory. Name a file in it.")
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path} cannot be written to. Choose another place.")
        return
    kind = _kind(path)
    if kind is not None and not stat.S_ISREG(kind):
        raise UsageError(f"{path} is neither a file nor something to write a stream into. Choose another place.")
    folder = _final(path).parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist. Create it, or choose another place.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"The folder {folder} cannot be written to. Choose another place.")


def is_stream(path: Path) -> bool:
    """Whether what is written there is gone at once: a pipe, a terminal, /dev/null, and /dev/stdout whatever it is.

    Such a place is written to and never replaced: a file in its place would have no reader.
    """
    kind = _kind(path)
    # /dev/stdout may be a regular file; the shell has it open, and goes on writing into the one that it opened.
    return kind is not None and (
        stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or (stat.S_ISREG(kind) and _descriptor(path) is not None)
    )


def _descriptor(path: Path) -> int | None:
    """The number of the open file that a name like /dev/stdout or /dev/fd/63 stands for; None: it is another name."""
    place = os.path.abspath(path)
    if place in ("/dev/stdout", "/dev/stderr"):
        return 1 if place == "/dev/stdout" else 2
    found = re.fullmatch(r"(/dev|/proc/(?:self|thread-self))/fd/(\d{1,9})", place)
    return None if found is None else int(found[2])


def _kind(path: Path) -> int | None:
    """The mode of what is there, links followed; None if nothing is."""
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _final(path: Path) -> Path:
    """Where a symbolic link leads, so that the link stays and what it names is written; else the path."""
    return path.resolve() if path.is_symlink() else path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path; becomes `path` if the block ends well and disappears if it does not.

    A symbolic link stays one: what it leads to is written. A stream gets all of it when the block ends.

    Raises:
        UsageError: see `check_file_place`.
    """
    import shutil
    import tempfile

    check_file_place(path)
    if is_stream(path):
        with tempfile.TemporaryDirectory(prefix="dm-inspect-") as folder:
            temporary = Path(folder) / "out"
            yield temporary
            with temporary.open("rb") as whole, open(path, "wb", opener=_opened) as stream:
                shutil.copyfileobj(whole, stream, 1 << 20)
        return
    final = _final(path)
    # A name that cannot be known before: in a folder that others can write to, a link could wait under it.
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
    os.fchmod(handle, _mode(final))
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(final)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _opened(path: str, flags: int) -> int:
    """What the shell opened goes on where it is, so that `>> FILE` appends and what is printed later follows."""
    number = _descriptor(Path(path))
    if number is None:
        return os.open(path, flags & ~(os.O_TRUNC | os.O_CREAT))
    sys.stdout.flush()
    return os.dup(number)


def _mode(path: Path) -> int:
    """Of the file that is replaced, or that a new one would have."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def output_folder(path: Path) -> Path:
    """The folder, made if missing; found out before any work is done for it.

    Raises:
        UsageError: if it is a file or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {path} cannot be made: {error.strerror}. Choose another place.") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"The folder {path} cannot be written to. Choose another place.")
    return path
