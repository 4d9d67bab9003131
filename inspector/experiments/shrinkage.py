"""Does the linear map only undo a shrinkage of reconstructions?  Paper, App. A.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.statistics.token_norms import Array, SaeTokens, TokenNorms
    from inspector.statistics.token_numbers import Rests

MAPS = ("scalar", "diagonal", "full")
"""From x to sae_error: one number for all dimensions, one for each, the whole matrix."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Per SAE, held-out tokens. `centred`: around training means, because a large mean inflates both."""

    norm_ratio: float | None
    """Mean over tokens of ‖x_hat‖ / ‖x‖. Below 1: reconstructions are shorter."""
    ratio_of_means: float | None
    """Mean ‖x_hat‖ over mean ‖x‖."""
    norm_ratio_centred: float | None
    ratio_of_means_centred: float | None
    cosine: float | None
    """Mean over tokens of the cosine of linear_error and x; 1 for pure shrinkage."""
    cosine_centred: float | None
    scalar: float | None
    """The one number times x that predicts sae_error best; positive where reconstructions are too short."""
    r2_scalar: float | None
    """Of sae_error, pooled over dimensions, from that number times x."""
    r2_diagonal: float | None
    """From one number per dimension."""
    r2_full: float | None
    """From the whole map."""
    r2_scalar_mean_dims: float | None
    """The same three as unweighted means over dimensions."""
    r2_diagonal_mean_dims: float | None
    r2_full_mean_dims: float | None
    scalar_share: float | None
    """r2_scalar / r2_full: how much of what the map explains is shrinkage."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs. None without any defined value."""

    median_norm_ratio: float | None
    median_cosine: float | None
    median_scalar_share: float | None
    series: list[str]
    """One SAE per width, which the bars are of."""
    undefined_tokens: dict[str, int]
    """By SAE: held-out tokens without a cosine, because linear_error or x is 0 there; left out of its mean."""
    paper_norm_ratio: float = 0.9
    paper_cosine: float = 0.5


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """Lengths and directions, and the direct test: what one scalar explains of the error."""
    from statistics import median

    from inspector.statistics import token_norms as scores

    found = shared.found_in(statistics, "shrinkage")
    undefined: dict[str, int] = {}
    switched: dict[str, shared.Values] = {f"r2_{name}": {} for name in MAPS[:2]}

    def measured(own: SaeTokens) -> tuple[Row, shared.Intervals]:
        r2 = {f"r2_{name}": _r2(found, own, name, found.intercept) for name in MAPS}
        share = {"scalar_share": r2["r2_scalar"] / scores.positive(r2["r2_full"])}
        values, intervals = shared.apart(scores.each(_directions(found, own) | r2 | share))
        dims = {f"r2_{name}_mean_dims": _mean_dims(own, name, found.intercept) for name in MAPS}
        undefined[own.sae] = found.n_test - round(float(own.sums.plain.cosine_defined.sum()))
        for name in MAPS[:2]:
            switched[f"r2_{name}"][own.sae] = scores.defined(_r2(found, own, name, not found.intercept)[0])
        return Row(scalar=own.scalar, **dims, **values), intervals

    rows, intervals = shared.per_sae(statistics, found.saes, measured)
    names = ("norm_ratio", "cosine", "scalar_share")
    known = {name: shared.known(getattr(row, name) for row in rows) for name in names}
    medians: dict[str, Any] = {f"median_{name}": median(own) if own else None for name, own in known.items()}
    most = sum(share > 0.5 for share in known["scalar_share"])
    return Outcome(
        rows=rows,
        result=Result(**medians, series=list(found.series), undefined_tokens=undefined),
        intervals=intervals,
        controls={
            "pure_shrinkage": {
                "definition": "Were x_hat = s x with one s below 1 for all tokens, cosine, r2_scalar and scalar_share "
                "would be 1. For a target that x says nothing about, r2_full is -p/n_train (S-06).",
                "cosine": 1.0,
                "scalar_share": 1.0,
                "shuffled_r2_full": statistics.shuffled_r2,
            },
            "intercept": {
                "definition": f"r2 of the scalar and of the diagonal {'without' if found.intercept else 'with'} an "
                "intercept (D-05); of the whole map: see error-vector.",
                **switched,
            },
        },
        warnings=(f"The scalar explains more than half of what the map does for {most} SAEs (C13).",) if most else (),
    )


def _directions(found: TokenNorms, own: SaeTokens) -> dict[str, Array]:
    """[r] by field of the row: ratios of lengths and cosines."""
    from inspector.statistics import token_norms as scores

    values = {}
    for sums, suffix in ((own.sums.plain, ""), (own.sums.centred, "_centred")):
        short, long = found.counts @ sums.x_hat_norm, found.counts @ sums.x_norm
        values[f"norm_ratio{suffix}"] = scores.mean_of(sums.ratio, sums.ratio_defined, found.counts)
        values[f"ratio_of_means{suffix}"] = short / scores.positive(long)
        values[f"cosine{suffix}"] = scores.mean_of(sums.cosine, sums.cosine_defined, found.counts)
    return values


def _r2(found: TokenNorms, own: SaeTokens, name: str, intercept: bool) -> Array:
    """[r] pooled over dimensions."""
    from inspector.statistics import token_norms as scores

    drawn = found.counts @ own.error_sum
    square = found.counts @ own.sums.rests.total
    total = scores.around_mean(square, drawn, found.counts @ found.n)
    rest: Array = 1.0 - found.counts @ _kept(own.sums.rests, name, intercept) / total
    return rest


def _mean_dims(own: SaeTokens, name: str, intercept: bool) -> float | None:
    import numpy as np

    total = own.squares.total
    known = total > 0
    if not known.any():
        return None
    return float(np.mean(1.0 - _kept(own.squares, name, intercept)[known] / total[known]))


def _kept(rests: Rests[Array], name: str, intercept: bool) -> Array:
    kept: Array = getattr(rests, name if name == "full" else f"{name}_{'on' if intercept else 'off'}")
    return kept


def draw(result: ResultObject) -> Figures:
    """What the three maps explain against L0, the cosine beside them, and all numbers in two tables."""
    shown = [row for row in result["saes"] if row["sae"] in result["result"]["series"]]
    maps = {f"r2_{name}": name for name in MAPS}
    lengths = {
        "norm_ratio": "‖x_hat‖/‖x‖",
        "norm_ratio_centred": "centred",
        "cosine": "cosine",
        "cosine_centred": "cosine, centred",
    }
    explained = {key: f"R² {name}" for key, name in maps.items()} | {"scalar_share": "share"}
    title, cosine = "Cosine of the linear error and x, both centred", "cosine_centred"
    return (
        shared.grouped_bars(
            "The error explained by scalings of x and by the whole map",
            "pooled R²",
            shared.saes_named(shown),
            (
                shared.bar(name, [row[key] for row in shown], shared.ends_of(shown, result["intervals"], key))
                for key, name in maps.items()
            ),
        ),
        shared.by_l0(title, result, cosine, lengths[cosine]),
        shared.sae_table("Lengths and directions", result, lengths, ends=False),
        shared.sae_table("How much of the map is a scaling", result, explained, ends=False, note=""),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    how = "each with an intercept" if protocol.intercept else "each without an intercept"
    return (
        "Over held-out tokens: mean of ‖x_hat‖ / ‖x‖ and of the cosine of linear_error and x, raw and around training "
        "means; and r2 of sae_error from one number times x, from one per dimension, and from the whole map, "
        f"{how}, fitted on the training tokens, pooled over dimensions (and as means over dimensions). "
        + protocol.bootstrap(params.resamples, fixed="the maps")
    )


EXPERIMENT = Experiment(
    id="shrinkage",
    title="Shrinkage",
    question="Does the linear map only undo a shrinkage of the reconstructions?",
    reference="App. A.1",
    definition=_definition,
    contradicted_by="One scalar times x explains most of what the whole map explains (C13).",
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
