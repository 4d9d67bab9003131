"""Closed forms against simulation with scikit-learn."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from inspector.experiments.theory_c1 import (
    RAW_MOMENTS,
    bernoulli,
    draw_weights,
    poisson,
    poisson_r2_with_slope,
    poisson_through_origin,
    predicted,
    sparse,
)

LAWS = ["poisson 1", "poisson 0.2", "bernoulli 0.1", "sparse 0.05 uniform", "sparse 0.05 half-normal"]


@pytest.mark.parametrize("law", [*LAWS, "sparse 0.05 exponential"])
def test_slope_and_r2_are_those_of_a_regression(law: str) -> None:
    """400,000 draws: slopes to 3%, R-squared to 0.02 (the exponential's eighth moment makes it the noisiest)."""
    w = draw_weights(law, 400_000, 4, np.random.default_rng(0))
    fitted = LinearRegression().fit(w, (w**2).sum(axis=1))
    closed = predicted(law)
    assert fitted.coef_.mean() == pytest.approx(closed.slope, rel=0.03)
    assert fitted.score(w, (w**2).sum(axis=1)) == pytest.approx(closed.r2, abs=0.02)


def test_poisson_of_rate_one_is_nine_elevenths_and_not_what_the_paper_prints() -> None:
    """E-14: 3/sqrt(11) = 0.9045, printed 0.73."""
    assert poisson(1.0).r2 == pytest.approx(9 / 11)
    assert math.sqrt(poisson(1.0).r2) == pytest.approx(0.9045, abs=5e-5)
    assert 6 / math.sqrt(66) == pytest.approx(0.7385, abs=1e-4)
    assert poisson(1.0).slope == 3.0 and poisson(1.0).paper_slope == 2.0
    assert poisson_through_origin(Fraction(1), 8) == Fraction(19, 9)


def test_the_papers_slope_gives_eight_elevenths_e15() -> None:
    """Exact for rate 1, and numpy's for another rate from 4 million draws (three standard errors: 2e-3)."""
    assert poisson_r2_with_slope(Fraction(1), Fraction(3)) == Fraction(9, 11)
    assert poisson_r2_with_slope(Fraction(1), Fraction(2)) == Fraction(8, 11)
    w = np.random.default_rng(5).poisson(0.5, size=4_000_000).astype(np.float64)
    simulated = 1.0 - (w**2 - 1.5 * w).var() / (w**2).var()
    assert float(poisson_r2_with_slope(Fraction(1, 2), Fraction(3, 2))) == pytest.approx(simulated, abs=2e-3)


def test_sparse_limits() -> None:
    """As the probability goes to 0: (E a^3)^2 / (E a^2 E a^4)."""
    limits = [m3 * m3 / (m2 * m4) for _, m2, m3, m4 in RAW_MOMENTS.values()]
    assert limits == pytest.approx([1.0, 0.9375, 0.8488, 0.75], abs=1e-4)
    assert [sparse(1e-6, magnitude).r2 for magnitude in RAW_MOMENTS] == pytest.approx(limits, abs=1e-4)
    assert bernoulli(0.3, 2.5).slope == pytest.approx(2.5) and bernoulli(0.3, 2.5).r2 == pytest.approx(1.0)
