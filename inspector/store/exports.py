"""A result as a flat table: one row per SAE, or per pair of SAEs, or, where neither was measured, one row of it all.

Every number is the object's own, undone by nothing: CSV writes floats so that they read back the same. Intervals follow
their score as `<score>_low` and `<score>_high`; lists and dictionaries stand as JSON text in one cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from inspector.disk.sealed import jsonable, to_json

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of what a spreadsheet takes for a formula; a number of ours is no text."""


def flat_rows(result: Mapping[str, Any]) -> list[Row]:
    """Rows of one result, all with the same columns in the same order; what a row lacks is None."""
    head = {"experiment": result["experiment"], "profile": result["profile"]}
    intervals, own = result["intervals"], result["result"]
    pairs = own.get("pairs")
    if result["saes"]:
        rows = [head | _cells(entry, intervals.get(entry["sae"], {})) for entry in result["saes"]]
    elif pairs and isinstance(pairs, list) and all(isinstance(e, dict) and {"small", "large"} <= set(e) for e in pairs):
        rows = [head | _cells(e, intervals.get(f"{e['small']} -> {e['large']}", {})) for e in pairs]
    else:
        rows = [head | _cells(own, {})]
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _cells(entry: Mapping[str, Any], ends: Mapping[str, Any]) -> Row:
    """What is said of one SAE or pair, each score followed by the ends of its interval if it has one."""
    row: Row = {}
    for key, value in entry.items():
        plain = jsonable(value)
        row[key] = to_json(plain) if isinstance(plain, dict | list) else plain
        if key in ends:
            row[f"{key}_low"], row[f"{key}_high"] = ends[key] or (None, None)
    return row


def to_csv(result: Mapping[str, Any]) -> str:
    """The rows of one result; see `csv_text`."""
    rows = flat_rows(result)
    return csv_text(rows[0], (row.values() for row in rows))


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV with a header (RFC 4180); None is an empty cell.

    A text that a spreadsheet would run as a formula gets an apostrophe before it; every other text is as it is.
    """
    lines = [[not_a_formula(key) for key in columns], *([_plain_text(value) for value in row] for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _quoted(cell: str) -> str:
    """The csv module leaves a carriage return bare where lines end in line feeds, and then reads two rows."""
    return '"' + cell.replace('"', '""') + '"' if any(each in cell for each in ',"\r\n') else cell


def to_arrow(result: Mapping[str, Any]) -> pa.Table:
    """The rows as an Arrow table, its metadata holding the whole result as JSON under `dm_inspect_result`."""
    import pyarrow as pa

    rows = flat_rows(result)
    arrays = {key: _column([row[key] for row in rows]) for key in rows[0]}
    return pa.table(arrays).replace_schema_metadata({"dm_inspect_result": to_json(result)})


def _column(values: list[Any]) -> pa.Array:
    """Whole numbers and fractions mixed become fractions; anything else mixed becomes text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.array(values, pa.float64())
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if len(kinds) > 1:
        return pa.array([None if value is None else to_json(value) for value in values], pa.string())
    return pa.array(values)


def _plain_text(value: Any) -> str:
    """Floats by `repr`, the shortest text that reads back as the same number."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else not_a_formula(value) if isinstance(value, str) else str(value)


def not_a_formula(text: str) -> str:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it, which spreadsheets do not show."""
    return f"'{text}" if text[:1] in _FORMULA else text
