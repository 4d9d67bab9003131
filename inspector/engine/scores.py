"""Fractions of variance: the paper's metrics (spec 1.5), from the tokens or in closed form from moments.

A number that is undefined because the variance it divides by is zero is None, never NaN, 0 or 1 (S-13). A bad number
is a number: nothing is clipped. Sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.engine.moments import TargetMoments, to_float64
from inspector.engine.regression import LinearMap, residual_squares

CONSTANT_BELOW = 1e-12
"""A dimension whose standard deviation is below this share of its mean is constant; float64 leaves rounding there."""


def fvu(x: Tensor, x_hat: Tensor) -> float | None:
    """Fraction of the variance of x that x_hat leaves unexplained.

    Pooled over tokens and dimensions, centred per dimension on the same tokens:
    sum ‖x - x_hat‖² / sum ‖x - mean(x)‖².  0 is perfect; 1 is as good as the mean; it has no upper bound.

    Args:
        x: [n_tokens, d_model] activations.
        x_hat: [n_tokens, d_model] reconstructions of the same tokens.
    """
    wide = to_float64(x)
    unexplained = (wide - to_float64(x_hat).to(wide)).square().sum()
    return ratio(unexplained, centred_squares(wide).sum())


def fvu_nonlinear(x: Tensor, x_hat: Tensor, linear_error: Tensor) -> float | None:
    """`fvu` of x_hat + linear_error (Eq. 12): sum ‖nonlinear_error‖² / sum ‖x - mean(x)‖².

    Zero for any affine map in the SAE's place (S-10), so a low value alone is no virtue; read it beside `fvu`.
    """
    wide = to_float64(x)
    return fvu(wide, to_float64(x_hat).to(wide) + to_float64(linear_error).to(wide))


def r2_per_dim(y: Tensor, y_hat: Tensor) -> Tensor:
    """[q] 1 - sum (y - y_hat)^2 / sum (y - mean(y))^2 per dimension over the tokens given; NaN where y is constant."""
    wide = to_float64(y)
    rest = (wide - to_float64(y_hat).to(wide)).square().sum(dim=0)
    return 1.0 - rest / nan_if_zero(centred_squares(wide))


def r2_scalar(y: Tensor, y_hat: Tensor) -> float | None:
    """1 - sum (y - y_hat)^2 / sum (y - mean(y))^2 of a scalar target [n], mean of the evaluated tokens. At most 1."""
    return r2_pooled(y[:, None], y_hat[:, None])


def r2_pooled(y: Tensor, y_hat: Tensor) -> float | None:
    """1 - sum ‖y - y_hat‖² / sum ‖y - mean(y)‖² of a vector target [n, q]: variance-weighted over dimensions."""
    wide = to_float64(y)
    unexplained = ratio((wide - to_float64(y_hat).to(wide)).square().sum(), centred_squares(wide).sum())
    return None if unexplained is None else 1.0 - unexplained


def r2_mean_dims(y: Tensor, y_hat: Tensor) -> float | None:
    """Unweighted mean over dimensions of each one's R-squared; comparable with the paper.

    Constant dimensions have none and are left out of the mean; `r2_per_dim` shows which they are. None if all are.
    """
    return mean_of_defined(r2_per_dim(y, y_hat))


def r2_from_moments(target: TargetMoments, linear_map: LinearMap) -> tuple[float | None, float | None]:
    """(r2_pooled, r2_mean_dims) of a map over the tokens of the moments, without seeing them again."""
    rest = residual_squares(target, linear_map)
    total = zero_if_constant(target.s_yy, target.mean_y, target.n)
    unexplained = ratio(rest.sum(), total.sum())
    return (None if unexplained is None else 1.0 - unexplained), mean_of_defined(1.0 - rest / nan_if_zero(total))


def fvu_from_moments(target: TargetMoments, linear_map: LinearMap | None) -> float | None:
    """FVU over the tokens of the moments of sae_error: fvu_nonlinear for its map, fvu for None."""
    if linear_map is None:
        unexplained = target.s_yy.sum() + target.n * target.mean_y.square().sum()
    else:
        unexplained = residual_squares(target, linear_map).sum()
    variance = zero_if_constant(target.s_xx.diagonal(), target.mean_x, target.n)
    return ratio(unexplained, variance.sum())


def centred_squares(y: Tensor) -> Tensor:
    """[q] sum over tokens of (y - mean(y))^2 of y [n, q], exactly zero where y is constant."""
    mean = y.mean(dim=0)
    return zero_if_constant((y - mean).square().sum(dim=0), mean, y.shape[0])


def zero_if_constant(centred_sum: Tensor, mean: Tensor, n: int | float | Tensor) -> Tensor:
    """Centred sums of squares with what only rounding left there set to zero, so that R-squared is undefined there."""
    return torch.where(centred_sum > n * (CONSTANT_BELOW * mean).square(), centred_sum, torch.zeros_like(centred_sum))


def ratio(part: Tensor | float, whole: Tensor | float) -> float | None:
    """Quotient of two sums, None where the whole is zero."""
    whole = float(whole)
    return float(part) / whole if whole != 0.0 else None


def mean_of_defined(values: Tensor) -> float | None:
    """Mean of the values that are not NaN; None if all are."""
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None


def nan_if_zero(values: Tensor) -> Tensor:
    """NaN for zero: what is divided by it becomes undefined instead of infinite."""
    return torch.where(values == 0, torch.full_like(values, torch.nan), values)
