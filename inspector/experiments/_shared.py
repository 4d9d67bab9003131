"""What experiments share: rows and intervals per SAE, tables and figures with intervals, and the pass over tokens.

Seven experiments ask about single tokens; one measurement serves all of them, so that together they cost one more pass.
Figures are imported where they are drawn: listing experiments must cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast
from typing import Protocol as Structure

from inspector.experiment import FitParams, Interval, bounded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from inspector import events
    from inspector.drawing import figures
    from inspector.engine import resampling
    from inspector.statistics import costs, measured, pipeline, profiles
    from inspector.statistics.token_norms import TokenNorms, Trace

R = TypeVar("R")
# What `Experiment` asks for, under names that cost nothing to import: experiments are typed without loading any of it.
Array: TypeAlias = "npt.NDArray[np.float64]"
Figures: TypeAlias = "Sequence[figures.Figure]"
Measuring: TypeAlias = "pipeline.Measuring"
Passes: TypeAlias = "Iterable[costs.Pass]"
Protocol: TypeAlias = "profiles.Protocol"
Statistics: TypeAlias = "measured.Statistics"
Work: TypeAlias = "Generator[events.Event, None, R]"
"""Yields events while it makes an R."""
Workload: TypeAlias = "costs.Workload"

Ends = Sequence[float] | None
"""An interval as it is stored."""


# ---- numbers ---------------------------------------------------------------------------------------------------------


class OfAnSae(Structure):
    """What was measured of one SAE."""

    @property
    def sae(self) -> str:
        """Its id."""


T = TypeVar("T", bound=OfAnSae)
Values = dict[str, float | None]
Intervals = dict[str, Interval]


def per_sae(
    statistics: Statistics, found: Iterable[T], measured: Callable[[T], tuple[object, Intervals]]
) -> tuple[tuple[object, ...], dict[str, Intervals]]:
    """The rows of an outcome, None for SAEs that were not looked at, and the intervals by SAE.

    Args:
        statistics: of the run.
        found: what was measured of some of its SAEs.
        measured: the row of one and its intervals.
    """
    by_id = {each.sae: each for each in found}
    made = {sae.ref.sae_id: measured(by_id[sae.ref.sae_id]) for sae in statistics.saes if sae.ref.sae_id in by_id}
    rows = tuple(made[sae.ref.sae_id][0] if sae.ref.sae_id in made else None for sae in statistics.saes)
    return rows, {sae: intervals for sae, (_, intervals) in made.items()}


def of_passes(statistics: Statistics, row: type[R]) -> tuple[tuple[R, ...], dict[str, Intervals]]:
    """Rows of scores of the shared passes, by the names of the row's fields, and their intervals by SAE."""
    names = [field.name for field in fields(cast("Any", row))]
    rows = tuple(row(**{name: getattr(sae.scores, name) for name in names}) for sae in statistics.saes)
    return rows, {sae.ref.sae_id: {name: sae.intervals.get(name) for name in names} for sae in statistics.saes}


def by_sae(
    statistics: Statistics, which: Literal["scores", "train", "switched"], names: Sequence[str]
) -> dict[str, Values]:
    """Scores of the shared passes by name and SAE."""
    return {name: {sae.ref.sae_id: getattr(getattr(sae, which), name) for sae in statistics.saes} for name in names}


def apart(estimates: Mapping[str, resampling.Estimate]) -> tuple[Values, Intervals]:
    """Values and intervals, each by name."""
    values = {name: each.value for name, each in estimates.items()}
    return values, {name: each.interval for name, each in estimates.items()}


def of_draws(draws: Mapping[str, Sequence[float | None]]) -> tuple[Values, Intervals]:
    """Values and intervals of scores as measured (the first entry) and on every bootstrap draw (the others)."""
    from inspector.statistics.measured import interval

    values = {name: defined(each[0]) for name, each in draws.items()}
    endless = {name for name, each in draws.items() if any(value is not None and math.isinf(value) for value in each)}
    return values, {name: None if name in endless else interval(each) for name, each in draws.items()}


def copied(found: object, *names: str) -> dict[str, Any]:
    """Fields that a result has from what was measured, under the same names."""
    return {name: getattr(found, name) for name in names}


def defined(value: float | None) -> float | None:
    """The number, or None if it is not one."""
    return value if value is not None and math.isfinite(value) else None


def percent(part: float, whole: float) -> float | None:
    """Part of a whole in percent; None if undefined."""
    return defined(100.0 * part / whole) if whole else None


def mean(values: Sequence[float]) -> float:
    """Of at least one number."""
    return sum(values) / len(values)


def known(values: Iterable[float | None]) -> list[float]:
    """The defined ones."""
    return [value for value in values if value is not None]


# ---- figures ---------------------------------------------------------------------------------------------------------


def rows_with(result: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A result's SAEs that were looked at: those that have this score."""
    return [row for row in result["saes"] if key in row]


def ends_of(rows: Iterable[Mapping[str, Any]], intervals: Mapping[str, Any], key: str) -> list[Ends]:
    """The stored intervals of a score of several SAEs."""
    return [intervals.get(row["sae"], {}).get(key) for row in rows]


def line(
    name: str,
    x: Iterable[float],
    y: Iterable[float | None],
    ends: Sequence[Ends] = (),
    style: Literal["line", "points", "dotted"] = "line",
) -> figures.Series:
    """A line with its intervals."""
    from inspector.drawing.figures import Series

    low, high = _low_and_high(ends)
    return Series(name=name, x=tuple(x), y=tuple(y), low=low, high=high, style=style)


def bar(name: str, values: Iterable[float | None], ends: Sequence[Ends]) -> figures.BarSeries:
    """A bar in every group, with its intervals."""
    from inspector.drawing.figures import BarSeries

    low, high = _low_and_high(ends)
    return BarSeries(name=name, values=tuple(values), low=low, high=high)


def _low_and_high(ends: Sequence[Ends]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if each is None else each[i] for each in ends) for i in (0, 1))


def over_width(
    rows: Iterable[Mapping[str, Any]],
    intervals: Mapping[str, Any],
    titles: Mapping[str, str],
    style: Literal["line", "points"] = "line",
) -> tuple[figures.Series, ...]:
    """Scores against the width of the SAEs."""
    ordered = sorted(rows, key=lambda row: (row["d_sae"], row["l0"]))
    widths = [float(row["d_sae"]) for row in ordered]
    return tuple(
        line(title, widths, [row[key] for row in ordered], ends_of(ordered, intervals, key) if intervals else (), style)
        for key, title in titles.items()
    )


def curve(
    title: str, x: str | figures.Axis, y: str | figures.Axis, series: Iterable[figures.Series], note: str = ""
) -> figures.Curve:
    """Lines over x."""
    from inspector.drawing.figures import Curve

    return Curve(title=title, x=_axis(x), y=_axis(y), series=tuple(series), note=note)


def _axis(named: str | figures.Axis) -> figures.Axis:
    from inspector.drawing.figures import Axis

    return Axis(label=named) if isinstance(named, str) else named


def width_curve(title: str, y: str, series: Iterable[figures.Series], note: str = "") -> figures.Curve:
    """Lines over the width of the SAEs."""
    from inspector.drawing.figures import Axis

    return curve(title, Axis(label="SAE width", unit="latents", log=True), y, series, note)


def grouped_bars(
    title: str, value: str | figures.Axis, groups: Iterable[str], bars: Iterable[figures.BarSeries], note: str = ""
) -> figures.GroupedBars:
    """Bars side by side in every group."""
    from inspector.drawing.figures import GroupedBars

    return GroupedBars(title=title, value=_axis(value), groups=tuple(groups), bars=tuple(bars), note=note)


def sae_table(
    title: str,
    result: Mapping[str, Any],
    titles: Mapping[str, str],
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    ends: bool = True,
    note: str | None = None,
) -> figures.Table:
    """A line per SAE of a result with its scores by key; all SAEs and the result's definition where not said."""
    from inspector.drawing.figures import Score
    from inspector.drawing.figures import sae_table as drawn

    scores = [Score(key=key, title=name) for key, name in titles.items()]
    note = result["definition"] if note is None else note
    return drawn(title, result["saes"] if rows is None else rows, result["intervals"] if ends else {}, scores, note)


def by_l0(title: str, result: Mapping[str, Any], key: str, name: str, note: str = "") -> figures.Curve:
    """A score of all SAEs against L0, a line per width."""
    from inspector.drawing.figures import Score, curve_by_width
    from inspector.options import width_label

    score = Score(key=key, title=name)
    return curve_by_width(title, result["saes"], result["intervals"], score, width_label, note)


def by_width_and_l0(title: str, result: Mapping[str, Any], key: str, name: str) -> figures.DotGrid:
    """A score of all SAEs in the layout of Fig. 2."""
    from inspector.drawing.figures import Score, grid_by_width

    return grid_by_width(title, result["saes"], Score(key=key, title=name))


def table(
    title: str,
    columns: Sequence[str | figures.Column | tuple[str, ...]],
    rows: Iterable[Sequence[figures.Cell | tuple[float | None, Ends]]],
    note: str = "",
    *,
    digits: int = 3,
) -> figures.Table:
    """A table whose values stand beside their intervals, with as many digits as those support.

    Args:
        title: above it.
        columns: titles, or columns with a unit. Three titles are a value and both ends of its interval, two the ends
            alone; their cells are (value, interval).
        rows: cells by column.
        note: below it.
        digits: decimals where no interval says how many it supports.
    """
    from inspector.drawing.figures import Column, Table, supported_decimals

    lines, made = list(rows), []
    for i, column in enumerate(columns):
        if isinstance(column, tuple):
            supported = supported_decimals((cast("Any", cells[i])[1] for cells in lines), digits)
            made += [Column(title=each, digits=supported) for each in column]
        else:
            made.append(Column(title=column, digits=digits) if isinstance(column, str) else column)
    flat: list[tuple[figures.Cell, ...]] = []
    for cells in lines:
        whole: list[figures.Cell] = []
        for column, cell in zip(columns, cells, strict=True):
            if isinstance(cell, tuple):
                whole += (cell[0], *(cell[1] or (None, None)))[-len(column) :]  # type: ignore[arg-type]
            else:
                whole.append(cell)
        flat.append(tuple(whole))
    return Table(title=title, columns=tuple(made), rows=tuple(flat), note=note)


# ---- single tokens ---------------------------------------------------------------------------------------------------

ZOOM = 0.85, 0.95
"""The part of the excerpt that is magnified, as the right panel of Fig. 5: tokens 85 to 95 of 100."""
NO_STRETCH = (
    "No held-out context has {length} included tokens, so none is shown. Take longer contexts or fewer tokens: "
    "-p length=20."
)
NO_PAIR = "A pair needs SAEs of two widths; choose more with --widths."


@dataclass(frozen=True, kw_only=True)
class TokenParams(FitParams):
    """Which SAEs are compared with each other, and which tokens are shown one by one."""

    l0: float = bounded(60.0, 0, 1_000_000)
    """Per width, the SAE whose nominal L0 is nearest is compared with those of other widths; 0 compares all."""
    start: int = bounded(10_092, 0, 1_000_000_000)
    """The first token shown, by number among all included ones; the paper's. Counted round where there are fewer."""
    length: int = bounded(100, 0, 100_000)
    """Tokens shown; 0: none."""


def measure(measuring: Measuring, params: TokenParams) -> Work[TokenNorms]:
    """See `measure_tokens`."""
    from inspector.statistics.token_pass import measure_tokens

    return measure_tokens(measuring, l0=params.l0, start=params.start, length=params.length)


def passes(work: Workload, params: TokenParams) -> Passes:
    """Of `measure`: the loss of every token, hence the whole model, and every SAE again."""
    n, kept = len(work.saes), len(work.nearest(params.l0))
    yield work.walk(
        "token norms",
        work.contexts,
        model=work.forward(work.contexts, whole=True),
        sae=work.coded(work.n_tokens, work.saes) + work.squares(work.n_tokens, n),
        sums=work.squares(work.n_train, 1),
        numbers=work.logits(work.contexts) + work.vectors(work.n_tokens, 20 * n + 4 * kept),
    )


def found_in(statistics: Statistics, experiment_id: str) -> TokenNorms:
    """What was measured."""
    return cast("TokenNorms", statistics.own[experiment_id])


def pairs_of(found: TokenNorms) -> list[tuple[str, str]]:
    """Every SAE of the series with every later one; of equal widths too, where the series has all SAEs."""
    series = found.series
    return [(small, large) for i, small in enumerate(series) for large in series[i + 1 :]]


def names_of(found: TokenNorms) -> list[str]:
    """Short names of the series."""
    saes = [found.by_id()[sae_id] for sae_id in found.series]
    return saes_named([{"d_sae": sae.d_sae, "nominal_l0": sae.nominal_l0} for sae in saes])


def saes_named(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Widths, with the L0 behind them where one width comes more than once."""
    from inspector.options import width_label

    widths = [width_label(row["d_sae"]) for row in rows]
    if len(set(widths)) == len(widths):
        return widths
    l0s = ["?" if row["nominal_l0"] is None else f"{row['nominal_l0']:g}" for row in rows]
    return [f"{width}/{l0}" for width, l0 in zip(widths, l0s, strict=True)]


def triangle(
    title: str, found: Mapping[str, Any], key: str, *, diagonal: float, value: str, unit: str = ""
) -> figures.Heatmap:
    """A score of every pair of a result's series, the smaller SAE in rows; the diagonal is known without measuring."""
    from inspector.drawing.figures import Axis, Heatmap

    series, labels = found["series"], tuple(found["labels"])
    scores = {(pair["small"], pair["large"]): pair[key] for pair in found["pairs"]}
    cells = tuple(
        tuple(diagonal if small == large else scores.get((small, large)) for large in series) for small in series
    )
    return Heatmap(
        title=title,
        x=Axis(label="SAE_2"),
        y=Axis(label="SAE_1"),
        value=Axis(label=value, unit=unit),
        x_ticks=labels,
        y_ticks=labels,
        values=cells,
        triangle=True,
    )


def no_stretch(found: TokenNorms, params: TokenParams) -> tuple[str, ...]:
    """The warning that no tokens are shown though some were asked for."""
    return (NO_STRETCH.format(length=params.length),) if found.trace is None and params.length else ()


def pair_key(small: str, large: str) -> str:
    """Where the intervals of a pair stand."""
    return f"{small} -> {large}"


def pair_table(
    title: str, result: Mapping[str, Any], columns: Mapping[str, str], note: str = "", *, headline: str = ""
) -> figures.Table:
    """A line per pair of a result's series: from, to, and scores by key, the headline's with its interval."""
    found = result["result"]
    names = dict(zip(found["series"], found["labels"], strict=True))
    rows: list[Sequence[figures.Cell | tuple[float | None, Ends]]] = []
    for pair in found["pairs"]:
        ends = result["intervals"].get(pair_key(pair["small"], pair["large"]), {}).get(headline)
        cells = ((pair[key], ends) if key == headline else pair[key] for key in columns)
        rows.append((names[pair["small"]], names[pair["large"]], *cells))
    heads = ((name, "95% low", "high") if key == headline else name for key, name in columns.items())
    return table(title, ("from", "to", *heads), rows, note)


def excerpt(trace: Trace | None) -> dict[str, Any]:
    """The fields of a result that say which tokens are shown; empty where no context has so many."""
    if trace is None:
        return {"context": None, "positions": [], "tokens": [], "train": []}
    lists = {name: list(getattr(trace, name)) for name in ("positions", "tokens", "train")}
    return {"context": trace.context, **lists}


def trace_figures(
    title: str, found: Mapping[str, Any], lines: Mapping[str, Sequence[float]], *, zoom: bool = False
) -> tuple[figures.TokenTrace, ...]:
    """Norms along the tokens of a result, all of them and, with `zoom`, a few magnified; nothing if none are shown."""
    from inspector.drawing.figures import Axis, TokenTrace, TraceSeries

    n = len(found["tokens"])
    if not n:
        return ()
    parts = [(title, slice(0, n))]
    if zoom and n >= 20:
        parts.append((f"{title}, magnified", slice(round(ZOOM[0] * n), round(ZOOM[1] * n) + 1)))
    trained = sum(found["train"])
    # From 1, as the Stream counts contexts; in the result it is an index.
    where = f"Context {found['context'] + 1}, positions {found['positions'][0]} to {found['positions'][-1]}; "
    where += "held out." if not trained else f"the maps were fitted on {trained} of these {n} tokens."
    return tuple(
        TokenTrace(
            title=name,
            value=Axis(label="L2 norm"),
            tokens=tuple(found["tokens"][part]),
            series=tuple(TraceSeries(name=label, values=tuple(values[part])) for label, values in lines.items()),
            first_position=found["positions"][part.start],
            note=where,
        )
        for name, part in parts
    )
