"""Files that are read, written and removed without trust in what lies there.

- Read: only a regular file is opened. A pipe would be waited for, a device has no end, brackets no bottom.
- Written: a file appears whole or not at all, whatever dies in between.
- Removed: only what is there by its own name. A folder of the cache may hold a link that another put there, to save
  room or to do harm; what it points to is not this program's. So what is deleted is reached through a handle of the
  folder it lies in, never by a path whose parts could be links.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from inspector.errors import ResourceError, nearest

_NO_FILE = "it is not a regular file"
HALF = r"\.[a-z0-9_]{8}\.tmp"
"""Ends the name of a file that `writing_whole` has not yet finished, after a dot and the name it shall have."""
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
    """What JSON holds. `Any`: any file may be parsed.

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


_SHOWN = 160
MOST = 1 << 31
"""No dimension of a model or an SAE is larger."""
MAX_JSON = 1 << 24
"""Bytes of a configuration or an index; the largest that exist are a few hundred thousand."""


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """What a small JSON file holds. `Any`: JSON of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, too deeply nested, or no JSON.
    """
    try:
        raw = read_file(path, most)
    except NoFile:
        raise ValueError(f"{path.name} is not a regular file") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}, which no configuration has") from None
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def shown(name: object) -> str:
    """A typed name as it may stand in a message: quoted, control characters spelled out, not endless."""
    text = str(name)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def is_directory(path: Path) -> bool:
    """`Path.is_dir`, but False for names that no file system accepts."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def nearest_siblings(path: Path) -> str:
    """The sentence that names the directories beside a missing one, so that a typing error shows at once."""
    parent = path.parent
    if not is_directory(parent):
        return f" {shown(parent)} does not exist either."
    try:
        return nearest(path.name, sorted(child.name for child in parent.iterdir() if child.is_dir()))
    except OSError:
        return ""


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see the old one or the new one, never a part. Text is UTF-8.

    Raises:
        ResourceError: the disk is full or cannot be written to; the old file, if any, is untouched.
    """
    with writing_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_if_possible(path: Path, data: bytes | str) -> bool:
    """As `write_whole`, for what can be made again: a disk that does not take it, or a power cut, costs only that.

    Returns:
        Whether it was written.
    """
    try:
        with writing_whole(path, lasting=False) as file:
            file.write(data.encode() if isinstance(data, str) else data)
    except ResourceError:
        return False
    return True


@contextlib.contextmanager
def writing_whole(path: Path, *, lasting: bool = True) -> Iterator[IO[bytes]]:
    """As `write_whole`, for what is written in pieces: the file appears when the block ends, unless something raised.

    Written beside it and renamed over it. Folders are made as needed.

    Args:
        path: of the file.
        lasting: it and the rename survive a power cut; that takes as long as the disk does.

    Raises:
        ResourceError: the disk is full or cannot be written to; the old file, if any, is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        if lasting and os.name == "posix":  # elsewhere a folder cannot be opened
            _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(
            f"{path} could not be written: {reason}. Make room there, or choose another place."
        ) from error


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_own_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_own_file(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def remove_files(folder: Path, own: Callable[[str], bool], *, last: str = "") -> bool:
    """Remove the regular files of a folder that `own` names, and the folder if nothing is left in it.

    Args:
        folder: no link.
        own: whether a name is one that this program gives.
        last: the name that goes after all others, such as a lock's.

    Returns:
        Whether the folder is gone; False leaves what others put there.

    Raises:
        OSError: the folder is a link, or something cannot be removed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        names = [name for name in os.listdir(handle) if own(name) or name == last]
        for name in sorted(names, key=lambda name: (name == last, name)):
            if stat.S_ISREG(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=handle)
        rest = os.listdir(handle)
    finally:
        os.close(handle)
    if not rest:
        folder.rmdir()
    return not rest


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; of a link inside, the link alone goes.

    Raises:
        OSError: it is a link itself, or something cannot be removed; also where the system cannot promise that no
            link is followed meanwhile.
    """
    if not shutil.rmtree.avoids_symlink_attacks:
        raise OSError(f"{folder} cannot be removed safely on this system")
    shutil.rmtree(folder)
