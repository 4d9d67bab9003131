"""Affine least squares from moments: one factorisation of x's scatter serves every target of a hook.

Rejected: `torch.linalg.lstsq` on the tokens. In float32 with its default rank cutoff it returns R-squared of -20 where
0.9998 is right as soon as a few dimensions are a thousand times larger than the rest; on CUDA it ignores it, and
it wants all tokens at once. See `Factorisation` for what is done instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inspector.engine.moments import Moments, TargetMoments

RELATIVE_CUTOFF = 1e-10
"""Eigenvalues of the standardised scatter below this share of the largest count as zero.

The two sides it has to separate are far apart. Below: rounding x to float32 (half an ulp, 2^-24) leaves a variance of
at most 4e-15 of a dimension's own in directions that exactly linearly dependent dimensions should not have, times a few
for the number of dimensions; float64 sums add 1e-16. Above: a direction kept at 1e-10 has a hundred-thousandth of the
standard deviation of the strongest one, weaker than anything a network was seen to use, and solving with it still
leaves 1e-16 / 1e-10 = six good digits in the weights."""
FLOAT32_HALF_ULP = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """An affine map fitted by least squares: y = weight x + bias."""

    weight: Tensor
    """[q, d] float64."""
    bias: Tensor
    """[q] float64; zero if fitted without an intercept."""
    centre: Tensor
    """[d] mean of x over the training tokens. `predict` works around it, which changes rounding only."""
    effective_rank: int
    """Directions of x that were used; below d when dimensions depend on each other."""
    condition_number: float
    """Largest over smallest singular value of the standardised x, among the directions used."""
    n_train: int
    """Tokens behind the fit."""
    intercept: bool = True

    def predict(self, x: Tensor) -> Tensor:
        """[n, q] predictions for x [n, d], in the precision and on the device of x.

        Computed around the mean of x: with a mean of a thousand standard deviations, `weight x` and `bias` are huge
        and cancel, and float32 would lose the difference.
        """
        centre = self.centre.to(x.dtype)
        bias = self.bias + self.weight @ centre.double()
        # First the precision, then the device: Apple's has no float64 to convert from.
        bias, weight = bias.to(x.dtype).to(x.device), self.weight.to(x.dtype).to(x.device)
        return (x - centre.to(x.device)) @ weight.T + bias


class Factorisation:
    """Eigen-decomposition of the standardised scatter of x, from which every target is fitted with two products.

    x is divided by its standard deviation per dimension first. That changes no prediction, but the cutoff then judges
    how dimensions depend on each other and not in which units they are: a few outlier dimensions would otherwise set a
    scale against which honest small ones look like noise.

    Args:
        moments: finished or still growing; what is needed is taken now.
        relative_cutoff: see RELATIVE_CUTOFF. Raising it drops weak directions, lowering it fits rounding noise.

    Raises:
        ValueError: no tokens.
    """

    def __init__(self, moments: Moments, *, relative_cutoff: float = RELATIVE_CUTOFF) -> None:
        if moments.n == 0:
            raise ValueError("Moments of no tokens cannot be factorised.")
        self.moments = moments
        self.n_train = n = moments.n
        deviation = (moments.s_xx.diagonal() / n).sqrt()
        # A constant dimension has no deviation but rounding: against half an ulp of its mean it falls below the cutoff.
        scale = torch.maximum(deviation, FLOAT32_HALF_ULP * moments.mean_x.abs())
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        values, vectors = torch.linalg.eigh(moments.s_xx / (n * torch.outer(scale, scale)))
        floor = relative_cutoff * float(values[-1])
        kept = values > max(floor, 0.0)
        self.effective_rank = int(kept.sum())
        used = values[kept]
        self.condition_number = float((used[-1] / used[0]).sqrt()) if len(used) else 1.0
        # root root' is the pseudo-inverse of the scatter.
        self._root = vectors[:, kept] / (scale[:, None] * (n * used).sqrt())
        self._constant_direction, self.constant_share = _constant_without_intercept(
            moments.mean_x / scale, scale, values.clamp_min(floor if floor > 0 else 1.0), vectors
        )

    def fit(self, name: str, *, intercept: bool = True) -> LinearMap:
        """Least-squares map from x to one target of the moments."""
        fitted = self.fit_moments(self.moments.target(name))
        return fitted if intercept else self.without_intercept(fitted)

    def fit_moments(self, target: TargetMoments) -> LinearMap:
        """As `fit`, for a target whose moments with this x came from elsewhere."""
        weight = (self._root @ (self._root.T @ target.s_xy)).T
        return LinearMap(
            weight=weight,
            bias=target.mean_y - weight @ target.mean_x,
            centre=target.mean_x.clone(),
            effective_rank=self.effective_rank,
            condition_number=self.condition_number,
            n_train=self.n_train,
        )

    def without_intercept(self, fitted: LinearMap) -> LinearMap:
        """The least-squares map without an intercept, from the one with it.

        The best linear stand-in for the constant, `g x` (see `constant_direction`), takes the intercept's place:
        the weight becomes W + b g.
        """
        weight = fitted.weight + torch.outer(fitted.bias, self._constant_direction)
        return replace(fitted, weight=weight, bias=torch.zeros_like(fitted.bias), intercept=False)

    @property
    def constant_direction(self) -> Tensor:
        """[d] g of the regression of the constant 1 on x without an intercept: 1 is approximated by g x."""
        return self._constant_direction


def _constant_without_intercept(mean: Tensor, scale: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, float]:
    """Both g and q = mu' (Sigma + mu mu')^-1 mu, by Sherman and Morrison from the eigen-decomposition of Sigma.

    q is the share of the constant that x expresses without an intercept (spec 1.4); 1: the intercept is in x already.
    Eigenvalues come floored at the cutoff, not dropped: along a direction in which x is constant but not zero the
    constant can be expressed exactly, and this is how q gets to 1 there.
    """
    projected = vectors.T @ mean
    strength = projected / values
    s = float(projected @ strength)
    return (vectors @ strength) / (scale * (1.0 + s)), s / (1.0 + s)


def residual_squares(target: TargetMoments, linear_map: LinearMap) -> Tensor:
    """[q] sum over the tokens of the moments of (y - weight x - bias)^2, in closed form.

    Any map will do, not only the fitted one.
    """
    weight = linear_map.weight.to(target.s_xy)
    offset = target.mean_y - weight @ target.mean_x - linear_map.bias.to(target.mean_y)
    explained = 2.0 * (weight * target.s_xy.T).sum(dim=1) - (weight @ target.s_xx * weight).sum(dim=1)
    return target.s_yy - explained + target.n * offset.square()
