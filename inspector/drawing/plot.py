"""One plot in a terminal, drawn by plotext: its axes, their ticks, and what stands between them.

Places run from 0 to 1 along both axes, as `Scale.place` gives them, so that a logarithm and an undefined number are
decided once, for terminals and files alike. plotext is told the numbers of styles as colours, and they are looked up
again in what it drew: a theme, 16 colours and no colour are the same to it. It sees no character that a terminal would
obey, and of those that are not one cell wide only a stand-in.

plotext is imported by the first plot, and every plot is a figure object of its own: threads share nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from inspector.drawing.lines import joined
from inspector.drawing.palette import CellStyle, FigurePalette, Line, Run
from inspector.drawing.safe_text import cell_width, clusters, visible

Place = tuple[float, float]
"""Shares of the way to the right and up; what lies outside 0 to 1 is not drawn."""
Ticks = Sequence[tuple[float, str]]
"""Where along an axis, and what is said there."""
BELOW = 3
"""Lines of the axis, its ticks and its label."""
STAND_IN, SECOND_CELL = 0xE000, "\uf8ff"
"""Private-use characters, which `visible` lets through nowhere else."""
OWN_COLOUR = "38;2;0;"
"""How plotext begins the colour of a style's number; it has colours of its own where nothing is drawn."""
_ESCAPE = re.compile(r"\x1b\[([\d;]*)m")


@cache
def _plotext() -> Any:
    import plotext

    plotext.terminal.limit(False, False)  # a figure may be larger than the terminal this process was started in
    return plotext


class Plot:
    """An empty plot to draw in; what is drawn later covers what is below, dots of braille add up."""

    def __init__(
        self,
        width: int,
        lines: int,
        palette: FigurePalette,
        *,
        x: Ticks = (),
        y: Ticks = (),
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
            x: ticks of the axis below; those without room are left out.
            y: ticks of the axis at the left.
            x_label: what runs to the right; '' takes no line.
            above: texts at the upper edge, each from its place on.
            beside: texts at the right edge.
            names: ticks at the left are names, which begin at the margin, and not numbers.
        """
        library = _plotext()
        self._styles: list[CellStyle] = []
        self._pixels: dict[CellStyle, Any] = {}
        self._stand_ins: dict[str, str] = {}
        self._plain = palette.plain
        left, right = ([(place, visible(text)) for place, text in ticks] for ticks in (y, beside))
        left, right = [(at, f"{text} ") for at, text in left], [(at, f" {text}") for at, text in right]
        sizes = [max((cell_width(text) for _, text in ticks), default=0) for ticks in (left, right)]
        self.left = sizes[0] + 1
        """First column of the inside."""
        self.columns = width - self.left - sizes[1]
        """Of the inside."""
        self.lines = lines
        self._figure = type(library.figure)(library.terminal)
        self._figure.plot_size(width, lines + 2 + bool(x_label) + bool(above)).canvas("default")
        self._figure.axes(True, pixel=self._pixel(palette.quiet))
        for axis, side in (("x", "upper"), ("y", "right")):
            self._figure.axes(False, axis=axis, side=side)
        for axis, side, ticks in (("x", "lower", x), ("y", "left", left), ("x", "upper", above), ("y", "right", right)):
            self._rule(axis, side, ticks, palette)
        self._figure.ruler("x", "upper").alignment(tick="left")
        if names:
            self._figure.ruler("y", "left").alignment(tick="left")
        if x_label:
            label = library.colorize(self._hidden(x_label)).fill(self._pixel(palette.plain))
            self._figure.label(label, "x")

    def _rule(self, axis: str, side: str, ticks: Ticks, palette: FigurePalette) -> None:
        ruler = self._figure.ruler(axis, side).lim(0.0, 1.0).alignment(lim="edge")
        ruler.pixel(self._pixel(palette.plain if side == "right" else palette.quiet))
        ruler.ticks([place for place, _ in ticks], labels=[self._hidden(text) for _, text in ticks])

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

    def cell(self, point: Place) -> tuple[int, int]:
        """Column and line of a point in what is drawn."""
        column, line = int(point[0] * self.columns), int((1 - point[1]) * self.lines)
        return self.left + min(max(column, 0), self.columns - 1), min(max(line, 0), self.lines - 1)

    def middle(self, cell: tuple[int, int]) -> Place:
        """The point in the middle of a cell."""
        return (cell[0] - self.left + 0.5) / self.columns, 1 - (cell[1] + 0.5) / self.lines

    def path(self, points: Sequence[Place | None], style: CellStyle) -> None:
        """Lines of braille dots from point to point; None is a gap."""
        gaps = {index + 1 for index, point in enumerate(points) if point is None}
        known = [(index, point) for index, point in enumerate(points) if point is not None]
        signal = self._signal([point for _, point in known], "braille", style).lines(True)
        for number, (index, _) in enumerate(known):
            if index in gaps:
                signal.line(number, False)
        self._figure.draw(signal)

    def strokes(self, ends: Sequence[tuple[Place, Place]], style: CellStyle) -> None:
        """Lines of braille dots, each between two ends."""
        low, high = (self._signal([end[i] for end in ends], "braille", style) for i in (0, 1))
        self._figure.draw(high.fill(low))

    def marks(self, points: Sequence[Place], mark: str, style: CellStyle) -> None:
        """A character at every point."""
        self._figure.draw(self._signal(points, mark, style))

    def dots(self, points: Sequence[Place], style: CellStyle) -> None:
        """A dot of braille at every point; of thousands, those that fall on one are told once."""
        fine = (2 * self.columns, 4 * self.lines)
        kept = {(int(x * fine[0]), int(y * fine[1])): (x, y) for x, y in points}
        self._figure.draw(self._signal(list(kept.values()), "braille", style))

    def text(self, point: Place, text: str, style: CellStyle) -> None:
        """Text from the cell of a point on, where there is room for all of it."""
        label = _plotext().colorize(self._hidden(text)).fill(self._pixel(style))
        self._figure.draw(self._figure.text(*point, label))

    def _signal(self, points: Sequence[Place], mark: str, style: CellStyle) -> Any:
        marker = _plotext().marker(mark, self._pixel(style))
        return self._figure.signal([x for x, _ in points], [y for _, y in points], marker=marker)

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
