"""Styles of tokens by level: linear and nonlinear error in two hues mixed by share, lightness by size.

A palette is built once per theme and colour depth from a few endpoints. Lightness walks in equal OKLab steps from the
background, so size is readable without any hue; hue walks from blue-like to orange-like, which every common colour
blindness keeps apart. Level 0 ("smaller than the first edge") is plain text: what is small should be quiet, and plain
cells cost no bytes. Where colour is scarce there are fewer levels, and the mark after each token says the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from inspector.drawing.token_modes import TokenMode

Depth = Literal["truecolor", "256", "16", "none"]

MARKS = "▁▂▃▄▅▆▇█"
"""Second channel: level 0 to 7 as a bar of that height."""
DIGITS = "01234567"
"""The same for terminals whose font has no eighth blocks (the Linux console)."""
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


OUTLIER_MARK = "^"
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
    plain: CellStyle
    """A token whose value is not known, and the space around tokens."""
    excluded: CellStyle
    cursor: CellStyle
    """The token under the cursor while the pane has the focus."""
    hit_underline: bool
    """Search hits: underlined and bold if true, reversed if the underline already means something."""
    marks_by_default: bool
    """Whether colour alone is not enough at this depth."""
    marks: str = MARKS

    @property
    def outlier(self) -> CellStyle:
        """Of tokens that outweigh all others: excluded ones reversed, which no level looks like at any depth."""
        return replace(self.excluded, reverse=True, bold=True)

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
        """The second channel's character; a space where nothing is known."""
        level = share if mode.size is None else size
        if level is None:
            return " "
        n_levels = len(self.shares) if mode.size is None else self.n_sizes
        return self.marks[round(level * (len(self.marks) - 1) / (n_levels - 1))]
