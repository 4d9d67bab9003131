"""Heat maps and grids of dots in a terminal: the value by colour and as a number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from inspector.drawing.figures import Axis, Dot, DotGrid, Heatmap
from inspector.drawing.lines import cut, joined, padded
from inspector.drawing.palette import LEVEL_MARKS, MISSING, CellStyle, FigurePalette, Line, Run, level_of
from inspector.drawing.plot import Plot
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import Scale, axis_text, number_text, scale_of
from inspector.drawing.terminal_curves import framed, y_label

NARROWEST = 5
"""Columns of a heat map's cell that can hold a number: `.812` and a space."""


def heatmap_lines(figure: Heatmap, width: int, palette: FigurePalette) -> list[Line]:
    """Every value in a cell of its colour; where cells are too narrow for numbers, as the height of a block."""
    meant = [(i, j, value) for i, row in enumerate(figure.values) for j, value in enumerate(row)
             if not (figure.triangle and j < i)]  # fmt: skip
    low, high = ends(value for _, _, value in meant)
    names = [cut(visible(tick), max(width // 3, 4), keep_end=True) for tick in figure.y_ticks]
    left = max(map(cell_width, names), default=0) + 2
    rows, n = len(names), max(len(figure.x_ticks), 1)
    size = min(max((width - left) // n, 1), 9)
    plot = Plot(
        left + n * size,
        rows,
        palette,
        Scale(low=0.0, high=float(n)),
        Scale(low=float(rows or 1), high=0.0),
        x_ticks=[(j + 0.5, cut(visible(tick), max(size - 1, 4))) for j, tick in enumerate(figure.x_ticks)],
        y_ticks=[(i + 0.5, name) for i, name in enumerate(names)],
    )
    for i, j, value in meant:
        plot.text((j * size, i), *_cell(value, size, low, high, palette))
    label: Line = [(" " * left + visible(axis_text(figure.x)), palette.plain)]
    undefined: list[Line] = (
        [[(f"{MISSING} undefined", palette.quiet)]] if any(each[2] is None for each in meant) else []
    )
    return [y_label(figure.y, palette), *plot.drawn(), label, *undefined, ramp_line(figure.value, low, high, palette)]


def _cell(value: float | None, size: int, low: float, high: float, palette: FigurePalette) -> tuple[str, CellStyle]:
    if value is None or not math.isfinite(value):
        return padded(MISSING, max(size - 1, 1), right=True) + " " * (size > 1), palette.quiet
    style = palette.of_value(value, low, high)
    if size < NARROWEST:
        return LEVEL_MARKS[level_of(value, low, high, len(LEVEL_MARKS))] * size, style
    text = number_text(value)
    if cell_width(text) > size - 1:  # 0.812 as .812, and then fewer digits: never a number cut in two
        texts = [number_text(value, digits).replace("0.", ".", 1) for digits in (3, 2, 1)]
        text = next((each for each in texts if cell_width(each) <= size - 1), "#")
    return padded(text, size - 1, right=True) + " ", style


def grid_lines(figure: DotGrid, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """A dot per place with its value beside it, where there is room; what found none is counted below."""
    x = scale_of((dot.x for dot in figure.dots), figure.x, margin=0.08, named=True)
    y = scale_of((dot.y for dot in figure.dots), figure.y, margin=0.08, named=True)
    low, high = ends(dot.value for dot in figure.dots)
    plot = framed(x, y, width, height - 3, palette)
    for dot in figure.dots:
        sign = "●" if dot.value is not None else MISSING
        plot.marks([(dot.x, dot.y)], sign, _on_ground(dot, low, high, palette))
    cells = plot.cells()
    unsaid = 0
    for dot in figure.dots:
        cell = plot.cell((dot.x, dot.y))
        if cell is not None and dot.value is not None:
            style = palette.of_value(dot.value, low, high)
            unsaid += not _say(
                cells[: plot.lines], (plot.left + cell[0], cell[1]), number_text(dot.value), style, plot.left
            )
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


def ends(values: Iterable[float | None]) -> tuple[float, float]:
    """The smallest and the largest defined number."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)
