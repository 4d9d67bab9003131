"""The kinds of things this program keeps: results, checkpoints, tokens, tables. See `store.cache`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from inspector.disk.files import is_own_file, is_own_folder, parse_json, read_file, remove_tree
from inspector.disk.folders import CHECKPOINTS, ERROR_SAES, JOBS, RESULTS, user_folder
from inspector.disk.locks import NAME as LOCK
from inspector.disk.locks import FolderLock, unused
from inspector.disk.sealed import to_json
from inspector.disk.table import DAMAGED, Table
from inspector.errors import DataError
from inspector.store import checkpoints, jobs, results
from inspector.store.cache import Kind
from inspector.store.checkpoints import remove_folder

_HALF = r"\.[a-z0-9_]{8}\.tmp"
"""How `disk.files` names what it has not yet finished."""


def kinds() -> list[Kind]:
    """All kinds of this layer and below, at the folders of this user and environment."""
    return [
        Results(RESULTS.path()),
        ResultIndex(RESULTS.path()),
        Jobs(JOBS.path()),
        Checkpoints(CHECKPOINTS.path()),
        Tokens(user_folder("cache") / "tokens"),
        Registry(user_folder("cache")),
        ErrorSaes(ERROR_SAES.path()),
    ]


class Results(Kind):
    """One file per result."""

    name = "results"
    what = "results that were measured"
    rebuild = "Remove it and measure again; `dm-inspect results list` has the commands of the others."
    prunable = "no"
    leftover = rf"\.[a-z0-9][a-z0-9-]*\.json{_HALF}"

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        yield from (self.folder / f"{each}.json" for each in results.stored_ids(self.folder))

    def damage(self, path: Path) -> list[str]:
        """Its checksum covers the content; the bytes must also be those that this content is written as."""
        raw = read_file(path, results.LARGEST)
        try:
            results.read(path)
        except DataError as error:
            return [str(error).partition(": ")[2].partition(". ")[0] or str(error)]
        return [] if raw == (to_json(parse_json(raw)) + "\n").encode() else ["it has other bytes than were written"]


class KindOfTable(Kind):
    """A table in a file of its own."""

    table_in: Callable[[Path], Table]
    """Makes it, of its folder; nothing is opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.table = self.table_in(folder)
        self.leftover = re.escape(self.table.path.name) + DAMAGED

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        if self.table.path.is_file():
            yield self.table.path

    def damage(self, path: Path) -> list[str]:
        """The table must be sound, and every row what was written."""
        return self.table.check()[0]


class ResultIndex(KindOfTable):
    """The list of results, made from their files."""

    name = "index"
    what = "the list of results, made from them"
    rebuild = "Remove it: it is made again from the results by `dm-inspect results list`."
    table_in = staticmethod(results.index_table)

    def damage(self, path: Path) -> list[str]:
        """Every row that claims to be of a file must say what the file says."""
        problems, rows = self.table.check()
        for row in rows:
            said = dict(zip(self.table.columns, row, strict=True))
            size_and_time = said.pop("size"), said.pop("mtime")
            file = self.folder / f"{said['id']}.json"
            try:
                state = file.stat()
                record = results.read(file).record
            except (OSError, ValueError, DataError):
                continue  # not there, or damaged itself: such a row does not count
            if size_and_time == (state.st_size, state.st_mtime_ns) and said != vars(record):
                problems.append(f"it says something else of {said['id']} than the result")
        return problems


class Jobs(KindOfTable):
    """The table of jobs."""

    name = "jobs"
    what = "jobs of all sessions, and their logs"
    rebuild = "`dm-inspect jobs list` saves the jobs that are whole; results are files of their own."
    prunable = "no"
    table_in = staticmethod(jobs.jobs_table)

    def paths(self) -> Iterator[Path]:
        """The logs too."""
        yield from super().paths()
        yield from (self.folder / "logs").glob("*.log")

    def damage(self, path: Path) -> list[str]:
        """Logs are text for people; rows of the table carry a checksum."""
        return [] if path.suffix == ".log" else super().damage(path)


class Checkpoints(Kind):
    """One folder per unfinished run."""

    name = "checkpoints"
    what = "what unfinished runs have got so far"
    rebuild = "The same command finds it, removes it and computes it again."

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        with contextlib.suppress(OSError):
            folders = [each for each in self.folder.iterdir() if is_own_folder(each)]
            yield from (each for each in folders if is_own_file(each / LOCK) or is_own_file(each / checkpoints.ABOUT))

    def in_use(self, path: Path) -> bool:
        """Whether a run holds its lock."""
        try:
            with unused(path) as free:
                return not free
        except OSError:
            return True

    def damage(self, path: Path) -> list[str]:
        """See `checkpoints.damage_of`."""
        return checkpoints.damage_of(path)

    def remove(self, path: Path) -> bool:
        """Under its lock, which a run that begins meanwhile waits for."""
        lock = FolderLock(path)
        try:
            if not lock.take(make=False):
                return False
            return remove_folder(path)
        except FileNotFoundError:
            return True
        finally:
            lock.release()


class Tokens(Kind):
    """Tokens of data sets of the hub."""

    name = "tokens"
    what = "tokens of hf: texts"
    rebuild = "The next run removes it and fetches the text again."
    leftover = r"[\w.-]+-[0-9a-f]{32}\.\d+\.tmp"

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        yield from filter(is_own_file, self.folder.glob("*.safetensors"))

    def damage(self, path: Path) -> list[str]:
        """See `hub_text.damage_of`."""
        from inspector.sources.hub_text import damage_of

        problem = damage_of(path)
        return [] if problem is None else [problem]

    def remove(self, path: Path) -> bool:
        """With its checksum."""
        from inspector.sources.hub_text import checksum_file

        checksum_file(path).unlink(missing_ok=True)
        return super().remove(path)


class Registry(Kind):
    """The list of published SAEs in a form that is quick to read."""

    name = "registry"
    what = "the list of published SAEs, made from sae-lens"
    rebuild = "The next command that wants it makes it again, which takes seconds."
    leftover = r"registry-[\w.]+-\d+\.tmp"

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        yield from filter(is_own_file, self.folder.glob("registry-*.json"))

    def damage(self, path: Path) -> list[str]:
        """Its first line is the checksum of the rest."""
        from inspector.sources.registry import is_whole

        return [] if is_whole(path) else ["its checksum does not fit"]


class ErrorSaes(Kind):
    """SAEs that were trained on errors; hours of work, so only an age removes them."""

    name = "error-saes"
    what = "SAEs trained by the experiment error-saes"
    rebuild = "Remove the folder and run the experiment again."
    prunable = "by age"

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        with contextlib.suppress(OSError):
            folders = [each for each in self.folder.iterdir() if re.fullmatch("[0-9a-f]{16}", each.name)]
            yield from (each for each in folders if is_own_folder(each))

    def in_use(self, path: Path) -> bool:
        """A run that trains them holds the lock of its checkpoints; which run that is, nobody has to know."""
        runs = Checkpoints(CHECKPOINTS.path())
        return any(runs.in_use(run) for run in runs.paths())

    def damage(self, path: Path) -> list[str]:
        """Only finished ones are looked at: an unfinished folder is what the next run goes on with."""
        from inspector.training.error_saes import ABOUT_FILE, damage_of

        return damage_of(path) if (path / ABOUT_FILE).is_file() else []

    def remove(self, path: Path) -> bool:
        """The whole folder."""
        remove_tree(path)
        return True
