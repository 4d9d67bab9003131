"""What the R-squared of squared norms on x would be in a world of Gaussians with the same moments (S-20)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.moments import TargetMoments
from inspector.engine.regression import Factorisation
from inspector.engine.scores import ratio
from inspector.statistics.first_pass import FirstPass, error_name

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap

ROUNDING = 1e-18
"""A squared mean below this share of the variance is what float64 rounding left of zero."""


def of_x(first: FirstPass) -> float | None:
    """Of ‖x‖²: 4 mu' S mu / (4 mu' S mu + 2 tr S^2)."""
    moments = first.moments
    covariance = moments.s_xx / moments.n
    return _r2(moments.mean_x, covariance, moments.mean_x @ covariance @ moments.mean_x)


def of_parts(
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
