"""Heat maps, grids of dots and strips of tokens as terminal cells: the value by colour and as a number or a mark."""

from __future__ import annotations

import math
from collections.abc import Iterable

from inspector.drawing.figures import Axis, Dot, DotGrid, Heatmap, TokenStrip
from inspector.drawing.frame import Frame, framed
from inspector.drawing.lines import cut, padded
from inspector.drawing.palette import LEVEL_MARKS, MISSING, CellStyle, FigurePalette, Line
from inspector.drawing.safe_text import NEWLINE, cell_width, visible
from inspector.drawing.scales import axis_text, number_text, scale_of
from inspector.drawing.terminal_curves import y_label

NARROWEST = 5
"""Columns of a heat map's cell that can hold a number: `.812` and a space."""


def heatmap_lines(figure: Heatmap, width: int, palette: FigurePalette) -> list[Line]:
    """Every value in a cell of its colour; where cells are too narrow for numbers, as the height of a block."""
    low, high = _ends(value for i, row in enumerate(figure.values) for value in row[i if figure.triangle else 0 :])
    names = [visible(tick) for tick in figure.y_ticks]
    left = max(min(max(map(cell_width, names), default=0), width // 3), 4)
    n = max(len(figure.x_ticks), 1)
    size = min(max((width - left - 1) // n, 1), 9)
    ticks = [visible(tick) for tick in figure.x_ticks]
    head = "".join(padded(tick, size - 1, right=True) + " " for tick in ticks) if size > 2 else ""
    lines: list[Line] = [[(f"{' ' * (left + 1)}{visible(axis_text(figure.x))} →", palette.quiet)]]
    if head:
        lines.append([(" " * (left + 1), palette.plain), (head.rstrip(), palette.plain)])
    for i, (name, row) in enumerate(zip(names, figure.values, strict=True)):
        line: Line = [(padded(name, left, right=True) + " ", palette.plain)]
        for j, value in enumerate(row):
            line.append(_cell(value, size, low, high, palette, blank=figure.triangle and j < i))
        lines.append(line)
    lines.append([(f"{padded('↑', left, right=True)} {visible(axis_text(figure.y))}", palette.quiet)])
    if any(value is None for i, row in enumerate(figure.values) for value in row[i if figure.triangle else 0 :]):
        lines.append([(f"{' ' * (left + 1)}{MISSING} undefined", palette.quiet)])
    return [*lines, ramp_line(figure.value, low, high, palette)]


def _cell(
    value: float | None, size: int, low: float, high: float, palette: FigurePalette, *, blank: bool
) -> tuple[str, CellStyle]:
    if blank:
        return " " * size, palette.plain
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
    x = scale_of((dot.x for dot in figure.dots), figure.x, margin=0.08)
    y = scale_of((dot.y for dot in figure.dots), figure.y, margin=0.08)
    low, high = _ends(dot.value for dot in figure.dots)
    own = [dot.x for dot in figure.dots], [dot.y for dot in figure.dots]
    frame = framed(figure.x, figure.y, x, y, width, height - 3, palette, x_own=own[0], y_own=own[1])
    places = [(dot, cell) for dot in figure.dots if (cell := frame.cell(dot.x, dot.y)) is not None]
    for dot, cell in places:
        known = dot.value is not None
        frame.cells.put(*cell, "●" if known else MISSING, _on_ground(dot, low, high, palette))
    unsaid = sum(not _say(frame, dot, cell, low, high, palette) for dot, cell in places)
    lines = [y_label(figure.y, palette), *frame.cells.lines(), ramp_line(figure.value, low, high, palette)]
    if any(dot.value is None for dot in figure.dots):
        lines.append([(f"{MISSING} undefined", palette.quiet)])
    if unsaid:
        lines.append([(f"no room for {unsaid} of {len(figure.dots)} numbers", palette.quiet)])
    return lines


def _say(frame: Frame, dot: Dot, cell: tuple[int, int], low: float, high: float, palette: FigurePalette) -> bool:
    """Write the value beside its dot, on the first side with free cells; whether there was one."""
    if dot.value is None:
        return True
    text = number_text(dot.value)
    size = cell_width(text)
    sides = ((cell[0] + 1, cell[1]), (cell[0] - size, cell[1]), (cell[0] - size // 2, cell[1] - 1),
             (cell[0] - size // 2, cell[1] + 1))  # fmt: skip
    for x, y in sides:
        inside = frame.left <= x and x + size <= frame.left + frame.columns and 0 <= y < frame.lines
        around = range(max(x - 1, frame.left), min(x + size + 1, frame.cells.width))  # two numbers never read as one
        if inside and all(frame.cells.at(at, y) == " " or (at, y) == cell for at in around):
            frame.cells.put(x, y, text, palette.of_value(dot.value, low, high))
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
