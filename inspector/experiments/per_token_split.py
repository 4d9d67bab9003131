"""Does the linear error fall with width, token by token, and the nonlinear error not?  Paper, App. A.4, Fig. 12."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.statistics.token_norms import Array, SaeTokens, TokenNorms

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
    from inspector.statistics import token_norms as scores
    from inspector.statistics.token_norms import Column

    found = shared.found_in(statistics, "per-token-split")
    counts, plain, by_id = found.counts, found.plain, found.by_id()

    def correlations(one: str, other: str, suffix: str = "") -> dict[str, Array]:
        return {
            f"{part}{suffix}": scores.correlation(plain, Column(part, one), Column(part, other), counts)
            for part in PARTS
        }

    def measured(sae: SaeTokens) -> tuple[Row, shared.Intervals]:
        means = {f"mean_{part}_norm": scores.mean(plain, Column(part, sae.sae), counts) for part in (*PARTS, "error")}
        together = correlations(found.series[0], sae.sae, "_correlation")
        values, intervals = shared.apart(scores.each(means | together))
        return Row(**values), intervals

    rows, intervals = shared.per_sae(statistics, [by_id[sae_id] for sae_id in found.series], measured)
    slopes, intervals["slopes"] = shared.apart(scores.each(_slopes(found)))
    pairs = []
    for small, large in shared.pairs_of(found):
        both, intervals[shared.pair_key(small, large)] = shared.apart(scores.each(correlations(small, large)))
        pairs.append(Pair(small=small, large=large, **both))
    shown = found.trace
    norms: dict[str, dict[str, list[float]]] = {
        part: {} if shown is None else {name: list(own) for name, own in getattr(shown, f"{part}_error").items()}
        for part in PARTS
    }
    return Outcome(
        rows=rows,
        result=Result(
            linear_slope=slopes["linear_slope"],
            nonlinear_slope=slopes["nonlinear_slope"],
            linear_slope_percent=slopes["linear_slope_percent"],
            nonlinear_slope_percent=slopes["nonlinear_slope_percent"],
            falling_linear=_falling(norms["linear"], found.series),
            falling_nonlinear=_falling(norms["nonlinear"], found.series),
            series=list(found.series),
            labels=shared.names_of(found),
            pairs=tuple(pairs),
            linear_error=norms["linear"],
            nonlinear_error=norms["nonlinear"],
            **shared.excerpt(shown),
        ),
        intervals=intervals,
        controls={
            "intercept": {
                "definition": f"The slopes {'without' if found.intercept else 'with'} an intercept in the map that "
                "splits the error (D-05).",
                **{name: scores.defined(values[0]) for name, values in _slopes(found, switched=True).items()},
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

    from inspector.statistics import token_norms as scores

    by_id = found.by_id()
    saes = [by_id[sae_id] for sae_id in found.series]
    x = [math.log2(sae.d_sae) for sae in saes]
    slopes = {}
    for part in PARTS:
        sums = [getattr(sae.sums, f"{part}_switched" if switched else part) for sae in saes]
        means = np.stack([scores.mean_of(each, found.n, found.counts) for each in sums])
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
    few = "A slope on width needs SAEs of two widths; choose more with --widths."
    return (*((few,) if len(found.series) < 2 else ()), *shared.no_stretch(found, params))


def draw(result: ResultObject) -> Figures:
    """Both panels of Fig. 12, the means over all tokens against width, and which tokens' norms go together."""
    found = result["result"]
    named = dict(zip(found["series"], found["labels"], strict=True))
    rows = shared.rows_with(result, "mean_linear_norm")
    one_each = len(set(named.values())) == len({row["d_sae"] for row in rows})
    means = {f"mean_{part}_norm": f"{part} error" for part in PARTS}
    scores = {
        "mean_linear_norm": "linear",
        "mean_nonlinear_norm": "nonlinear",
        "linear_correlation": "corr. linear",
        "nonlinear_correlation": "corr. nonlinear",
    }
    title = "Which tokens' nonlinear errors go together"
    return (
        *(
            figure
            for part in PARTS
            for figure in shared.trace_figures(
                f"{part.capitalize()} error's norm along a text",
                found,
                {label: found[f"{part}_error"].get(sae_id, []) for sae_id, label in named.items()},
            )
        ),
        shared.width_curve(
            "Mean norms against width, all held-out tokens",
            "mean L2 norm",
            shared.over_width(rows, result["intervals"], means, "line" if one_each else "points"),
        ),
        shared.triangle(title, found, "nonlinear", diagonal=1.0, value="correlation"),
        shared.sae_table("Mean norms over all held-out tokens", result, scores, rows=rows),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    return (
        f"‖linear_error‖ and ‖nonlinear_error‖, the error split by {protocol.a_map}, one SAE per width: at the "
        "tokens of per-token-trace, and over all held-out tokens their mean, the least-squares slope of the mean on "
        "log2 width (units of x per doubling), and the correlation between widths. "
        + protocol.bootstrap(params.resamples, fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="per-token-split",
    title="Per-token split",
    question="Does the linear error fall with width, token by token, while the nonlinear error stays?",
    reference="App. A.4, Fig. 12",
    definition=_definition,
    contradicted_by=(
        "Over all tokens the mean linear error does not fall with width, or the nonlinear error falls as steeply (C15)."
    ),
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
