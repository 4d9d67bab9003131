"""Results that were measured: one JSON file each, whole and with a checksum; beside them an index to list them quickly.

The files are the truth. The index is made from them, again and again where it is missing, damaged or out of date, so
that files can be copied in or deleted by hand; a row of it counts while its file has the size and the time it had when
it was read. A result has the same id whenever the same thing was measured the same
way: the experiment and the beginning of the fingerprint; measuring it again replaces it.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Required, TypedDict

import msgspec

from inspector.disk.files import parse_json, read_file, write_whole
from inspector.disk.folders import RESULTS
from inspector.disk.sealed import digest, jsonable, to_json
from inspector.disk.table import Row, Table
from inspector.errors import DataError, InspectorError, only_one
from inspector.spec import RunSpec, command_of

FORMAT = 1
ID_DIGITS = 10
LARGEST = 256 * 2**20
"""Bytes; a result of more was not written by this program."""
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")
KEYS = ("experiment", "profile", "definition", "provenance", "saes", "result", "intervals", "controls", "warnings")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a list says about one stored result."""

    id: str
    experiment: str
    created: str
    """UTC, ISO 8601, whole seconds."""
    command: str
    """That repeats it."""
    profile: str
    model: str
    hook_name: str
    null: str = ""
    """The control that was measured in its place, or empty."""


class _Provenance(TypedDict, total=False):
    fingerprint: Required[str]
    model: str | None
    hook_name: str | None
    null: str | None
    profile: str
    program_version: str
    versions: dict[str, str | None]
    warnings: list[str]


class _Sae(TypedDict, total=False):
    sae: Required[str]
    release: str | None
    layer: int | None
    hook_name: str | None
    d_sae: int | None
    nominal_l0: float | None
    l0: float | None
    n_train: int | None
    n_test: int | None


class _Result(TypedDict):
    experiment: str
    profile: str
    definition: str
    provenance: _Provenance
    saes: list[_Sae]
    result: dict[str, Any]
    intervals: dict[str, dict[str, tuple[float | None, float | None] | None]]
    controls: dict[str, Any]
    warnings: list[str]


class _File(TypedDict):
    """What every result file is held to; what an experiment itself writes is held to by what it draws."""

    format: int
    id: str
    created: str
    command: str
    result: _Result


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A result that was read back."""

    record: Record
    result: dict[str, Any]
    """The object as `--json` printed it."""


def result_id(result: Mapping[str, Any]) -> str:
    """The experiment and the beginning of the fingerprint, e.g. error-vector-39162c75fa."""
    return f"{result['experiment']}-{str(result['provenance']['fingerprint'])[:ID_DIGITS]}"


def save(result: Mapping[str, Any], command: str, *, folder: Path | None = None) -> Record:
    """Store a result, replacing an older one of the same id.

    Args:
        result: the object of one experiment.
        command: that repeats it.
        folder: where; None: the user's.

    Raises:
        ResourceError: the disk is full or cannot be written to.
    """
    plain = jsonable(result)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found_id = result_id(plain)
    content = {"format": FORMAT, "id": found_id, "created": created, "command": command, "result": plain}
    write_whole((folder or RESULTS.path()) / f"{found_id}.json", to_json({**content, "sha256": digest(content)}) + "\n")
    return _record(content)


def save_measured(spec: RunSpec, result: Mapping[str, Any]) -> Record:
    """`save` what a run has measured, with the command that repeats it."""
    return save(result, command_of(spec, str(result["experiment"])))


def read(path: Path) -> Stored:
    """Read one file and check that it is what was written.

    Raises:
        DataError: it is damaged, or no result; the message names the file.
    """
    damaged = f"{path} is damaged"
    try:
        content = parse_json(read_file(path, LARGEST))
        claimed = content.pop("sha256")
        if claimed != digest(content):
            raise ValueError("its checksum does not fit")
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']}, and this program reads {FORMAT}")
        if content["id"] != path.stem or any(key not in content["result"] for key in KEYS):
            raise ValueError("it is not a result of this name")
        msgspec.convert(content, _File)
        return Stored(record=_record(content), result=content["result"])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Mend its permissions or remove it.") from error
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is no result: {_printable(error)}. Remove it and measure again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} while reading it"
        raise DataError(f"{damaged}: {reason}. Remove it and measure again.") from error


def _printable(error: Exception) -> str:
    """Msgspec names the place and the types: 'Expected `str`, got `int` - at `$.result.warnings[0]`'."""
    return str(error).replace("`", "'").replace(" - at '$.", " at '")[:200]


def load(wanted: str, *, folder: Path | None = None) -> Stored:
    """The stored result of an id, or of the beginning of one if only one begins so.

    Raises:
        UsageError: there is none, or several begin so.
        DataError: its file is damaged.
    """
    folder = folder or RESULTS.path()
    found = only_one(wanted, stored_ids(folder), "result", none=" Nothing is stored yet: `dm-inspect run` measures.")
    return read(folder / f"{found}.json")


def stored_ids(folder: Path) -> list[str]:
    """Ids by the names of the files, sorted; none of them is opened."""
    try:
        names = [path.stem for path in folder.iterdir() if path.suffix == ".json"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if _ID.fullmatch(name))


def _record(content: Mapping[str, Any]) -> Record:
    result = content["result"]
    made = result["provenance"]
    return Record(
        id=str(content["id"]),
        experiment=str(result["experiment"]),
        created=str(content["created"]),
        command=str(content["command"]),
        profile=str(result["profile"]),
        model=str(made.get("model") or ""),
        hook_name=str(made.get("hook_name") or ""),
        null=str(made.get("null") or ""),
    )


INDEX_FILE = "index.sqlite"
_FIELDS = tuple(field.name for field in fields(Record))


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
        folder: where; None: the user's.
    """
    folder = folder or RESULTS.path()
    ids = stored_ids(folder)
    if not ids:
        return Listing(records=(), problems=())
    index = index_table(folder)
    known: dict[object, Row] = {}
    with contextlib.suppress(InspectorError):  # a folder that cannot be written to: list without an index
        known = {row[0]: row for row in index.rows()}
    records, problems, new = [], [], []
    for each in ids:
        path = folder / f"{each}.json"
        try:
            state = path.stat()
        except OSError:  # removed meanwhile
            continue
        size_and_time = state.st_size, state.st_mtime_ns
        if each in known and known[each][-2:] == size_and_time:
            record = Record(**dict(zip(_FIELDS, known.pop(each)[:-2], strict=True)))
        else:
            try:
                record = read(path).record
            except DataError as error:
                problems.append(str(error))
                continue
            known.pop(each, None)
            new.append((*map(_storable, astuple(record)), *size_and_time))
        records.append(record)
    if new or known:

        def bring_up_to_date(table: sqlite3.Connection) -> None:
            table.executemany("DELETE FROM results WHERE id = ?", [(gone,) for gone in known])
            index.put(table, new)

        with contextlib.suppress(InspectorError):
            index.transact(bring_up_to_date)
    records.sort(key=lambda record: record.id)
    records.sort(key=lambda record: record.created, reverse=True)
    return Listing(records=tuple(records), problems=tuple(problems))


def index_table(folder: Path) -> Table:
    """The index of the results in a folder: what a `Record` has, and the size and time of the file it is from."""
    columns = {**dict.fromkeys(_FIELDS, ""), "size": "INTEGER", "mtime": "INTEGER"}
    return Table(folder / INDEX_FILE, "results", columns, version=1, variable=RESULTS.variable)


def _storable(value: object) -> object:
    """A name that is not UTF-8 cannot be stored as text; one of them must not hide all other results."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def newest_of_each(listing: Listing) -> list[Record]:
    """Of every experiment the newest, by id of the experiment; measured controls do not count."""
    found: dict[str, Record] = {}
    for record in listing.records:
        if not record.null:
            found.setdefault(record.experiment, record)
    return [found[experiment] for experiment in sorted(found)]
