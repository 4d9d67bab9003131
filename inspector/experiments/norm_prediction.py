"""How much of the size of the SAE error is an affine function of x?  Paper, Sec. 4.1, Eq. 10."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics
from inspector.statistics.profiles import ERROR_COVARIANCE, NORM_MAP


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE."""

    r2_norm: float | None
    """R-squared of ‖sae_error‖² on x, held-out tokens. Unitless, at most 1; None if all errors have one size."""
    fvu: float | None
    """Fraction of the variance of x the SAE leaves unexplained; read r2_norm beside it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs. None without any defined score."""

    lowest_r2_norm: float | None
    highest_r2_norm: float | None
    train_r2_norm: dict[str, float | None]
    """On the training tokens, by sae; what exceeds the held-out value is overfitting."""
    paper_range: tuple[float, float] = (0.70, 0.95)
    """The paper's range over all its SAEs (E-06: its own Fig. 3 has layers outside)."""


def compute(statistics: Statistics, params: FitParams) -> Outcome:
    """Collect the scores, with the Gaussian null and the intercept's effect as controls."""
    rows, intervals = shared.of_passes(statistics, Row)
    defined = shared.known(row.r2_norm for row in rows)
    return Outcome(
        rows=rows,
        result=Result(
            lowest_r2_norm=min(defined, default=None),
            highest_r2_norm=max(defined, default=None),
            train_r2_norm=shared.by_sae(statistics, "train", ["r2_norm"])["r2_norm"],
        ),
        intervals=intervals,
        controls={
            "gaussian_null": {
                "definition": "r2_norm were x and sae_error jointly Gaussian with the same mean and covariance (S-20).",
                "r2_norm": {sae.ref.sae_id: sae.gaussian_r2_norm for sae in statistics.saes},
            },
            "shuffled_targets": {
                "definition": "r2_norm to expect if x said nothing about the error: -p/n_train (S-06).",
                "r2_norm": statistics.shuffled_r2,
            },
            "intercept": {
                "definition": f"r2_norm {'without' if statistics.intercept else 'with'} an intercept (D-05).",
                "constant_share": statistics.constant_share,
                **shared.by_sae(statistics, "switched", ["r2_norm"]),
            },
        },
        warnings=tuple(_below_null(statistics)),
    )


def _below_null(statistics: Statistics) -> list[str]:
    """The case that contradicts the paper is said aloud."""
    return [
        f"{sae.ref.sae_id}: r2_norm {sae.scores.r2_norm:.3f} is not above the {sae.gaussian_r2_norm:.3f} "
        "of a Gaussian with the same moments."
        for sae in statistics.saes
        if sae.scores.r2_norm is not None
        and sae.gaussian_r2_norm is not None
        and sae.scores.r2_norm <= sae.gaussian_r2_norm
    ]


def draw(result: ResultObject) -> Figures:
    """All SAEs in a table, r2_norm against L0 for each width, and in the layout of Fig. 2."""
    score = "r2_norm", "‖e‖² R²"
    return (
        shared.sae_table("Squared norm of the SAE error predicted from x", result, dict([score, ("fvu", "FVU")])),
        shared.by_l0("Norm prediction", result, *score),
        shared.by_width_and_l0("Norm R² by width and L0", result, *score),
    )


def _definition(protocol: Protocol, params: FitParams) -> str:
    formula, fitted = (
        ("a x + c", "a, c fitted") if protocol.intercept else ("a x", "a fitted, without an intercept (D-05),")
    )
    ends = protocol.bootstrap(params.resamples, fixed="the map")
    return (
        f"r2_norm = 1 - sum (y - {formula})² / sum (y - mean(y))² over held-out tokens, with y = ‖x - x_hat‖² and "
        f"{fitted} by least squares on the training tokens; fvu beside it is over {protocol.fvu_tokens}. {ends}"
    )


EXPERIMENT = Experiment(
    id="norm-prediction",
    title="Norm prediction",
    question="How much of the per-token variation of the squared error norm is an affine function of the activation?",
    reference="Sec. 4.1, Eq. 10, Figs. 2 (left), 3, 10, 11",
    definition=_definition,
    contradicted_by="r2_norm at or below that of the Gaussian null, or no better than the size of x predicts (C1).",
    params=FitParams,
    needs=(NORM_MAP, ERROR_COVARIANCE),
    compute=compute,
    draw=draw,
)
