"""A lock on a folder that its owner cannot leave behind: the operating system takes it back when the process ends.

What writes into a folder of the cache holds the lock of it, and what removes the folder takes the lock first. So
nothing is removed that a running process uses, and two processes never write the same files. What lives longer than a
lock, such as a job, names its process; a number alone does not say whether that is still there, for numbers are used
again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from inspector.errors import UsageError

LOCK_FILE = "lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FolderLock:
    """The lock of one folder, not yet taken.

    Args:
        folder: it need not be there; taking the lock makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._handle: int | None = None

    def take(self, *, make: bool = True) -> bool:
        """Take it; False if it is taken.

        Args:
            make: make the folder if it is not there; else a missing folder is an error.

        Raises:
            OSError: the folder cannot be made or written to, it or the lock is a symbolic link, or the file system has
                no locks.
        """
        while True:
            if self.path.parent.is_symlink():  # what it points to is not this program's
                raise OSError(errno.ELOOP, "it is a symbolic link", str(self.path.parent))
            if make:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self.path, _FLAGS, 0o600)
            except FileNotFoundError:
                if not make:
                    raise
                continue  # removed since it was made
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return False
            except OSError:
                os.close(handle)
                raise
            if self._is_at_its_place(handle):
                self._handle = handle
                return True
            os.close(handle)  # the folder was removed between the two calls: once more, on the file that is there now

    def release(self) -> None:
        """Let go of it; nothing happens if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def is_held(self) -> bool:
        """By this object."""
        return self._handle is not None

    def _is_at_its_place(self, handle: int) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(handle)
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether a folder that is there is in no process's use; while the block runs no other can begin to use it.

    Raises:
        OSError: it cannot be locked.
    """
    lock = FolderLock(folder)
    try:
        yield lock.take(make=False)
    finally:
        lock.release()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a folder that is there against other processes that write into it.

    The folder itself is locked, so that nothing is left in one that belongs to a user.

    Raises:
        UsageError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another process writes into {folder}. Wait for it, or choose another folder.") from None
        except OSError:  # some network file systems lock no folders
            pass
        yield
    finally:
        os.close(handle)


def is_running(pid: int) -> bool:
    """Whether there is such a process and it has not ended; in a container without an init it stays as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    fields = _stat(pid)
    return fields is None or fields[0] != "Z"


def born(pid: int) -> str:
    """When a process began, in a form that only serves to be compared; empty where it cannot be asked."""
    fields = _stat(pid)
    # Clock ticks since boot, the 22nd field of /proc/PID/stat; the first two are cut off.
    return "" if fields is None else fields[19]


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in RAM now, shared pages included; None where it cannot be asked."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str] | None:
    """Fields from the state on; the name before it may hold any character."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
