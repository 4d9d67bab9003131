"""A small canvas of braille dots: two by four in every character cell, one colour per cell.

For the live plot of the Stream, which is drawn between two key presses in the process that paints: plotext's import
alone would stall it, and its figures take several times as long. A cell that two series cross keeps the dots of both
and the number of the one drawn last, so draw what matters most last.
"""

from __future__ import annotations

from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of the dot in line y, column x of a cell (Unicode 'Braille Patterns', U+2800)."""


class Canvas:
    """Dots on a grid; x to the right, y down, both from 0. What falls outside is not drawn."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self.lines = lines
        self._bits = [[0] * columns for _ in range(lines)]
        self._series: list[list[int | None]] = [[None] * columns for _ in range(lines)]

    @property
    def width(self) -> int:
        """Dots across."""
        return 2 * self.columns

    @property
    def height(self) -> int:
        """Dots down."""
        return 4 * self.lines

    def dot(self, x: int, y: int, series: int) -> None:
        """Set one dot."""
        if 0 <= x < self.width and 0 <= y < self.height:
            self._bits[y // 4][x // 2] |= DOTS[y % 4][x % 2]
            self._series[y // 4][x // 2] = series

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
        return [
            (chr(0x2800 + bits), series) if bits else (" ", None)
            for bits, series in zip(self._bits[line], self._series[line], strict=True)
        ]
