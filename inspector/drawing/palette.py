"""Styles of tokens by level: linear and nonlinear error in two hues mixed by share, lightness by size.

A palette is built once per theme and colour depth from a few endpoints. Lightness walks in equal OKLab steps from the
background, so size is readable without any hue; hue walks from blue-like to orange-like, which every common colour
blindness keeps apart. Level 0 ("smaller than the first edge") is plain text: what is small should be quiet, and plain
cells cost no bytes. Where colour is scarce there are fewer levels, and the mark after each token says the same.

The colours of figures are taken from the same palette, so that a theme is said once and a colour means one thing on
every screen: linear error, nonlinear error, an SAE's width (a run of nine from narrow to wide, for other series too),
or in greys how large any other value is. Series are told apart by the mark of their points as well, values by the
printed number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from inspector.drawing.tokens import TokenMode

Depth = Literal["truecolor", "256", "16", "none"]

LEVEL_MARKS = "▁▂▃▄▅▆▇█"
"""Of figures: level 0 to 7 as a bar of that height."""
SIDE_MARKS = (" ⡀⡄⡆⡇", " ⣀⣤⣶⣿", " ⢀⢠⢰⢸")
"""Second channel of tokens, both numbers in one cell: the height is the size; the left column is linear, the right one
nonlinear, both are about equal. No character of any language or code is among them; eighth blocks read as underscores
there. What is small stays blank."""
CONSOLE_MARKS = (" ┤╡╢╣", " ┼╪╫╬", " ├╞╟╠")
"""The same for terminals whose font has no braille (the Linux console): the arms point to the side."""
WIDTHS_DARK = ("#fffbf2", "#ebe06d", "#4dc20f", "#369640", "#b9d1ac", "#f1a9f8", "#a567fd", "#d980ca", "#e24fb2")
WIDTHS_LIGHT = ("#3a2601", "#147003", "#217e3d", "#0f5152", "#716980", "#575584", "#5815bb", "#a42a9e", "#950136")
"""From narrow to wide, on a dark ground and on a light one; none has the hue of linear or nonlinear error. Chosen by a
search over OKLab: of two to six widths any two keep 0.08 apart for every common colour blindness (`distance`)."""
WIDTHS_ANSI = tuple(
    f"ansi_{name}"
    for name in ("bright_white", "bright_white", "green", "bright_green", "white", "bright_magenta", "bright_magenta",
                 "magenta", "magenta")
)  # fmt: skip
N_SERIES = len(WIDTHS_DARK)


def place_in_run(index: int, n: int) -> int:
    """Which colour of the run the width or series with this number has among so many: they are spread over it."""
    return round(index * (N_SERIES - 1) / max(1, n - 1)) if n <= N_SERIES else index % N_SERIES


MIN_CONTRAST = 4.5
"""WCAG AA for text."""


@dataclass(frozen=True, kw_only=True)
class CellStyle:
    """How a cell looks, in words a terminal library can translate. Colours are '#rrggbb' or names like 'ansi_blue'."""

    foreground: str
    background: str
    bold: bool = False
    dim: bool = False
    underline: bool = False
    reverse: bool = False


OUTLIER_MARK = "▲"
"""In the place of a level's mark."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """What a theme says about tokens: '#rrggbb' each."""

    background: str
    """Of the pane, and of tokens of level 0."""
    foreground: str
    """Of plain text."""
    muted: str
    """Of excluded tokens."""
    linear: str
    """A token at the top level that is all linear error."""
    nonlinear: str
    """A token at the top level that is all nonlinear error."""
    middle: str
    """Half and half; also the hue of the total."""
    loss: str
    """A token at the top level of loss."""
    widths: tuple[str, ...]
    """Of the SAEs, from narrow to wide; two of them are also the sides on which one of two SAEs has more."""


@dataclass(frozen=True, kw_only=True)
class TokenPalette:
    """Every style a token can have at one colour depth."""

    depth: Depth
    mixed: tuple[tuple[CellStyle, ...], ...]
    """[size level][share level]."""
    ramps: dict[str, tuple[CellStyle, ...]]
    """By ramp name, one style per size level."""
    shares: tuple[CellStyle, ...]
    """Of the mode that shows share alone: from all linear to all nonlinear."""
    differences: tuple[CellStyle, ...]
    """Of the mode that shows which of two SAEs has more: as many, from the first to the second."""
    widths: tuple[CellStyle, ...]
    """Foregrounds of the SAEs by width."""
    plain: CellStyle
    """A token whose value is not known, and the space around tokens."""
    excluded: CellStyle
    cursor: CellStyle
    """The token under the cursor while the pane has the focus."""
    hit_underline: bool
    """Search hits: underlined and bold if true, reversed if the underline already means something."""
    marks_by_default: bool
    """Whether colour alone is not enough at this depth."""
    marks: tuple[str, str, str] = SIDE_MARKS

    @property
    def strong(self) -> CellStyle:
        """Plain, but bold: of a word that must not be missed."""
        return replace(self.plain, bold=True)

    @property
    def outlier(self) -> CellStyle:
        """Of tokens that outweigh all others: excluded ones reversed, which no level looks like at any depth."""
        return replace(self.excluded, reverse=True, bold=True)

    @property
    def selected(self) -> CellStyle:
        """Of text selected with the mouse: as the cursor, which no level looks like, but not bold."""
        return replace(self.cursor, bold=False, underline=False)

    @property
    def n_sizes(self) -> int:
        """Levels of size."""
        return len(self.mixed)

    @property
    def n_shares(self) -> int:
        """Levels of share beside a size."""
        return len(self.mixed[0])

    def style(self, mode: TokenMode, size: int | None, share: int | None) -> CellStyle:
        """Style of a token by its levels; while the share is not known the hue is that of the total."""
        if mode.size is None:
            return self.plain if share is None else self.shares[share]
        if size is None:
            return self.plain
        if mode.share is None or share is None:
            return self.ramps[mode.ramp][size]
        return self.mixed[size][share]

    def mark(self, mode: TokenMode, size: int | None, share: int | None) -> str:
        """The second channel's character, for size and side alike; a space where nothing is known."""
        if mode.size is None:
            if share is None:
                return " "
            centre = (len(self.shares) - 1) / 2
            distance = abs(share - centre) / centre
            return self.marks[_side(share, centre)][max(1, round(distance * (len(self.marks[0]) - 1)))]
        if size is None:
            return " "
        side = {"linear": 0, "nonlinear": 2}.get(mode.ramp, 1)
        if mode.share is not None and share is not None:
            side = _side(share, (self.n_shares - 1) / 2)
        return self.marks[side][round(size * (len(self.marks[0]) - 1) / (self.n_sizes - 1))]


def _side(share: int, centre: float) -> int:
    """0: the linear side, 1: neither, 2: the nonlinear one."""
    return 1 + (share > centre) - (share < centre)


Run = tuple[str, CellStyle]
Line = list[Run]
"""One terminal line: pieces of text and how they look."""

MARKS = "●■▲◆○□△◇"
"""Of the points of a series, by its number: what tells series apart without colour."""
FILLS = "█▓▒░"
"""Of areas and bars, by their number; areas also differ in colour where there is any."""
MISSING = "×"
"""Drawn where a number is not defined."""


def level_of(value: float, low: float, high: float, n_levels: int) -> int:
    """Which of so many equal steps between two ends a value is in; outside it is the nearer one."""
    share = 0.0 if high <= low else (value - low) / (high - low)
    return min(max(int(share * n_levels), 0), n_levels - 1)


@dataclass(frozen=True, kw_only=True)
class FigurePalette:
    """Every style a figure needs."""

    plain: CellStyle
    quiet: CellStyle
    """Axes, units, blank cells."""
    strong: CellStyle
    """Titles."""
    series: tuple[CellStyle, ...]
    """Foregrounds of lines and bars: those of the widths."""
    linear: CellStyle
    nonlinear: CellStyle
    ramp: tuple[CellStyle, ...]
    """Filled cells for a value, from small to large, in greys; every one readable. A single one: no colours."""
    coloured: bool

    def of_series(self, index: int, name: str = "", n: int = N_SERIES) -> CellStyle:
        """Style of the series with this number among `n`; one that is named after a part of the error has its hue."""
        if "nonlinear" in name:
            return self.nonlinear
        return self.linear if "linear" in name else self.series[place_in_run(index, n) % len(self.series)]

    def of_value(self, value: float, low: float, high: float) -> CellStyle:
        """Style of a value between two ends; outside it is that of the nearer end."""
        return self.ramp[level_of(value, low, high, len(self.ramp))]


def figure_palette(palette: TokenPalette) -> FigurePalette:
    """The styles of a figure beside tokens of this palette."""
    plain = palette.plain
    strong = CellStyle(foreground=plain.foreground, background=plain.background, bold=True)
    coloured = palette.depth != "none"
    ramp = palette.ramps["value"] if coloured else (plain,)
    return FigurePalette(
        plain=plain,
        # Bright black is unreadable on many terminals, and so is its grey where there is no colour.
        quiet=palette.excluded if palette.depth in ("truecolor", "256") else plain,
        strong=strong,
        series=palette.widths if coloured else (plain,),
        linear=_hue(palette, "linear"),
        nonlinear=_hue(palette, "nonlinear"),
        ramp=ramp,
        coloured=coloured,
    )


def _hue(palette: TokenPalette, ramp: str) -> CellStyle:
    """The top of a ramp as a foreground."""
    top, plain = palette.ramps[ramp][-1], palette.plain
    if palette.depth == "none":
        return plain
    return CellStyle(foreground=top.background, background=plain.background)
