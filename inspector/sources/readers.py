"""Reads text out of files that may hold anything: .txt, .py and the like whole, .jsonl(.zst) and .parquet by record.

Files are streamed and never trusted: a missing, empty, binary, broken or endless one ends in one sentence.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from inspector.errors import DataError, nearest
from inspector.sources.paths import is_directory, shown

Record = tuple[int, str]
"""Number of the record in its file, from 1, and its text."""

RECORD_SUFFIXES = (".jsonl", ".jsonl.zst", ".parquet")
_PACKED_SUFFIXES = (".zst", ".gz", ".bz2", ".xz", ".zip", ".tar", ".7z")
FORMATS = "Use UTF-8 text (.txt, .md, .py, ...), .jsonl, .jsonl.zst or .parquet."
MAX_LINE = 64 << 20
"""Bytes. A longer line of .jsonl is not one document but a file of another kind."""
_HEAD = 1 << 16
"""Bytes looked at before anything is loaded."""
SHUFFLE_RECORDS = 10_000
"""As the paper's streaming shuffle (spec 1.2)."""
SHUFFLE_CHARACTERS = 64 << 20
"""The shuffle buffer is also limited in size: ten thousand books would not fit into memory."""


@dataclass
class Problems:
    """What went wrong in a file that could be used all the same."""

    broken: int = 0
    first: str = ""
    """Where and why, for the first one."""
    without_text: int = field(default=0)

    def notes(self, path: Path) -> tuple[str, ...]:
        """A sentence for each kind."""
        found = []
        if self.broken:
            lines = (
                "1 line could not be read and was"
                if self.broken == 1
                else f"{self.broken:,} lines could not be read and were"
            )
            found.append(f"{path.name}: {lines} left out; {self.first}.")
        if self.without_text:
            found.append(f"{path.name}: {self.without_text:,} records without text were left out.")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class HubText:
    """A data set on the hub, as written after hf:."""

    name: str
    split: str = "train"
    field: str = "text"

    def __str__(self) -> str:
        return f"hf:{self.name}:{self.split}:{self.field}"


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
    return HubText(name=match[1], split=match[2] or "train", field=match[3] or "text")


def check_text(text: str) -> Path | HubText:
    """The file or data set of --text; see `check_file` and `hub_text`.

    Raises:
        DataError: when it cannot be used.
    """
    return hub_text(text) or check_file(text)


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
    if path.name.endswith(_PACKED_SUFFIXES) and not has_records(path):
        raise DataError(f"--text {name} is compressed in a way that is not read here. {FORMATS}")
    if not path.name.endswith((".zst", ".parquet")):
        _decode(head, path, cut=len(head) == _HEAD)  # a binary file is refused now, and not after the model is there
    return path


def has_records(path: Path) -> bool:
    """Whether the file holds many texts rather than one."""
    return path.name.endswith(RECORD_SUFFIXES)


def read_text(path: Path, max_bytes: int) -> tuple[str, tuple[str, ...]]:
    """The text of a file and notes; no more than `max_bytes` are read, up to the last whole line.

    Raises:
        DataError: when it is binary or not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    notes: tuple[str, ...] = ()
    if len(data) > max_bytes:
        end = data.rfind(b"\n", 0, max_bytes)
        data = data[: end + 1 if end > 0 else max_bytes]
        notes = (f"Only the first {len(data) / 1e6:.1f} MB of {path.name} were read.",)
    cut = bool(notes) and not data.endswith(b"\n")
    return _decode(data, path, cut=cut), notes


def read_records(path: Path, problems: Problems) -> Iterator[Record]:
    """The texts of a .jsonl, .jsonl.zst or .parquet file: field `text`, else the first field that holds a string.

    Args:
        path: is streamed, never held in memory.
        problems: counts what is left out, as the records are taken.

    Raises:
        DataError: when the file is of another kind than its name says, or no record has text.
    """
    count = 0
    for record in _parquet(path, problems) if path.suffix == ".parquet" else _json_lines(path, problems):
        count += 1
        yield record
    if not count:
        why = f" The first problem: {problems.first}." if problems.first else ""
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


def _decode(data: bytes, path: Path, *, cut: bool) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in data:
        raise DataError(f"{path} is a binary file: byte {data.index(0):,} is NUL. {FORMATS}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if cut and error.start > len(data) - 4:  # the cut went through a character
            return data[: error.start].decode("utf-8-sig")
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start:,} is 0x{data[error.start]:02x}. {FORMATS}"
        ) from error


def _json_lines(path: Path, problems: Problems) -> Iterator[Record]:
    name: str | None = None
    try:
        with _open(path) as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"Line {number:,} of {path} is longer than {MAX_LINE >> 20} MB. {FORMATS}")
                if b"\0" in line:
                    raise DataError(f"{path} is a binary file: line {number:,} holds a NUL byte. {FORMATS}")
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    problems.broken += 1
                    why = (
                        f"{error.msg} at column {error.colno}"
                        if isinstance(error, json.JSONDecodeError)
                        else str(error)
                    )
                    problems.first = problems.first or f"line {number:,}: {why[:120]}"
                    continue
                name = name or _text_field(record)
                text = record if isinstance(record, str) else record.get(name) if isinstance(record, dict) else None
                if isinstance(text, str) and text.strip():
                    yield number, text
                else:
                    problems.without_text += 1
    except OSError as error:  # pyarrow's errors of damaged compression are among them
        raise DataError(f"{path} cannot be read: {str(error)[:200]}. Is it complete?") from error


def _open(path: Path) -> IO[bytes]:
    if path.suffix != ".zst":
        return path.open("rb")
    import pyarrow

    stream: Any = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream, buffer_size=1 << 20)


def _text_field(record: Any) -> str | None:
    if not isinstance(record, dict):
        return None
    if isinstance(record.get("text"), str):
        return "text"
    return next((key for key, value in record.items() if isinstance(value, str)), None)


def _parquet(path: Path, problems: Problems) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        strings = [
            name
            for name in schema.names
            if pyarrow.types.is_string(schema.field(name).type)
            or pyarrow.types.is_large_string(schema.field(name).type)
        ]
        if not strings:
            raise DataError(f"{path} has no column of strings. Its columns: {', '.join(schema.names[:8])}.")
        column = "text" if "text" in strings else strings[0]
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for text in batch.column(0).to_pylist():
                number += 1
                if text and text.strip():
                    yield number, text
                else:
                    problems.without_text += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable parquet file: {str(error).splitlines()[0][:160]}. {FORMATS}"
        ) from error
