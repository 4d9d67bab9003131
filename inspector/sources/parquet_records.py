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
from inspector.sources.characters import decoded
from inspector.sources.records import SAMPLE_CHARACTERS, SHUFFLE_RECORDS, Field, Reading, Record, choose_field

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
        if kind in ("text", "bytes"):
            is_text = True
            for data in islice(_column(file, field.name, path), _SAMPLE):
                n_characters += len(data or b"")
                is_text = is_text and _is_text(data or b"")
                if n_characters > SAMPLE_CHARACTERS:
                    break
            kind = "text" if is_text else "bytes"
        elif pyarrow.types.is_null(field.type):
            kind = "null"
        fields.append(Field(name=field.name, kind=kind, n_characters=n_characters))
    return fields


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
        about = file.metadata.row_group(group)
        n_rows = max(1, about.num_rows)
        unpacked = 0
        for place in range(about.num_columns):
            column = about.column(place)
            if column.path_in_schema.split(".")[0] == name:
                unpacked += column.total_uncompressed_size
                _require_plausible(column, name, path)
        rows = max(1, min(_ROWS, _AT_ONCE * n_rows // max(1, unpacked)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[name]):
            values = batch.column(0)
            for value in values:
                scalar = value.value if hasattr(value, "index") else value  # of a category, what it stands for
                buffer = None if not value.is_valid else scalar.as_buffer()
                yield None if buffer is None else buffer.slice(0, min(buffer.size, MAX_TEXT)).to_pybytes()


def _require_plausible(column: Any, name: str, path: Path) -> None:
    unpacked, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
    if unpacked > MAX_UNPACKED and unpacked > MAX_RATIO * packed:
        raise DataError(
            f"Column {name!r} of {path} would unpack {packed:,} bytes to {unpacked:,}, which no text does. "
            "Choose another column with --text-field, or another file."
        )
