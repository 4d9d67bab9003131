"""What is known of single tokens after a pass over them: sums and products of a few numbers per token, by SAE.

Seven experiments ask about the sizes of x, x_hat, sae_error and its two parts at each token. All they ask can be
answered from sums over groups of held-out contexts, so that is what is kept: sums of the numbers of `token_numbers` per
group, and for the regressions of one size on others the products of any two. Nothing here has the size of the tokens.

R-squared and means follow from the sums for the data as they are and for every bootstrap draw at once: arrays [r] have
the data in entry 0 and the draws behind it; NaN is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.plan import Plan
from inspector.engine.resampling import Estimate
from inspector.sources.sae import LoadedSae
from inspector.statistics.pipeline import Measuring
from inspector.statistics.profiles import Protocol
from inspector.statistics.token_numbers import Rests, SaeNumbers, Target

Array = npt.NDArray[np.float64]


class Column(NamedTuple):
    """A number among products."""

    what: str
    """Of a token: 'x' its norm, 'loss', 'l0', 'sae_error', 'sae_error_sq'. Of an SAE of the series: 'error', 'linear',
    'nonlinear', and 'probe', what is predicted of its error from x."""
    sae: str = ""


ONE = Column("one")
"""The constant, the first in every table of products."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Products:
    """Sums over tokens of the products of any two numbers; the first is 1, so plain sums are among them."""

    columns: tuple[Column, ...]
    train: Array
    """[columns, columns] over the training tokens; NaN where nothing needs it."""
    test: Array
    """[g, columns, columns] over the held-out tokens of each group."""

    def place(self, column: Column | str) -> int:
        """Where a column is."""
        return self.columns.index(Column(column) if isinstance(column, str) else column)


@dataclass(frozen=True, kw_only=True, eq=False)
class SaeTokens:
    """One SAE."""

    sae: str
    d_sae: int
    nominal_l0: float | None
    sums: SaeNumbers[Array]
    """[g] each, held out."""
    products: Products
    """Over one, x, loss, l0, and the SIZES."""
    train_r2: Mapping[str, float | None]
    """By name of NORMS: R-squared of its squared norm on x over the training tokens."""
    in_sample_token_r2: Mapping[str, float | None]
    """By name of SIZES: R-squared of token means over the very tokens they are means of, all there are (D-19)."""
    gaussian_r2: Mapping[str, float | None]
    """By name of NORMS: what R-squared would be, were x and the vector jointly Gaussian (S-20); empty: not asked."""
    scalar: float | None
    """The scalar times x, fitted to sae_error; None if x is constant."""
    squares: Rests[Array]
    """[d] each, held out, by dimension."""
    error_sum: Array
    """[g, d] of sae_error, around its training mean."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Some consecutive tokens of one context."""

    context: int
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    train: tuple[bool, ...]
    """Whether the maps were fitted on the token too."""
    x: tuple[float, ...]
    """Norm."""
    sae_error: Mapping[str, tuple[float, ...]]
    """Norms by sae_id."""
    linear_error: Mapping[str, tuple[float, ...]]
    nonlinear_error: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenNorms:
    """Everything the pass found."""

    protocol: Protocol
    intercept: bool
    """Of the maps from x."""
    n_train: int
    n_test: int
    n_contexts: int
    """Held out."""
    counts: Array
    """[1 + resamples, g] how often each group of contexts is drawn; row 0 is the data as they are."""
    n: Array
    """[g] held-out tokens of each group."""
    x_sq: Target[Array]
    """‖x‖² itself, and what its own regression leaves."""
    x_train_r2: float | None
    x_gaussian_r2: float | None
    saes: tuple[SaeTokens, ...]
    """All of the target."""
    series: tuple[str, ...]
    """One SAE per width, ascending."""
    squared: Products
    """Over one, x_sq and, for each SAE of the series, `error`, `linear`, `nonlinear` and `probe` of it: squared norms,
    and the prediction of the squared error norm from x, always with an intercept."""
    plain: Products
    """The same of norms, and the prediction of the norm."""
    trace: Trace | None
    """None: no context has so many tokens."""
    classes: int
    """Tokens that have a class of their own in what x adds to the token; all others share one."""

    def by_id(self) -> dict[str, SaeTokens]:
        """The SAEs by id."""
        return {each.sae: each for each in self.saes}


def place_of(plan: Plan, start: int, length: int) -> tuple[int, list[int]] | None:
    """(context, positions) of `length` included tokens from number `start` of all included ones.

    Counted round and round where there are fewer tokens. The stretch stays inside one context, and where whole contexts
    are held out it is taken from the next that is; None if no such context has so many tokens.
    """
    per_context = plan.included.sum(dim=1)
    ends = per_context.cumsum(dim=0)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return None
    number = start % total
    context = int(torch.searchsorted(ends, number, right=True))
    offset = number - int(ends[context] - per_context[context])
    fits = (per_context >= length) & plan.test.any(dim=1)
    order = [(context + step) % len(per_context) for step in range(len(per_context))]
    chosen = next((each for each in order if bool(fits[each])), None)
    if chosen is None:
        return None
    positions: list[int] = plan.included[chosen].nonzero()[:, 0].tolist()
    first = min(offset, len(positions) - length)
    return chosen, positions[first : first + length]


@torch.inference_mode()
def trace(measuring: Measuring, series: Sequence[LoadedSae], start: int, length: int) -> Trace | None:
    """Norms of x and of the errors of some SAEs along the stretch that `place_of` names."""
    loaded = measuring.loaded
    found = place_of(measuring.plan, start, length) if length else None
    if found is None:
        return None
    context, positions = found
    batch = measuring.activations.batch([context])
    x = batch.x[torch.tensor(positions).to(batch.x.device)]
    norms: dict[str, dict[str, tuple[float, ...]]] = {"sae_error": {}, "linear_error": {}, "nonlinear_error": {}}
    for sae in series:
        parts = decompose(x, sae.reconstruct(x).x_hat.to(x), measuring.maps[sae.ref.sae_id].error_map)
        for name, own in norms.items():
            own[sae.ref.sae_id] = tuple(getattr(parts, f"{name}_norm").tolist())
    # A token may hold half a character; a lone surrogate cannot be stored.
    ids = loaded.contexts.token_ids[context, positions].tolist()
    texts = [text.encode("utf-8", "replace").decode() for text in loaded.model.token_texts(ids)]
    return Trace(
        context=context,
        positions=tuple(positions),
        tokens=tuple(texts),
        train=tuple(measuring.plan.train[context, positions].tolist()),
        x=tuple(squared_norm(x).sqrt().tolist()),
        **norms,
    )


ROUNDING = 1e-13
"""A centred sum of squares below this share of the sum it was taken from is what float64 rounding left of zero."""
CUTOFF = 1e-10
"""Directions of standardised predictors weaker than this are not used, as in the regressions on x."""
TAIL = 0.025


def estimate(values: Array) -> Estimate:
    """Entry 0 with the percentile interval of the others; no interval if there are none or any is undefined."""
    first = defined(values[0])
    draws = values[1:]
    if first is None or len(draws) == 0 or not np.isfinite(draws).all():
        return Estimate(value=first)
    low, high = np.quantile(draws, [TAIL, 1.0 - TAIL])
    return Estimate(value=first, low=float(low), high=float(high))


def defined(value: float | np.floating) -> float | None:
    """The number, or None if it is not one."""
    return float(value) if np.isfinite(value) else None


def r2_of_target(target: Target[Array], n: Array, counts: Array, *, intercept: bool) -> Array:
    """[r] of a number on x."""
    rest = target.rest_on if intercept else target.rest_off
    drawn = counts @ np.stack([n, target.total, target.squares, rest], axis=1)
    return 1.0 - drawn[:, 3] / centred(drawn[:, 2], drawn[:, 1], drawn[:, 0])


def r2_of_rest(products: Products, target: Column | str, rest: Array, counts: Array) -> Array:
    """[r] of a target among the products, of which `rest` [g] is left."""
    place = products.place(target)
    n, total, square = _drawn(products.test, counts, [(0, 0), (0, place), (place, place)])
    return 1.0 - counts @ rest / centred(square, total, n)


def mean_of(sums: Array, n: Array, counts: Array) -> Array:
    """[r] mean of a number, from its sums [g], over the tokens `n` [g] that have it."""
    return _ratio(counts @ sums, counts @ n)


def centred(square: Array, total: Array, n: Array) -> Array:
    """Sums of squares around the mean; NaN where only rounding is left of zero."""
    around = square - total**2 / n
    return np.where(around > ROUNDING * square, around, np.nan)


def around_mean(square: Array, totals: Array, n: Array) -> Array:
    """[r] sums of squares [r] of vectors around their mean, from their sums [r, d]; NaN where only rounding is left."""
    around = square - (totals**2).sum(axis=1) / n
    return np.where(around > ROUNDING * square, around, np.nan)


def nan_if_constant(products: Products, name: Column | str, values: Array) -> Array:
    """The values, or NaN where the number they are predicted from is the same at every training token."""
    at = products.place(name)
    total, square = products.train[0, at], products.train[at, at]
    constant = square - total**2 / products.train[0, 0] <= ROUNDING * square
    return np.full_like(values, np.nan) if constant else values


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """One number predicted from one or two others, fitted on the training tokens."""

    weights: tuple[float, ...]
    intercept: float
    r2: Array
    """[r] held out."""
    rest: Array
    """[r] held-out sum of squared residuals, 0 where only rounding is left."""
    train_r2: float | None
    train_rest: float


def regress(
    products: Products,
    target: Column | str,
    predictors: Sequence[Column | str],
    counts: Array,
    *,
    intercept: bool = True,
) -> Regression:
    """Least squares from the products over the training tokens, scored on those over the held-out ones."""
    columns = [products.place(each) for each in predictors]
    place = products.place(target)
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


def shuffled_r2(products: Products, target: Column | str, predictor: Column | str, *, intercept: bool) -> float | None:
    """R-squared to expect had the target's tokens been permuted, among training and among held-out ones.

    A permutation leaves every sum but those of products of both, whose expectation is n times the product of the means.
    Through the origin that is far below 0: the one slope then has to say where the middle is, and cannot.
    """
    at, place = products.place(predictor), products.place(target)
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


def correlation(products: Products, one: Column | str, other: Column | str, counts: Array) -> Array:
    """[r] Pearson correlation over held-out tokens."""
    i, j = products.place(one), products.place(other)
    n, a, b, aa, bb, ab = _drawn(products.test, counts, [(0, 0), (0, i), (0, j), (i, i), (j, j), (i, j)])
    found: Array = (ab - a * b / n) / np.sqrt(centred(aa, a, n) * centred(bb, b, n))
    return found


def correlation_of(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson correlation of two short lists; None where either is constant or empty."""
    if len(one) < 2 or min(np.std(one), np.std(other)) == 0.0:
        return None
    return defined(np.corrcoef(one, other)[0, 1])


def mean(products: Products, name: Column | str, counts: Array) -> Array:
    """[r] mean over held-out tokens."""
    n, total = _drawn(products.test, counts, [(0, 0), (0, products.place(name))])
    found: Array = total / n
    return found


def deviation(products: Products, name: Column | str, counts: Array) -> Array:
    """[r] standard deviation over held-out tokens; NaN if there is none."""
    place = products.place(name)
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
