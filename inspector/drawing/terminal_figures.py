"""Any figure as lines of styled text, for `results show`, `run` and the Results screen; without torch or numpy.

    for line in render_figure(figure, width=100, height=20, palette=theme.palette(depth)): ...

Every line is at most `width` columns wide. Nothing in a title, name or token can act on the terminal, and what an
undefined number looks like is said in the figure. A table is also plain text, as wide as it is, for a pipe or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from inspector.drawing.figures import (
    Bands,
    Bars,
    Curve,
    DotGrid,
    Figure,
    GroupedBars,
    Heatmap,
    Table,
    TokenStrip,
    TokenTrace,
    Violin,
)
from inspector.drawing.lines import ELLIPSIS, clipped, cut, padded, prose, shared_start
from inspector.drawing.palette import LEVEL_MARKS, MISSING, FigurePalette, Line, TokenPalette, figure_palette, level_of
from inspector.drawing.safe_text import NEWLINE, cell_width, visible, visible_block
from inspector.drawing.scales import format_cell
from inspector.drawing.terminal_plots import band_lines, curve_lines, ends, grid_lines, ramp_line, trace_lines
from inspector.drawing.terminal_rows import bars_lines, grouped_lines, heatmap_lines, violin_lines

NARROWEST = 40
"""Columns below which nothing is laid out any more; the lines are then wider than asked for."""
Look = Literal["strong", "quiet", "plain"]
"""Name of a style of `FigurePalette`."""
GAP = "  "
INTERVAL = ("95% low", "low", "high")
"""Titles of the columns that belong to the one before them."""


def render_figure(figure: Figure, width: int, height: int, palette: TokenPalette, *, notes: bool = True) -> list[Line]:
    """The figure with its title and note.

    Args:
        figure: what to draw.
        width: columns.
        height: lines that a plot shall take, title included, note not. Tables, bars and texts take what they need.
        palette: of the theme at this terminal's colour depth.
        notes: draw the note below.
    """
    styles = figure_palette(palette)
    width = max(width, NARROWEST)
    lines: list[Line] = []
    if figure.title:
        lines.append([(cut(visible(figure.title), width), styles.strong)])
    lines += [clipped(line, width) for line in _body(figure, width, max(height - len(lines), 10), styles)]
    if notes and figure.note:
        lines += [[], *prose(figure.note, width, styles.quiet)]
    return lines


def _body(figure: Figure, width: int, height: int, palette: FigurePalette) -> list[Line]:
    match figure:
        case Table():
            return [[(text, getattr(palette, look))] if text else [] for text, look in _table(figure, width)]
        case Curve():
            return curve_lines(figure, width, height, palette)
        case Bands():
            return band_lines(figure, width, height, palette)
        case TokenTrace():
            return trace_lines(figure, width, height, palette)
        case Bars():
            return bars_lines(figure, width, palette)
        case GroupedBars():
            return grouped_lines(figure, width, palette)
        case Violin():
            return violin_lines(figure, width, palette)
        case Heatmap():
            return heatmap_lines(figure, width, palette)
        case DotGrid():
            return grid_lines(figure, width, height, palette)
        case TokenStrip():
            return strip_lines(figure, width, palette)


def render_table(table: Table) -> str:
    """The table as plain text with title, header and note: as wide as it is, no line ends in spaces."""
    lines = [visible(table.title), ""] if table.title else []
    lines += [text for text, _ in _table(table, None)]
    if table.note:
        lines += ["", visible_block(table.note)]
    return "\n".join(lines) + "\n"


def narrowed(table: Table, width: int) -> str:
    """As `render_table`, without the last columns where a number in them would be cut, and so be another one."""
    text = render_table(table)
    last = [row[-1] for row in table.rows]
    if max(map(cell_width, text.splitlines())) <= width or not any(isinstance(cell, int | float) for cell in last):
        return text
    return narrowed(replace(table, columns=table.columns[:-1], rows=tuple(row[:-1] for row in table.rows)), width)


def _table(table: Table, width: int | None) -> list[tuple[str, Look]]:
    """Lines and how they look: text to the left, numbers to the right; if it is wider than the screen, in blocks of
    columns that each begin with the first one.
    """
    header = [visible(column.heading) for column in table.columns]
    rows = [
        [format_cell(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    numeric = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(header))]
    sizes = _sizes(header, rows)
    wide = sum(sizes) + len(GAP) * len(sizes)
    width = wide if width is None else width
    lines: list[tuple[str, Look]] = []
    shared = shared_start([row[0] for row in rows]) if rows and header else ""
    if shared and len(_blocks(_groups(table), sizes, width)) > 1:
        # Blocks repeat the first column: what all its names begin with is said once, above.
        rows = [[ELLIPSIS + row[0].removeprefix(shared), *row[1:]] for row in rows]
        sizes = _sizes(header, rows)
        lines.append((cut(f"{header[0]}: {shared}{ELLIPSIS}", width), "quiet"))
    if sizes and width < wide:
        sizes[0] = min(sizes[0], max(width // 2, 8))
    for number, block in enumerate(_blocks(_groups(table), sizes, width)):

        def line(texts: Sequence[str], block: Sequence[int] = block) -> str:
            shown = [padded(cut(texts[i], sizes[i], keep_end=i == 0), sizes[i], right=numeric[i]) for i in block]
            return cut(GAP.join(shown).rstrip(), width)

        lines += [("", "plain")] if number else []
        rule = cut(GAP.join("─" * min(sizes[i], width) for i in block), width)
        lines += [(line(header), "strong"), (rule, "quiet"), *((line(row), "plain") for row in rows)]
    return lines


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


def strip_lines(figure: TokenStrip, width: int, palette: FigurePalette) -> list[Line]:
    """The text with every token in the colour of its value; without colours a block after it says how large."""
    low, high = ends(figure.values)
    lines: list[Line] = [[]]
    used = 0
    for token, value in zip(figure.tokens, figure.values, strict=True):
        text = cut(visible(token), width - 1)
        style = palette.quiet if value is None else palette.of_value(value, low, high)
        if value is None:
            text += MISSING
        elif not palette.coloured:
            text += LEVEL_MARKS[level_of(value, low, high, len(LEVEL_MARKS))]
        if used + cell_width(text) > width:
            lines.append([])
            used = 0
        lines[-1].append((text, style))
        used += cell_width(text)
        if NEWLINE in text:
            lines.append([])
            used = 0
    return [*(line for line in lines if line), ramp_line(figure.value, low, high, palette)]
