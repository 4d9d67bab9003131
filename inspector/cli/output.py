"""Where data leaves a command: JSON and tables on stdout, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from inspector.errors import UsageError
from inspector.store.jsonable import jsonable, to_json

__all__ = ["check_file_place", "jsonable", "output_folder", "print_json", "print_json_list", "to_json", "whole_file"]


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


def check_file_place(path: Path) -> None:
    """Find out before any work is done whether a file can be written there.

    Raises:
        UsageError: it is a directory, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory. Name a file in it.")
    if not path.parent.is_dir():
        raise UsageError(f"The folder {path.parent} does not exist. Create it, or choose another place.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"The folder {path.parent} cannot be written to. Choose another place.")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; becomes `path` if the block ends well and disappears if it does not.

    Raises:
        UsageError: see `check_file_place`.
    """
    check_file_place(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
