"""Which parts does the unexplained variance fall into as SAEs widen?  Paper, Sec. 4.3, Fig. 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from inspector.experiment import Experiment, Interval, Outcome, ResultObject
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Figures, Protocol, Statistics
from inspector.experiments.pursuit import Params as PursuitParams
from inspector.experiments.pursuit import measure, passes

if TYPE_CHECKING:
    from inspector.statistics.pipeline import Series
    from inspector.statistics.pursued import Pursued, PursuedSae

POINTS = 48
"""Widths at which the bands are drawn."""
BEYOND = 10.0
"""How far past the largest width, as in Fig. 1: dotted, because nothing was measured there."""
TITLES = {
    "nonlinear_error": "nonlinear error",
    "encoder_error": "encoder error",
    "linear_asymptotic": "linear error",
    "absent_features": "absent features",
}
BANDS = ("absent_features", "linear_asymptotic", "encoder_error", "nonlinear_error")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured per SAE, held-out tokens. Unitless; None if x is constant."""

    l0: float
    """On these tokens."""
    n_train: int
    """Tokens that were fitted; fewer than the run's, because of the pursuit."""
    n_test: int
    fvu: float | None
    fvu_nonlinear: float | None
    fvu_nonlinear_pursuit: float | None
    """With pursued codes: the part of the nonlinear error that no encoder is to blame for."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """The stacked bands over width. They add up to `total` at every width (S-15); a negative one stays negative."""

    width: tuple[float, ...]
    extrapolated: tuple[bool, ...]
    """Beyond the largest width: drawn dotted."""
    total: tuple[float, ...]
    """c + A W^-m."""
    absent_features: tuple[float, ...]
    """total - c."""
    linear_asymptotic: tuple[float, ...]
    """c - mean nonlinear FVU. Not `fvu - fvu_nonlinear`, which contains the absent features too."""
    encoder_error: tuple[float, ...]
    """Mean nonlinear FVU minus that of pursued codes."""
    nonlinear_error: tuple[float, ...]
    """Nonlinear FVU of pursued codes, between widths by a straight line in log width, beyond them as at the last."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The fit and what it says about infinite width. None with fewer than three widths, as by default."""

    fit: str = "none"
    """How it was fitted."""
    floor: float | None = None
    """c."""
    amplitude: float | None = None
    """A at the smallest width."""
    exponent: float | None = None
    """m."""
    floor_interval: Interval = None
    """95%, over held-out contexts and the scatter of SAEs around the law."""
    floor_identified: bool = False
    floor_not_identified_because: str = "fewer than three widths"
    mean_fvu_nonlinear: float | None = None
    """The horizontal fit: arithmetic mean over the widths."""
    floor_above_nonlinear: float | None = None
    """c minus that mean: the linear error left at infinite width, if positive."""
    floor_above_nonlinear_interval: Interval = None
    linear_error_survives: bool | None = None
    """Whether that interval lies above 0 (C5); None: cannot tell."""
    fit_rest: float | None = None
    """Root mean squared residual of the points."""
    bands: Bands | None = None
    negative_bands: dict[str, int] = field(default_factory=dict)
    """Number of drawn widths at which a band is below 0, of those that ever are."""


def compute(statistics: Statistics, params: PursuitParams) -> Outcome:
    """Fit the law to the widths and stack the bands."""
    found = cast("Pursued", statistics.own["dark-matter-breakdown"])
    rows, intervals = shared.per_sae(statistics, found.saes, lambda one: _measured(one, found))
    series = [(d_sae, own) for _, d_sae, own in found.published] or [(each.d_sae, each.encoder) for each in found.saes]
    pursued = [(each.d_sae, each.pursuit) for each in found.saes]
    adam: dict[str, float | None] = {}
    if len({d_sae for d_sae, _ in series}) < 3:
        result = Result()
        warnings = ["A power law with a floor needs SAEs of three widths; choose more with --widths."]
    else:
        result, adam = _fitted(series, pursued, bool(found.published), found.seed)
        warnings = _warnings(result, found)
    return Outcome(
        rows=rows,
        result=result,
        intervals=intervals,
        controls=_controls(found, adam),
        warnings=tuple(warnings),
    )


def _measured(one: PursuedSae, found: Pursued) -> tuple[Row, shared.Intervals]:
    values, intervals = shared.of_draws(
        {
            "fvu": one.encoder.fvu,
            "fvu_nonlinear": one.encoder.fvu_nonlinear,
            "fvu_nonlinear_pursuit": one.pursuit.fvu_nonlinear,
        }
    )
    return Row(l0=one.encoder.l0, n_train=found.n_train, n_test=found.n_test, **values), intervals


def _warnings(result: Result, found: Pursued) -> list[str]:
    warnings = []
    if not result.floor_identified:
        warnings.append(f"The floor of the power law is not identified: {result.floor_not_identified_because}.")
    for band, count in result.negative_bands.items():
        warnings.append(f"Band {band} is below 0 at {count} of {POINTS} widths; it is shown as it is.")
    nominal = [each.nominal_l0 for each in found.saes if each.nominal_l0 is not None]
    if nominal and max(nominal) > 1.2 * min(nominal):
        warnings.append(
            f"The widths' SAEs have nominal L0 from {min(nominal):g} to {max(nominal):g}: part of the fall with width "
            "may be L0's."
        )
    return warnings


def _fitted(
    series: Sequence[tuple[int, Series]], pursued: Sequence[tuple[int, Series]], published: bool, seed: int
) -> tuple[Result, dict[str, float | None]]:
    import numpy as np

    from inspector.engine.power_law import fit_power_law, fit_power_law_adam, power_law_interval

    widths = np.array([d_sae for d_sae, _ in series], dtype=np.float64)
    fvu = np.array([own.fvu for _, own in series])  # [k, 1 + r]
    nonlinear = np.array([own.fvu_nonlinear for _, own in series])
    careful = fit_power_law(widths, fvu[:, 0])
    fitted = fit_power_law_adam(widths, fvu[:, 0], seed=seed) if published else careful
    flat = float(nonlinear[:, 0].mean())
    draws = fvu[:, 1:].T if fvu.shape[1] > 1 else np.tile(fvu[:, 0], (200, 1))
    floor = power_law_interval(widths, draws, careful, seed=seed)
    flats = nonlinear[:, 1:].mean(axis=0) if fvu.shape[1] > 1 else np.full(len(draws), flat)
    low, high = (float(end) for end in np.percentile(np.asarray(floor.draws) - flats, [2.5, 97.5]))
    bands = stacked(fitted.at, fitted.floor, flat, sorted((w, own.fvu_nonlinear[0]) for w, own in pursued))
    survives = None if low <= 0.0 <= high else low > 0.0
    result = Result(
        fit="Adam from one random start (D-07)" if published else "profile least squares, c, A, m >= 0",
        floor=fitted.floor,
        amplitude=fitted.amplitude,
        exponent=fitted.exponent,
        floor_interval=(floor.low, floor.high),
        floor_identified=floor.identified,
        floor_not_identified_because=floor.why,
        mean_fvu_nonlinear=flat,
        floor_above_nonlinear=fitted.floor - flat,
        floor_above_nonlinear_interval=(low, high),
        linear_error_survives=survives,
        fit_rest=fitted.rest,
        bands=bands,
        negative_bands={band: count for band in BANDS if (count := sum(value < 0 for value in getattr(bands, band)))},
    )
    return result, {"floor": careful.floor, "exponent": careful.exponent, "rest": careful.rest}


def stacked(total_at: object, floor: float, flat: float, pursued: Sequence[tuple[float, float]]) -> Bands:
    """The four bands from 1/1.3 of the smallest width to ten times the largest.

    Args:
        total_at: the fitted law, width to FVU.
        floor: its c.
        flat: mean nonlinear FVU.
        pursued: (width, nonlinear FVU of pursued codes), by width.
    """
    assert callable(total_at)
    first, last = pursued[0][0] / 1.3, pursued[-1][0] * BEYOND
    widths = [first * (last / first) ** (i / (POINTS - 1)) for i in range(POINTS)]
    totals = [float(total_at(width)) for width in widths]
    nonlinear = [_between(pursued, width) for width in widths]
    return Bands(
        width=tuple(widths),
        extrapolated=tuple(width > pursued[-1][0] for width in widths),
        total=tuple(totals),
        absent_features=tuple(total - floor for total in totals),
        linear_asymptotic=tuple(floor - flat for _ in widths),
        encoder_error=tuple(flat - value for value in nonlinear),
        nonlinear_error=tuple(nonlinear),
    )


def _between(points: Sequence[tuple[float, float]], width: float) -> float:
    """Linear in log width between points, constant outside."""
    if width <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if width <= right:
            share = 1.0 if right == left else (math.log(width) - math.log(left)) / (math.log(right) - math.log(left))
            return low + share * (high - low)
    return points[-1][1]


def _controls(found: Pursued, careful: Mapping[str, float | None]) -> dict[str, object]:
    return {
        "same_tokens": {
            "definition": "Total, nonlinear and pursued FVU are from the same tokens and SAEs; the public code takes "
            "the first two from positions from 1 on and from SAEs chosen by measured L0 (D-02, D-27).",
            "as_published": bool(found.published),
            "encoder_saes": [name for name, _, _ in found.published] or [each.sae for each in found.saes],
            "pursuit_saes": [each.sae for each in found.saes],
        },
        "careful_fit": {
            "definition": "The law by profile least squares, whatever the profile fits it by (D-07).",
            **careful,
        },
    }


def draw(result: ResultObject) -> Figures:
    """The stacked bands as their upper edges, with the points, and the table of the points and the fit."""
    from inspector.drawing.figures import Axis, Band
    from inspector.drawing.figures import Bands as BandsFigure

    found, bands = result["result"], result["result"]["bands"]
    rows = shared.rows_with(result, "fvu_nonlinear_pursuit")
    scores = {"fvu": "FVU", "fvu_nonlinear": "nonlinear FVU", "fvu_nonlinear_pursuit": "nonlinear FVU pursuit"}
    points = shared.over_width(rows, result["intervals"], scores, "points")
    by_width = shared.sae_table("FVU by width", result, scores, rows=rows)
    because = f"Floor not identified: {found['floor_not_identified_because']}."
    fit = shared.table(
        "Power law c + A (W/W0)^-m",
        ("what", ("value", "95% low", "high")),
        [
            (what, (found[key], found.get(f"{key}_interval")))
            for what, key in (
                ("c, FVU at infinite width", "floor"),
                ("A, at the smallest width", "amplitude"),
                ("m", "exponent"),
                ("mean nonlinear FVU", "mean_fvu_nonlinear"),
                ("c - mean nonlinear FVU", "floor_above_nonlinear"),
            )
        ],
        f"Fitted by {found['fit']}. {'' if found['floor_identified'] else because}",
        digits=4,
    )
    if bands is None:
        return by_width, shared.width_curve("FVU by width", "FVU", points), fit
    stack = BandsFigure(
        title="Breakdown of the dark matter",
        x=Axis(label="SAE width", unit="latents", log=True),
        y=Axis(label="FVU"),
        at=tuple(bands["width"]),
        bands=tuple(Band(name=TITLES[name], values=tuple(bands[name])) for name in reversed(BANDS)),
        extrapolated=tuple(bands["extrapolated"]),
        points=points,
        note="Dotted beyond the widest SAE, where nothing was measured. Linear error here is the asymptotic one, "
        "c - mean nonlinear FVU.",
    )
    return by_width, stack, fit


def _definition(protocol: Protocol, params: PursuitParams) -> str:
    ends = protocol.bootstrap(params.resamples, protocol.fvu_contexts, fixed="the maps")
    fit, tokens = "by profile least squares with c, A, m >= 0", protocol.fvu_tokens
    if protocol.breakdown_as_published:
        fit = "by Adam from one random start, its c, A, m made positive (D-07)"
        tokens += "; F and nonlinear FVU from positions from 1 on, pursued FVU from the run's (D-02)"
    return (
        f"At one L0, F(W) = fvu is fitted by c + A W^-m {fit}; absent features = F(W) - c, linear (asymptotic) = c - "
        "mean nonlinear FVU over the widths, encoder = that mean - nonlinear FVU of pursued codes, nonlinear = the "
        f"latter. They add up to F(W). Each error is split by {protocol.a_map}; FVU over {tokens}. {ends} That of c is "
        "also over the scatter of SAEs around the law."
    )


EXPERIMENT = Experiment(
    id="dark-matter-breakdown",
    title="Dark matter breakdown",
    question="Into absent features, linear, encoder and nonlinear error, how does FVU divide as SAEs widen?",
    reference="Sec. 4.3, Fig. 1; Fig. 9a",
    definition=_definition,
    contradicted_by="The interval of c covers the mean nonlinear FVU, so that no linear error need survive (C5).",
    params=PursuitParams,
    measure=measure,
    passes=passes,
    compute=compute,
    draw=draw,
)
