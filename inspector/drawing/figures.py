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

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Cell = str | int | float | None
Numbers = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is measured along one direction."""

    label: str
    unit: str = ""
    """Empty: unitless."""
    log: bool = False

    @property
    def heading(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    unit: str = ""
    digits: int = 3
    """Decimals of floats; whole numbers are never rounded."""

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


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


MOST_DECIMALS = 6
"""Beyond, a column is wider than it is read."""
Row = Mapping[str, Any]
"""One entry of a result's `saes`; user data, hence Any."""
Intervals = Mapping[str, Mapping[str, Sequence[float] | None]]
"""[low, high] by sae and score."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of the rows."""

    key: str
    """As in the result, e.g. r2_norm."""
    title: str
    """As drawn, e.g. norm R²."""
    digits: int = 4
    """Decimals in a table where no interval says how many it supports."""
    ends: bool = True
    """Whether a table gives the interval too."""


def supported_decimals(intervals: Iterable[Sequence[float] | None], otherwise: int) -> int:
    """Decimals of a number with an interval: two significant digits of half its width, of the narrowest if several.

    Args:
        intervals: [low, high] each; None and those without width say nothing.
        otherwise: where none says anything.
    """
    halves = [half for ends in intervals if ends is not None and (half := abs(ends[1] - ends[0]) / 2) > 0.0]
    if not halves:
        return otherwise
    # Rounded, so that 0.81 and 0.83 are as far apart as 0.79 and 0.81.
    return min(max(1 - math.floor(round(math.log10(min(halves)), 9)), 0), MOST_DECIMALS)


def with_interval(value: float, ends: Sequence[float] | None, sign: Literal["", "+"] = "") -> str:
    """'0.531 [0.521, 0.541]': a number and its interval as text, with as many digits as that supports.

    Three significant digits where there is no interval, or one without width. With `sign` all carry one.
    """
    digits = supported_decimals((ends,), -1)
    form = f"{sign}.3g" if digits < 0 else f"{sign}.{digits}f"
    return f"{value:{form}}" if ends is None else f"{value:{form}} [{ends[0]:{form}}, {ends[1]:{form}}]"


def sae_table(title: str, rows: Sequence[Row], intervals: Intervals, scores: Sequence[Score], note: str = "") -> Table:
    """One line per SAE: name, width, nominal and measured L0, then every score with its interval where it has one."""
    columns = [
        Column(title="SAE"),
        Column(title="latents"),
        Column(title="nominal L0", digits=0),
        Column(title="L0", digits=1),
    ]
    for score in scores:
        digits = supported_decimals((own.get(score.key) for own in intervals.values()), score.digits)
        columns.append(Column(title=score.title, digits=digits))
        if _has_interval(score, intervals):
            columns += [Column(title=end, digits=digits) for end in ("95% low", "high")]
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        line: list[Cell] = [
            row["sae"],
            row["d_sae"],
            "?" if row["nominal_l0"] is None else row["nominal_l0"],
            row["l0"],
        ]
        for score in scores:
            line.append(row[score.key])
            if _has_interval(score, intervals):
                line += _interval(row, score, intervals)
        lines.append(tuple(line))
    return Table(title=title, columns=tuple(columns), rows=tuple(lines), note=note)


def curve_by_width(
    title: str,
    rows: Sequence[Row],
    intervals: Intervals,
    score: Score,
    width_label: Callable[[int], str],
    note: str = "",
) -> Curve:
    """The score against measured L0, one line per width, a point per SAE; nothing between the points is claimed.

    `width_label` makes the short name of a number of latents, as in `spec.width_label`.
    """
    series = []
    for d_sae in sorted({row["d_sae"] for row in rows}):
        points = sorted((row for row in rows if row["d_sae"] == d_sae), key=lambda row: float(row["l0"]))
        ends = [_interval(row, score, intervals) for row in points]
        series.append(
            Series(
                name=width_label(d_sae),
                x=tuple(row["l0"] for row in points),
                y=tuple(row[score.key] for row in points),
                low=tuple(low for low, _ in ends),
                high=tuple(high for _, high in ends),
            )
        )
    return Curve(title=title, x=Axis(label="L0", log=True), y=Axis(label=score.title), series=tuple(series), note=note)


def grid_by_width(title: str, rows: Sequence[Row], score: Score, note: str = "") -> DotGrid:
    """The score of every SAE at its width and measured L0, both logarithmic: the layout of the paper's Fig. 2."""
    return DotGrid(
        title=title,
        x=Axis(label="SAE width", unit="latents", log=True),
        y=Axis(label="L0", log=True),
        value=Axis(label=score.title),
        dots=tuple(
            Dot(x=float(row["d_sae"]), y=float(row["l0"]), value=row[score.key], label=row["sae"])
            for row in rows
            if row["l0"] is not None and row["l0"] > 0.0
        ),
        note=note,
    )


def _has_interval(score: Score, intervals: Intervals) -> bool:
    return score.ends and any(own.get(score.key) is not None for own in intervals.values())


def _interval(row: Row, score: Score, intervals: Intervals) -> tuple[float | None, float | None]:
    interval = intervals.get(row["sae"], {}).get(score.key)
    return (None, None) if interval is None else (interval[0], interval[1])
