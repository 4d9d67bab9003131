"""Which vectors have a squared norm that x predicts?  Paper, Sec. 5.1, Fig. 6."""

from __future__ import annotations

import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.experiment import Experiment, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics, TokenParams, measure, passes
from inspector.statistics.profiles import ERROR_COVARIANCE

if TYPE_CHECKING:
    from inspector.statistics.token_norms import Array, SaeTokens, TokenNorms

VECTORS = {
    "x": "x",
    "x_hat": "x_hat",
    "sae_error": "error",
    "linear_error": "linear",
    "nonlinear_error": "nonlinear",
    "x_hat_plus_nonlinear": "x_hat + nonlinear",
}
"""In the order of Fig. 6, with short names; the last is not in the figure, though the public code can do it."""
CUT_OFF = 0.5
"""The published code leaves R-squared up to here out of its figure; its text says up to 0 (D-12)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """R-squared of six squared norms on x, held-out tokens. At most 1; None where all norms are the same."""

    r2_x: float | None
    """The same for all SAEs of a hook."""
    r2_x_hat: float | None
    r2_sae_error: float | None
    r2_linear_error: float | None
    r2_nonlinear_error: float | None
    r2_x_hat_plus_nonlinear: float | None
    """Of x_hat + nonlinear_error, an affine function of x (S-11): what a map without features scores."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs; by vector."""

    medians: dict[str, float | None]
    """Of what the figure shows."""
    below_half: dict[str, int]
    """Values of at most 0.5: counted, and shown unless the profile is the public code's (D-12)."""
    left_out: int
    """Of the figure and the medians."""
    order: list[str]
    """From the best predicted to the worst, by median."""
    train_r2: dict[str, dict[str, float | None]]
    """On the training tokens, by vector and SAE; what exceeds the held-out value is overfitting."""
    paper_order: str = "x first; sae_error and nonlinear_error notably below linear_error"


def compute(statistics: Statistics, params: TokenParams) -> Outcome:
    """All scores of every SAE, beside the Gaussian null, the intercept's effect and the training tokens."""
    from inspector.statistics import token_norms as scores

    found = shared.found_in(statistics, "norm-test")
    switched: dict[str, shared.Values] = {name: {} for name in VECTORS}
    null: dict[str, shared.Values] = {name: {} for name in VECTORS}
    train: dict[str, shared.Values] = {name: {} for name in VECTORS}

    def measured(own: SaeTokens) -> tuple[Row, shared.Intervals]:
        values, intervals = shared.apart(
            scores.each({f"r2_{name}": _r2(found, own, name, found.intercept) for name in VECTORS})
        )
        for name in VECTORS:
            switched[name][own.sae] = scores.defined(_r2(found, own, name, not found.intercept)[0])
            null[name][own.sae] = found.x_gaussian_r2 if name == "x" else own.gaussian_r2.get(name)
            train[name][own.sae] = found.x_train_r2 if name == "x" else own.train_r2[name]
        return Row(**values), intervals

    rows, intervals = shared.per_sae(statistics, found.saes, measured)
    least = found.protocol.norm_test_above
    drop = least is not None
    values_of = {name: shared.known(getattr(row, f"r2_{name}") for row in rows) for name in VECTORS}
    below = {name: sum(value <= CUT_OFF for value in own) for name, own in values_of.items()}
    shown = {name: [value for value in own if least is None or value > least] for name, own in values_of.items()}
    medians = {name: plain_statistics.median(own) if own else None for name, own in shown.items()}
    return Outcome(
        rows=rows,
        result=Result(
            medians=medians,
            below_half=below,
            left_out=sum(below.values()) if drop else 0,
            order=sorted(
                (name for name in VECTORS if medians[name] is not None), key=lambda name: -(medians[name] or 0.0)
            ),
            train_r2=train,
        ),
        intervals=intervals,
        controls={
            "gaussian_null": {
                "definition": "The same were x and the vector jointly Gaussian with these means and covariances "
                "(S-20): a mean away from 0 is enough for a high score, no sparse features are needed. With an "
                "intercept nonlinear_error has mean 0 and its null is 0.",
                **{f"r2_{name}": own for name, own in null.items()},
            },
            "shuffled_targets": {
                "definition": "R-squared to expect if x said nothing about the norm: -p/n_train (S-06).",
                "r2": statistics.shuffled_r2,
            },
            "intercept": {
                "definition": f"The same {'without' if found.intercept else 'with'} an intercept in the regression of "
                "the squared norm; the map that splits the error stays (D-05).",
                "constant_share": statistics.constant_share,
                **{f"r2_{name}": own for name, own in switched.items()},
            },
        },
        warnings=_warnings(rows, null, below, drop),
    )


def _r2(found: TokenNorms, own: SaeTokens, name: str, intercept: bool) -> Array:
    from inspector.statistics.token_norms import r2_of_target

    target = found.x_sq if name == "x" else getattr(own.sums, f"{name}_sq")
    return r2_of_target(target, found.n, found.counts, intercept=intercept)


def _warnings(
    rows: Sequence[object], null: Mapping[str, shared.Values], below: Mapping[str, int], drop: bool
) -> tuple[str, ...]:
    warnings = []
    for name in VECTORS:
        pairs = [(getattr(row, f"r2_{name}"), level) for row, level in zip(rows, null[name].values(), strict=True)]
        lower = sum(value is not None and level is not None and value <= level for value, level in pairs)
        if lower:
            warnings.append(f"r2_{name} is not above the Gaussian null for {lower} of {len(rows)} SAEs.")
    if drop and any(below.values()):
        counts = ", ".join(f"{name} {count}" for name, count in below.items() if count)
        warnings.append(
            f"As in the public code, values of at most {CUT_OFF:g} are left out of figure and medians: {counts}."
        )
    return tuple(warnings)


def draw(result: ResultObject) -> Figures:
    """Fig. 6's violins with the Gaussian null below, and all SAEs in a table."""
    from inspector.drawing.figures import Axis, Violin

    rows, counts = result["saes"], result["result"]["below_half"]
    drop = result["profile"] == "paper-code"
    samples, nulls = [], []
    for name in VECTORS:
        values = shared.known(row[f"r2_{name}"] for row in rows)
        samples.append(tuple(value for value in values if not drop or value > CUT_OFF))
        nulls.append(tuple(shared.known(result["controls"]["gaussian_null"][f"r2_{name}"].values())))
    note = "At most 0.5: " + ", ".join(f"{short} {counts[name]}" for name, short in VECTORS.items())
    note += " (left out)." if drop else " (shown)."
    axis, labels = Axis(label="R² of the squared norm on x"), tuple(VECTORS.values())
    drawn = {"Norm test, one value per SAE": (samples, note)}
    if any(nulls):
        drawn["The same of Gaussians with these moments"] = nulls, ""
    titles = {f"r2_{name}": f"R² {short}" for name, short in VECTORS.items()}
    return (
        *(
            Violin(title=title, value=axis, labels=labels, samples=tuple(of), note=said)
            for title, (of, said) in drawn.items()
        ),
        shared.sae_table("Squared norms predicted from x", result, titles, ends=False),
    )


def _definition(protocol: Protocol, params: TokenParams) -> str:
    formula, fitted = (
        ("a x - c", "a and c fitted") if protocol.intercept else ("a x", "a fitted, without an intercept (D-05),")
    )
    where = "the same tokens"
    if protocol.norm_test_map_on == "all":
        where = "all tokens, held-out ones included"
    shown = ""
    if protocol.norm_test_above is not None:
        shown = f" Figure and medians leave out R-squared up to {protocol.norm_test_above:g} (D-12)."
    return (
        f"r2_v = 1 - sum (‖v‖² - {formula})² / sum (‖v‖² - mean)² over held-out tokens, for v in x, x_hat, sae_error, "
        "linear_error, nonlinear_error and x_hat + nonlinear_error (which is x - linear_error, S-11), "
        f"{fitted} by least squares on the training tokens. The map that splits the error, {protocol.a_map}, is fitted "
        f"on {where}.{shown} " + protocol.bootstrap(params.resamples, fixed="all maps")
    )


EXPERIMENT = Experiment(
    id="norm-test",
    title="Norm test",
    question="Which of x, Sae(x), the SAE error and its two parts have a squared norm that x predicts?",
    reference="Sec. 5.1, Fig. 6",
    definition=_definition,
    contradicted_by="Another order: x not best, or the nonlinear error not worst, once nothing is left out (C7).",
    params=TokenParams,
    needs=(ERROR_COVARIANCE,),
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
