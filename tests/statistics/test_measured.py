"""Intervals and slopes of plain numbers, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from inspector.statistics.measured import interval, slope_beside, student


def test_the_slope_is_least_squares_with_students_interval() -> None:
    rng = np.random.default_rng(1)
    for n in (4, 8, 40):
        x, z, y = rng.standard_normal((3, n))
        design = np.column_stack([x, z, np.ones(n)])
        weights, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
        error = np.sqrt(rest[0] / (n - 3) * np.linalg.inv(design.T @ design)[0, 0])
        found = slope_beside(x.tolist(), y.tolist(), z.tolist())
        assert found is not None
        assert found[0] == pytest.approx(weights[0], rel=1e-9)
        half = scipy.stats.t.ppf(0.975, n - 3) * error
        # 2e-3: the expansion behind `student` at three degrees of freedom.
        assert found[1] == pytest.approx((weights[0] - half, weights[0] + half), rel=2e-3, abs=2e-3 * half)


def test_with_one_value_of_the_covariate_it_is_scipys_line() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 9))
    line = scipy.stats.linregress(x, y)
    found = slope_beside(x.tolist(), y.tolist(), [5.0] * 9)
    assert found is not None
    half = scipy.stats.t.ppf(0.975, 7) * line.stderr
    assert (found[0], *found[1]) == pytest.approx((line.slope, line.slope - half, line.slope + half), rel=1e-3)


@pytest.mark.parametrize(
    ("x", "z"),
    [((), ()), ((1.0,), (2.0,)), ((1.0, 2.0, 3.0), (1.0, 3.0, 2.0)), ((2.0,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0)),
     ((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 4.0, 6.0, 8.0, 10.0))],
    ids=["nothing", "one point", "no freedom", "one width", "width and L0 are one"],
)  # fmt: skip
def test_what_is_undetermined_is_none(x: tuple[float, ...], z: tuple[float, ...]) -> None:
    assert slope_beside(x, [float(i * i) for i in range(len(x))], z) is None


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12, 100])
def test_student_is_scipys(freedom: int) -> None:
    assert student(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=0.01)


def test_the_interval_is_numpys_quantiles() -> None:
    draws = [0.0, *np.random.default_rng(3).standard_normal(200).tolist()]
    assert interval(draws) == pytest.approx(tuple(np.quantile(draws[1:], [0.025, 0.975])), rel=1e-12)
    assert interval([0.0]) is None
    assert interval([0.0, 1.0, None]) is None
