"""For which weights is a squared norm linear in the vector?  Paper, App. C.1.

x = sum w_i y_i with orthonormal y_i and independent w_i >= 0, so ‖x‖² = sum w_i^2 and every probe acts as sum b_i w_i.
Then least squares with an intercept gives b_i = Cov(w_i, w_i^2) / Var(w_i), and R-squared the share of Var(‖x‖²) that
this explains. The paper's b_i = E w_i^2 / E w_i makes the means agree and is not the least-squares solution (E-15).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from inspector.experiment import Experiment, FitParams, Interval, Outcome, ResultObject, bounded
from inspector.experiments import _shared as shared
from inspector.experiments._shared import Array, Figures, Passes, Protocol, Work, Workload

if TYPE_CHECKING:
    from numpy.random import Generator

Magnitude = Literal["constant", "uniform", "half-normal", "exponential"]

RAW_MOMENTS: dict[Magnitude, tuple[float, float, float, float]] = {
    "constant": (1.0, 1.0, 1.0, 1.0),
    "uniform": (1 / 2, 1 / 3, 1 / 4, 1 / 5),
    "half-normal": (math.sqrt(2 / math.pi), 1.0, 2 * math.sqrt(2 / math.pi), 3.0),
    "exponential": (1.0, 2.0, 6.0, 24.0),
}
"""E a, E a^2, E a^3, E a^4 of the magnitude of an active weight."""
LAWS = (
    "bernoulli 0.1", "poisson 0.2", "poisson 1", "poisson 5",
    "sparse 0.02 constant", "sparse 0.02 uniform", "sparse 0.02 half-normal", "sparse 0.02 exponential",
)  # fmt: skip
PRINTED_CORRELATION = 0.73
"""What the paper prints for Poisson weights of rate 1, as 6/sqrt(66); the closed form is 3/sqrt(11) = 0.9045 (E-14)."""
CURVE_RATES = tuple(10 ** (-2 + i * 4 / 40) for i in range(41))


BLOCKS = 64
"""Equal parts of the simulated vectors; intervals draw them with replacement."""


@dataclass(frozen=True, kw_only=True)
class Params(FitParams):
    """Size of the simulation."""

    draws: int = bounded(320_000, 1_000, 10_000_000)
    """Vectors per law."""
    summands: int = bounded(8, 1, 64)
    """Orthogonal features."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law of the weights: closed form beside simulation."""

    law: str
    slope: float
    """Cov(w, w²) / Var(w)."""
    slope_simulated: float
    """Mean over features."""
    slope_interval: Interval
    paper_slope: float
    """E w² / E w, which only makes the means agree (E-15)."""
    r2: float
    r2_simulated: float
    r2_interval: Interval


@dataclass(frozen=True, kw_only=True)
class Result:
    """Closed forms, simulation, and the paper's slip. `..._exact` is the number without rounding."""

    laws: tuple[Law, ...]
    r2_poisson_1: float
    """9/11."""
    r2_poisson_1_exact: str
    correlation_poisson_1: float
    """Its root."""
    correlation_poisson_1_simulated: float
    paper_correlation_poisson_1: float = PRINTED_CORRELATION
    """As printed (E-14)."""
    through_origin: float
    """(rate² m + rate m + 2 rate + 1) / (rate m + 1) at rate 1."""
    through_origin_exact: str
    through_origin_simulated: float
    wrong_slope_r2: float
    """At rate 1 with the paper's slope E w² / E w = 2 and the best constant instead of least squares: 8/11."""
    wrong_slope_r2_exact: str
    wrong_slope_r2_simulated: float
    rates: list[float]
    correlation_by_rate: list[float]
    """(2 rate + 1) / sqrt(4 rate² + 6 rate + 1)."""
    correlation_poisson_1_exact: str = "3/sqrt(11)"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A law of the weights and what follows from it."""

    slope: float
    """b of least squares with an intercept."""
    paper_slope: float
    """E w^2 / E w."""
    r2: float
    """Of the squared norm on x. Unitless, at most 1."""


def from_moments(m1: float, m2: float, m3: float, m4: float) -> Prediction:
    """From E w, E w^2, E w^3, E w^4 of weights that all have this law; R-squared then does not depend on how many."""
    variance, covariance, variance_sq = m2 - m1 * m1, m3 - m1 * m2, m4 - m2 * m2
    # Two-valued weights have variances of w and w^2 that are proportional: rounding must not make 1 into 1.0000001.
    r2 = min(covariance**2 / (variance * variance_sq), 1.0)
    return Prediction(slope=covariance / variance, paper_slope=m2 / m1, r2=r2)


def poisson(rate: float) -> Prediction:
    """Poisson weights: slope 2 rate + 1, R-squared (2 rate + 1)^2 / (4 rate^2 + 6 rate + 1); at rate 1, 9/11 (E-14)."""
    return Prediction(
        slope=2 * rate + 1,
        paper_slope=rate + 1,
        r2=(2 * rate + 1) ** 2 / (4 * rate**2 + 6 * rate + 1),
    )


def bernoulli(probability: float, size: float = 1.0) -> Prediction:
    """Weights that are 0 or `size`: slope `size`, intercept 0 and R-squared 1, dependent or not (S-19)."""
    return from_moments(*(probability * size**power for power in (1, 2, 3, 4)))


def sparse(probability: float, magnitude: Magnitude) -> Prediction:
    """Weights active with a probability, of a magnitude drawn anew each time."""
    return from_moments(*(probability * moment for moment in RAW_MOMENTS[magnitude]))


def poisson_r2_with_slope(rate: Fraction, slope: Fraction) -> Fraction:
    """R-squared of Poisson weights with any slope and the best constant: 1 - Var(w² - slope w) / Var(w²).

    At rate 1 the least-squares slope 3 gives 9/11, and the paper's slope 2 gives 8/11 (E-15).
    """
    variance, covariance = rate, 2 * rate**2 + rate
    variance_sq = 4 * rate**3 + 6 * rate**2 + rate
    return (2 * slope * covariance - slope**2 * variance) / variance_sq


def poisson_through_origin(rate: Fraction, features: int) -> Fraction:
    """Slope without an intercept, for so many equal Poisson weights: at rate 1 and 8 features, 19/9."""
    return (rate**2 * features + rate * features + 2 * rate + 1) / (rate * features + 1)


def draw_weights(law: str, n: int, features: int, rng: Generator) -> Array:
    """[n, features] independent weights: 'poisson RATE', 'bernoulli P', or 'sparse P MAGNITUDE'.

    Raises:
        ValueError: another law.
    """
    import numpy as np

    words = law.split()
    if words[0] == "poisson":
        return rng.poisson(float(words[1]), size=(n, features)).astype(np.float64)
    active = (rng.random((n, features)) < float(words[1])).astype(np.float64)
    if words[0] == "bernoulli":
        return active
    if words[0] != "sparse":
        raise ValueError(f"There is no law '{law}'.")
    if words[2] == "uniform":
        return active * rng.random((n, features))
    if words[2] == "half-normal":
        return active * np.abs(rng.standard_normal((n, features)))
    if words[2] == "exponential":
        return active * rng.exponential(size=(n, features))
    return active


def predicted(law: str) -> Prediction:
    """The closed form of a law that `draw_weights` knows."""
    words = law.split()
    if words[0] == "poisson":
        return poisson(float(words[1]))
    if words[0] == "bernoulli":
        return bernoulli(float(words[1]))
    magnitude: Magnitude = "constant"
    for known in RAW_MOMENTS:
        if known == words[2]:
            magnitude = known
    return sparse(float(words[1]), magnitude)


def simulate(seed: int, params: Params) -> Work[Outcome]:
    """Draw weights of every law, regress their sum of squares on them, and put that beside the closed forms."""
    import numpy as np

    from inspector.events import PassProgress

    rng = np.random.default_rng(seed)
    times = np.ones((1, BLOCKS))
    if params.resamples:
        drawn = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), size=params.resamples)
        times = np.concatenate([times, drawn])
    laws, intervals = [], {}
    for done, law in enumerate(LAWS, start=1):
        sums = times @ _products(draw_weights(law, params.draws, params.summands, rng))
        slopes, scores = _regressed(sums, intercept=True)
        closed = predicted(law)
        draws = {"r2": scores.tolist(), "slope": slopes.tolist()}
        if law == "poisson 1":
            draws["through_origin"] = _regressed(sums, intercept=False)[0].tolist()
            draws["wrong_slope_r2"] = _with_slope(sums, closed.paper_slope).tolist()
            at_one = draws
        _, intervals[law] = shared.of_draws(draws)
        laws.append(
            Law(
                law=law,
                slope=closed.slope,
                slope_simulated=float(slopes[0]),
                slope_interval=intervals[law]["slope"],
                paper_slope=closed.paper_slope,
                r2=closed.r2,
                r2_simulated=float(scores[0]),
                r2_interval=intervals[law]["r2"],
            )
        )
        yield PassProgress(
            name="simulation", contexts_done=done, contexts_total=len(LAWS), tokens_per_second=0.0, seconds_left=0.0
        )
    return _outcome(laws, {name: each[0] for name, each in at_one.items()}, intervals, params.summands)


def passes(work: Workload, params: Params) -> Passes:
    """Of `simulate`: weights of every law, and the products of any two."""
    drawn = float(len(LAWS) * params.draws)
    yield work.walk(
        "simulation", len(LAWS), sums=2.0 * drawn * (params.summands + 2) ** 2, numbers=4 * drawn * params.summands
    )


def _outcome(
    laws: Sequence[Law], poisson_1: Mapping[str, float], intervals: Mapping[str, shared.Intervals], summands: int
) -> Outcome:
    """Closed forms beside what was simulated; of Poisson weights of rate 1 without and with the paper's slope too."""
    one = Fraction(1)
    right, wrong = poisson_r2_with_slope(one, 2 * one + 1), poisson_r2_with_slope(one, one + 1)
    origin = poisson_through_origin(one, summands)
    return Outcome(
        rows=(),
        result=Result(
            laws=tuple(laws),
            r2_poisson_1=float(right),
            r2_poisson_1_exact=str(right),
            correlation_poisson_1=float(right) ** 0.5,
            correlation_poisson_1_simulated=max(poisson_1["r2"], 0.0) ** 0.5,
            through_origin=float(origin),
            through_origin_exact=str(origin),
            through_origin_simulated=poisson_1["through_origin"],
            wrong_slope_r2=float(wrong),
            wrong_slope_r2_exact=str(wrong),
            wrong_slope_r2_simulated=poisson_1["wrong_slope_r2"],
            rates=list(CURVE_RATES),
            correlation_by_rate=[poisson(rate).r2 ** 0.5 for rate in CURVE_RATES],
        ),
        intervals=intervals,
        controls={
            "two_valued": {
                "definition": "Bernoulli weights: R-squared must be 1 exactly, whatever depends on what (S-19).",
                "r2": {each.law: each.r2_simulated for each in laws if each.law.startswith("bernoulli")},
            },
            "paper_slope": {
                "definition": "R-squared for Poisson weights of rate 1 with the paper's slope E w²/E w = 2 and the "
                "best constant, instead of the least-squares slope 3 (E-15): in closed form, and simulated.",
                "r2": float(wrong),
                "exact": str(wrong),
                "simulated": poisson_1["wrong_slope_r2"],
            },
        },
    )


def _products(w: Array) -> Array:
    """[blocks, (m + 2)²] sums of the products of any two of 1, the weights w [n, m], and y = sum w²."""
    import numpy as np

    table = np.concatenate([np.ones((len(w), 1)), w, (w**2).sum(axis=1, keepdims=True)], axis=1)
    parts = [part.T @ part for part in np.array_split(table, BLOCKS)]
    return np.stack(parts).reshape(BLOCKS, -1)


def _moments(sums: Array, *, intercept: bool = True) -> tuple[Array, Array, Array, Array]:
    """Of x with x [r, m, m], of x with y [r, m], of y with y [r]; around means or 0. And of y around its mean [r]."""
    import numpy as np

    k = round(sums.shape[1] ** 0.5)
    table = sums.reshape(-1, k, k)
    n, total = table[:, 0, 0], table[:, 0]
    centred = table - total[:, :, None] * total[:, None, :] / n[:, None, None]
    used = centred if intercept else table
    variance = np.asarray(centred[:, -1, -1])
    return used[:, 1:-1, 1:-1], used[:, 1:-1, -1], used[:, -1, -1], variance


def _regressed(sums: Array, *, intercept: bool) -> tuple[Array, Array]:
    """[r] mean weight and R-squared of ‖x‖² on x."""
    import numpy as np

    xx, xy, yy, variance = _moments(sums, intercept=intercept)
    weights = np.linalg.solve(xx, xy[:, :, None])[:, :, 0]
    r2: Array = 1.0 - (yy - (weights * xy).sum(axis=1)) / variance
    return np.asarray(weights.mean(axis=1)), r2


def _with_slope(sums: Array, slope: float) -> Array:
    """[r] R-squared with this weight on every feature and the best constant."""
    xx, xy, yy, variance = _moments(sums)
    rest = yy - 2 * slope * xy.sum(axis=1) + slope**2 * xx.sum(axis=(1, 2))
    r2: Array = 1.0 - rest / variance
    return r2


def draw(result: ResultObject) -> Figures:
    """A table of the laws, and the correlation of Poisson weights against their rate."""
    from inspector.drawing.figures import Axis

    found = result["result"]
    note = (
        f"Poisson weights of rate 1: correlation {found['correlation_poisson_1']:.4f} = 3/sqrt(11), simulated "
        f"{found['correlation_poisson_1_simulated']:.4f}; the paper prints {found['paper_correlation_poisson_1']} "
        f"(E-14). R² = {found['r2_poisson_1_exact']}; with the paper's slope it would be "
        f"{found['wrong_slope_r2_exact']}, simulated {found['wrong_slope_r2_simulated']:.4f} (E-15). Slope through the "
        f"origin {found['through_origin_exact']}, simulated {found['through_origin_simulated']:.4f}."
    )
    table = shared.table(
        "Squared norm of a sum of orthogonal features, predicted from it",
        ("weights", "slope", "simulated", "paper's slope", "R²", ("simulated R²", "95% low", "high")),
        [
            (
                *(each[key] for key in ("law", "slope", "slope_simulated", "paper_slope", "r2")),
                (each["r2_simulated"], each["r2_interval"]),
            )
            for each in found["laws"]
        ],
        f"{note}\n{result['definition']}",
        digits=4,
    )
    one = {"printed in the paper": "paper_correlation_poisson_1", "simulated": "correlation_poisson_1_simulated"}
    lines = (
        shared.line("closed form", found["rates"], found["correlation_by_rate"]),
        *(shared.line(name, (1.0,), (found[key],), style="points") for name, key in one.items()),
    )
    rate, correlation = Axis(label="rate", log=True), "correlation of ‖x‖² and its best probe"
    return table, shared.curve("Poisson weights", rate, correlation, lines)


def _definition(protocol: Protocol, params: Params) -> str:
    return (
        "x = sum w_i y_i with orthonormal y_i and independent w_i >= 0; ‖x‖² is regressed on x with an intercept. "
        "Closed form: slope Cov(w, w²) / Var(w), R-squared = Cov(w, w²)² / (Var(w) Var(w²)). Beside it "
        f"{params.draws:,} simulated vectors of {params.summands} features per law. "
        + protocol.bootstrap(params.resamples, f"{BLOCKS} blocks of vectors")
    )


EXPERIMENT = Experiment(
    id="theory-c1",
    title="Theory of the norm probe",
    question="For which laws of the weights is the squared norm of a sum of orthogonal features linear in the sum?",
    reference="App. C.1",
    definition=_definition,
    contradicted_by=(
        "Simulation outside the closed form's interval, or a perfect probe where weights take more than two values."
    ),
    params=Params,
    simulate=simulate,
    passes=passes,
    draw=draw,
)
