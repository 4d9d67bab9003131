"""Tables and strips of tokens as terminal cells."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.drawing.cells import ELLIPSIS, cut, cut_start, padded, shared_start
from inspector.drawing.figure_palette import MISSING, FigurePalette, Line
from inspector.drawing.figures import Table, TokenStrip
from inspector.drawing.palette import MARKS as LEVELS
from inspector.drawing.safe_text import NEWLINE, cell_width, visible
from inspector.drawing.terminal_grids import ramp_line
from inspector.drawing.text import format_cell

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


def strip_lines(figure: TokenStrip, width: int, palette: FigurePalette) -> list[Line]:
    """The text with every token in the colour of its value; without colours a block after it says how large."""
    known = [value for value in figure.values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    lines: list[Line] = [[]]
    used = 0
    for token, value in zip(figure.tokens, figure.values, strict=True):
        text = cut(visible(token), width - 1)
        style = palette.quiet if value is None else palette.of_value(value, low, high)
        if not palette.coloured or value is None:
            text += MISSING if value is None else LEVELS[_level(value, low, high)]
        if used + cell_width(text) > width:
            lines.append([])
            used = 0
        lines[-1].append((text, style))
        used += cell_width(text)
        if NEWLINE in text:
            lines.append([])
            used = 0
    return [*(line for line in lines if line), ramp_line(figure.value, low, high, palette)]


def _level(value: float, low: float, high: float) -> int:
    share = 0.0 if high <= low else (value - low) / (high - low)
    return min(max(int(share * len(LEVELS)), 0), len(LEVELS) - 1)
