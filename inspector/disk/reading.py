"""Opening only what is a file, and parsing it: a pipe would be waited for, a device has no end, brackets no bottom."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

_NO_FILE = "it is not a regular file"
SMALL = 1 << 26
"""Bytes; no list, checkpoint's facts or settings of this program have more."""


class NoFile(OSError, ValueError):
    """Something that is no regular file lies where one is read."""


def open_file(path: Path | str) -> BufferedReader:
    """A regular file, open for reading; a link to one is one.

    Raises:
        OSError: it cannot be opened; NoFile if it is a pipe, a socket, a device or a folder.
    """
    file = open(path, "rb", opener=at_once)  # noqa: SIM115 - handed on open
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NoFile(errno.EINVAL, _NO_FILE, str(path))
    return file


def read_file(path: Path | str, most: int) -> bytes:
    """All bytes of a regular file.

    Args:
        path: of it.
        most: bytes that it may have.

    Raises:
        OSError: see `open_file`.
        ValueError: it has more.
    """
    with open_file(path) as file:
        raw = file.read(most + 1)
        if len(raw) > most:
            raise ValueError(f"it has {os.fstat(file.fileno()).st_size:,} bytes")
    return raw


def read_text(path: Path | str, most: int = SMALL, *, errors: str = "strict") -> str:
    """The UTF-8 text of a regular file.

    Raises:
        OSError, ValueError: see `read_file`; UnicodeDecodeError, which is one, if it is no UTF-8.
    """
    return read_file(path, most).decode("utf-8", errors)


def parse_json(raw: bytes | str) -> Any:
    """What JSON holds. `Any`: it is somebody's file.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def require_file(path: Path | str) -> None:
    """Find out whether a library may open a path: it is a regular file, or nothing yet.

    Raises:
        NoFile: it is something else.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise NoFile(errno.EINVAL, _NO_FILE, str(path))


def at_once(path: str, flags: int) -> int:
    """An `opener` that never waits for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
