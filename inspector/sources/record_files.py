"""Records of JSON and parquet files, streamed and never held whole.

JSON: one record per line, or an array of them; plain or compressed with zstd. Parquet: a column of strings, categories
or of UTF-8 bytes, a few rows at a time. Rows say nothing about bytes: sixty rows of 30 MB fit into a file of 3 kB. So
what is read at once is counted in bytes, a row is cut where no context can need more, and a column that claims far more
than its file could hold is refused.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from inspector.errors import DataError, first_line
from inspector.sources.records import (
    SAMPLE_CHARACTERS,
    SAMPLE_RECORDS,
    SHUFFLE_RECORDS,
    Decoder,
    Field,
    Reading,
    Record,
    choose_field,
    decoded,
    fields_of,
)

MAX_LINE = 16 << 20
"""Bytes of one record. Parsed, one of nothing but brackets takes twenty times that."""
MAX_SKIPPED = 1 << 30
"""Bytes of a line that is passed over. A longer one is no line: the file is of another kind, or made to be endless."""
SCATTERED_FROM = 16 << 20
"""Bytes of a file of lines that is read in pieces in seeded order: its beginning is not like the rest."""
PIECE = 1 << 18
"""Bytes of such a piece."""
_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_Value = tuple[int, Any, int]
"""Number of the record, the record, and its size in characters."""


def read_json(path: Path, reading: Reading) -> Iterator[Record]:
    """The texts of the field that `reading` asks for, or of the one that the first records decide on.

    Raises:
        DataError: when the file is of another kind than its name says, or there is no such field.
    """
    try:
        with _open(path) as file:
            values = _values(file, path, reading)
            sample, size = [], 0
            for value in values:
                sample.append(value)
                size += value[2]
                if len(sample) >= SAMPLE_RECORDS or size >= SAMPLE_CHARACTERS:
                    break
            reading.field = _field(sample, reading, path)
            for number, record, _size in chain(sample, values):
                found = record.get(reading.field) if isinstance(record, dict) else record
                text = reading.text_of(found)
                if text is not None:
                    yield number, text
    except OSError as error:  # pyarrow's errors of damaged compression are among them
        raise DataError(f"{path} cannot be read: {str(error)[:200]}. Is it complete?") from error


def is_scattered(path: Path) -> bool:
    """Whether the lines of a file are read in seeded order; their numbers are then the bytes they begin at."""
    return path.name.lower().endswith((".jsonl", ".ndjson")) and path.stat().st_size > SCATTERED_FROM


def _field(sample: list[_Value], reading: Reading, path: Path) -> str | None:
    records = [record for _, record, _ in sample]
    if any(isinstance(record, dict) for record in records):
        return choose_field(fields_of(records), reading.field, str(path))
    if reading.field is not None and records:
        raise DataError(f"The records of {path} have no fields, so none is {reading.field!r}. Leave out --text-field.")
    return None


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() != ".zst":
        return path.open("rb")
    import pyarrow

    stream: Any = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream, buffer_size=_CHUNK)


def _values(file: IO[bytes], path: Path, reading: Reading) -> Iterator[_Value]:
    """Records one by one. A name that ends in .json says neither lines nor array: the first bytes do."""
    if is_scattered(path):
        reading.any_order = True
        return _lines(_Scattered(file, path.stat().st_size, reading.seed), path, reading)
    if path.name.lower().removesuffix(".zst").endswith(".json"):
        head = file.read(_CHUNK)
        begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if begin.startswith(b"[") or not _is_whole(begin.split(b"\n", 1)[0]):
            return _parts(head, file, path, reading)
        return _lines(_Lines(io.BufferedReader(_Again(head, file), buffer_size=_CHUNK)), path, reading)
    return _lines(_Lines(file), path, reading)


class _Again(io.RawIOBase):
    """A file whose beginning was read already."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)] or self._file.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(decoded(line)[0])
    except (ValueError, RecursionError):
        return False
    return True


class _Lines:
    """The lines of a file, numbered from 1."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.number = file, 0

    @property
    def where(self) -> str:
        """The last line, in words."""
        return f"line {self.number:,}"

    def next(self) -> bytes:
        """The next one, or as much of it as a record may have."""
        self.number += 1
        return self._file.readline(MAX_LINE + 1)

    def more(self) -> bytes:
        """The next part of the same line."""
        return self._file.readline(_CHUNK)


class _Scattered(_Lines):
    """The lines of a file piece by piece, in seeded order; a line is of the piece it begins in, and its number is the
    place of its first byte.
    """

    def __init__(self, file: IO[bytes], size: int, seed: int) -> None:
        super().__init__(file)
        self._starts = list(range(0, size, PIECE))
        random.Random(seed).shuffle(self._starts)
        self._stop = 0

    @property
    def where(self) -> str:
        return f"the line at byte {self.number:,}"

    def next(self) -> bytes:
        while True:
            self.number = self._file.tell()
            if self.number < self._stop and (line := self._file.readline(MAX_LINE + 1)):
                return line
            if not self._starts:
                return b""
            start = self._starts.pop()
            self._stop = start + PIECE
            self._file.seek(max(0, start - 1))
            while start and (rest := self.more()) and not rest.endswith(b"\n"):
                pass


def _lines(lines: _Lines, path: Path, reading: Reading) -> Iterator[_Value]:
    while line := lines.next():
        if b"\0" in line:
            raise DataError(f"{path} is a binary file: {lines.where} holds a NUL byte. Save the records as UTF-8.")
        if len(line) > MAX_LINE:
            _pass_over(lines, line, path)
            reading.too_long += 1
            reading.first = reading.first or f"{lines.where}: longer than {MAX_LINE / (1 << 20):g} MB"
            continue
        text, n_replaced = decoded(line)
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            reading.failed(lines.where, _why(error))
            continue
        reading.replaced += n_replaced
        yield lines.number, record, len(text)


def _pass_over(lines: _Lines, line: bytes, path: Path) -> None:
    size = len(line)
    while line and not line.endswith(b"\n"):
        line = lines.more()
        size += len(line)
        if size > MAX_SKIPPED:
            raise DataError(
                f"{lines.where.capitalize()} of {path} is longer than {MAX_SKIPPED >> 20:,} MB. Put a record on a line."
            )


def _parts(head: bytes, file: IO[bytes], path: Path, reading: Reading) -> Iterator[_Value]:
    """The elements of an array, or objects that follow one another over any number of lines."""
    source = _Characters(head, file, path)
    in_array = source.skip(_SPACE) == "["
    if in_array:
        source.place += 1
    for number in range(1, 1 << 62):
        following = source.skip(_SPACE + "," if in_array else _SPACE)
        if following == "" or (in_array and following == "]"):
            break
        record, size = source.value(number)
        reading.replaced, source.decoder.replaced = reading.replaced + source.decoder.replaced, 0
        yield number, record, size
    if in_array and following == "":
        reading.failed("the end", "the array is not closed, so the file is not complete")


class _Characters:
    """The characters of a file from a place on, read as they are needed."""

    def __init__(self, head: bytes, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.decoder = Decoder()
        self._json = json.JSONDecoder()
        self._text, self.place, self._at_end = "", 0, False
        self._take(head)

    def skip(self, characters: str) -> str:
        """Pass over these; returns the next one, or nothing at the end."""
        while True:
            rest = self._text[self.place : self.place + 256].lstrip(characters)
            if rest:
                self.place = min(len(self._text), self.place + 256) - len(rest)
                return rest[0]
            self.place = min(len(self._text), self.place + 256)
            if self.place == len(self._text) and not self._more():
                return ""

    def value(self, number: int) -> tuple[Any, int]:
        """The JSON value here, and its size.

        Raises:
            DataError: it is broken or too long. What follows in the file cannot be found.
        """
        while True:
            why = ""
            try:
                value, end = self._json.raw_decode(self._text, self.place)
            except (ValueError, RecursionError) as error:
                why = _why(error)
            else:
                if end < len(self._text) or not self._more():  # a number may go on beyond what is here
                    size, self.place = end - self.place, end
                    return value, size
                continue
            if len(self._text) - self.place > MAX_LINE:
                raise DataError(
                    f"Record {number:,} of {self._path} is broken or longer than {MAX_LINE / (1 << 20):g} MB ({why}). "
                    "Write one record per line, as .jsonl."
                )
            if not self._more():
                raise DataError(f"Record {number:,} of {self._path} cannot be read: {why}. Is the file complete?")

    def _more(self) -> bool:
        """As many characters again as are waiting, so that a long value is parsed a few times only."""
        if self._at_end:
            return False
        self._take(self._file.read(max(_CHUNK, len(self._text) - self.place)))
        return True

    def _take(self, data: bytes) -> None:
        if b"\0" in data:
            raise DataError(f"{self._path} is a binary file: it holds a NUL byte. Save the records as UTF-8.")
        self._at_end = not data
        self._text = self._text[self.place :] + self.decoder.decode(data, last=not data)
        self.place = 0


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return (str(error) or type(error).__name__)[:120]


MAX_TEXT = 16 << 20
"""Bytes of one text; what follows is not read."""
MAX_UNPACKED = 256 << 20
"""Bytes of a column of one row group that are unpacked whatever they were packed into."""
MAX_RATIO = 200
"""A larger column that was packed to less than this share of itself is no text: text packs to a tenth."""
_AT_ONCE = 64 << 20
"""Bytes of rows at once, as far as the file says how long they are."""
_ROWS = 4
"""Rows at once at most: a dictionary may hold one long text for all of them, and no number in the file says so."""
_SAMPLE = 64
"""Rows looked at to tell which column holds text."""


def read_parquet(path: Path, reading: Reading) -> Iterator[Record]:
    """The texts of the column that `reading` asks for, or of the one that names and types decide on.

    Row groups of a file with more records than are shuffled come in seeded order: its beginning is not like the rest.

    Raises:
        DataError: when it is no parquet file, has no such column, or would take more memory than texts could.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        column = choose_field(_fields(file, path), reading.field, str(path))
        reading.field = column
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        first = [1 + sum(sizes[:group]) for group in range(len(sizes))]
        groups = list(range(len(sizes)))
        if sum(sizes) > SHUFFLE_RECORDS:
            random.Random(reading.seed).shuffle(groups)
            reading.any_order = True
        rows = (row for group in groups for row in enumerate(_column(file, column, path, [group]), start=first[group]))
        for number, data in rows:
            text, n_replaced = ("", 0) if data is None else decoded(data)
            reading.replaced += n_replaced
            found = reading.text_of(text)
            if found is not None:
                yield number, found
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {first_line(error, 160)}. Is it complete?") from error


def _fields(file: Any, path: Path) -> list[Field]:
    """Every column with its kind; of those that may hold text, how much of it the first rows have."""
    import pyarrow

    fields = []
    for field in file.schema_arrow:
        kind = _kind(field.type)
        n_characters = 0
        if pyarrow.types.is_null(field.type) or _is_empty(file, field.name):
            kind = "null"
        elif kind in ("text", "bytes") and all(map(_is_plausible, _column_parts(file, field.name))):
            is_text = True
            for data in islice(_column(file, field.name, path), _SAMPLE):
                n_characters += len(data or b"")
                is_text = is_text and _is_text(data or b"")
                if n_characters > SAMPLE_CHARACTERS:
                    break
            kind = "text" if kind == "text" or is_text else kind
        fields.append(Field(name=field.name, kind=kind, n_characters=n_characters))
    return fields


def _is_empty(file: Any, name: str) -> bool:
    """Whether the file says that a column holds nothing but null."""
    known = [part.statistics for part in _column_parts(file, name)]
    nulls = sum(each.null_count or 0 for each in known if each is not None and each.has_null_count)
    return 0 < file.metadata.num_rows == nulls


def _column_parts(file: Any, name: str, groups: Sequence[int] | None = None) -> Iterator[Any]:
    """What the file says of a column, by row group."""
    for group in range(file.metadata.num_row_groups) if groups is None else groups:
        about = file.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            if column.path_in_schema.split(".")[0] == name:
                yield column


def _kind(of: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(of):
        of = of.value_type
    if types.is_string(of) or types.is_large_string(of) or types.is_string_view(of):
        return "text"
    if types.is_binary(of) or types.is_large_binary(of) or types.is_binary_view(of):
        return "bytes"
    return str(of)[:40]


def _is_text(data: bytes) -> bool:
    data = data[:4096].rstrip(bytes(range(0x80, 0x100)))  # the cut may have gone through a character
    return b"\0" not in data and decoded(data)[1] == 0


def _column(file: Any, name: str, path: Path, groups: Sequence[int] | None = None) -> Iterator[bytes | None]:
    """The values of a column in these row groups as bytes, cut at MAX_TEXT; None where there is none."""
    for group in range(file.metadata.num_row_groups) if groups is None else groups:
        unpacked = 0
        for part in _column_parts(file, name, [group]):
            if not _is_plausible(part):
                raise DataError(
                    f"Column {name!r} of {path} would unpack {part.total_compressed_size:,} bytes to "
                    f"{part.total_uncompressed_size:,}, which no text does. Choose another one with --text-field, or "
                    "another file."
                )
            unpacked += part.total_uncompressed_size
        rows = max(1, min(_ROWS, _AT_ONCE * file.metadata.row_group(group).num_rows // max(1, unpacked)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[name]):
            values = batch.column(0)
            for value in values:
                scalar = value.value if hasattr(value, "index") else value  # of a category, what it stands for
                buffer = None if not value.is_valid else scalar.as_buffer()
                yield None if buffer is None else buffer.slice(0, min(buffer.size, MAX_TEXT)).to_pybytes()


def _is_plausible(part: Any) -> bool:
    """Whether a column of a row group may be text, by its sizes."""
    return part.total_uncompressed_size <= max(MAX_UNPACKED, MAX_RATIO * max(1, part.total_compressed_size))
