"""A table as plain text, for a terminal without colours, a pipe, or a file."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.drawing.figures import Cell, Column, Table
from inspector.drawing.safe_text import cell_width, visible, visible_block

UNDEFINED = "undefined"


def format_cell(value: Cell, digits: int) -> str:
    """Text of one cell: thousands separated, floats with `digits` decimals, None as 'undefined'.

    A float too small for its decimals is shown in scientific notation, not as 0.
    """
    if value is None:
        return UNDEFINED
    if isinstance(value, str):
        return visible(value) if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    fixed = f"{value:,.{digits}f}"
    return f"{value:.1e}" if value != 0.0 and float(fixed.replace(",", "")) == 0.0 else fixed


def render_table(table: Table) -> str:
    """The table with title, header and note; text to the left, numbers to the right; no line ends in spaces."""
    header = [visible(f"{column.title} ({column.unit})" if column.unit else column.title) for column in table.columns]
    rows = [[format_cell(cell, column.digits) for cell, column in _cells(table, row)] for row in table.rows]
    numeric = [_is_numeric([row[i] for row in table.rows]) for i in range(len(table.columns))]
    widths = [max(map(cell_width, texts)) for texts in zip(header, *rows, strict=True)]
    lines = [visible(table.title), ""] if table.title else []
    lines.append(_line(header, widths, numeric))
    lines.append("  ".join("─" * width for width in widths))
    lines += [_line(row, widths, numeric) for row in rows]
    if table.note:
        lines += ["", visible_block(table.note)]
    return "\n".join(lines) + "\n"


def _cells(table: Table, row: Sequence[Cell]) -> list[tuple[Cell, Column]]:
    return list(zip(row, table.columns, strict=True))


def _is_numeric(cells: Sequence[Cell]) -> bool:
    return any(isinstance(cell, int | float) for cell in cells)


def _line(texts: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [
        " " * (width - cell_width(text)) + text if right else text + " " * (width - cell_width(text))
        for text, width, right in zip(texts, widths, numeric, strict=True)
    ]
    return "  ".join(padded).rstrip()
