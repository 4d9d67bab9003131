"""Deleting only what is there by its own name: no symbolic link is followed, at any depth.

A folder of the cache may hold a link that somebody put there, to save room or to do harm. What it points to is not
this program's; so whatever is deleted is reached through a handle of the folder it lies in, never by a path whose parts
could be links.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


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
