"""Figures as data: titles, labels, units and numbers. A terminal, a file and a screen draw the same figure.

None is an undefined number and is drawn as missing, never as zero. No torch, no numpy: what paints reads these.

Which class for which figure of the paper:

- Figs. 2, 10, 11 (a value over width and L0, a dot per SAE): `DotGrid`
- Fig. 1 and 9a (stacked bands over width, dotted beyond what was measured): `Bands`, its `points` the measured SAEs
- Figs. 3, 13, 14, 15 top (lines with intervals): `Curve`; a `Series` may be drawn as points or dotted
- Figs. 4, 16 (width against width): `Heatmap` with `triangle=True`
- Figs. 5, 12 (norms along a text): `TokenTrace`; one number per token alone: `TokenStrip`
- Fig. 6: `Violin`
- Fig. 8 (bars in groups, with dashes where a prediction lies), Fig. 9b: `GroupedBars`
- Table 1 and everything else: `Table`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cell = str | int | float | None
Numbers = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is measured along one direction."""

    label: str
    unit: str = ""
    """Empty: unitless."""
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    unit: str = ""
    digits: int = 3
    """Decimals of floats; whole numbers are never rounded."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """What to know before reading it; drawn below."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One named line of points; all of one length."""

    name: str
    x: tuple[float, ...]
    y: Numbers
    low: Numbers = ()
    """Lower ends of intervals; empty: none."""
    high: Numbers = ()
    style: Literal["line", "points", "dotted"] = "line"
    """Points: nothing is claimed between them. Dotted: nothing was measured there."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over a common axis."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One bar per label."""

    title: str
    value: Axis
    labels: tuple[str, ...]
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A grid of numbers; values[i][j] is at y_ticks[i], x_ticks[j]."""

    title: str
    x: Axis
    y: Axis
    value: Axis
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    values: tuple[Numbers, ...]
    note: str = ""
    triangle: bool = False
    """Only the cells on and above the diagonal mean something; the others stay blank, not missing."""


@dataclass(frozen=True, kw_only=True)
class Violin:
    """Distributions side by side."""

    title: str
    value: Axis
    labels: tuple[str, ...]
    samples: tuple[tuple[float, ...], ...]
    """Numbers of each label."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenStrip:
    """A text with a number per token."""

    title: str
    value: Axis
    tokens: tuple[str, ...]
    """Decoded text; may hold any character at all."""
    values: Numbers
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One SAE, or whatever else stands at a place."""

    x: float
    y: float
    value: float | None
    label: str = ""
    """Its name, e.g. an SAE's; may hold any character at all."""


@dataclass(frozen=True, kw_only=True)
class DotGrid:
    """A value at places of a plane, by colour and printed; only where something was measured, nothing interpolated."""

    title: str
    x: Axis
    y: Axis
    value: Axis
    dots: tuple[Dot, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The thickness of one band at every x; a negative one is drawn and said, not clipped."""

    name: str
    values: Numbers


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Bands on top of each other."""

    title: str
    x: Axis
    y: Axis
    at: tuple[float, ...]
    """x of every band's values, ascending."""
    bands: tuple[Band, ...]
    """From the lowest to the highest."""
    extrapolated: tuple[bool, ...] = ()
    """Per x: beyond what was measured, and drawn dotted; empty: nowhere."""
    points: tuple[Series, ...] = ()
    """Measured points and their intervals, drawn over the bands."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where something else puts the same quantity: a dash across each bar."""

    name: str
    values: Numbers


@dataclass(frozen=True, kw_only=True)
class BarSeries:
    """One bar in every group."""

    name: str
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupedBars:
    """Several bars per group, side by side."""

    title: str
    value: Axis
    groups: tuple[str, ...]
    bars: tuple[BarSeries, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class TraceSeries:
    """One number per token."""

    name: str
    values: Numbers


@dataclass(frozen=True, kw_only=True)
class TokenTrace:
    """Lines over the tokens of a text."""

    title: str
    value: Axis
    tokens: tuple[str, ...]
    """Decoded text; may hold any character at all."""
    series: tuple[TraceSeries, ...]
    first_position: int = 0
    """Position of the first token in its context."""
    note: str = ""


Figure = Table | Curve | Bars | Heatmap | Violin | TokenStrip | DotGrid | Bands | GroupedBars | TokenTrace
