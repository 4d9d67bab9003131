"""Everything the program keeps on disk by itself: what it is, how large, whether it is whole, and what may go.

A kind of entry knows its folder, finds what is there and damage in it, and removes what no process uses. Commands add
kinds of higher layers (judge answers, the list of experiments). Files that a user asked for by name, such as a trained
suite, are none of this program's business; nor is the cache of the Hugging Face hub.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inspector.disk.files import HALF, is_own_file, is_own_folder, parse_json, read_file, remove_tree
from inspector.disk.folders import CHECKPOINTS, ERROR_SAES, JOBS, RESULTS, user_folder
from inspector.disk.locks import LOCK_FILE, FolderLock, unused
from inspector.disk.sealed import to_json
from inspector.disk.table import DAMAGED, Table
from inspector.errors import DataError
from inspector.store import checkpoints, results
from inspector.store.jobs import jobs_table
from inspector.store.notes import Notes

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


def _unlink(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def remove_folder(path: Path) -> bool:
    """The way of `Kind.remove` for a folder."""
    remove_tree(path)
    return True


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of entry. Nothing here raises for what other processes do meanwhile."""

    name: str
    what: str
    """For people, without a period."""
    rebuild: str
    """What to do about a damaged one: a sentence."""
    folder: Path
    """Where it is kept."""
    find: Callable[[], Iterable[Path]]
    """What is there; raises OSError where there is no folder."""
    damage: Callable[[Path], list[str]]
    """What is wrong with one, each as a part of a sentence. Raises OSError: it cannot be read."""
    leftover: str = ""
    """A pattern of the names that a process of ours leaves in the folder when it is killed, or left before they were
    given by `disk.files`; empty: none are left. What has another name is not this program's."""
    prunable: Literal["yes", "by age", "no"] = "yes"
    """'by age': only with --older-than, because making it again costs more than time."""
    in_use: Callable[[Path], bool] = lambda path: False
    """Whether a running process works on one."""
    remove: Callable[[Path], bool] = _unlink
    """Remove one; False if it is in use after all. Raises OSError: it cannot be removed."""
    remove_older: Callable[[Path, float], int] = lambda path, than: 0
    """Remove what is in one from before this time, where it has parts; returns the bytes that became free."""

    def entries(self) -> list[Entry]:
        """What is there, with sizes and times."""
        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths = sorted(self.find())
        found = []
        for path in paths:
            with contextlib.suppress(OSError):
                n_bytes, used = size_and_time(path)
                found.append(Entry(path=path, n_bytes=n_bytes, used=used, in_use=self.in_use(path)))
        return found

    def leftovers(self, now: float) -> list[Entry]:
        """Temporary files and damaged tables put aside, directly in the folder."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.iterdir()) if self.leftover else ():
                if re.fullmatch(self.leftover, path.name) and is_own_file(path):
                    n_bytes, used = size_and_time(path)
                    if now - used > LEFTOVER_SECONDS:
                        found.append(Entry(path=path, n_bytes=n_bytes, used=used))
        return found


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

    def take(remove: Callable[[Path], bool], entry: Entry) -> bool:
        """Remove one entry, if no process uses it."""
        nonlocal freed
        gone = False
        with contextlib.suppress(OSError):
            gone = not entry.in_use and (dry_run or remove(entry.path))
        (removed if gone else in_use).append(entry.path)
        freed += entry.n_bytes if gone else 0
        return gone

    for kind in kinds:
        for entry in kind.leftovers(now):
            take(_unlink, entry)
    left: list[tuple[Kind, Entry]] = []
    for kind in kinds:
        for entry in kind.entries() if kind.prunable != "no" else ():
            if older_than is not None and not dry_run and (parts := kind.remove_older(entry.path, now - older_than)):
                removed.append(entry.path)
                freed += parts
            elif older_than is not None and now - entry.used > older_than:
                take(kind.remove, entry)
            elif kind.prunable == "yes":
                left.append((kind, entry))
    left.sort(key=lambda each: each[1].used)
    total = sum(entry.n_bytes for _, entry in left)
    for kind, entry in left:
        if max_size is not None and total > max_size and take(kind.remove, entry):
            total -= entry.n_bytes
    return Pruned(removed=tuple(removed), n_bytes=freed, in_use=tuple(in_use), left_bytes=total)


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


# ---- the kinds of this layer and below -------------------------------------------------------------------------------


def kinds() -> list[Kind]:
    """All of them, at the folders of this user and environment."""
    lists = user_folder("cache")
    return [
        results_kind(RESULTS.path()),
        index_kind(RESULTS.path()),
        jobs_kind(JOBS.path()),
        notes_kind(),
        checkpoints_kind(CHECKPOINTS.path()),
        tokens_kind(lists / "tokens"),
        registry_kind(lists),
        error_saes_kind(ERROR_SAES.path()),
    ]


def results_kind(folder: Path) -> Kind:
    """One file per result."""

    def damage(path: Path) -> list[str]:
        """Its checksum covers the content; the bytes must also be those that this content is written as."""
        raw = read_file(path, results.LARGEST)
        try:
            results.read(path)
        except DataError as error:
            return [str(error).partition(": ")[2].partition(". ")[0] or str(error)]
        return [] if raw == (to_json(parse_json(raw)) + "\n").encode() else ["it has other bytes than were written"]

    return Kind(
        name="results",
        what="results that were measured",
        rebuild="Remove it and measure again; `dm-inspect results list` has the commands of the others.",
        folder=folder,
        find=lambda: (folder / f"{each}.json" for each in results.stored_ids(folder)),
        damage=damage,
        leftover=rf"\.[a-z0-9][a-z0-9-]*\.json{HALF}",
        prunable="no",
    )


def table_kind(table: Table, *, name: str, what: str, rebuild: str, **more: Any) -> Kind:
    """A table in a file of its own. `Any`: what else a `Kind` has."""
    usual = {
        "find": lambda: filter(Path.is_file, [table.path]),
        "damage": lambda path: table.check()[0],
        "leftover": re.escape(table.path.name) + DAMAGED,
    }
    return Kind(name=name, what=what, rebuild=rebuild, folder=table.path.parent, **{**usual, **more})


def index_kind(folder: Path) -> Kind:
    """The list of results: every row that claims to be of a file must say what the file says."""
    table = results.index_table(folder)

    def damage(path: Path) -> list[str]:
        problems, rows = table.check()
        for row in rows:
            said = dict(zip(table.columns, row, strict=True))
            size_and_time = said.pop("size"), said.pop("mtime")
            file = folder / f"{said['id']}.json"
            try:
                state = file.stat()
                record = results.read(file).record
            except (OSError, ValueError, DataError):
                continue  # not there, or damaged itself: such a row does not count
            if size_and_time == (state.st_size, state.st_mtime_ns) and said != vars(record):
                problems.append(f"it says something else of {said['id']} than the result")
        return problems

    return table_kind(
        table,
        name="index",
        what="the list of results, made from them",
        rebuild="Remove it: it is made again from the results by `dm-inspect results list`.",
        damage=damage,
    )


def jobs_kind(folder: Path) -> Kind:
    """The table of jobs, whose rows carry a checksum, and their logs, which are text for people."""
    table = jobs_table(folder)
    return table_kind(
        table,
        name="jobs",
        what="jobs of all sessions, and their logs",
        rebuild="`dm-inspect jobs list` saves the jobs that are whole; results are files of their own.",
        find=lambda: [*filter(Path.is_file, [table.path]), *(folder / "logs").glob("*.log")],
        damage=lambda path: table.check()[0] if path == table.path else [],
        prunable="no",
    )


def notes_kind() -> Kind:
    """The table of bookmarks and notes, whose rows carry a checksum."""
    return table_kind(
        Notes().table,
        name="notes",
        what="bookmarks and notes",
        rebuild="`dm-inspect notes list` shows those that are whole.",
        prunable="no",
    )


def checkpoints_kind(folder: Path) -> Kind:
    """One folder per unfinished run, in use while a run holds its lock."""

    def find() -> Iterator[Path]:
        for each in filter(is_own_folder, folder.iterdir()):
            if is_own_file(each / LOCK_FILE) or is_own_file(each / checkpoints.ABOUT):
                yield each

    def in_use(path: Path) -> bool:
        try:
            with unused(path) as free:
                return not free
        except OSError:
            return True

    def remove(path: Path) -> bool:
        """Under its lock, which a run that begins meanwhile waits for."""
        lock = FolderLock(path)
        try:
            return lock.take(make=False) and checkpoints.remove_folder(path)
        except FileNotFoundError:
            return True
        finally:
            lock.release()

    return Kind(
        name="checkpoints",
        what="what unfinished runs have got so far",
        rebuild="The same command finds it, removes it and computes it again.",
        folder=folder,
        find=find,
        damage=checkpoints.damage_of,
        in_use=in_use,
        remove=remove,
    )


def tokens_kind(folder: Path) -> Kind:
    """Tokens of data sets of the hub, each with its checksum beside it."""

    def damage(path: Path) -> list[str]:
        from inspector.sources.hub_text import damage_of

        problem = damage_of(path)
        return [] if problem is None else [problem]

    def remove(path: Path) -> bool:
        from inspector.sources.hub_text import checksum_file

        return _unlink(checksum_file(path)) and _unlink(path)

    return Kind(
        name="tokens",
        what="tokens of hf: texts",
        rebuild="The next run removes it and fetches the text again.",
        folder=folder,
        find=lambda: filter(is_own_file, folder.glob("*.safetensors")),
        damage=damage,
        leftover=rf"\.[\w.-]+-[0-9a-f]{{32}}\.(safetensors|sha256){HALF}|[\w.-]+-[0-9a-f]{{32}}\.\d+\.tmp",
        remove=remove,
    )


def registry_kind(folder: Path) -> Kind:
    """The list of published SAEs in a form that is quick to read; its first line is the checksum of the rest."""

    def damage(path: Path) -> list[str]:
        from inspector.sources.registry import is_whole

        return [] if is_whole(path) else ["its checksum does not fit"]

    return Kind(
        name="registry",
        what="the list of published SAEs, made from sae-lens",
        rebuild="The next command that wants it makes it again, which takes seconds.",
        folder=folder,
        find=lambda: filter(is_own_file, folder.glob("registry-*.json")),
        damage=damage,
        leftover=rf"\.registry-[\w.]+-\d+\.json{HALF}|registry-[\w.]+-\d+\.tmp",
    )


def error_saes_kind(folder: Path) -> Kind:
    """SAEs that were trained on errors; hours of work, so only an age removes them."""

    def find() -> Iterator[Path]:
        return (each for each in folder.iterdir() if re.fullmatch("[0-9a-f]{16}", each.name) and is_own_folder(each))

    def damage(path: Path) -> list[str]:
        """Only finished ones are looked at: an unfinished folder is what the next run goes on with."""
        from inspector.training.error_saes import ABOUT_FILE, damage_of

        return damage_of(path) if (path / ABOUT_FILE).is_file() else []

    def in_use(path: Path) -> bool:  # one that trains them holds the lock of its own checkpoints
        return any(run.in_use for run in checkpoints_kind(CHECKPOINTS.path()).entries())

    return Kind(
        name="error-saes",
        what="SAEs trained by the experiment error-saes",
        rebuild="Remove the folder and run the experiment again.",
        folder=folder,
        find=find,
        damage=damage,
        prunable="by age",
        in_use=in_use,
        remove=remove_folder,
    )
