"""What is in a table's way is said, what is damaged is made anew from what is whole, and nothing else is lost."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from inspector.disk.table import Row, Table
from inspector.errors import ExitCode, InspectorError, ResourceError

COLUMNS = {"key": "TEXT", "value": "INTEGER", "twice": "INTEGER"}


def is_whole(row: Row) -> bool:
    return bool(row[2] == 2 * row[1])


def table_in(folder: Path, *, can_be_made_again: bool = False, is_quick: bool = False, version: int = 1) -> Table:
    return Table(
        folder / "numbers.sqlite", "numbers", COLUMNS, version=version, variable="NUMBERS_DIR",
        is_whole=None if can_be_made_again else is_whole, is_quick=is_quick,
    )  # fmt: skip


def put(table: Table, *rows: Row) -> None:
    table.transact(lambda connection: table.put(connection, rows))


@pytest.fixture(params=[False, True])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Table:
    return table_in(tmp_path / "here", is_quick=request.param)


def test_what_was_put_is_read_by_any_other(table: Table) -> None:
    assert table.rows() == [] and not table.path.parent.exists()
    put(table, ("a", 1, 2), ("b", 2, 4))
    put(table, ("a", 3, 6))
    other = table_in(table.path.parent)
    assert sorted(other.rows()) == [("a", 3, 6), ("b", 2, 4)]
    assert other.transact(lambda it: (other.row(it, "b"), other.row(it, "c"))) == (("b", 2, 4), None)
    assert table.path.parent.stat().st_mode & 0o777 == 0o700 and table.path.stat().st_mode & 0o777 == 0o600


def test_a_transaction_that_raises_leaves_no_trace(table: Table) -> None:
    put(table, ("a", 1, 2))

    def halfway(connection: sqlite3.Connection) -> None:
        table.put(connection, [("a", 9, 18)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.transact(halfway)
    assert table.rows() == [("a", 1, 2)] and not table.was_damaged


def in_the_way(path: Path, what: str) -> None:
    if what == "pipe":
        path.parent.mkdir()
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            "pipe",
            r"The list of numbers .* cannot be opened: it is not a regular file\. Move it away, or set NUMBERS_DIR",
        ),
        ("folder", r"The list of numbers .* cannot be opened: it is not a regular file\. Move it away"),
        ("file for its folder", r"The folder of numbers .* cannot be made: .*\. Set NUMBERS_DIR to another one\."),
    ],
)
def test_what_is_in_the_way_is_said_and_stays(table: Table, what: str, said: str) -> None:
    in_the_way(table.path, what)
    there = table.path.lstat if what != "file for its folder" else table.path.parent.lstat
    before = there().st_mode
    for attempt in (lambda: put(table, ("a", 1, 2)), lambda: table.transact(lambda _: None)):
        with pytest.raises(ResourceError, match=said) as caught:
            attempt()
        assert caught.value.exit_code == ExitCode.RESOURCE
    assert there().st_mode == before and not table.was_damaged


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 40)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 + 100])


def other_columns(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE numbers RENAME COLUMN twice TO thrice")
        connection.commit()


@pytest.mark.parametrize("damage", [garbage, cut, other_columns])
def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    table = table_in(tmp_path)
    put(table, ("a", 1, 2))
    damage(table.path)
    raw = table.path.read_bytes()
    assert table.check()[0]
    assert table.rows() == [] and table.was_damaged
    (aside,) = tmp_path.glob("numbers.sqlite.damaged-*")
    assert aside.read_bytes() == raw
    put(table, ("b", 2, 4))
    assert table.rows() == [("b", 2, 4)] and table.check() == ([], [("b", 2, 4)])


@pytest.mark.parametrize("damage", [garbage, cut, other_columns])
def test_one_that_can_be_made_again_is_removed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    table = table_in(tmp_path, can_be_made_again=True)
    put(table, ("a", 1, 2))
    damage(table.path)
    assert table.rows() == []
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.sqlite"]


def test_rows_that_are_whole_outlive_the_damage(tmp_path: Path) -> None:
    """Beside one of its pages the file says that another page is free; the rows of the first can still be read."""
    table = table_in(tmp_path)
    many = [(f"{number:04}", number, 2 * number) for number in range(2000)]
    put(table, *many, ("wrong", 1, 1))
    raw = bytearray(table.path.read_bytes())
    middle = len(raw) // 2 // 4096 * 4096
    raw[middle : middle + 4096] = b"\xff" * 4096
    table.path.write_bytes(raw)
    left = table.rows()
    assert table.was_damaged and 100 < len(left) < 2000
    assert set(left) < set(many)


def test_a_row_that_was_changed_is_told(table: Table) -> None:
    put(table, ("a", 1, 2), ("b", 2, 5), ("c", 3, 7))
    assert table.check()[0] == ["2 of 3 numbers do not fit their checksums"]


def test_a_newer_table_is_left_alone_unless_it_can_be_made_again(tmp_path: Path) -> None:
    put(table_in(tmp_path, version=9), ("a", 1, 2))
    before = (tmp_path / "numbers.sqlite").read_bytes()
    with pytest.raises(InspectorError, match=r"has version 9 and this program knows 1\. Update dm-inspect, or set NUM"):
        table_in(tmp_path).rows()
    assert (tmp_path / "numbers.sqlite").read_bytes() == before
    assert table_in(tmp_path, can_be_made_again=True).rows() == []


def test_a_table_that_another_process_holds_is_said_to_be_held(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.disk.table.LOCK_SECONDS", 0.0)
    put(table, ("a", 1, 2))
    with closing(sqlite3.connect(table.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ResourceError, match="Another process has held the list of numbers"):
            put(table, ("b", 2, 4))
    assert table.rows() == [("a", 1, 2)] and not table.was_damaged


def test_without_room_for_a_transaction_what_was_written_is_read(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    put(table, ("a", 1, 2))

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(table, "_once", full)
    assert table.rows() == [("a", 1, 2)]
    with pytest.raises(ResourceError, match=r"cannot be read or written: database or disk is full\. Make room there"):
        put(table, ("b", 2, 4))


def test_a_text_that_is_none_reaches_the_check(table: Table) -> None:
    put(table, ("a", 1, 2))
    with closing(sqlite3.connect(table.path)) as connection:
        connection.execute("UPDATE numbers SET key = CAST(x'61ff' AS TEXT)")
        connection.commit()
    assert table.rows() == [("a\\xff", 1, 2)]


BEFORE = {
    "jobs": "id TEXT PRIMARY KEY, created REAL, live INTEGER, body BLOB, sha256 TEXT) WITHOUT ROWID",
    "answers": "key TEXT PRIMARY KEY, answer TEXT, sha256 TEXT, created REAL)",
    "results": '"id", "experiment", "created", "command", "profile", "model", "hook_name", "null", size INTEGER, '
    "mtime INTEGER, PRIMARY KEY (id))",
}
"""As version 0.1.0 declared them."""


@pytest.mark.parametrize("name", BEFORE)
def test_tables_of_the_first_version_still_open(name: str, tmp_path: Path) -> None:
    from inspector.interp.asking import answers_table
    from inspector.store.jobs import jobs_table
    from inspector.store.results import index_table

    table = {"jobs": jobs_table, "answers": answers_table, "results": index_table}[name](tmp_path)
    row = tuple(f"{column} of before" for column in table.columns)
    with closing(sqlite3.connect(table.path)) as connection:
        connection.execute(f"CREATE TABLE {name} ({BEFORE[name]}")
        connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    assert table.rows() == [row]
    put(table, ("new", *row[1:]))
    assert sorted(table.rows()) == sorted([row, ("new", *row[1:])]) and not table.was_damaged
