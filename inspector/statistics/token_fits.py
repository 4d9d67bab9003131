"""What the training tokens say about the sizes of an SAE's error: maps from x, means per token id.

Filled by one pass over the training tokens, then concluded; `token_pass` scores it on the held-out ones. Here too: what
the R-squared of squared norms on x would be in a world of Gaussians with the same moments (S-20).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, squared_norm
from inspector.engine.moments import Moments, TargetMoments, to_float64
from inspector.engine.plan import Plan
from inspector.engine.regression import Factorisation, LinearMap
from inspector.engine.scores import r2_from_moments, ratio
from inspector.statistics.first_pass import FirstPass, error_name
from inspector.statistics.sums import Sums, shaped

X = "x"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is regressed on x, per SAE: squared norms and one norm, [n] float64 each."""

    x_hat_sq: Tensor
    sae_error_sq: Tensor
    linear_error_sq: Tensor
    nonlinear_error_sq: Tensor
    x_hat_plus_nonlinear_sq: Tensor
    """Of x_hat + nonlinear_error, which is x - linear_error and so affine in x (S-11)."""
    sae_error: Tensor

    @classmethod
    def of(cls, parts: Decomposition) -> Sizes:
        """Of split errors."""

        def sq(vectors: Tensor) -> Tensor:
            return to_float64(squared_norm(vectors))

        error = sq(parts.sae_error)
        return cls(
            x_hat_sq=sq(parts.x_hat),
            sae_error_sq=error,
            linear_error_sq=sq(parts.linear_error),
            nonlinear_error_sq=sq(parts.nonlinear_error),
            x_hat_plus_nonlinear_sq=sq(parts.x_hat + parts.nonlinear_error),
            sae_error=error.sqrt(),
        )


TARGETS = tuple(each.name for each in fields(Sizes))
NORMS = tuple(name.removesuffix("_sq") for name in TARGETS if name.endswith("_sq"))
"""Vectors of one SAE whose squared norms are predicted from x; `x` itself is one more."""
SIZES = ("sae_error_sq", "sae_error")
"""The size of the error as a target: its squared norm, its norm."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """What x adds to a token's identity: y = mean of y for the class + a (x - mean of x for the class)."""

    weight: Tensor
    """[d, k] of k sizes, over all SAEs."""
    mean_x: Tensor
    """[classes, d] around the mean of all training tokens."""
    mean_y: Tensor
    """[classes, k]"""


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Everything fitted; all of it stays as it is while tokens are scored."""

    centre: Tensor
    """[d] training mean of x."""
    on: Mapping[str, LinearMap]
    """By X or sae_id: from x to x_sq, or to the TARGETS; with an intercept."""
    off: Mapping[str, LinearMap]
    """Without."""
    train_r2: Mapping[str, tuple[float | None, ...]]
    """By X or sae_id, in the order of the targets: on the training tokens, with the run's intercept."""
    token_mean: Tensor
    """[ids, k] mean of every size (SIZES of each SAE in turn) per token id; the mean of all where none was seen."""
    token_position: Tensor
    """[ids] mean position per token id, as `token_mean`."""
    position_slope: Tensor
    """[k] of a size on position within a token id."""
    within: Within
    moments: Moments


@dataclass(kw_only=True)
class ClassSums(Sums):
    """Numbers added up per class of token."""

    n: Tensor = shaped("classes")
    """[classes] float64 tokens."""
    values: Tensor = shaped("classes", "q")
    """[classes, q] float64, where the tokens are."""

    def update(self, classes: Tensor, numbers: Tensor) -> None:
        """Add tokens: their class [n] int64, and [n, q] float64."""
        classes = classes.to(numbers.device)
        self.values.index_add_(0, classes, numbers)
        self.n.index_add_(0, classes, torch.ones(len(classes), dtype=torch.float64, device=numbers.device))

    def means(self, otherwise: Tensor) -> Tensor:
        """[classes, q] mean of each class; `otherwise` [q] for a class without tokens."""
        return torch.where(self.n[:, None] > 0, self.values / self.n[:, None].clamp_min(1.0), otherwise)


@dataclass(kw_only=True)
class TokenFits(Sums):
    """Sums over training tokens."""

    moments: Moments
    by_id: ClassSums
    """Of the sizes, of their products with the position, of the position and of its square."""
    by_frequency: ClassSums
    """Of x around a centre, and of the sizes."""

    @classmethod
    def of_nothing(cls, d: int, n_saes: int, classes: TokenClasses, device: torch.device) -> TokenFits:
        """Of nothing."""
        k = len(SIZES) * n_saes
        return cls(
            moments=Moments(d),
            by_id=ClassSums.zeros(classes=classes.n_ids, q=2 * k + 2, device=device),
            by_frequency=ClassSums.zeros(classes=classes.n_frequent + 1, q=d + k, device=device),
        )

    def update(
        self,
        x: Tensor,
        centre: Tensor,
        positions: Tensor,
        classes: tuple[Tensor, Tensor],
        x_sq: Tensor,
        sizes: Mapping[str, Sizes],
    ) -> None:
        """Add training tokens.

        Args:
            x: [n, d].
            centre: [d] about the mean of x; sums per class are kept around it.
            positions: [n].
            classes: of the tokens, [n] by id and by frequency.
            x_sq: [n] squared norms of x.
            sizes: by sae_id, in the same order each time.
        """
        targets = {X: x_sq[:, None]}
        targets |= {name: torch.stack([getattr(own, each) for each in TARGETS], dim=1) for name, own in sizes.items()}
        self.moments.update(x, targets)
        wanted = sizes_of(sizes)
        place = to_float64(positions).to(wanted)[:, None]
        self.by_id.update(classes[0], torch.cat([wanted, wanted * place, place, place.square()], dim=1))
        wide = to_float64(x)
        self.by_frequency.update(classes[1], torch.cat([wide - centre.to(wide), wanted.to(wide)], dim=1))

    def fit(self, centre: Tensor, sae_ids: Sequence[str], *, intercept: bool) -> Fits:
        """Fit what was added; `intercept`: the one whose training R-squared is told."""
        factorisation = Factorisation(self.moments)
        names = (X, *sae_ids)
        on = {name: factorisation.fit(name) for name in names}
        off = {name: factorisation.without_intercept(fitted) for name, fitted in on.items()}
        used = on if intercept else off
        means = torch.cat([self.moments.target(name).mean_y[_places()] for name in sae_ids])
        k = len(means)
        sums, n = self.by_id.values, self.by_id.n[:, None]
        place = sums[:, 2 * k : 2 * k + 1]
        seen = n.clamp_min(1.0)
        # Sums of products within each id: of position with every size, and of position with itself.
        crossed = (sums[:, k : 2 * k] - place * sums[:, :k] / seen).sum(dim=0)
        spread = (sums[:, 2 * k + 1 :] - place.square() / seen).sum()
        all_means = self.by_id.means(torch.cat([means, (self.by_id.values.sum(0) / n.sum())[k:]]))
        return Fits(
            centre=self.moments.mean_x.clone(),
            on=on,
            off=off,
            train_r2={name: _train_r2(self.moments, name, used[name]) for name in names},
            token_mean=all_means[:, :k],
            token_position=all_means[:, 2 * k],
            position_slope=crossed / spread if float(spread) > 0.0 else torch.zeros_like(crossed),
            within=self._within(centre, sae_ids, means),
            moments=self.moments,
        )

    def _within(self, centre: Tensor, sae_ids: Sequence[str], means: Tensor) -> Within:
        """Least squares on what is left of x and of the sizes once their mean per class is taken away."""
        moments, sums = self.moments, self.by_frequency
        d = moments.d
        shift = moments.mean_x - centre.to(moments.mean_x)
        mean = sums.means(torch.cat([shift, means]).to(sums.values))
        mean_x, mean_y = mean[:, :d] - shift, mean[:, d:]
        share = sums.n[:, None]
        inner = Moments(d)
        inner.n, inner.mean_x = moments.n, moments.mean_x
        inner.s_xx = moments.s_xx - mean_x.T @ (share * mean_x)
        s_xy = torch.cat([moments.target(name).s_xy[:, _places()] for name in sae_ids], dim=1)
        target = replace(
            moments.target(X),
            s_xx=inner.s_xx,
            mean_y=means,
            s_xy=s_xy - mean_x.T @ (share * (mean_y - means)),
            s_yy=torch.zeros_like(means),
        )
        return Within(weight=Factorisation(inner).fit_moments(target).weight.T, mean_x=mean_x, mean_y=mean_y)


def sizes_of(numbers: Mapping[str, Sizes]) -> Tensor:
    """[n, k] the SIZES of every SAE in turn."""
    return torch.stack([getattr(own, size) for own in numbers.values() for size in SIZES], dim=1)


def _places() -> list[int]:
    """Where the SIZES are among the TARGETS."""
    return [TARGETS.index(size) for size in SIZES]


def _train_r2(moments: Moments, name: str, linear_map: LinearMap) -> tuple[float | None, ...]:
    target = moments.target(name)
    return tuple(
        r2_from_moments(
            replace(
                target, mean_y=target.mean_y[i : i + 1], s_xy=target.s_xy[:, i : i + 1], s_yy=target.s_yy[i : i + 1]
            ),
            replace(linear_map, weight=linear_map.weight[i : i + 1], bias=linear_map.bias[i : i + 1]),
        )[0]
        for i in range(len(target.mean_y))
    )


LEAST_SEEN = 10
"""Training tokens of an id from which it is a class of its own in `within`; means of fewer are mostly noise."""
MOST_CLASSES = 4096
"""Classes for which the mean of x is kept: 4096 x 3584 numbers are 0.1 GB, whatever the vocabulary."""


class TokenClasses:
    """Two ways to class tokens: by id, and by id where it is frequent among the training tokens.

    Args:
        token_ids: [c, t] int64, of all contexts.
        plan: which of them are included, and which train.
    """

    def __init__(self, token_ids: Tensor, plan: Plan) -> None:
        token_ids = token_ids.cpu()
        self._ids = torch.unique(token_ids[plan.included])
        self.n_ids = len(self._ids)
        counts = torch.bincount(self.by_id(token_ids[plan.train]), minlength=self.n_ids)
        order = counts.argsort(descending=True, stable=True)[:MOST_CLASSES]
        order = order[counts[order] >= LEAST_SEEN]
        self.n_frequent = len(order)
        self._frequent = torch.full((self.n_ids,), self.n_frequent, dtype=torch.int64)
        self._frequent[order] = torch.arange(self.n_frequent)

    def by_id(self, token_ids: Tensor) -> Tensor:
        """[n] class of every included token: one per id."""
        return torch.searchsorted(self._ids, token_ids.cpu())

    def by_frequency(self, token_ids: Tensor) -> Tensor:
        """[n] class of every included token: one per frequent id, and the last for all others."""
        return self._frequent[self.by_id(token_ids)]


ROUNDING = 1e-18
"""A squared mean below this share of the variance is what float64 rounding left of zero."""


def gaussian_r2_of_x(first: FirstPass) -> float | None:
    """Of ‖x‖²: 4 mu' S mu / (4 mu' S mu + 2 tr S^2)."""
    moments = first.moments
    covariance = moments.s_xx / moments.n
    return _r2(moments.mean_x, covariance, moments.mean_x @ covariance @ moments.mean_x)


def gaussian_r2_of_parts(
    first: FirstPass, factorisation: Factorisation, sae_id: str, error_map: LinearMap
) -> dict[str, float | None]:
    """Of all NORMS; empty if the whole covariance of the error was not kept.

    All follow from the moments of x and sae_error: x_hat is their difference, linear_error is affine in x, and
    nonlinear_error is what is left, and x_hat + nonlinear_error is x - linear_error. With an intercept the mean of
    nonlinear_error is 0 and its null too.
    """
    target = first.moments.target(error_name(sae_id))
    if target.s_yy_full is None:
        return {}
    n, mean, mean_error = target.n, target.mean_x, target.mean_y
    s_x, s_e, s_xe = target.s_xx / n, target.s_yy_full / n, target.s_xy / n
    used, bias = error_map.weight.to(s_x), error_map.bias.to(s_x)
    mean_linear = used @ mean + bias
    linear = used @ s_x
    kept = torch.eye(len(used), dtype=used.dtype, device=used.device) - used
    crossed = used @ s_xe
    vectors = {
        "x_hat": (mean - mean_error, s_x - s_xe - s_xe.T + s_e, s_x - s_xe),
        "sae_error": (mean_error, s_e, s_xe),
        "linear_error": (mean_linear, linear @ used.T, linear.T),
        "nonlinear_error": (mean_error - mean_linear, s_e - crossed - crossed.T + linear @ used.T, s_xe - linear.T),
        "x_hat_plus_nonlinear": (mean - mean_linear, kept @ s_x @ kept.T, s_x @ kept.T),
    }
    return {
        name: _r2(centre, own, _explained(factorisation, target, shared @ centre))
        for name, (centre, own, shared) in vectors.items()
    }


def _explained(factorisation: Factorisation, target: TargetMoments, along: Tensor) -> Tensor:
    """Variance that x explains of a number with which its covariance is `along` [d]."""
    number = replace(target, mean_y=along.new_zeros(1), s_xy=target.n * along[:, None], s_yy=along.new_zeros(1))
    return along @ factorisation.fit_moments(number).weight[0]


def _r2(mean: Tensor, covariance: Tensor, explained: Tensor) -> float | None:
    if float(mean.square().sum()) <= ROUNDING * float(covariance.trace()):  # a mean of 0, but for rounding
        explained, mean = torch.zeros_like(explained), torch.zeros_like(mean)
    return ratio(4.0 * explained, 4.0 * mean @ covariance @ mean + 2.0 * covariance.square().sum())
