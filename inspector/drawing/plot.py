"""One plot in a terminal, drawn by plotext: its axes, their ticks, and what stands between them.

plotext is told places from 0 to 1, as `Scale.place` gives them, so that a logarithm and an undefined number are decided
once, for terminals and files alike. It is told the numbers of styles as colours, and they are looked up again in what
it drew: a theme, 16 colours and no colour are the same to it. It sees no character that a terminal would obey, and of
those that are not one cell wide only a stand-in. Its legend is not used: that is a box over the plot.

plotext is imported by the first plot, and every plot is a figure object of its own: threads share nothing. The live
plot of the Stream and its enlargement have a `Canvas` instead: they are drawn between two key presses by the thread
that paints. Six lines of 150 tokens on 150 by 40 cells take it 24 ms, plotext 101 ms and, once, 190 ms of import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from inspector.drawing.lines import joined
from inspector.drawing.palette import CellStyle, FigurePalette, Line, Run
from inspector.drawing.safe_text import cell_width, clusters, visible
from inspector.drawing.scales import Scale, Ticks
from inspector.errors import UsageError

Point = tuple[float, float | None]
"""What is measured along x and y; one that is not defined has no place."""
SMALLEST = 10
"""Columns of the inside, however long what stands beside it is; the plot is then wider than asked for."""
STAND_IN, SECOND_CELL = 0xE000, "\uf8ff"
"""Private-use characters, which `visible` lets through nowhere else."""
OWN_COLOUR = "38;2;0;"
"""How plotext begins the colour of a style's number; it has colours of its own where nothing is drawn."""
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of the dot in line y, column x of a cell (Unicode 'Braille Patterns', U+2800)."""
_ESCAPE = re.compile(r"\x1b\[([\d;]*)m")


@cache
def _plotext() -> Any:
    try:
        import plotext
    except ImportError as error:  # its compiled part may be missing or unloadable
        raise UsageError(
            f"Figures in a terminal are drawn by plotext, which cannot be imported: {str(error).splitlines()[0]} "
            "Install it again with `pip install --force-reinstall plotext`."
        ) from error

    plotext.terminal.limit(False, False)  # a figure may be larger than the terminal this process was started in
    return plotext


def _placed(scale: Scale, ticks: Ticks) -> list[tuple[float, str]]:
    return [(place, visible(text)) for at, text in ticks if (place := scale.place(at)) is not None]


class Plot:
    """An empty plot to draw in; what is drawn later covers what is below, dots of braille add up."""

    def __init__(
        self,
        width: int,
        lines: int,
        palette: FigurePalette,
        x: Scale,
        y: Scale,
        *,
        x_ticks: Ticks = (),
        y_ticks: Ticks = (),
        x_label: str = "",
        above: Ticks = (),
        beside: Ticks = (),
        names: bool = False,
    ) -> None:
        """Axes without content.

        Args:
            width: columns in all.
            lines: of the inside.
            palette: plain text, quiet axes.
            x: what runs to the right.
            y: what runs up.
            x_ticks: of the axis below; those without room are left out.
            y_ticks: of the axis at the left.
            x_label: '' takes no line.
            above: texts at the upper edge, each from its place on.
            beside: texts at the right edge.
            names: ticks at the left are names, which begin at the margin, and not numbers.
        """
        library = _plotext()
        self._styles: list[CellStyle] = []
        self._pixels: dict[CellStyle, Any] = {}
        self._stand_ins: dict[str, str] = {}
        self._plain = palette.plain
        self.x, self.y, self.lines = x, y, lines
        rulers = {
            ("x", "lower"): _placed(x, x_ticks),
            ("x", "upper"): _placed(x, above),
            ("y", "left"): [(place, f"{text} ") for place, text in _placed(y, y_ticks)],
            ("y", "right"): [(place, f" {text}") for place, text in _placed(y, beside)],
        }
        sizes = [max((cell_width(text) for _, text in rulers["y", side]), default=0) for side in ("left", "right")]
        self.left = sizes[0] + 1
        """First column of the inside."""
        self.columns = max(width - self.left - sizes[1], SMALLEST)
        """Of the inside."""
        self._figure = type(library.figure)(library.terminal)
        n_rows = sum(bool(rulers["x", side]) for side in ("lower", "upper"))
        self._figure.plot_size(self.left + self.columns + sizes[1], lines + 1 + n_rows + bool(x_label)).canvas(
            "default"
        )
        self._figure.axes(True, pixel=self._pixel(palette.quiet))
        for (axis, side), ticks in rulers.items():
            if side in ("upper", "right"):
                self._figure.axes(False, axis=axis, side=side)
            ruler = self._figure.ruler(axis, side).lim(0.0, 1.0)
            ruler.ticks([place for place, _ in ticks], labels=[self._hidden(text) for _, text in ticks])
            ruler.pixel(self._pixel(palette.plain if side == "right" else palette.quiet))
            ruler.alignment(lim="edge", tick="left" if side == "upper" or (side == "left" and names) else None)
        if x_label:
            self._figure.label(library.colorize(self._hidden(x_label)).fill(self._pixel(palette.plain)), "x")

    def _pixel(self, style: CellStyle) -> Any:
        """The style's number as a colour."""
        if style not in self._pixels:
            self._pixels[style] = _plotext().pixel((0, *divmod(len(self._styles), 256)))
            self._styles.append(style)
        return self._pixels[style]

    def _hidden(self, text: str) -> str:
        """The text with one character for every cell it takes; plotext drops one that is all spaces."""
        shown = ""
        for cluster, size in clusters(visible(text)):
            if size == len(cluster) == 1 and not text.isspace():
                shown += cluster
            else:
                stand_in = self._stand_ins.setdefault(cluster, chr(STAND_IN + len(self._stand_ins)))
                shown += stand_in + SECOND_CELL * (size - 1)
        return shown

    def place(self, point: Point) -> tuple[float, float] | None:
        """Shares of the way to the right and up; None if the point has no place."""
        across, up = self.x.place(point[0]), None if point[1] is None else self.y.place(point[1])
        return None if across is None or up is None else (across, up)

    def cell(self, point: Point) -> tuple[int, int] | None:
        """Column and line of the inside; None if the point has no place there."""
        place = self.place(point)
        if place is None or not (0.0 <= place[0] <= 1.0 and 0.0 <= place[1] <= 1.0):
            return None
        column, line = int(place[0] * self.columns), int((1 - place[1]) * self.lines)
        return min(column, self.columns - 1), min(line, self.lines - 1)

    def _middle(self, cell: tuple[int, int]) -> tuple[float, float]:
        """The place in the middle of a cell."""
        return (cell[0] + 0.5) / self.columns, 1 - (cell[1] + 0.5) / self.lines

    def path(self, points: Iterable[Point], style: CellStyle) -> None:
        """Lines of braille dots from point to point, with a gap where one has no place."""
        places = [self.place(point) for point in points]
        known = [index for index, place in enumerate(places) if place is not None]
        signal = self._signal([place for place in places if place is not None], "braille", style).lines(True)
        for number, index in enumerate(known):
            if index and places[index - 1] is None:
                signal.line(number, False)
        self._figure.draw(signal)

    def strokes(self, ends: Iterable[tuple[Point, Point]], style: CellStyle) -> None:
        """Lines of braille dots up from one end to the other."""
        placed = [(self.place(low), self.place(high)) for low, high in ends]
        known = [(low, high) for low, high in placed if low is not None and high is not None]
        lower, upper = (self._signal([end[i] for end in known], "braille", style) for i in (0, 1))
        self._figure.draw(upper.fill(lower))

    def marks(self, points: Iterable[Point], mark: str, style: CellStyle) -> None:
        """A character at every point that has a place."""
        cells = [cell for point in points if (cell := self.cell(point))]
        self._figure.draw(self._signal([self._middle(cell) for cell in cells], mark, style))

    def dots(self, points: Iterable[Point], style: CellStyle) -> None:
        """A dot of braille at every point; of thousands, those that fall on one are told once."""
        fine = 2 * self.columns, 4 * self.lines
        places = [at for point in points if (at := self.place(point))]
        kept = {(int(across * fine[0]), int(up * fine[1])): (across, up) for across, up in places}
        self._figure.draw(self._signal(list(kept.values()), "braille", style))

    def text(self, cell: tuple[int, int], text: str, style: CellStyle) -> None:
        """Text from a cell of the inside on, where there is room for all of it."""
        label = _plotext().colorize(self._hidden(text)).fill(self._pixel(style))
        self._figure.draw(self._figure.text(*self._middle(cell), label))

    def _signal(self, places: Sequence[tuple[float, float]], mark: str, style: CellStyle) -> Any:
        marker = _plotext().marker(mark, self._pixel(style))
        return self._figure.signal([across for across, _ in places], [up for _, up in places], marker=marker)

    def cells(self) -> list[list[Run]]:
        """What was drawn: for every line its cells; the second cell of a wide character is empty text."""
        shown = {stand_in: text for text, stand_in in self._stand_ins.items()} | {SECOND_CELL: ""}
        rows = []
        for line in self._figure.build().string().splitlines():
            row: list[Run] = []
            style = self._plain
            for index, piece in enumerate(_ESCAPE.split(line)):
                if index % 2 == 0:
                    row += [(shown.get(character, character), style) for character in piece]
                elif piece == "0":
                    style = self._plain
                elif piece.startswith(OWN_COLOUR):
                    high, low = piece.removeprefix(OWN_COLOUR).split(";")
                    style = self._styles[256 * int(high) + int(low)]
            rows.append(row)
        return rows

    def drawn(self) -> list[Line]:
        """The plot as lines."""
        return [joined(row, self._plain) for row in self.cells()]


class Canvas:
    """Dots on a grid; x to the right, y down, both from 0. What falls outside is not drawn.

    A cell that two series cross keeps the dots of both and the number of the one drawn last.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.width, self.height = 2 * columns, 4 * lines
        """In dots."""
        self._cells: dict[tuple[int, int], tuple[int, int]] = {}
        """(line, column): (bits of the dots, series)."""

    def dot(self, x: int, y: int, series: int) -> None:
        """Set one dot."""
        if 0 <= x < self.width and 0 <= y < self.height:
            cell = (y // 4, x // 2)
            bits, _ = self._cells.get(cell, (0, series))
            self._cells[cell] = (bits | DOTS[y % 4][x % 2], series)

    def path(self, points: Sequence[tuple[int, int] | None], series: int) -> None:
        """Connect the points by straight lines; None is a gap.

        Args:
            points: Dots to pass through, x ascending.
            series: Number reported for the cells touched.
        """
        before: tuple[int, int] | None = None
        for point in points:
            if point is not None:
                x1, y1 = point
                x0, y0 = before if before is not None else (x1 - 1, y1)
                # The larger step decides, so that there are no gaps; the first dot was drawn by the line before.
                steps = max(abs(x1 - x0), abs(y1 - y0))
                for i in range(1, steps + 1):
                    x = x0 + (2 * (x1 - x0) * i + steps) // (2 * steps)
                    self.dot(x, y0 + (2 * (y1 - y0) * i + steps) // (2 * steps), series)
            before = point

    def marks(self, points: Sequence[tuple[int, int] | None], series: int, width: int) -> None:
        """Set each point alone, as a dash of `width` dots."""
        for point in points:
            if point is not None:
                for x in range(point[0], point[0] + width):
                    self.dot(x, point[1], series)

    def cells(self, line: int) -> list[tuple[str, int | None]]:
        """Characters of one line with the series each belongs to; an empty cell is a space without one."""
        found = [self._cells.get((line, column)) for column in range(self.columns)]
        return [(" ", None) if cell is None else (chr(0x2800 + cell[0]), cell[1]) for cell in found]
