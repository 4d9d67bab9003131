"""One SQLite table that every process of the user may read and write at any time; the rules of opening it stand here.

No connection is held between two calls. A pipe or a folder in the file's place is refused. A file that is damaged is
put aside and made anew with every row that is whole, or removed if all of it can be made again. One of a newer program
is left alone. On a full disk, what was written before can still be read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from inspector.disk.files import require_file
from inspector.errors import InspectorError, ResourceError

LOCK_SECONDS = 10.0
"""To wait for another process's write, which takes milliseconds; to give room back takes a second or two."""
DAMAGED = r"\.damaged-\d+(-wal|-shm)?"
"""Ends the name of what was put aside."""
Row = tuple[Any, ...]
"""Values of all columns in their order. `Any`: SQLite keeps to no type, and a changed byte to no value."""
Found = TypeVar("Found")


class Table:
    """A table in a file of its own.

    Args:
        path: of the file; its folder is made if need be, and closed to others.
        name: of the table; messages call it "the list of NAME".
        columns: names and how SQL declares them, the first of them the key.
        version: of what is in the rows.
        variable: of the environment, that names another folder.
        is_whole: whether a row is what was written; None: all rows can be made again.
        is_quick: readers never wait for a writer, and a write not for the disk: a power cut takes the last of them.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        columns: Mapping[str, str],
        *,
        version: int,
        variable: str,
        is_whole: Callable[[Row], bool] | None = None,
        is_quick: bool = False,
    ) -> None:
        self.path, self.name, self.columns = path, name, tuple(columns)
        self.was_damaged = False
        """A file was put aside or removed by this object."""
        self._version, self._variable, self._is_whole, self._is_quick = version, variable, is_whole, is_quick
        names = [f'"{column}"' for column in columns]
        declared = ", ".join(" ".join(each) for each in zip(names, columns.values(), strict=True))
        self._create = f"CREATE TABLE IF NOT EXISTS {name} ({declared}, PRIMARY KEY ({names[0]}))"
        # With the table's name before it, for a quoted name that no column has is a text to SQLite.
        self._select = f"SELECT {', '.join(f'{name}.{each}' for each in names)} FROM {name}"
        self._insert = f"INSERT OR REPLACE INTO {name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"

    def transact(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        """Do something with the table while no other process writes: all of it or, if it raises, nothing.

        Raises:
            ResourceError: the disk is full or cannot be written to, or another process holds the table.
            InspectorError: it is of a newer program.
        """
        try:
            return self._once(work)
        except sqlite3.DatabaseError as error:
            # SQLITE_ERROR: a column that is not there. Others of this class are a lock or a disk, and no damage.
            if isinstance(error, sqlite3.OperationalError) and _code(error) != sqlite3.SQLITE_ERROR:
                raise self._failed(error) from error
        try:
            self._make_anew()
            return self._once(work)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def put(self, table: sqlite3.Connection, rows: Iterable[Sequence[object]]) -> None:
        """Within a transaction: add rows, each in the place of one with the same key."""
        table.executemany(self._insert, rows)

    def row(self, table: sqlite3.Connection, key: object) -> Row | None:
        """Within a transaction: the row of a key, if it is there."""
        row: Row | None = table.execute(f'{self._select} WHERE {self.name}."{self.columns[0]}" = ?', (key,)).fetchone()
        return row

    def rows(self) -> list[Row]:
        """All rows; none are in a file that is not there.

        Raises:
            ResourceError, InspectorError: as `transact`.
        """
        if not self.path.exists():
            return []

        def found(table: sqlite3.Connection) -> list[Row]:
            return table.execute(self._select).fetchall()

        try:
            return self.transact(found)
        except ResourceError:
            # A full disk has no room for the files of a transaction.
            with contextlib.suppress(sqlite3.Error, OSError), self._read_only("mode=ro&immutable=1") as table:
                return found(table)
            raise

    def check(self) -> tuple[list[str], list[Row]]:
        """What is wrong, each as a part of a sentence, and all rows; nothing is written."""
        last = "it cannot be read"
        # What another process writes is read with its journal; a full disk has no room even for reading so.
        for mode in ("mode=ro", "mode=ro&immutable=1"):
            try:
                with self._read_only(mode) as table:
                    told = [str(row[0]) for row in table.execute("PRAGMA integrity_check")]
                    rows = table.execute(self._select).fetchall()
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the second from names in a damaged schema
                last = f"it is not a table of this program ({error})"
                continue
            problems = [] if told == ["ok"] else [f"it is not sound ({told[0].splitlines()[0][:80]})"]
            bad = 0 if self._is_whole is None else sum(not self._is_whole(row) for row in rows)
            return [*problems, *([f"{bad} of {len(rows)} {self.name} do not fit their checksums"] if bad else [])], rows
        return [last], []

    def give_room_back(self) -> None:
        """Make the file as small as what is in it.

        Raises:
            sqlite3.Error: it is in use, or there is no room for a copy.
        """
        with contextlib.closing(self._connected()) as table:
            table.execute("VACUUM")

    # ---- how ------------------------------------------------------------------------------------------------------

    def _once(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        self._require_place()
        with contextlib.closing(self._connected()) as table:
            if self._is_quick:
                table.execute("PRAGMA journal_mode = WAL")
                table.execute("PRAGMA synchronous = NORMAL")
            table.execute("BEGIN IMMEDIATE")
            try:
                self._require_version(table)
                found = work(table)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    table.execute("ROLLBACK")
                raise
            table.execute("COMMIT")
            return found

    def _require_place(self) -> None:
        """Make the folder, closed to others, and the file, readable by its owner alone."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"The folder of {self.name} {self.path.parent} cannot be made: {error.strerror}. "
                f"Set {self._variable} to another one."
            ) from error
        try:
            require_file(self.path)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ResourceError(
                f"The list of {self.name} {self.path} cannot be opened: {error.strerror}. "
                f"Move it away, or set {self._variable} to another folder."
            ) from error

    def _require_version(self, table: sqlite3.Connection) -> None:
        (version,) = table.execute("PRAGMA user_version").fetchone()
        if self._is_whole is None and version not in (0, self._version):
            raise sqlite3.DatabaseError("another version")
        if version > self._version:
            raise InspectorError(
                f"The list of {self.name} {self.path} has version {version} and this program knows {self._version}. "
                f"Update dm-inspect, or set {self._variable} to another folder."
            )
        if version < self._version:
            table.execute(self._create)
            table.execute(f"PRAGMA user_version = {self._version}")

    def _make_anew(self) -> None:
        self.was_damaged = True
        rows: list[Row] = []
        if self._is_whole is not None:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connected()) as damaged:
                for row in damaged.execute(self._select):  # as far as it can be read
                    if self._is_whole(row):
                        rows.append(row)
        aside = f"{self.path}.damaged-{time.time_ns()}"
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                if self._is_whole is None:
                    os.unlink(f"{self.path}{ending}")
                else:
                    os.replace(f"{self.path}{ending}", f"{aside}{ending}")
        self._once(lambda table: self.put(table, rows))

    def _connected(self) -> sqlite3.Connection:
        return self._as_text(sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None))

    @contextlib.contextmanager
    def _read_only(self, mode: str) -> Iterator[sqlite3.Connection]:
        require_file(self.path)
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True)) as table:
            yield self._as_text(table)

    @staticmethod
    def _as_text(connection: sqlite3.Connection) -> sqlite3.Connection:
        """A changed byte may leave what is no text; it must reach the checksum and not raise before."""
        connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        return connection

    def _failed(self, error: sqlite3.Error) -> ResourceError:
        if _code(error) == sqlite3.SQLITE_BUSY:
            return ResourceError(
                f"Another process has held the list of {self.name} {self.path} for {LOCK_SECONDS:g} seconds. "
                "Try again when it is done; what it runs goes on."
            )
        return ResourceError(
            f"The list of {self.name} {self.path} cannot be read or written: {error}. "
            f"Make room there, or set {self._variable} to another folder."
        )


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's own code; None where Python itself raised."""
    return getattr(error, "sqlite_errorcode", None)
