"""Are the tokens on which a small SAE does badly those on which a larger one does?  Paper, Sec. 4.4, Eq. 13, Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.statistics.token_norms import TokenNorms

VARIANTS = ("squared_origin", "squared_intercept", "unsquared_origin", "unsquared_intercept")
"""Of the norms and of the fit; the paper's text has the first, its code and Fig. 4 the last (D-09)."""
BASELINES = {"r2_x_norm": "‖x‖", "r2_activation": "a1·x", "r2_activation_own": "a2·x"}
"""Where norms are squared the first is of ‖x‖²."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A smaller SAE and a larger one. R-squared over held-out tokens; None where all errors of one have one size."""

    small: str
    large: str
    d_small: int
    d_large: int
    r2: float | None
    """Of the headline variant."""
    factor: float | None
    """c of it: the larger one's size is c times the smaller one's."""
    r2_squared_origin: float | None
    r2_squared_intercept: float | None
    r2_unsquared_origin: float | None
    r2_unsquared_intercept: float | None
    r2_x_norm: float | None
    """Baseline: the same target from ‖x‖ alone (‖x‖² if norms are squared), with an intercept for its best chance."""
    r2_activation: float | None
    """Baseline: from the prediction a1 . x of the smaller one's size, with an intercept."""
    r2_activation_own: float | None
    """Baseline: from the prediction a2 . x of the larger one's own size, with an intercept."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """All pairs of the series, the smaller one first."""

    headline: str
    """Which of the four variants `r2` is."""
    published: str
    """Which one compares with Fig. 4."""
    series: list[str]
    labels: list[str]
    n_test: int
    mean_error_norm: dict[str, float | None]
    """By SAE of the series, in the units of x."""
    variation: dict[str, float | None]
    """Standard deviation of the norm over its mean: how much there is to predict."""
    pairs: tuple[Pair, ...]


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """Four variants of every pair, and three baselines of the same target."""
    from inspector.statistics import token_norms as scores
    from inspector.statistics.token_norms import Column

    found = shared.found_in(statistics, "per-token-scaling")
    headline = found.protocol.scaling
    squared = headline.startswith("squared")
    products = found.squared if squared else found.plain
    widths = {each.sae: each.d_sae for each in found.saes}
    sizes, intervals = _sizes(found)
    pairs, shuffled, gains = [], {}, []
    for small, large in shared.pairs_of(found):
        target, by = Column("error", large), Column("error", small)
        fits = {
            f"{kind}_{fit}": scores.regress(table, target, [by], found.counts, intercept=fit == "intercept")
            for kind, table in (("squared", found.squared), ("unsquared", found.plain))
            for fit in ("origin", "intercept")
        }
        predictors = (Column("x"), Column("probe", small), Column("probe", large))
        baselines = {
            name: scores.regress(products, target, [predictor], found.counts).r2
            for name, predictor in zip(BASELINES, predictors, strict=True)
        }
        gain = fits[headline].r2 - scores.larger(baselines["r2_x_norm"], baselines["r2_activation"])
        arrays = {"r2": fits[headline].r2} | {f"r2_{name}": fit.r2 for name, fit in fits.items()}
        values, own = shared.apart(scores.each(arrays | baselines | {"gain": gain}))
        gained = values.pop("gain")
        pairs.append(
            Pair(
                small=small,
                large=large,
                d_small=widths[small],
                d_large=widths[large],
                factor=scores.defined(fits[headline].weights[0]),
                **values,
            )
        )
        key = shared.pair_key(small, large)
        intervals[key] = own
        shuffled[key] = scores.shuffled_r2(products, target, by, intercept=headline.endswith("intercept"))
        if gained is not None and gained <= 0.0:
            gains.append(key)
    return Outcome(
        rows=(),
        result=Result(
            headline=headline,
            published=VARIANTS[3],
            series=list(found.series),
            labels=shared.names_of(found),
            n_test=found.n_test,
            pairs=tuple(pairs),
            **sizes,
        ),
        intervals=intervals,
        controls={
            "shuffled_targets": {
                "definition": "r2 to expect had the larger SAE's tokens been permuted, among training and among "
                "held-out ones. Through the origin it is far below 0, with an intercept -1/n (S-06).",
                "r2": shuffled,
            },
            "baselines": {
                "definition": f"The same target from {'‖x‖²' if squared else '‖x‖'} alone and from the affine "
                "prediction of the smaller SAE's size from x, both with an intercept; gain is r2 less the better of "
                "the two.",
                "pairs_without_gain": len(gains),
            },
            "intercept": {
                "definition": "r2 with an intercept less r2 through the origin, squared norms (D-09).",
                "r2": {
                    shared.pair_key(pair.small, pair.large): pair.r2_squared_intercept - pair.r2_squared_origin
                    for pair in pairs
                    if pair.r2_squared_intercept is not None and pair.r2_squared_origin is not None
                },
            },
        },
        warnings=_warnings(pairs, gains),
    )


def _sizes(found: TokenNorms) -> tuple[dict[str, shared.Values], dict[str, shared.Intervals]]:
    """Mean and variation of the error's norm by SAE, and their intervals."""
    from inspector.statistics import token_norms as scores

    by_id = found.by_id()
    sizes: dict[str, shared.Values] = {"mean_error_norm": {}, "variation": {}}
    intervals: dict[str, shared.Intervals] = {}
    for sae_id in found.series:
        own = by_id[sae_id].products
        mean = scores.mean(own, "sae_error", found.counts)
        spread = scores.deviation(own, "sae_error", found.counts)
        values, intervals[sae_id] = shared.apart(
            scores.each({"mean_error_norm": mean, "variation": spread / scores.positive(mean)})
        )
        for name, value in values.items():
            sizes[name][sae_id] = value
    return sizes, intervals


def _warnings(pairs: Sequence[Pair], gains: Sequence[str]) -> tuple[str, ...]:
    if not pairs:
        return (shared.NO_PAIR,)
    said = f"{len(gains)} of {len(pairs)} pairs do not gain over what the size of x or a probe of x predicts (C6)."
    return (said,) if gains else ()


def draw(result: ResultObject) -> Figures:
    """Fig. 4's triangle, R-squared against the ratio of widths beside its baselines, and all variants in a table."""
    from inspector.drawing.figures import Axis

    found = result["result"]
    ordered = sorted(found["pairs"], key=lambda pair: float(pair["d_large"] / pair["d_small"]))
    ratios = [pair["d_large"] / pair["d_small"] for pair in ordered]
    baselines = BASELINES | {"r2_x_norm": "‖x‖²" if found["headline"].startswith("squared") else "‖x‖"}
    lines = {"r2": "SAE_1's error", **baselines}
    headline = found["headline"].replace("_", ", ")
    title = f"Error size of one SAE predicted from another's ({headline})"
    variants = {f"r2_{each}": each.replace("_", " ") for each in VARIANTS}
    return (
        shared.triangle(title, found, "r2", diagonal=1.0, value="R²"),
        shared.curve(
            "R² by ratio of widths",
            Axis(label="width of SAE_2 / width of SAE_1", log=True),
            "R²",
            (shared.line(name, ratios, [each[key] for each in ordered], style="points") for key, name in lines.items()),
        ),
        shared.pair_table("Pairs of widths", result, {"r2": "R²", **baselines}, result["definition"], headline="r2"),
        shared.pair_table("Norms squared or not, through the origin or not", result, variants),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    size, square = "‖sae_error‖", protocol.scaling.startswith("squared")
    with_constant = protocol.scaling.endswith("intercept")
    formula, fit = ("c y1 + k", "c and k fitted") if with_constant else ("c y1", "c fitted through the origin")
    return (
        f"r2 = 1 - sum (y2 - {formula})² / sum (y2 - mean(y2))² over held-out tokens, y1 and y2 being "
        f"{size + '²' if square else size} of a smaller and a larger SAE and {fit} on the training tokens "
        f"({'Eq. 13' if square else 'as Fig. 4 has it, D-09'}); beside it the other three of squared or not, through "
        "the origin or with an intercept (D-09). " + protocol.bootstrap(params.resamples, fixed="the fits")
    )


EXPERIMENT = Experiment(
    id="per-token-scaling",
    title="Per-token scaling",
    question="Are the tokens on which a small SAE does badly those on which a larger one does?",
    reference="Sec. 4.4, Eq. 13, Fig. 4",
    definition=_definition,
    contradicted_by="r2 no higher than the size of x, or the probe a1 · x of the smaller SAE's error, predicts (C6).",
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
