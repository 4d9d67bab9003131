"""Records of a parquet file: a column of strings, of categories or of UTF-8 bytes, a few rows at a time.

Rows say nothing about bytes: sixty rows of 30 MB fit into a file of 3 kB. So what is read at once is counted in bytes,
a row is cut where no context can need more, and a column that claims far more than its file could hold is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from inspector.errors import DataError
from inspector.sources.records import SAMPLE_CHARACTERS, SHUFFLE_RECORDS, Field, Reading, Record, choose_field, decoded

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
        raise DataError(
            f"{path} is not a readable parquet file: {str(error).splitlines()[0][:160]}. Is it complete?"
        ) from error


def _fields(file: Any, path: Path) -> list[Field]:
    """Every column with its kind; of those that may hold text, how much of it the first rows have."""
    import pyarrow

    fields = []
    for field in file.schema_arrow:
        kind = _kind(field.type)
        n_characters = 0
        if pyarrow.types.is_null(field.type) or _is_empty(file, field.name):
            kind = "null"
        elif kind in ("text", "bytes") and all(map(_is_plausible, _parts(file, field.name))):
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
    known = [part.statistics for part in _parts(file, name)]
    nulls = sum(each.null_count or 0 for each in known if each is not None and each.has_null_count)
    return 0 < file.metadata.num_rows == nulls


def _parts(file: Any, name: str, groups: Sequence[int] | None = None) -> Iterator[Any]:
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
        for part in _parts(file, name, [group]):
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
