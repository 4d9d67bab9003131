"""Colours of figures, taken from the palette of the tokens, so that a theme is said once.

Series are told apart by colour and by the mark of their points; values by colour and by the printed number.
"""

from __future__ import annotations

from dataclasses import dataclass

from inspector.drawing.palette import CellStyle, TokenPalette

Run = tuple[str, CellStyle]
Line = list[Run]
"""One terminal line: pieces of text and how they look."""

MARKS = "●■▲◆○□△◇"
"""Of the points of a series, by its number: what tells series apart without colour."""
FILLS = "█▓▒░"
"""Of areas and bars, by their number; areas also differ in colour where there is any."""
MISSING = "×"
"""Drawn where a number is not defined."""


@dataclass(frozen=True, kw_only=True)
class FigurePalette:
    """Every style a figure needs."""

    plain: CellStyle
    quiet: CellStyle
    """Axes, units, blank cells."""
    strong: CellStyle
    """Titles."""
    series: tuple[CellStyle, ...]
    """Foreground of lines and bars; repeats after the last."""
    ramp: tuple[CellStyle, ...]
    """Filled cells for a value, from small to large; every one readable. A single one: no colours."""
    coloured: bool

    def of_series(self, index: int) -> CellStyle:
        """Style of the series with this number."""
        return self.series[index % len(self.series)]

    def of_value(self, value: float, low: float, high: float) -> CellStyle:
        """Style of a value between two ends; outside it is that of the nearer end."""
        share = 0.0 if high <= low else (value - low) / (high - low)
        return self.ramp[min(max(int(share * len(self.ramp)), 0), len(self.ramp) - 1)]


def figure_palette(palette: TokenPalette) -> FigurePalette:
    """The styles of a figure beside tokens of this palette."""
    plain = palette.plain
    strong = CellStyle(foreground=plain.foreground, background=plain.background, bold=True)
    coloured = palette.depth != "none"
    ramp = palette.ramps["nonlinear"] if coloured else (plain,)
    return FigurePalette(
        plain=plain,
        # Bright black is unreadable on many terminals, and so is its grey where there is no colour.
        quiet=palette.excluded if palette.depth in ("truecolor", "256") else plain,
        strong=strong,
        series=_series(palette) if coloured else (plain,),
        ramp=ramp,
        coloured=coloured,
    )


def _series(palette: TokenPalette) -> tuple[CellStyle, ...]:
    """Ends of the ramps as foregrounds: linear, nonlinear, loss, total, then darker ones of the same."""
    ground = palette.plain.background
    if palette.depth == "16":
        names = (
            "ansi_cyan",
            "ansi_yellow",
            "ansi_bright_magenta",
            "ansi_white",
            "ansi_bright_green",
            "ansi_bright_red",
        )
        return tuple(CellStyle(foreground=name, background=ground) for name in names)
    kinds = ("linear", "nonlinear", "loss", "total")
    tops = [palette.ramps[kind][-1].background for kind in kinds]
    lower = [palette.ramps[kind][-3].background for kind in kinds]
    return tuple(CellStyle(foreground=colour, background=ground) for colour in (*tops, *lower))
