"""What share of the variance of x do x_hat and the affine part of its error leave?  Paper, Sec. 4.3, Eq. 12."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.experiment import Experiment, FitParams, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics
from inspector.statistics.measured import slope_beside
from inspector.statistics.profiles import ERROR_MAP

if TYPE_CHECKING:
    from inspector.statistics.measured import SaeStatistics, Statistics

NAMES = ("fvu", "fvu_nonlinear")
INTERPRETATION = (
    "nonlinear_error is minus the part of x_hat that is not affine in x (S-09), so fvu_nonlinear is 0 for any affine "
    "map in the SAE's place, x_hat = 0 and a principal-component projection included (S-10): a low value alone is no "
    "virtue, read it beside fvu."
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE. Unitless, at least 0, no upper bound; None if x is constant."""

    fvu: float | None
    """Of x_hat."""
    fvu_nonlinear: float | None
    """Of x_hat + linear_error."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Training tokens beside the scored ones: the gap measures overfitting, about d / n_train on either side."""

    scored_tokens: str
    """'held-out' or 'all'."""
    train_fvu: dict[str, float | None]
    train_fvu_nonlinear: dict[str, float | None]
    scored_fvu: dict[str, float | None]
    """As in `saes`."""
    scored_fvu_nonlinear: dict[str, float | None]
    width_slope: float | None
    """Of log fvu_nonlinear on log d_sae over the SAEs, with log L0 as a covariate; 0 is flat. None: fewer than three
    widths, or widths and L0s that cannot be told apart. Interval: Student's, over the SAEs."""
    width_slope_fvu: float | None
    """The same of log fvu, which is to fall."""
    interpretation: str = INTERPRETATION


def compute(statistics: Statistics, params: FitParams) -> Outcome:
    """Collect both fractions on training and scored tokens, with the affine map and the intercept as controls."""
    rows, intervals = shared.of_passes(statistics, Row)
    train, scored = (shared.by_sae(statistics, which, NAMES) for which in ("train", "scores"))
    slope, of_slope = width_slope(statistics.saes, "fvu_nonlinear") or (None, None)
    fall, of_fall = width_slope(statistics.saes, "fvu") or (None, None)
    return Outcome(
        rows=rows,
        result=Result(
            scored_tokens=statistics.fvu_on,
            train_fvu=train["fvu"],
            train_fvu_nonlinear=train["fvu_nonlinear"],
            scored_fvu=scored["fvu"],
            scored_fvu_nonlinear=scored["fvu_nonlinear"],
            width_slope=slope,
            width_slope_fvu=fall,
        ),
        intervals=intervals | {"suite": {"width_slope": of_slope, "width_slope_fvu": of_fall}},
        controls={
            "affine_map": {
                "definition": (
                    "A projection on half the principal components in the SAE's place, training tokens: it has an fvu, "
                    "and its fvu_nonlinear must be 0 to 1e-10 (S-10)."
                ),
                "fvu": statistics.affine_fvu,
                "fvu_nonlinear": statistics.affine_fvu_nonlinear,
            },
            "intercept": {
                "definition": f"fvu_nonlinear {'without' if statistics.intercept else 'with'} an intercept (D-05).",
                "constant_share": statistics.constant_share,
                **shared.by_sae(statistics, "switched", ["fvu_nonlinear"]),
            },
        },
    )


def width_slope(saes: Sequence[SaeStatistics], score: str) -> tuple[float, tuple[float, float]] | None:
    """Slope of a score's log on the log of the width, the log of the measured L0 held fixed, and its interval."""
    values = [(sae.ref.d_sae, getattr(sae.scores, score), sae.l0) for sae in saes]
    logs = [tuple(map(math.log, each)) for each in values if all(number is not None and number > 0 for number in each)]
    if len({width for width, _, _ in logs}) < 3:
        return None
    return slope_beside(*([each[i] for each in logs] for i in range(3)))


def flatness_note(result: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    """The slope on width in words; empty if there is none."""
    from inspector.drawing.figures import with_interval

    value, ends = result.get("width_slope"), intervals.get("suite", {}).get("width_slope")
    if value is None or ends is None:
        return ""
    return (
        f"Slope of log nonlinear FVU on log width at fixed L0: {with_interval(value, ends, '+')}, so "
        f"{100 * (2**value - 1):+.1f}% per doubling; of log FVU: {result['width_slope_fvu']:+.3f}."
    )


def draw(result: ResultObject) -> Figures:
    """All SAEs in a table, fvu_nonlinear against L0 for each width, and in the layout of Fig. 2."""
    score = "fvu_nonlinear", "nonlinear FVU"
    note = f"{result['definition']}\n{INTERPRETATION}"
    reading = "\n".join(filter(None, (flatness_note(result["result"], result["intervals"]), INTERPRETATION)))
    return (
        shared.sae_table("Variance of x left unexplained", result, dict([("fvu", "FVU"), score]), note=note),
        shared.by_l0("Nonlinear FVU", result, *score, reading),
        shared.by_width_and_l0("Nonlinear FVU by width and L0", result, *score),
    )


def _definition(protocol: Protocol, params: FitParams) -> str:
    ends = protocol.bootstrap(params.resamples, protocol.fvu_contexts, fixed="the map")
    return (
        f"fvu_nonlinear = sum ‖e - {protocol.affine}‖² / sum ‖x - mean(x)‖², pooled over dimensions and "
        f"{protocol.fvu_tokens}, with e = x - x_hat and {protocol.fitted}; fvu is the same without {protocol.affine}. "
        f"{ends}"
    )


EXPERIMENT = Experiment(
    id="fvu-nonlinear",
    title="Nonlinear FVU",
    question="What share of the variance of x is left after the SAE and the affine prediction of its error?",
    reference="Sec. 4.3, Eq. 12, Figs. 2 (right), 10, 11",
    definition=_definition,
    contradicted_by="At fixed L0, a slope of fvu_nonlinear on log width that differs from 0 beyond its interval (C3).",
    params=FitParams,
    needs=(ERROR_MAP,),
    compute=compute,
    draw=draw,
)
