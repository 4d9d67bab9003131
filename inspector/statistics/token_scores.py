"""R-squared and means from the sums of `token_norms`, for the data as they are and for every bootstrap draw at once.

Arrays [r] have the data in entry 0 and the draws behind it; NaN is undefined. numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inspector.statistics.token_norms import Products, Sums

Array = npt.NDArray[np.float64]
ROUNDING = 1e-13
"""A centred sum of squares below this share of the sum it was taken from is what float64 rounding left of zero."""
CUTOFF = 1e-10
"""Directions of standardised predictors weaker than this are not used, as in the regressions on x."""
TAIL = 0.025


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95% interval; None where undefined."""

    value: float | None
    interval: tuple[float, float] | None


def estimate(values: Array) -> Estimate:
    """Entry 0 with the percentile interval of the others; no interval if there are none or any is undefined."""
    first = defined(values[0])
    draws = values[1:]
    if first is None or len(draws) == 0 or not np.isfinite(draws).all():
        return Estimate(value=first, interval=None)
    low, high = np.quantile(draws, [TAIL, 1.0 - TAIL])
    return Estimate(value=first, interval=(float(low), float(high)))


def defined(value: float | np.floating) -> float | None:
    """The number, or None if it is not one."""
    return float(value) if np.isfinite(value) else None


def r2_of_sums(sums: Sums, target: str, rest: str, n: Array, counts: Array) -> Array:
    """[r] of a target whose sum, squares and squared residuals were added up."""
    drawn = counts @ np.stack([n, sums.of(f"{target} sum"), sums.of(f"{target} squares"), sums.of(rest)], axis=1)
    return 1.0 - drawn[:, 3] / centred(drawn[:, 2], drawn[:, 1], drawn[:, 0])


def r2_of_rest(products: Products, target: str, rest: Array, counts: Array) -> Array:
    """[r] of a target among the products, of which `rest` [g] is left."""
    place = products.names.index(target)
    n, total, square = _drawn(products.test, counts, [(0, 0), (0, place), (place, place)])
    return 1.0 - counts @ rest / centred(square, total, n)


def mean_of(sums: Sums, name: str, n: Array, counts: Array) -> Array:
    """[r] mean of a number over the tokens `n` [g] that have it."""
    return _ratio(counts @ sums.of(name), counts @ n)


def centred(square: Array, total: Array, n: Array) -> Array:
    """Sums of squares around the mean; NaN where only rounding is left of zero."""
    around = square - total**2 / n
    return np.where(around > ROUNDING * square, around, np.nan)


def around_mean(square: Array, totals: Array, n: Array) -> Array:
    """[r] sums of squares [r] of vectors around their mean, from their sums [r, d]; NaN where only rounding is left."""
    around = square - (totals**2).sum(axis=1) / n
    return np.where(around > ROUNDING * square, around, np.nan)


def nan_if_constant(products: Products, name: str, values: Array) -> Array:
    """The values, or NaN where the number they are predicted from is the same at every training token."""
    at = products.names.index(name)
    total, square = products.train[0, at], products.train[at, at]
    constant = square - total**2 / products.train[0, 0] <= ROUNDING * square
    return np.full_like(values, np.nan) if constant else values


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """One number predicted from one or two others, fitted on the training tokens."""

    predictors: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float
    r2: Array
    """[r] held out."""
    rest: Array
    """[r] held-out sum of squared residuals, 0 where only rounding is left."""
    train_r2: float | None
    train_rest: float


def regress(
    products: Products, target: str, predictors: Sequence[str], counts: Array, *, intercept: bool = True
) -> Regression:
    """Least squares from the products over the training tokens, scored on those over the held-out ones."""
    names = products.names
    columns = [names.index(name) for name in predictors]
    place = names.index(target)
    used = np.ix_([0, place, *columns], [0, place, *columns])
    train = products.train[used]
    weights, constant = _solve(train, intercept=intercept)
    rest = np.concatenate([[-constant, 1.0], -weights])
    n, total, square = _drawn(products.test, counts, [(0, 0), (0, place), (place, place)])
    left = counts @ np.einsum("i,gij,j->g", rest, products.test[:, used[0], used[1]], rest)
    left = np.where(left > ROUNDING * square, left, 0.0)
    train_rest = float(rest @ train @ rest)
    train_rest = train_rest if train_rest > ROUNDING * train[1, 1] else 0.0
    train_total = centred(np.array([train[1, 1]]), np.array([train[0, 1]]), np.array([train[0, 0]]))[0]
    return Regression(
        predictors=tuple(predictors),
        weights=tuple(weights.tolist()),
        intercept=float(constant),
        r2=1.0 - left / centred(square, total, n),
        rest=left,
        train_r2=defined(1.0 - train_rest / train_total),
        train_rest=train_rest,
    )


def _solve(train: Array, *, intercept: bool) -> tuple[Array, float]:
    """Weights and constant from the products [2 + p, 2 + p] of 1, the target and p predictors."""
    n, ones = train[0, 0], train[0, 1:]
    inner = train[1:, 1:] - np.outer(ones, ones) / n if intercept else train[1:, 1:]
    a, b = inner[1:, 1:], inner[1:, 0]
    raw = np.diagonal(train)[2:]
    scale = np.sqrt(np.where(np.diagonal(a) > ROUNDING * raw, np.diagonal(a), np.inf))  # a constant predicts nothing
    weights = np.linalg.pinv(a / np.outer(scale, scale), rcond=CUTOFF, hermitian=True) @ (b / scale) / scale
    return weights, float((ones[0] - ones[1:] @ weights) / n) if intercept else 0.0


def shuffled_r2(products: Products, target: str, predictor: str, *, intercept: bool) -> float | None:
    """R-squared to expect had the target's tokens been permuted, among training and among held-out ones.

    A permutation leaves every sum but those of products of both, whose expectation is n times the product of the means.
    Through the origin that is far below 0: the one slope then has to say where the middle is, and cannot.
    """
    at, place = products.names.index(predictor), products.names.index(target)
    test = products.test.sum(axis=0)
    train = products.train
    mean = [table[0, each] / table[0, 0] for table in (train, test) for each in (at, place)]
    total = centred(*(np.array([value]) for value in (test[place, place], test[0, place], test[0, 0])))[0]
    if intercept:  # the slope's expectation is 0, its variance costs 1/n
        rest = test[place, place] - 2.0 * mean[1] * test[0, place] + test[0, 0] * mean[1] ** 2
        return defined(1.0 - rest / total)
    if train[at, at] == 0.0:
        return None
    slope = mean[0] * mean[1] * train[0, 0] / train[at, at]
    rest = test[place, place] - 2.0 * slope * test[0, 0] * mean[2] * mean[3] + slope**2 * test[at, at]
    return defined(1.0 - rest / total)


def correlation(products: Products, one: str, other: str, counts: Array) -> Array:
    """[r] Pearson correlation over held-out tokens."""
    i, j = products.names.index(one), products.names.index(other)
    n, a, b, aa, bb, ab = _drawn(products.test, counts, [(0, 0), (0, i), (0, j), (i, i), (j, j), (i, j)])
    found: Array = (ab - a * b / n) / np.sqrt(centred(aa, a, n) * centred(bb, b, n))
    return found


def correlation_of(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson correlation of two short lists; None where either is constant or empty."""
    if len(one) < 2 or min(np.std(one), np.std(other)) == 0.0:
        return None
    return defined(np.corrcoef(one, other)[0, 1])


def mean(products: Products, name: str, counts: Array) -> Array:
    """[r] mean over held-out tokens."""
    n, total = _drawn(products.test, counts, [(0, 0), (0, products.names.index(name))])
    found: Array = total / n
    return found


def deviation(products: Products, name: str, counts: Array) -> Array:
    """[r] standard deviation over held-out tokens; NaN if there is none."""
    place = products.names.index(name)
    n, total, square = _drawn(products.test, counts, [(0, 0), (0, place), (place, place)])
    found: Array = np.sqrt(centred(square, total, n) / n)
    return found


def larger(one: Array, other: Array) -> Array:
    """[r] the larger of two, entry by entry; the defined one where only one is."""
    found: Array = np.fmax(one, other)
    return found


def positive(values: Array) -> Array:
    """The same, NaN where not above 0: a quotient by it is then undefined and not infinite."""
    found: Array = np.where(values > 0.0, values, np.nan)
    return found


def slope_on(x: Sequence[float], y: Array) -> Array:
    """[r] least-squares slope of y [points, r] on x; NaN with fewer than two different x."""
    around = np.asarray(x, dtype=np.float64)
    around = around - around.mean()
    spread = float(around @ around)
    found: Array = around @ y / spread if spread > 0.0 else np.full(y.shape[1], np.nan)
    return found


def each(arrays: Mapping[str, Array]) -> dict[str, Estimate]:
    """The estimates of several arrays."""
    return {name: estimate(values) for name, values in arrays.items()}


def _drawn(test: Array, counts: Array, places: Sequence[tuple[int, int]]) -> Array:
    """[places, r]."""
    found: Array = (counts @ np.stack([test[:, i, j] for i, j in places], axis=1)).T
    return found


def _ratio(part: Array, whole: Array) -> Array:
    found: Array = part / np.where(whole > 0.0, whole, np.nan)
    return found
