"""Everything the program keeps on disk by itself: what it is, how large, whether it is whole, and what may go.

A kind of entry knows its folder, lists what is there, finds damage, and removes what nobody uses. Kinds of higher
layers (judge answers, the list of experiments) are added by the command. Files that a user asked for by name, such as a
trained suite, are none of this program's business; nor is the cache of the Hugging Face hub, which other tools share.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspector.disk.files import is_own_file

LEFTOVER_SECONDS = 3600.0
"""A temporary file of this age was left by a process that was killed: writing one takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that is whole or damaged, and removed or not."""

    path: Path
    """A file or a folder."""
    n_bytes: int
    used: float
    """Seconds since the epoch when it was written last."""
    in_use: bool = False
    """By a running process."""


class Kind:
    """One kind of entry. Nothing here raises for what other processes do meanwhile.

    Args:
        folder: where it is kept.
    """

    name = ""
    what = ""
    """For people, without a period."""
    rebuild = ""
    """What to do about a damaged one: a sentence."""
    leftover = ""
    """A pattern of the names that a process of ours leaves in the folder when it is killed; empty: none are left. What
    has another name is somebody's."""
    prunable: Literal["yes", "by age", "no"] = "yes"
    """'by age': only with --older-than, because making it again costs more than time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> Iterator[Path]:
        """What is there."""
        raise NotImplementedError

    def entries(self) -> list[Entry]:
        """What is there, with sizes and times."""
        found = []
        for path in sorted(self.paths()):
            with contextlib.suppress(OSError):
                n_bytes, used = size_and_time(path)
                found.append(Entry(path=path, n_bytes=n_bytes, used=used, in_use=self.in_use(path)))
        return found

    def in_use(self, path: Path) -> bool:
        """Whether a running process works on it."""
        return False

    def damage(self, path: Path) -> list[str]:
        """What is wrong with it, each as a part of a sentence; nothing if it is whole.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def remove(self, path: Path) -> bool:
        """Remove it; False if it is in use after all.

        Raises:
            OSError: it cannot be removed.
        """
        path.unlink(missing_ok=True)
        return True

    def remove_older(self, path: Path, than: float) -> int:
        """Remove what is in it from before this time, where an entry has parts; returns the bytes that became free."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A damaged entry."""

    kind: Kind
    path: Path
    problem: str

    @property
    def sentences(self) -> str:
        """For people: what is wrong, and what to do."""
        return f"{self.path} is damaged: {self.problem}. {self.kind.rebuild}"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a verification looked at and found."""

    n_entries: int
    n_bytes: int
    skipped: tuple[Path, ...]
    """In use by a running process, which changes them."""
    damaged: tuple[Damage, ...]


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed, or would be."""

    removed: tuple[Path, ...]
    n_bytes: int
    in_use: tuple[Path, ...]
    """Would have been removed, but a running process uses them."""
    left_bytes: int
    """Of what may be pruned and was not."""


def verify(kinds: Sequence[Kind]) -> Verified:
    """Read every byte of everything that is kept."""
    n_entries = n_bytes = 0
    skipped: list[Path] = []
    damaged: list[Damage] = []
    for kind in kinds:
        for entry in kind.entries():
            if entry.in_use:
                skipped.append(entry.path)
                continue
            n_entries += 1
            n_bytes += entry.n_bytes
            try:
                problems = kind.damage(entry.path)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:
                problems = [f"it cannot be read ({error.strerror})"]
            damaged += [Damage(kind=kind, path=entry.path, problem=problem) for problem in problems]
    return Verified(n_entries=n_entries, n_bytes=n_bytes, skipped=tuple(skipped), damaged=tuple(damaged))


def prune(
    kinds: Sequence[Kind],
    *,
    older_than: float | None = None,
    max_size: int | None = None,
    dry_run: bool = False,
    now: float | None = None,
) -> Pruned:
    """Remove what dead processes left, what was not written to for so long, and then the oldest beyond a size.

    Args:
        kinds: all of them.
        older_than: seconds.
        max_size: bytes that everything prunable may have together.
        dry_run: remove nothing, only tell.
        now: seconds since the epoch; for tests.
    """
    now = time.time() if now is None else now
    removed: list[Path] = []
    in_use: list[Path] = []
    freed = 0

    def take(kind: Kind, entry: Entry) -> bool:
        """Remove one entry, if nobody uses it."""
        nonlocal freed
        if not entry.in_use and (dry_run or _removed(kind, entry.path)):
            removed.append(entry.path)
            freed += entry.n_bytes
            return True
        in_use.append(entry.path)
        return False

    for kind in kinds:
        for entry in leftovers(kind, now):
            take(_LEFTOVERS, entry)
    left: list[tuple[Kind, Entry]] = []
    for kind in kinds:
        for entry in kind.entries() if kind.prunable != "no" else ():
            if older_than is not None and not dry_run and (parts := kind.remove_older(entry.path, now - older_than)):
                removed.append(entry.path)
                freed += parts
            elif older_than is not None and now - entry.used > older_than:
                take(kind, entry)
            elif kind.prunable == "yes":
                left.append((kind, entry))
    left.sort(key=lambda each: each[1].used)
    total = sum(entry.n_bytes for _, entry in left)
    for kind, entry in left:
        if max_size is not None and total > max_size and take(kind, entry):
            total -= entry.n_bytes
    return Pruned(removed=tuple(removed), n_bytes=freed, in_use=tuple(in_use), left_bytes=total)


def leftovers(kind: Kind, now: float) -> list[Entry]:
    """Temporary files and damaged tables put aside, directly in the folder of a kind."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(kind.folder.iterdir()) if kind.leftover else ():
            if re.fullmatch(kind.leftover, path.name) and is_own_file(path):
                n_bytes, used = size_and_time(path)
                if now - used > LEFTOVER_SECONDS:
                    found.append(Entry(path=path, n_bytes=n_bytes, used=used))
    return found


def size_and_time(path: Path) -> tuple[int, float]:
    """Bytes of a file, or of all files below a folder, and when any of them was written last.

    Raises:
        OSError: it is gone.
    """
    state = path.lstat()
    if not path.is_dir() or path.is_symlink():
        return state.st_size, state.st_mtime
    n_bytes, used = 0, 0.0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                state = (Path(folder) / name).lstat()
                n_bytes, used = n_bytes + state.st_size, max(used, state.st_mtime)
    return n_bytes, used or path.lstat().st_mtime


class _Leftovers(Kind):
    name = "leftovers"


_LEFTOVERS = _Leftovers(Path())


def _removed(kind: Kind, path: Path) -> bool:
    try:
        return kind.remove(path)
    except OSError:
        return False
