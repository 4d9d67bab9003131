"""Figures as data: titles, labels, units and numbers. A terminal, a file and a screen draw the same figure.

None is an undefined number and is drawn as missing, never as zero. No torch, no numpy: what paints reads these.
"""

from __future__ import annotations

from dataclasses import dataclass

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


Figure = Table | Curve | Bars | Heatmap | Violin | TokenStrip
