"""Reads text out of files that may hold anything: .txt, .py and the like as one text, JSON and parquet by record.

Files are streamed and never trusted: a missing, empty, binary, broken or endless one ends in one sentence.
"""

from __future__ import annotations

import codecs
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inspector.disk.files import is_directory, shown
from inspector.errors import DataError, UsageError, nearest
from inspector.sources.records import SHUFFLE_RECORDS, Reading, Record, decoded, replaced_note

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.zst", ".ndjson.zst", ".json.zst")
PARQUET_SUFFIXES = (".parquet",)
_PACKED_SUFFIXES = (".zst", ".gz", ".bz2", ".xz", ".zip", ".tar", ".7z")
FORMATS = "Use UTF-8 text (.txt, .md, .py, ...), .jsonl, .json, .jsonl.zst or .parquet."
PYTHON_TEXTS = {"demo": "The demo's text", "pydoc": "Python's language reference"}
"""In the place of a file: what every Python carries and no built-in SAE has learned from."""
_HEAD = 1 << 16
"""Bytes looked at before anything is loaded."""
MOST_REPLACED = 0.3
"""Of the characters. Latin-1 text has a few percent of bytes that are no UTF-8, and is read; with more of them it is
another encoding or no text, and numbers would be about U+FFFD."""
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\r\f\v\b\x1b")
MOST_CONTROLS = 0.05
"""Of the bytes: more of them, and it is a binary file that happens to have no NUL."""
WHOLE_BYTES = 1 << 20
"""A text of at most so many bytes is read and cut as one."""
PIECE_BYTES = 1 << 16
"""Of a text too large to be one: windows of a context are cut from pieces of this size, wherever they are read."""
Piece = tuple[str, str]
"""Name of a part of a file and its text."""
SHUFFLE_CHARACTERS = 64 << 20
"""The shuffle buffer is also limited in size: ten thousand books would not fit into memory."""


@dataclass(frozen=True, kw_only=True)
class HubText:
    """A data set on the hub, as written after hf:."""

    name: str
    split: str = "train"
    field: str | None = None
    """None: `text` if there is one, or what `records.choose_field` finds."""

    def __str__(self) -> str:
        return f"hf:{self.name}:{self.split}" + ("" if self.field is None else f":{self.field}")


def hub_text(text: str) -> HubText | None:
    """What hf:NAME[:SPLIT[:FIELD]] names; None if it does not begin so.

    Raises:
        DataError: it does, but is not written so.
    """
    if not text.startswith("hf:"):
        return None
    match = re.fullmatch(r"hf:([\w.\-]+(?:/[\w.\-]+)?)(?::([\w.\-\[\]%:]+?)(?::([\w.\-]+))?)?", text)
    if match is None or ".." in match[1]:
        raise DataError(f"--text {shown(text)} names no data set. Write hf:ORGANISATION/NAME:SPLIT:FIELD.")
    return HubText(name=match[1], split=match[2] or "train", field=match[3])


def check_text(text: str, field: str | None = None) -> Path | HubText | None:
    """The file or data set of --text, see `check_file` and `hub_text`; None for one of PYTHON_TEXTS.

    Args:
        text: as typed.
        field: of --text-field; None if it was not given.

    Raises:
        DataError: when it cannot be used.
        UsageError: when the text has no fields, or names another one itself.
    """
    found = None if text in PYTHON_TEXTS else hub_text(text)
    if found is None:
        path = None if text in PYTHON_TEXTS else check_file(text)
        if field is not None and (path is None or not has_records(path)):
            name = f"{text}'s text" if path is None else path.name
            raise UsageError(f"--text-field {field!r} names a field of records, and {name} has none. Leave it out.")
        return path
    if field is not None and found.field is not None and field != found.field:
        raise UsageError(f"--text {text} names a field and --text-field {field!r} another one. Leave one of them out.")
    return found if field is None else HubText(name=found.name, split=found.split, field=field)


def check_file(given: str) -> Path:
    """The path of a file that can be opened.

    Raises:
        DataError: when it is missing, empty, not a regular file, or compressed in a way that is not read here.
    """
    path, name = Path(given).expanduser(), shown(given)
    try:
        if is_directory(path):
            raise DataError(f"--text {name} is a directory. Give one file of it, of UTF-8 text, .jsonl or .parquet.")
        if not os.path.exists(path):
            siblings = [child.name for child in path.parent.iterdir()] if is_directory(path.parent) else []
            raise DataError(f"There is no text file {name}.{nearest(path.name, siblings)}")
        if not path.is_file():
            raise DataError(f"--text {name} is not a regular file. Save the text in one first.")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"--text {name} cannot be opened ({error.strerror}). Check its permissions.") from error
    if not head.strip():
        raise DataError(f"--text {name} is empty. Give a file with text in it.")
    if path.name.lower().endswith(_PACKED_SUFFIXES) and not has_records(path):
        raise DataError(f"--text {name} is compressed in a way that is not read here. {FORMATS}")
    if not path.name.lower().endswith((".zst", *PARQUET_SUFFIXES)):
        _decode(head, path, cut=len(head) == _HEAD)  # a binary file is refused now, and not after the model is there
    return path


def has_records(path: Path) -> bool:
    """Whether the file holds many texts rather than one."""
    return path.name.lower().endswith((*JSON_SUFFIXES, *PARQUET_SUFFIXES))


def record_name(path: Path) -> str:
    """What the number of a record is, in words."""
    from inspector.sources.record_files import is_scattered

    return "record at byte" if is_scattered(path) else "record"


def read_text(
    path: Path, max_bytes: int, *, seed: int, piece_bytes: int = PIECE_BYTES, whole: int = WHOLE_BYTES
) -> tuple[list[Piece], tuple[str, ...]]:
    """The text of a file and notes: as one piece, or of a larger one pieces from random places.

    How a file is cut depends on the file and `piece_bytes` alone, and with the same seed fewer pieces are some of more:
    so a second look for more text meets the same windows, and can leave out those that were held out.

    Args:
        path: of a file that was checked.
        max_bytes: of all pieces together, about.
        seed: of the places.
        piece_bytes: of one piece.
        whole: a file of at most so many bytes is one piece.

    Raises:
        DataError: when it is binary or mostly not UTF-8.
    """
    size = path.stat().st_size
    pieces: list[Piece] = []
    n_replaced = n_bytes = n_read = 0
    with path.open("rb") as file:
        for start, length in _places(size, max_bytes, piece_bytes, whole, seed):
            file.seek(start)
            data = _whole_lines(file.read(length), start=start, end=size)
            text, replaced = _decode(data, path, cut=len(data) < size)
            n_replaced, n_bytes, n_read = n_replaced + replaced, n_bytes + len(data), n_read + 1
            if text:
                pieces.append((path.name if size <= whole else f"{path.name} from byte {start:,}", text))
    notes: tuple[str, ...] = ()
    if n_read * piece_bytes < size > whole:
        places = "one place" if n_read == 1 else f"{n_read} places"
        notes = (f"{path.name}: {n_bytes / 1e6:.1f} of its {size / 1e6:.1f} MB were read, at {places} by the seed.",)
    if n_replaced:
        notes += (replaced_note(path.name, n_replaced),)
    return pieces, notes


def _places(size: int, max_bytes: int, length: int, whole: int, seed: int) -> list[tuple[int, int]]:
    """Where and how many bytes to read, in the order of the file."""
    if size <= whole:
        return [(0, size)]
    places = list(range(0, size, length))
    random.Random(seed).shuffle(places)
    return [(place, length) for place in sorted(places[: max(1, -(-max_bytes // length))])]


def _whole_lines(data: bytes, *, start: int, end: int) -> bytes:
    """Without the parts of lines that a cut left at either side; all of it if there is no whole one."""
    first = data.find(b"\n") + 1 if start else 0
    last = data.rfind(b"\n") + 1 if start + len(data) < end else len(data)
    return data[first:last] if last > first else data


def read_records(path: Path, reading: Reading) -> Iterator[Record]:
    """The texts of a JSON or parquet file.

    Args:
        path: is streamed, never held in memory.
        reading: says which field is asked for; tells which was read and counts what is left out, as records are taken.

    Raises:
        DataError: when the file is of another kind than its name says, has no such field, or no record has text.
    """
    from inspector.sources.record_files import read_json, read_parquet

    count = 0
    for record in (read_parquet if path.name.lower().endswith(PARQUET_SUFFIXES) else read_json)(path, reading):
        count += 1
        yield record
    reading.at_end = True
    if not count:
        why = f" The first problem: {reading.first}." if reading.first else ""
        raise DataError(f"{path} has no record with text.{why or ' Each record needs a field that holds a string.'}")


def shuffled(records: Iterable[Record], seed: int) -> Iterator[Record]:
    """The records in a seeded random order, as far as a bounded buffer allows."""
    order = random.Random(seed)
    held: list[Record] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record[1])
        while len(held) > SHUFFLE_RECORDS or (size > SHUFFLE_CHARACTERS and len(held) > 1):
            place = order.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            size -= len(held[-1][1])
            yield held.pop()
    order.shuffle(held)
    yield from held


def _decode(data: bytes, path: Path, *, cut: bool) -> tuple[str, int]:
    """The text, and how many of its characters stand for bytes that are no UTF-8; `cut`: at either end of the data."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in data:
        raise DataError(f"{path} is a binary file: byte {data.index(0):,} is NUL. {FORMATS}")
    if len(data) - len(data.translate(None, _CONTROLS)) > MOST_CONTROLS * len(data):
        raise DataError(f"{path} is a binary file: many of its bytes are control characters. {FORMATS}")
    if cut:
        data = _whole_characters(data)
    text, n_replaced = decoded(data)
    if n_replaced > MOST_REPLACED * len(text):
        raise DataError(
            f"{path} is not UTF-8 text: {n_replaced:,} of {len(text):,} characters cannot be decoded. "
            "Convert it, for example with iconv, or choose another file."
        )
    return text, n_replaced


def _whole_characters(data: bytes) -> bytes:
    """Without the part of a character that a cut left at either end."""
    start = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:  # the first byte of the last character says how many it has
            needed = 1 if byte < 0x80 else 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
            return data[start : len(data) - back] if needed > back else data[start:]
    return data[start:]
