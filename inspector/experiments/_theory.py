"""When is a squared norm linear in the vector?  Closed forms for independent non-negative weights.  Paper, App. C.1.

x = sum w_i y_i with orthonormal y_i, so ‖x‖² = sum w_i^2 and every probe acts as sum b_i w_i. Then least squares with
an intercept gives b_i = Cov(w_i, w_i^2) / Var(w_i), and R-squared the share of Var(‖x‖²) that this explains. The
paper's b_i = E w_i^2 / E w_i makes the means agree and is not the least-squares solution (E-15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Magnitude = Literal["constant", "uniform", "half-normal", "exponential"]

RAW_MOMENTS: dict[Magnitude, tuple[float, float, float, float]] = {
    "constant": (1.0, 1.0, 1.0, 1.0),
    "uniform": (1 / 2, 1 / 3, 1 / 4, 1 / 5),
    "half-normal": (math.sqrt(2 / math.pi), 1.0, 2 * math.sqrt(2 / math.pi), 3.0),
    "exponential": (1.0, 2.0, 6.0, 24.0),
}
"""E a, E a^2, E a^3, E a^4 of the magnitude of an active weight."""


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


def draw_weights(law: str, n: int, features: int, rng: np.random.Generator) -> Array:
    """[n, features] independent weights: 'poisson RATE', 'bernoulli P', or 'sparse P MAGNITUDE'.

    Raises:
        ValueError: another law.
    """
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
