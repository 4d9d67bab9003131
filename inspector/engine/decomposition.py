"""The sign of the SAE error, made once: sae_error = x - x_hat, and its affine and remaining parts.

Every error comes from here. The paper's code stores the opposite sign on disk and does not flip it everywhere: norms do
not notice, splicing does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inspector.engine.regression import LinearMap


def sae_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """The error of a reconstruction with its one sign: x - x_hat, [n, d].

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x has shape {list(x.shape)} but x_hat has shape {list(x_hat.shape)}. "
            "Are model and SAE from the same family?"
        )
    return x - x_hat


def squared_norm(values: Tensor) -> Tensor:
    """[n] squared L2 norm of the rows, summed in float64 where the device has it."""
    return values.square().sum(dim=-1, dtype=torch.float32 if values.device.type == "mps" else torch.float64)


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """x = x_hat + linear_error + nonlinear_error, token by token. All [n, d], in the precision of x."""

    x: Tensor
    x_hat: Tensor
    sae_error: Tensor
    """x - x_hat."""
    linear_error: Tensor
    """The affine prediction of sae_error from x."""
    nonlinear_error: Tensor
    """What is left: sae_error - linear_error."""

    @property
    def sae_error_norm(self) -> Tensor:
        """[n] L2 norm, in the units of x."""
        return squared_norm(self.sae_error).sqrt()

    @property
    def linear_error_norm(self) -> Tensor:
        """[n] L2 norm, in the units of x."""
        return squared_norm(self.linear_error).sqrt()

    @property
    def nonlinear_error_norm(self) -> Tensor:
        """[n] L2 norm, in the units of x."""
        return squared_norm(self.nonlinear_error).sqrt()


def decompose(x: Tensor, x_hat: Tensor, error_map: LinearMap) -> Decomposition:
    """Split sae_error at each token into what `error_map` predicts from x and the rest (Eq. 14 and 15)."""
    error = sae_error(x, x_hat)
    linear = error_map.predict(x)
    return Decomposition(x=x, x_hat=x_hat, sae_error=error, linear_error=linear, nonlinear_error=error - linear)
