"""A table as plain text, for a pipe or a file, and as styled lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.drawing.figures import Cell, Column, Table
from inspector.drawing.lines import ELLIPSIS, cut, cut_start, padded, shared_start
from inspector.drawing.palette import FigurePalette, Line
from inspector.drawing.safe_text import cell_width, visible, visible_block

GAP = "  "
INTERVAL = ("95% low", "low", "high")
"""Titles of the columns that belong to the one before them."""


def table_lines(table: Table, width: int, palette: FigurePalette) -> list[Line]:
    """The table; if it is wider than the screen, in blocks of columns that each begin with the first one."""
    header = [visible(f"{column.title} ({column.unit})" if column.unit else column.title) for column in table.columns]
    rows = [
        [format_cell(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    numeric = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(header))]
    sizes = _sizes(header, rows)
    shared = shared_start([row[0] for row in rows]) if rows and header else ""
    above: Line = []
    if shared and len(_blocks(_groups(table), sizes, width)) > 1:
        # Blocks repeat the first column: what all its names begin with is said once, above.
        rows = [[ELLIPSIS + row[0].removeprefix(shared), *row[1:]] for row in rows]
        sizes = _sizes(header, rows)
        above = [(cut(f"{header[0]}: {shared}{ELLIPSIS}", width), palette.quiet)]
    if sizes:
        sizes[0] = min(sizes[0], max(width // 2, 8))
    lines: list[Line] = []
    for block in _blocks(_groups(table), sizes, width):
        if lines:
            lines.append([])
        lines.append([(_row(header, block, sizes, numeric, width), palette.strong)])
        lines.append([(cut(GAP.join("─" * min(sizes[i], width) for i in block), width), palette.quiet)])
        lines += [[(_row(row, block, sizes, numeric, width), palette.plain)] for row in rows]
    return [above, *lines] if above else lines


def _sizes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_width, column)) for column in zip(header, *rows, strict=True)]


def _groups(table: Table) -> list[list[int]]:
    """Numbers of the columns after the first, those together that mean nothing alone: a score and its interval."""
    groups: list[list[int]] = []
    for index in range(1, len(table.columns)):
        if groups and _is_end(table.columns[index].title):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _is_end(title: str) -> bool:
    """Whether a column is an end of an interval: '95% low', 'low', 'low, contexts', 'high'."""
    return title.partition(",")[0] in INTERVAL


def _blocks(groups: Sequence[Sequence[int]], sizes: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of the columns that stand beside each other; the first begins every block."""
    if not sizes:
        return []
    blocks = [[0]]
    used = sizes[0]
    for group in groups:
        needed = sum(len(GAP) + sizes[index] for index in group)
        if used + needed > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = sizes[0]
        blocks[-1] += group
        used += needed
    return blocks


def _row(texts: Sequence[str], block: Sequence[int], sizes: Sequence[int], numeric: Sequence[bool], width: int) -> str:
    shown = [padded(cut_start(texts[i], sizes[i]) if i == 0 else texts[i], sizes[i], right=numeric[i]) for i in block]
    return cut(GAP.join(shown).rstrip(), width)


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
