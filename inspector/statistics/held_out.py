"""Scores from per-context sums, for the data as they are and for every bootstrap draw of them at once.

Each function takes `counts` [r, c], how often each context enters (see `engine.resampling`), and returns [r] scores,
NaN where undefined. Formulas: specification 1.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.engine.scores import CONSTANT_BELOW, nan_if_zero
from inspector.statistics import heaviest
from inspector.statistics.heaviest import Weights
from inspector.statistics.second_pass import HookSums, SaeSums

ROUNDING = 1e-13
"""A centred sum of squares below this share of the sum it was taken from is what float64 rounding left of zero."""


def fvu(sums: HookSums, sae_id: str, counts: Tensor) -> Tensor:
    """Sum ‖sae_error‖² / sum ‖x - mean(x)‖²."""
    n = counts @ sums.n
    unexplained = counts @ sums.saes[sae_id].norm_sum + n * float(sums.maps[sae_id].mean_norm_sq)
    return unexplained / _x_variance(sums, counts)


def fvu_nonlinear(sums: HookSums, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
    """Sum ‖nonlinear_error‖² / sum ‖x - mean(x)‖²; `switched`: with the intercept the other way."""
    return _rest_sq(sums, sae_id, counts, switched).sum(dim=1) / _x_variance(sums, counts)


def r2_pooled(sums: HookSums, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
    """1 - sum ‖nonlinear_error‖² / sum ‖sae_error - mean‖², pooled over dimensions."""
    total = _error_variance(sums, sums.saes[sae_id], counts, sums.maps[sae_id].mean_error).sum(dim=1)
    return 1.0 - _rest_sq(sums, sae_id, counts, switched).sum(dim=1) / nan_if_zero(total)


def r2_mean_dims(sums: HookSums, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
    """Unweighted mean over the dimensions that have an R-squared."""
    total = _error_variance(sums, sums.saes[sae_id], counts, sums.maps[sae_id].mean_error)
    return (1.0 - _rest_sq(sums, sae_id, counts, switched) / nan_if_zero(total)).nanmean(dim=1)


def undefined_dims(sums: HookSums, sae_id: str) -> int:
    """Dimensions in which sae_error is constant over the scored tokens, so that they have no R-squared."""
    everything = torch.ones(1, len(sums.n), dtype=torch.float64)
    total = _error_variance(sums, sums.saes[sae_id], everything, sums.maps[sae_id].mean_error)
    return int((total == 0).sum())


def r2_norm(sums: HookSums, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
    """1 - sum (y - prediction)^2 / sum (y - mean)^2 of y = ‖sae_error‖²."""
    sae, maps, n = sums.saes[sae_id], sums.maps[sae_id], counts @ sums.n
    rest = counts @ sae.norm_rest_sq
    if switched:
        change = float(maps.norm_switch)
        rest = rest - 2.0 * change * (counts @ sae.norm_rest_h) + change**2 * (counts @ sums.h_sq)
    total = _centred(counts @ sae.norm_sq, counts @ sae.norm_sum, n, maps.mean_norm_sq)
    return 1.0 - rest / nan_if_zero(total)


def l0(sums: HookSums, sae_id: str) -> float:
    """Mean number of active latents per scored token."""
    return float(sums.saes[sae_id].l0.sum() / sums.n.sum())


def weights(sums: HookSums, sae_id: str) -> Weights:
    """How the squared error is spread over the scored tokens."""
    sae, mean, n = sums.saes[sae_id], float(sums.maps[sae_id].mean_norm_sq), float(sums.n.sum())
    around, around_sq = float(sae.norm_sum.sum()), float(sae.norm_sq.sum())  # both around the training mean
    sum_sq = around + n * mean
    return heaviest.weights(sums.top[sae_id], n, sum_sq, around_sq + 2.0 * mean * around + n * mean**2)


def _rest_sq(sums: HookSums, sae_id: str, counts: Tensor, switched: bool) -> Tensor:
    """[r, d] sums of squared nonlinear error per dimension."""
    sae = sums.saes[sae_id]
    rest = counts @ sae.rest_sq
    if switched:
        change = sums.maps[sae_id].error_switch.cpu()
        h_sq = (counts @ sums.h_sq)[:, None]
        rest = rest - 2.0 * change * (counts @ sae.rest_h) + change.square() * h_sq
    return rest


def _x_variance(sums: HookSums, counts: Tensor) -> Tensor:
    """[r] sum ‖x - mean(x)‖², NaN where zero."""
    n = (counts @ sums.n)[:, None]
    centre = next(iter(sums.maps.values())).error_map.centre
    return nan_if_zero(_centred(counts @ sums.x_sq, counts @ sums.x_sum, n, centre).sum(dim=1))


def _error_variance(sums: HookSums, sae: SaeSums, counts: Tensor, shift: Tensor) -> Tensor:
    """[r, d] sums of squares of sae_error around its mean, zero where it is constant."""
    return _centred(counts @ sae.error_sq, counts @ sae.error_sum, (counts @ sums.n)[:, None], shift)


def _centred(square: Tensor, total: Tensor, n: Tensor, shift: Tensor) -> Tensor:
    """Sums of squares around the mean, from sums around `shift`; exactly zero where only rounding is left."""
    around_mean = square - total.square() / n
    rounding = torch.maximum(ROUNDING * square, n * (CONSTANT_BELOW * shift.to(square)).square())
    return torch.where(around_mean > rounding, around_mean, torch.zeros_like(around_mean))
