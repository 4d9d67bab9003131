"""Heat maps, grids of dots and strips of tokens as terminal cells: the value by colour and as a number or a mark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from inspector.drawing.figures import Axis, Dot, DotGrid, Heatmap, TokenStrip
from inspector.drawing.lines import cut, cut_start, joined, padded
from inspector.drawing.palette import LEVEL_MARKS, MISSING, CellStyle, FigurePalette, Line, Run
from inspector.drawing.plot import Plot
from inspector.drawing.safe_text import NEWLINE, cell_width, visible
from inspector.drawing.scales import axis_text, number_text, scale_of
from inspector.drawing.terminal_curves import framed, place, y_label

NARROWEST = 5
"""Columns of a heat map's cell that can hold a number: `.812` and a space."""


def heatmap_lines(figure: Heatmap, width: int, palette: FigurePalette) -> list[Line]:
    """Every value in a cell of its colour; where cells are too narrow for numbers, as the height of a block."""
    meant = [[value for j, value in enumerate(row) if not (figure.triangle and j < i)]
             for i, row in enumerate(figure.values)]  # fmt: skip
    low, high = _ends(value for row in meant for value in row)
    longest = max(width // 3, 4)
    names = [cut_start(visible(tick), longest) for tick in figure.y_ticks]
    left = max(map(cell_width, names), default=0) + 2
    rows, n = len(names), max(len(figure.x_ticks), 1)
    size = min(max((width - left) // n, 1), 9)
    heights = [1 - (i + 0.5) / max(rows, 1) for i in range(rows)]
    plot = Plot(
        left + n * size,
        rows,
        palette,
        x=[((j + 0.5) / n, cut(visible(tick), max(size - 1, 4))) for j, tick in enumerate(figure.x_ticks)],
        y=list(zip(heights, names, strict=True)),
    )
    for i, (height, row) in enumerate(zip(heights, figure.values, strict=True)):
        for j, value in enumerate(row):
            if not (figure.triangle and j < i):
                plot.text(((j + 0.5 / size) / n, height), *_cell(value, size, low, high, palette))
    lines = [
        y_label(figure.y, palette),
        *plot.drawn(),
        [(f"{' ' * left}{visible(axis_text(figure.x))}", palette.plain)],
    ]
    if any(value is None for row in meant for value in row):
        lines.append([(f"{MISSING} undefined", palette.quiet)])
    return [*lines, ramp_line(figure.value, low, high, palette)]


def _cell(value: float | None, size: int, low: float, high: float, palette: FigurePalette) -> tuple[str, CellStyle]:
    if value is None or not math.isfinite(value):
        return padded(MISSING, max(size - 1, 1), right=True) + " " * (size > 1), palette.quiet
    style = palette.of_value(value, low, high)
    if size < NARROWEST:
        share = 0.0 if high <= low else (value - low) / (high - low)
        return LEVEL_MARKS[min(max(int(share * len(LEVEL_MARKS)), 0), len(LEVEL_MARKS) - 1)] * size, style
    text = number_text(value)
    if cell_width(text) > size - 1:  # 0.812 as .812, and then fewer digits: never a number cut in two
        texts = [number_text(value, digits).replace("0.", ".", 1) for digits in (3, 2, 1)]
        text = next((each for each in texts if cell_width(each) <= size - 1), "#")
    return padded(text, size - 1, right=True) + " ", style


def grid_lines(figure: DotGrid, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """A dot per place with its value beside it, where there is room; what found none is counted below."""
    across, up = [dot.x for dot in figure.dots], [dot.y for dot in figure.dots]
    x, y = scale_of(across, figure.x, margin=0.08), scale_of(up, figure.y, margin=0.08)
    low, high = _ends(dot.value for dot in figure.dots)
    plot = framed(figure.x, figure.y, x, y, width, height - 3, palette, x_own=across, y_own=up)
    places = [(dot, plot.cell(point)) for dot in figure.dots if (point := place(x, y, dot.x, dot.y)) is not None]
    for dot, cell in places:
        sign = "●" if dot.value is not None else MISSING
        plot.marks([plot.middle(cell)], sign, _on_ground(dot, low, high, palette))
    cells = plot.cells()
    unsaid = 0
    for dot, cell in places:
        if dot.value is not None:
            style = palette.of_value(dot.value, low, high)
            unsaid += not _say(cells[: plot.lines], cell, number_text(dot.value), style, plot.left)
    drawn = [joined(row, palette.plain) for row in cells]
    lines = [y_label(figure.y, palette), *drawn, ramp_line(figure.value, low, high, palette)]
    if any(dot.value is None for dot in figure.dots):
        lines.append([(f"{MISSING} undefined", palette.quiet)])
    if unsaid:
        lines.append([(f"no room for {unsaid} of {len(figure.dots)} numbers", palette.quiet)])
    return lines


def _say(cells: Sequence[list[Run]], cell: tuple[int, int], text: str, style: CellStyle, left: int) -> bool:
    """Write a number beside its dot, on the first side with free cells; whether there was one."""
    column, line = cell
    size = cell_width(text)
    for x, y in (
        (column + 1, line),
        (column - size, line),
        (column - size // 2, line - 1),
        (column - size // 2, line + 1),
    ):
        if left <= x and 0 <= y < len(cells) and x + size <= len(cells[y]):
            around = range(max(x - 1, left), min(x + size + 1, len(cells[y])))  # two numbers never read as one
            if all(cells[y][at][0] == " " or (at, y) == cell for at in around):
                cells[y][x : x + size] = [(character, style) for character in text]
                return True
    return False


def _on_ground(dot: Dot, low: float, high: float, palette: FigurePalette) -> CellStyle:
    """The value's colour as a foreground, never so dark that the dot is lost."""
    if dot.value is None or not palette.coloured:
        return palette.plain
    cell = palette.of_value(dot.value, low, high)
    ground = palette.plain.background
    if cell.background == ground:
        return CellStyle(foreground=cell.foreground, background=ground)
    return palette.plain


def ramp_line(value: Axis, low: float, high: float, palette: FigurePalette) -> Line:
    """What the colours mean: the label, the smallest value, the ramp, the largest."""
    line: Line = [(f"{visible(axis_text(value))}  {number_text(low)} ", palette.plain)]
    if palette.coloured:
        # A level without a ground of its own but with a colour of its own, where colours are few: a square shows it.
        plain = palette.plain
        line += [
            ("■■" if style.background == plain.background and style.foreground != plain.foreground else "  ", style)
            for style in palette.ramp
        ]
    else:
        line.append((LEVEL_MARKS, palette.plain))
    return [*line, (f" {number_text(high)}", palette.plain)]


def _ends(values: Iterable[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


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
            text += MISSING if value is None else LEVEL_MARKS[_level(value, low, high)]
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
    return min(max(int(share * len(LEVEL_MARKS)), 0), len(LEVEL_MARKS) - 1)
