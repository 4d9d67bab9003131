"""The two figures every experiment over a suite wants: a table of all SAEs, and a score against L0 for each width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspector.drawing.digits import supported_decimals
from inspector.drawing.figures import Axis, Cell, Column, Curve, Dot, DotGrid, Series, Table

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
