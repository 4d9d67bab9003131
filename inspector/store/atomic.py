"""Files that appear whole or not at all, whatever dies in between."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from inspector.errors import ResourceError


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see the old one or the new one, never a part. Text is UTF-8.

    Raises:
        ResourceError: the disk is full or cannot be written to; the old file, if any, is untouched.
    """
    with writing_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[IO[bytes]]:
    """As `write_whole`, for what is written in pieces: the file appears when the block ends, unless something raised.

    Written beside it, flushed to the disk, renamed over it, and the folder flushed so that the rename itself survives a
    power cut. Folders are made as needed.

    Raises:
        ResourceError: the disk is full or cannot be written to; the old file, if any, is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(
            f"{path} could not be written: {reason}. Make room there, or choose another place."
        ) from error


def _flush_folder(folder: Path) -> None:
    """Folders can be opened and flushed on POSIX only."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
