"""The kinds of things this program keeps: results, checkpoints, tokens, tables. See `store.cache`."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from inspector.disk.files import is_own_file, is_own_folder, parse_json, read_file, remove_tree
from inspector.disk.folders import CHECKPOINTS, ERROR_SAES, JOBS, RESULTS, user_folder
from inspector.disk.locks import NAME as LOCK
from inspector.disk.locks import FolderLock, unused
from inspector.disk.sealed import to_json
from inspector.errors import DataError
from inspector.store import checkpoints, jobs, results
from inspector.store.cache import Kind
from inspector.store.checkpoints import remove_folder

Row = tuple[object, ...]
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


class ResultIndex(Kind):
    """The list of results, made from their files."""

    name = "index"
    what = "the list of results, made from them"
    rebuild = "Remove it: it is made again from the results by `dm-inspect results list`."

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        path = self.folder / results.INDEX_FILE
        if path.is_file():
            yield path

    def damage(self, path: Path) -> list[str]:
        """The table must be sound, and every row that claims to be of a file must say what the file says."""
        columns = [each.strip('" ') for each in results.COLUMNS.split(",")]
        problems, rows = table_rows(path, f"SELECT {results.COLUMNS}, size, mtime FROM results")
        for row in rows:
            said = dict(zip(columns, row, strict=False))
            file = self.folder / f"{said['id']}.json"
            try:
                state = file.stat()
                record = results.read(file).record
            except (OSError, ValueError, DataError):
                continue  # not there, or damaged itself: such a row does not count
            if row[-2:] == (state.st_size, state.st_mtime_ns) and said != vars(record):
                problems.append(f"it says something else of {said['id']} than the result")
        return problems


class Jobs(Kind):
    """The table of jobs."""

    name = "jobs"
    what = "jobs of all sessions, and their logs"
    rebuild = "`dm-inspect jobs list` saves the jobs that are whole; results are files of their own."
    prunable = "no"
    leftover = r"jobs\.sqlite\.damaged-\d+(-wal|-shm)?"

    def paths(self) -> Iterator[Path]:
        """See `Kind`."""
        path = self.folder / jobs.NAME
        if path.is_file():
            yield path
        yield from (self.folder / "logs").glob("*.log")

    def damage(self, path: Path) -> list[str]:
        """Logs are text for people; rows of the table carry a checksum."""
        if path.suffix == ".log":
            return []
        problems, rows = table_rows(path, jobs.WHOLE_ROWS)
        bad = sum(not jobs.is_whole(row) for row in rows)
        return [*problems, *([f"{bad} of {len(rows)} jobs do not fit their checksums"] if bad else [])]


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


def table_rows(path: Path, query: str) -> tuple[list[str], Sequence[Row]]:
    """What is wrong with an SQLite file, and the rows of a query; nothing is written to it."""
    last = "it cannot be read"
    # A table that another process writes is read with its journal; a full disk has no room even for reading so.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as table:
                table.text_factory = _text
                told = [str(row[0]) for row in table.execute("PRAGMA integrity_check")]
                rows = table.execute(query).fetchall()
            return ([] if told == ["ok"] else [f"it is not sound ({told[0].splitlines()[0][:80]})"]), rows
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the second from names in a damaged schema
            last = f"it is not a table of this program ({error})"
    return [last], []


def _text(raw: bytes) -> str:
    """A changed byte may leave what is no text; it must reach the checksum."""
    return raw.decode("utf-8", "backslashreplace")
