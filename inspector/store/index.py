"""The list of stored results without opening every file: one SQLite table, made from the files and never believed
over them. A row counts while its file has the size and the time it had when it was read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from inspector.disk.reading import require_file
from inspector.disk.removing import is_own_file
from inspector.errors import DataError
from inspector.store.results import Record, read, results_folder, stored_ids

NAME = "index.sqlite"
VERSION = 1
COLUMNS = ", ".join(f'"{field.name}"' for field in fields(Record))
_TABLE = f"CREATE TABLE IF NOT EXISTS results ({COLUMNS}, size INTEGER, mtime INTEGER, PRIMARY KEY (id))"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is stored."""

    records: tuple[Record, ...]
    """Newest first; of one second by id."""
    problems: tuple[str, ...]
    """Files that could not be read, each in two sentences; the others are listed all the same."""


def list_results(folder: Path | None = None) -> Listing:
    """Every stored result; the index is brought up to date, or made anew if it is damaged.

    Args:
        folder: where; None: `results_folder()`.
    """
    folder = folder or results_folder()
    ids = stored_ids(folder)
    if not ids:
        return Listing(records=(), problems=())
    try:
        with _index(folder / NAME) as index:
            return _listed(folder, ids, index)
    except sqlite3.Error:
        with contextlib.suppress(OSError):
            if is_own_file(folder / NAME):
                (folder / NAME).unlink()
    try:
        with _index(folder / NAME) as index:
            return _listed(folder, ids, index)
    except sqlite3.Error:  # a folder that cannot be written to, a disk that is full: list without an index
        with _index(None) as index:
            return _listed(folder, ids, index)


def newest_of_each(listing: Listing) -> list[Record]:
    """Of every experiment the newest, by id of the experiment; measured controls do not count."""
    found: dict[str, Record] = {}
    for record in listing.records:
        if not record.null:
            found.setdefault(record.experiment, record)
    return [found[experiment] for experiment in sorted(found)]


@contextlib.contextmanager
def _index(path: Path | None) -> Iterator[sqlite3.Connection]:
    try:
        require_file(path or "")
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    connection = sqlite3.connect(":memory:" if path is None else path, timeout=10)
    try:
        with connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                connection.execute("DROP TABLE IF EXISTS results")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(_TABLE)
            yield connection
    finally:
        connection.close()


def _listed(folder: Path, ids: list[str], index: sqlite3.Connection) -> Listing:
    known = {row[0]: row[1:] for row in index.execute(f"SELECT id, size, mtime, {COLUMNS} FROM results")}
    records, problems = [], []
    for each in ids:
        path = folder / f"{each}.json"
        try:
            state = path.stat()
        except OSError:  # removed meanwhile
            continue
        row = known.pop(each, None)
        if row is not None and row[:2] == (state.st_size, state.st_mtime_ns):
            records.append(Record(**dict(zip((field.name for field in fields(Record)), row[2:], strict=True))))
            continue
        try:
            record = read(path).record
        except DataError as error:
            problems.append(str(error))
            index.execute("DELETE FROM results WHERE id = ?", (each,))
            continue
        records.append(record)
        marks = ", ".join("?" * (len(fields(Record)) + 2))
        index.execute(
            f"INSERT OR REPLACE INTO results ({COLUMNS}, size, mtime) VALUES ({marks})",
            (*map(_storable, astuple(record)), state.st_size, state.st_mtime_ns),
        )
    index.executemany("DELETE FROM results WHERE id = ?", [(gone,) for gone in known])
    records.sort(key=lambda record: record.id)
    records.sort(key=lambda record: record.created, reverse=True)
    return Listing(records=tuple(records), problems=tuple(problems))


def _storable(value: object) -> object:
    """A name that is not UTF-8 cannot be stored as text; one of them must not hide all other results."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
