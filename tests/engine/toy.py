"""Seeded toy data for the engine: correlated activations with a mean, and a thresholded dictionary as the SAE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """x [n, d] and x_hat [n, d], float64, with a train mask [n]."""

    x: Tensor
    x_hat: Tensor
    train: Tensor

    @property
    def error(self) -> Tensor:
        return self.x - self.x_hat

    def half(self, train: bool) -> tuple[Tensor, Tensor]:
        rows = self.train if train else ~self.train
        return self.x[rows], self.x_hat[rows]


def toy(n: int = 3000, d: int = 12, seed: int = 0) -> Toy:
    rng = np.random.default_rng(seed)
    mixing = np.linspace(0.5, 3, d) * np.linalg.qr(rng.normal(size=(d, d)))[0]
    x = rng.normal(size=(n, d)) @ mixing + rng.normal(size=d)
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0]
    x_hat = np.maximum(x @ directions - 1.0, 0.0) @ directions.T + 0.3
    return Toy(x=torch.from_numpy(x), x_hat=torch.from_numpy(x_hat), train=torch.arange(n) < 2 * n // 3)


def least_squares(x: Tensor, y: Tensor, intercept: bool = True) -> tuple[Array, Array]:
    """The independent reference: numpy's SVD least squares in float64 on the design; (weight [q, d], bias [q])."""
    design, target = x.double().numpy(), y.double().numpy()
    if target.ndim == 1:
        target = target[:, None]
    mean_x = design.mean(axis=0) if intercept else np.zeros(design.shape[1])
    mean_y = target.mean(axis=0) if intercept else np.zeros(target.shape[1])
    solution = np.linalg.lstsq(design - mean_x, target - mean_y, rcond=None)[0]
    return solution.T, mean_y - solution.T @ mean_x
