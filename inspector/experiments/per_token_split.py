"""Does the linear error fall with width, token by token, and the nonlinear error not?  Paper, App. A.4, Fig. 12."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Interval, Outcome, ResultObject
from inspector.experiments._tokens import (
    NO_STRETCH,
    TokenParams,
    found_in,
    measure,
    names_of,
    pairs_of,
    trace_figures,
    triangle,
)

if TYPE_CHECKING:
    from inspector.drawing.figures import Figure
    from inspector.statistics.measured import Statistics
    from inspector.statistics.profiles import Protocol
    from inspector.statistics.token_norms import TokenNorms
    from inspector.statistics.token_scores import Array

PARTS = ("linear", "nonlinear")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Per SAE of the series, over all held-out tokens. Norms in the units of x."""

    mean_linear_norm: float | None
    mean_nonlinear_norm: float | None
    mean_error_norm: float | None
    nonlinear_correlation: float | None
    """Of the nonlinear error's norm with that of the narrowest SAE's; None for constant norms."""
    linear_correlation: float | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A smaller SAE and a larger one: correlation of norms over held-out tokens."""

    small: str
    large: str
    nonlinear: float | None
    linear: float | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The slopes over all tokens, and the tokens shown (empty where no context has so many)."""

    linear_slope: float | None
    """Of the mean norm of linear_error on log2 width: units of x per doubling. None with fewer than two widths."""
    nonlinear_slope: float | None
    linear_slope_percent: float | None
    """Of the mean over the series, per doubling."""
    nonlinear_slope_percent: float | None
    falling_linear: float | None
    """Share of the tokens shown at which the widest SAE's linear error is smaller than the narrowest's."""
    falling_nonlinear: float | None
    series: list[str]
    labels: list[str]
    pairs: tuple[Pair, ...]
    context: int | None
    positions: list[int]
    tokens: list[str]
    train: list[bool]
    linear_error: dict[str, list[float]]
    """Norms by SAE."""
    nonlinear_error: dict[str, list[float]]


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """Means, slopes and correlations over all held-out tokens beside the excerpt."""
    from inspector.statistics import token_scores as scores
    from inspector.statistics.token_norms import column

    found = found_in(statistics, "per-token-split")
    counts, plain, shown = found.counts, found.plain, found.trace
    rows: list[Row | None] = []
    intervals: dict[str, dict[str, Interval]] = {}
    for sae in statistics.saes:
        sae_id = sae.ref.sae_id
        if sae_id not in found.series:
            rows.append(None)
            continue
        values = scores.each(
            {f"mean_{part}_norm": scores.mean(plain, column(part, sae_id), counts) for part in (*PARTS, "error")}
            | {
                f"{part}_correlation": scores.correlation(
                    plain, column(part, found.series[0]), column(part, sae_id), counts
                )
                for part in PARTS
            }
        )
        rows.append(Row(**{name: value.value for name, value in values.items()}))
        intervals[sae_id] = {name: value.interval for name, value in values.items()}
    slopes, other = _slopes(found), _slopes(found, switched=True)
    estimates = scores.each(slopes)
    intervals["slopes"] = {name: value.interval for name, value in estimates.items()}
    pairs = []
    for small, large in pairs_of(found):
        both = scores.each(
            {part: scores.correlation(plain, column(part, small), column(part, large), counts) for part in PARTS}
        )
        pairs.append(Pair(small=small, large=large, nonlinear=both["nonlinear"].value, linear=both["linear"].value))
        intervals[f"{small} -> {large}"] = {name: value.interval for name, value in both.items()}
    excerpts = {
        part: {} if shown is None else {name: list(norms) for name, norms in getattr(shown, f"{part}_error").items()}
        for part in PARTS
    }
    switched = {name: scores.defined(values[0]) for name, values in other.items()}
    return Outcome(
        rows=tuple(rows),
        result=Result(
            **{name: value.value for name, value in estimates.items()},
            **{f"falling_{part}": _falling(excerpts[part], found.series) for part in PARTS},
            series=list(found.series),
            labels=names_of(found),
            pairs=tuple(pairs),
            context=None if shown is None else shown.context,
            positions=[] if shown is None else list(shown.positions),
            tokens=[] if shown is None else list(shown.tokens),
            train=[] if shown is None else list(shown.train),
            linear_error=excerpts["linear"],
            nonlinear_error=excerpts["nonlinear"],
        ),
        intervals=intervals,
        controls={
            "intercept": {
                "definition": f"The slopes {'without' if found.intercept else 'with'} an intercept in the map that "
                "splits the error (D-05).",
                **switched,
            },
            "shuffled_tokens": {
                "definition": "Correlation to expect between the norms of one SAE and those of another with its tokens "
                "permuted.",
                "correlation": 0.0,
            },
        },
        warnings=_warnings(found, params),
    )


def _slopes(found: TokenNorms, *, switched: bool = False) -> dict[str, Array]:
    """[r] by field of the result: slopes of both parts' mean norms on log2 width, as they are and in percent."""
    import numpy as np

    from inspector.statistics import token_scores as scores

    by_id = found.by_id()
    saes = [by_id[sae_id] for sae_id in found.series]
    x = [math.log2(sae.d_sae) for sae in saes]
    slopes = {}
    for part in PARTS:
        name = f"{part} switched" if switched else part
        means = np.stack([scores.mean_of(sae.sums, name, found.n, found.counts) for sae in saes])
        slopes[f"{part}_slope"] = scores.slope_on(x, means)
        slopes[f"{part}_slope_percent"] = 100.0 * slopes[f"{part}_slope"] / scores.positive(means.mean(axis=0))
    return slopes


def _falling(norms: dict[str, list[float]], series: Sequence[str]) -> float | None:
    """Share of tokens at which the last of the series has the smaller norm."""
    if not norms or len(series) < 2:
        return None
    first, last = norms[series[0]], norms[series[-1]]
    return sum(b < a for a, b in zip(first, last, strict=True)) / len(first)


def _warnings(found: TokenNorms, params: TokenParams) -> tuple[str, ...]:
    warnings = []
    if len(found.series) < 2:
        warnings.append("A slope on width needs SAEs of two widths; choose more with --widths.")
    if found.trace is None and params.length:
        warnings.append(NO_STRETCH.format(length=params.length))
    return tuple(warnings)


def draw(result: ResultObject) -> Sequence[Figure]:
    """Both panels of Fig. 12, the means over all tokens against width, and which tokens' norms go together."""
    from inspector.drawing.figures import Axis, Curve, Score, Series, sae_table

    found, intervals = result["result"], result["intervals"]
    named = dict(zip(found["series"], found["labels"], strict=True))
    rows = [row for row in result["saes"] if "mean_linear_norm" in row]
    series = []
    for part in PARTS:
        key = f"mean_{part}_norm"
        ends = [intervals.get(row["sae"], {}).get(key) or (None, None) for row in rows]
        series.append(
            Series(
                name=f"{part} error",
                x=tuple(float(row["d_sae"]) for row in rows),
                y=tuple(row[key] for row in rows),
                low=tuple(low for low, _ in ends),
                high=tuple(high for _, high in ends),
                style="line" if len(set(named.values())) == len({row["d_sae"] for row in rows}) else "points",
            )
        )
    table = sae_table(
        "Mean norms over all held-out tokens",
        rows,
        intervals,
        (
            Score(key="mean_linear_norm", title="linear"),
            Score(key="mean_nonlinear_norm", title="nonlinear"),
            Score(key="linear_correlation", title="corr. linear"),
            Score(key="nonlinear_correlation", title="corr. nonlinear"),
        ),
        result["definition"],
    )
    excerpts: list[Figure] = []
    for part in PARTS:
        lines = {label: found[f"{part}_error"].get(sae_id, []) for sae_id, label in named.items()}
        excerpts += trace_figures(f"{part.capitalize()} error's norm along a text", found, lines)
    return (
        *excerpts,
        Curve(
            title="Mean norms against width, all held-out tokens",
            x=Axis(label="SAE width", unit="latents", log=True),
            y=Axis(label="mean L2 norm"),
            series=tuple(series),
        ),
        triangle("Which tokens' nonlinear errors go together", found, "nonlinear", diagonal=1.0, value="correlation"),
        table,
    )


def definition(protocol: Protocol, params: TokenParams) -> str:
    """What a run with this protocol measures."""
    from inspector.statistics.profiles import bootstrap

    return (
        f"‖linear_error‖ and ‖nonlinear_error‖, the error split by {protocol.a_map}, one SAE per width: at the "
        "tokens of per-token-trace, and over all held-out tokens their mean, the least-squares slope of the mean on "
        "log2 width (units of x per doubling), and the correlation between widths. "
        + bootstrap(params.resamples, protocol.held_out_contexts, fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="per-token-split",
    title="Per-token split",
    question="Does the linear error fall with width, token by token, while the nonlinear error stays?",
    reference="App. A.4, Fig. 12",
    definition=definition,
    contradicted_by=(
        "Over all tokens the mean linear error does not fall with width, or the nonlinear error falls as steeply (C15)."
    ),
    params=TokenParams,
    measure=measure,
    compute=compute,
    draw=draw,
)
