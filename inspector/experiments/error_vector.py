"""How much of sae_error is an affine function of x?  Paper, Sec. 4.2, Eq. 11."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics
from inspector.statistics.profiles import ERROR_MAP

NAMES = ("r2_pooled", "r2_mean_dims")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE. Unitless, at most 1; None for a perfect SAE."""

    r2_pooled: float | None
    """Variance-weighted over dimensions, held-out tokens."""
    r2_mean_dims: float | None
    """Unweighted mean over dimensions; comparable with the paper."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs. None without any defined score."""

    lowest_r2_mean_dims: float | None
    highest_r2_mean_dims: float | None
    train_r2_pooled: dict[str, float | None]
    """On the training tokens, by sae; what exceeds the held-out value is overfitting."""
    train_r2_mean_dims: dict[str, float | None]
    undefined_dims: dict[str, int]
    """Dimensions without an R-squared because the error is constant there; left out of r2_mean_dims."""
    paper_range: tuple[float, float] = (0.15, 0.72)
    """The paper's range of r2_mean_dims over its SAEs."""


def compute(statistics: Statistics, params: FitParams) -> Outcome:
    """Collect both averages, with the intercept's effect and the shuffled expectation as controls."""
    rows, intervals = shared.of_passes(statistics, Row)
    defined = shared.known(row.r2_mean_dims for row in rows)
    train, switched = (shared.by_sae(statistics, which, NAMES) for which in ("train", "switched"))
    return Outcome(
        rows=rows,
        result=Result(
            lowest_r2_mean_dims=min(defined, default=None),
            highest_r2_mean_dims=max(defined, default=None),
            train_r2_pooled=train["r2_pooled"],
            train_r2_mean_dims=train["r2_mean_dims"],
            undefined_dims={sae.ref.sae_id: sae.undefined_dims for sae in statistics.saes},
        ),
        intervals=intervals,
        controls={
            "shuffled_targets": {
                "definition": "R-squared to expect if x said nothing about the error: -p/n_train (S-06).",
                "r2_pooled": statistics.shuffled_r2,
            },
            "intercept": {
                "definition": f"Scores {'without' if statistics.intercept else 'with'} an intercept (D-05).",
                "constant_share": statistics.constant_share,
                **switched,
            },
        },
        warnings=tuple(
            f"{sae.ref.sae_id}: the error is constant in {sae.undefined_dims} of {statistics.d} dimensions; "
            "r2_mean_dims is over the others."
            for sae in statistics.saes
            if 0 < sae.undefined_dims < statistics.d
        ),
    )


def draw(result: ResultObject) -> Figures:
    """All SAEs in a table, both averages against L0 for each width, and in the layout of Fig. 2."""
    titles = dict(zip(NAMES, ("pooled R²", "mean R² of dims"), strict=True))
    return (
        shared.sae_table("SAE error predicted from x", result, titles),
        *(shared.by_l0(f"Error vector, {title}", result, key, title) for key, title in titles.items()),
        shared.by_width_and_l0("Pooled R² by width and L0", result, "r2_pooled", titles["r2_pooled"]),
    )


def _definition(protocol: Protocol, params: FitParams) -> str:
    ends = protocol.bootstrap(params.resamples, fixed="the map")
    return (
        f"r2_pooled = 1 - sum ‖e - {protocol.affine}‖² / sum ‖e - mean(e)‖² over held-out tokens, with e = x - x_hat "
        f"and {protocol.fitted}; r2_mean_dims is the unweighted mean of the R-squared of each dimension, the paper's "
        f"number. {ends}"
    )


EXPERIMENT = Experiment(
    id="error-vector",
    title="Error vector",
    question="How much of the error vector is an affine function of the activation?",
    reference="Sec. 4.2, Eq. 11, Figs. 2 (middle), 10, 11",
    definition=_definition,
    contradicted_by=(
        "r2_mean_dims outside 0.15 to 0.72, or a collapse when contexts instead of tokens are held out (C2)."
    ),
    params=FitParams,
    needs=(ERROR_MAP,),
    compute=compute,
    draw=draw,
)
