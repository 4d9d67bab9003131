"""The frame of a plot in a terminal: axes with ticks, their labels, and a canvas of braille dots inside.

0.8 ┤
    │    ⢀⡠⠤⠒●
0.4 ┤●⠔⠊⠁
    └┬─────┬────
     1     10
            L0 (log)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspector.drawing.braille import Canvas
from inspector.drawing.figures import Axis
from inspector.drawing.lines import Cells, cut
from inspector.drawing.palette import FigurePalette
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import Scale, axis_text, own_ticks, tick_texts

SMALLEST = 5
"""Lines of a plot's inside, however little room there is."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A plot's cells and where its inside lies in them."""

    cells: Cells
    left: int
    """First column of the inside."""
    columns: int
    lines: int
    """Of the inside; it begins at the top."""
    x: Scale
    y: Scale
    palette: FigurePalette

    def canvas(self) -> Canvas:
        """An empty canvas as large as the inside."""
        return Canvas(self.columns, self.lines)

    def dot(self, x: float, y: float | None) -> tuple[int, int] | None:
        """The dot of a value on a canvas; what is off the scale stands outside it; None if it has no place."""
        across = self.x.place(x)
        up = None if y is None else self.y.place(y)
        if across is None or up is None:
            return None
        return round(across * (2 * self.columns - 1)), round((1 - up) * (4 * self.lines - 1))

    def cell(self, x: float, y: float | None) -> tuple[int, int] | None:
        """The cell of a value, in `cells`; None if it has no place."""
        dot = self.dot(x, y)
        if dot is None or not (0 <= dot[0] < 2 * self.columns and 0 <= dot[1] < 4 * self.lines):
            return None
        return self.left + dot[0] // 2, dot[1] // 4

    def paint(self, canvas: Canvas) -> None:
        """Copy the dots of a canvas into the cells."""
        for line in range(self.lines):
            for column, (text, series) in enumerate(canvas.cells(line)):
                if series is not None:
                    self.cells.put(self.left + column, line, text, self.palette.of_series(series))


def framed(
    x_axis: Axis,
    y_axis: Axis,
    x: Scale,
    y: Scale,
    width: int,
    height: int,
    palette: FigurePalette,
    *,
    x_own: Sequence[float] = (),
    y_own: Sequence[float] = (),
) -> Frame:
    """An empty plot: the inside, two lines for the ticks of x, one for its label.

    The label of y stands in the first line above, which the caller writes.

    Args:
        x_axis: what runs to the right.
        y_axis: what runs up; only its unit's ticks are drawn here.
        x: its scale.
        y: its scale.
        width: columns in all.
        height: lines in all.
        palette: styles.
        x_own: measured places; where they are few and there is room, the ticks are at these. Empty: at round numbers.
        y_own: the same for y.
    """
    lines = max(height - 3, SMALLEST)
    y_ticks, texts = _y_ticks(y, own_ticks(y_own, y_axis), lines)
    gutter = max(map(cell_width, texts), default=0) + 1
    left = gutter + 1
    columns = max(width - left - 1, 10)
    cells = Cells(max(width, left + columns), lines + 3, palette.plain)
    for line in range(lines):
        cells.put(gutter, line, "│", palette.quiet)
    for value, text in zip(y_ticks, texts, strict=True):
        place = y.place(value)
        if place is not None and -1e-9 <= place <= 1 + 1e-9:
            line = _line_of(y, value, lines)
            cells.put(gutter - 1 - cell_width(text), line, text, palette.quiet)
            cells.put(gutter, line, "┤", palette.quiet)
    cells.put(gutter, lines, "└" + "─" * columns, palette.quiet)
    round_ticks = x.ticks(max(2, columns // 9))
    ticks = list(zip(round_ticks, tick_texts(round_ticks), strict=True))
    own = own_ticks(x_own, x_axis)
    ticks = own if own and _fit(own, x, columns) else ticks
    _x_ticks(cells, x, ticks, left, columns, lines, palette)
    label = cut(visible(axis_text(x_axis)), columns)
    cells.put(left + max(columns - cell_width(label), 0) // 2, lines + 2, label, palette.plain)
    return Frame(cells=cells, left=left, columns=columns, lines=lines, x=x, y=y, palette=palette)


def _y_ticks(y: Scale, own: Sequence[tuple[float, str]], lines: int) -> tuple[list[float], list[str]]:
    """Values and texts: the measured places if no two of them share a line, else round numbers."""
    rows = [_line_of(y, value, lines) for value, _ in own]
    if own and len(set(rows)) == len(rows):
        return [value for value, _ in own], [text for _, text in own]
    ticks = y.ticks(max(2, min(lines // 2, 7)))
    return ticks, tick_texts(ticks)


def _line_of(y: Scale, value: float, lines: int) -> int:
    place = y.place(value)
    return -1 if place is None else min(max(round((1 - place) * (4 * lines - 1)) // 4, 0), lines - 1)


def _fit(ticks: Sequence[tuple[float, str]], x: Scale, columns: int) -> bool:
    """Whether all of them can be written with a space between."""
    free = -1
    for value, text in ticks:
        place = x.place(value)
        if place is None:
            return False
        start = _start(place, text, columns)
        if start < free:
            return False
        free = start + cell_width(text) + 1
    return True


def _start(place: float, text: str, columns: int) -> int:
    """Column, counted from the first of the inside, where a tick's text begins."""
    column = round(place * (2 * columns - 1)) // 2
    return min(max(column - cell_width(text) // 2, -1), columns - cell_width(text))


def _x_ticks(
    cells: Cells,
    x: Scale,
    ticks: Sequence[tuple[float, str]],
    left: int,
    columns: int,
    lines: int,
    palette: FigurePalette,
) -> None:
    free = 0
    for value, text in ticks:
        place = x.place(value)
        if place is None:
            continue
        start = left + _start(place, text, columns)
        cells.put(left + round(place * (2 * columns - 1)) // 2, lines, "┬", palette.quiet)
        if start >= free:
            cells.put(start, lines + 1, text, palette.quiet)
            free = start + cell_width(text) + 1
