"""Is the size of the error easier to predict from something simpler than x?  Paper, App. A.3, Fig. 13."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes

if TYPE_CHECKING:
    from inspector.statistics.token_norms import Array, SaeTokens, TokenNorms

FIVE = {"x": "activation", "token": "token", "loss": "loss", "l0": "L0", "x_norm": "‖x‖"}
"""The predictors of Fig. 13."""
FURTHER = {"token_position": "token + position", "token_and_x": "token + x"}
TARGETS = {"squared": "sae_error_sq", "unsquared": "sae_error"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """R-squared of the error's size, held-out tokens. At most 1; None where sizes or predictors are all the same."""

    r2_x: float | None
    """From the activation, all its dimensions."""
    r2_token: float | None
    """From the token's id: its mean over training tokens, the mean of all where it was never seen (D-19)."""
    r2_loss: float | None
    """From the model's loss at the token."""
    r2_l0: float | None
    """From the number of active latents; None for an SAE that always has as many."""
    r2_x_norm: float | None
    """From ‖x‖."""
    r2_token_position: float | None
    """From the token's id and, linearly, its position."""
    r2_token_and_x: float | None
    """From the token's id and the activation."""
    r2_x_within_token: float | None
    """Of what the token's id leaves, the share that the activation, less its mean for that id, explains."""
    r2_x_other: float | None
    """As without `_other`, of the target that is not the headline's."""
    r2_token_other: float | None
    r2_loss_other: float | None
    r2_l0_other: float | None
    r2_x_norm_other: float | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs."""

    headline: str
    """'squared' norms as the target, or 'unsquared' (D-18): the paper's text has the norm, its code the square."""
    token_means: str
    """'training tokens', or 'all tokens, in sample' as the public code (D-19)."""
    x_best: int
    """SAEs for which x is better than the other four predictors of Fig. 13."""
    series: list[str]
    """One SAE per width, which the lines are of."""
    best_other: dict[str, str | None]
    """By SAE: the best of the other four."""
    classes: int
    """Token ids with at least ten training tokens, which have a mean of x of their own in token + x."""


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """Every predictor for both targets, and the public code's token means as a control."""
    import numpy as np

    from inspector.statistics import token_norms as scores

    found = shared.found_in(statistics, "norm-baselines")
    headline = found.protocol.baselines_of
    target, other = TARGETS[headline], TARGETS["squared" if headline == "unsquared" else "unsquared"]
    in_sample = found.protocol.token_means_on == "all"
    intercept = params.intercept is not False  # the public code has one here, unlike in its other regressions (D-05)
    best: dict[str, str | None] = {}
    beaten: list[str] = []
    token_r2: dict[str, dict[str, float | None]] = {"held_out": {}, "in_sample": {}}
    switched: dict[str, dict[str, float | None]] = {}

    def measured(own: SaeTokens) -> tuple[Row, shared.Intervals]:
        arrays = {f"r2_{name}": value for name, value in _five(found, own, target, intercept).items()}
        arrays |= {f"r2_{name}": value for name, value in _further(found, own, target).items()}
        arrays |= {f"r2_{name}_other": value for name, value in _five(found, own, other, intercept).items()}
        values, intervals = shared.apart(scores.each(arrays))
        token_r2["held_out"][own.sae] = values["r2_token"]
        token_r2["in_sample"][own.sae] = own.in_sample_token_r2[target]
        if in_sample:
            values |= {"r2_token": own.in_sample_token_r2[target], "r2_token_other": own.in_sample_token_r2[other]}
            intervals |= {"r2_token": None, "r2_token_other": None}
        else:
            beside = np.stack([arrays[f"r2_{name}"] for name in FIVE if name != "x"])
            gain = arrays["r2_x"] - np.where(np.isnan(beside).all(axis=0), np.nan, np.fmax.reduce(beside))
            intervals["r2_x_gain"] = scores.estimate(gain).interval
        rivals = {name: value for name in FIVE if name != "x" and (value := values[f"r2_{name}"]) is not None}
        strongest = max(rivals, key=lambda name: rivals[name]) if rivals else None
        best[own.sae] = strongest
        of_x = values["r2_x"]
        if strongest is not None and of_x is not None and of_x <= rivals[strongest]:
            beaten.append(f"{own.sae} by {FIVE[strongest]}")
        for name, array in _five(found, own, target, not intercept).items():
            if name != "token":
                switched.setdefault(f"r2_{name}", {})[own.sae] = scores.defined(array[0])
        return Row(**values), intervals

    rows, intervals = shared.per_sae(statistics, found.saes, measured)
    return Outcome(
        rows=rows,
        result=Result(
            headline=headline,
            token_means="all tokens, in sample" if in_sample else "training tokens",
            x_best=len(rows) - len(beaten),
            series=list(found.series),
            best_other=best,
            classes=found.classes,
        ),
        intervals=intervals,
        controls={
            "token_means": {
                "definition": "r2_token with means over training tokens scored on held-out ones, and as the public "
                "code has it: means over all tokens, scored on the same, where a rare token predicts itself (D-19).",
                **token_r2,
            },
            "shuffled_targets": {
                "definition": "r2_x to expect if x said nothing about the size: -p/n_train (S-06); of the predictors "
                "with one number, -1/n_train.",
                "r2_x": statistics.shuffled_r2,
            },
            "intercept": {
                "definition": f"The same {'without' if intercept else 'with'} an intercept; token means have none.",
                **switched,
            },
        },
        warnings=(f"x is not the best predictor for {len(beaten)} of {len(rows)} SAEs (C14): {'; '.join(beaten)}.",)
        if beaten
        else (),
    )


def _five(found: TokenNorms, own: SaeTokens, target: str, intercept: bool) -> dict[str, Array]:
    from inspector.statistics import token_norms as scores

    size = getattr(own.sums, target)
    rests = {"x": size.rest_on if intercept else size.rest_off, "token": size.token}
    values = {name: scores.r2_of_rest(own.products, target, rest, found.counts) for name, rest in rests.items()}
    for name, column in (("loss", "loss"), ("l0", "l0"), ("x_norm", "x")):
        fitted = scores.regress(own.products, target, [column], found.counts, intercept=intercept)
        values[name] = scores.nan_if_constant(own.products, column, fitted.r2)
    return values


def _further(found: TokenNorms, own: SaeTokens, target: str) -> dict[str, Array]:
    from inspector.statistics import token_norms as scores

    size = getattr(own.sums, target)
    return {
        "token_position": scores.r2_of_rest(own.products, target, size.token_position, found.counts),
        "token_and_x": scores.r2_of_rest(own.products, target, size.within, found.counts),
        "x_within_token": 1.0 - (found.counts @ size.within) / scores.positive(found.counts @ size.by_class),
    }


def draw(result: ResultObject) -> Figures:
    """Fig. 13's lines, over the widths of this layer, and all SAEs in tables."""
    found = result["result"]
    five, further = ({f"r2_{name}": title for name, title in names.items()} for names in (FIVE, FURTHER))
    lines = five | {"r2_token_and_x": FURTHER["token_and_x"]}
    size, other = ("‖e‖²", "‖e‖") if found["headline"] == "squared" else ("‖e‖", "‖e‖²")
    further |= {"r2_x_within_token": "x within token"}
    further |= {f"{key}_other": f"{title}, {other}" for key, title in five.items()}
    rows = [row for row in result["saes"] if row["sae"] in found["series"]]
    one_each = len({row["d_sae"] for row in rows}) == len(rows)
    series = shared.over_width(rows, result["intervals"], lines, "line" if one_each else "points")
    note = f"Token means: {found['token_means']}."
    return (
        shared.width_curve(f"R² of {size} from simpler things than x", "R²", series, note),
        shared.sae_table(f"R² of {size} by predictor", result, five, ends=False),
        shared.sae_table(f"Further predictors, and the five of {other}", result, further, ends=False, note=""),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    of = ("‖sae_error‖²", "‖sae_error‖") if protocol.baselines_of == "squared" else ("‖sae_error‖", "‖sae_error‖²")
    means = "its mean over training tokens"
    if protocol.token_means_on == "all":
        means = "its mean over all tokens, scored on the same ones, D-19"
    fitted = "with an intercept" if params.intercept is not False else "without an intercept"
    return (
        f"R-squared over held-out tokens of {of[0]} (and of {of[1]}, D-18) from the activation x, the token's id "
        f"({means}), the model's loss, the SAE's l0 and ‖x‖, each {fitted} by least squares on the training tokens; "
        "also from id and position, and from id and x. " + protocol.bootstrap(params.resamples, fixed="all fits")
    )


EXPERIMENT = Experiment(
    id="norm-baselines",
    title="Norm baselines",
    question="Is the size of the SAE error easier to predict from something simpler than the activation?",
    reference="App. A.3, Fig. 13",
    definition=_definition,
    contradicted_by="A simpler variable, held out, predicts as well as x beyond the first layers (C14).",
    params=TokenParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
