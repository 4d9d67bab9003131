"""What the numbers would be if nothing of interest were there: the yardsticks printed beside them.

A Gaussian x has no features at all, yet its error norm is predictable as soon as its mean is not zero (S-20). An affine
map has an error, yet none of it is nonlinear (S-10). Shuffled targets are predicted worse than by their mean (S-06).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inspector.engine.moments import Moments, TargetMoments
from inspector.engine.regression import Factorisation
from inspector.engine.scores import ratio


def gaussian_norm_r2(moments: TargetMoments, factorisation: Factorisation, name: str) -> float | None:
    """R-squared with which x predicts ‖v‖², were x and v jointly Gaussian with these very moments (S-20).

    4 mu_v' S_vx S_x^-1 S_xv mu_v / (4 mu_v' S_v mu_v + 2 tr S_v^2), mu_v and the S being mean and covariances. In the
    population; None if v is constant.

    Args:
        moments: of the target v, with its whole scatter.
        factorisation: of the same moments.
        name: of the target in the factorisation's moments.
    """
    if moments.s_yy_full is None:
        raise ValueError(f"The whole scatter of '{name}' was not kept; ask for it with Moments(d, full=...).")
    n, mean = moments.n, moments.mean_y
    covariance = moments.s_yy_full / n
    weight = factorisation.fit(name).weight
    explained = 4.0 * float((mean @ weight) @ (moments.s_xy / n @ mean))
    return ratio(explained, 4.0 * mean @ covariance @ mean + 2.0 * covariance.square().sum())


@dataclass(frozen=True, kw_only=True)
class GaussianTwin:
    """A Gaussian with the mean and covariance of x."""

    mean: Tensor
    """[d] float64."""
    root: Tensor
    """[d, d] float64; root root' is the covariance."""

    def sample(self, n: int, seed: tuple[int, ...]) -> Tensor:
        """[n, d] float32 draws on the CPU, the same for the same seed whatever is drawn elsewhere."""
        noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, len(self.mean))))
        return (self.mean.cpu() + noise @ self.root.cpu().T).float()


def gaussian_twin(moments_n: int, mean_x: Tensor, s_xx: Tensor) -> GaussianTwin:
    """Gaussian with the moments of the tokens added so far."""
    values, vectors = torch.linalg.eigh(s_xx / moments_n)
    # Rounding leaves eigenvalues of dependent dimensions at +-1e-16 of the largest; their root must not be NaN.
    return GaussianTwin(mean=mean_x.clone(), root=vectors * values.clamp_min(0.0).sqrt())


@dataclass(frozen=True, kw_only=True)
class PcaMap:
    """Projection on the leading principal components around the mean: the affine map to put in an SAE's place."""

    mean: Tensor
    """[d] float64."""
    basis: Tensor
    """[d, rank] float64, orthonormal columns."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """[n, d] in the precision of x."""
        mean, basis = self.mean.to(x.dtype).to(x.device), self.basis.to(x.dtype).to(x.device)
        return mean + ((x - mean) @ basis) @ basis.T


def pca_of_fvu(n: int, mean_x: Tensor, s_xx: Tensor, fvu: float) -> PcaMap:
    """The principal-component projection whose FVU on these tokens is nearest to the one given."""
    values, vectors = torch.linalg.eigh(s_xx / n)
    left = torch.cat([values.sum().reshape(1), values.sum() - values.flip(0).cumsum(dim=0)]) / values.sum()
    rank = int((left - fvu).abs().argmin())
    return PcaMap(mean=mean_x.clone(), basis=vectors.flip(1)[:, :rank])


def pca_moments(moments: Moments) -> TargetMoments:
    """Moments of the error of projecting x on the leading half of its components: x - x_hat is then exactly affine.

    In closed form from those of x: with P the projection, s_xy = S (I - P), s_yy = diag((I - P) S (I - P)).
    """
    _, vectors = torch.linalg.eigh(moments.s_xx)
    rest = vectors[:, : max(1, moments.d // 2)]
    complement = rest @ rest.T
    s_xy = moments.s_xx @ complement
    return TargetMoments(
        n=moments.n,
        mean_x=moments.mean_x,
        mean_y=torch.zeros_like(moments.mean_x),
        s_xx=moments.s_xx,
        s_xy=s_xy,
        s_yy=(complement @ s_xy).diagonal(),
        s_yy_full=None,
    )
