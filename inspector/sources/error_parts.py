"""What the SAEs on errors learn from: x, the error of an SAE, its two parts, and noise like them, from one model pass.

Noise is a function of a context's tokens, so that a block, a batch and another epoch see the same numbers; a new draw
for every token of every context, as if it had been measured there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose
from inspector.engine.regression import LinearMap
from inspector.sources.activation_blocks import LEFT_OUT

if TYPE_CHECKING:
    from inspector.engine.plan import Outliers
    from inspector.sources.model import LanguageModel
    from inspector.sources.sae import LoadedSae

NOISE = {"gaussian_linear": "linear_error", "gaussian_nonlinear": "nonlinear_error"}
"""Noise by name, and the part whose mean and covariance it has."""
PARTS = ("linear_error", "nonlinear_error", "x", "sae_error", *NOISE)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A normal distribution."""

    mean: Tensor
    """[d] float32."""
    root: Tensor
    """[d, d] float32; root root' is the covariance."""

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """From float64 moments; directions that rounding has made negative have no variance."""
        values, vectors = torch.linalg.eigh(covariance.double())
        return cls(mean=mean.float(), root=(vectors * values.clamp_min(0.0).sqrt()).float())

    def to(self, device: torch.device) -> Gaussian:
        """The same on a device."""
        return Gaussian(mean=self.mean.to(device), root=self.root.to(device))

    def draw(self, n: int, seed: int) -> Tensor:
        """[n, d] independent draws, the same on every device up to rounding."""
        noise = torch.randn(n, len(self.mean), generator=torch.Generator().manual_seed(seed))
        return noise.to(self.mean.device) @ self.root.T + self.mean


class ErrorParts:
    """Token ids to the parts at one hook, [c, t, d] each: an `ActivationSource`.

    Args:
        model: which runs context by context.
        hook_name: where.
        sae: whose error it is.
        error_map: that splits it.
        parts: which of PARTS are wanted.
        noise: by the names of NOISE, where wanted.
        seed: of the noise.
        outliers: tokens that are marked to be left out; None: none.
    """

    def __init__(
        self,
        model: LanguageModel,
        hook_name: str,
        sae: LoadedSae,
        error_map: LinearMap,
        parts: Sequence[str],
        noise: Mapping[str, Gaussian],
        seed: int,
        outliers: Outliers | None = None,
    ) -> None:
        self._outliers = outliers
        self._model, self._hook_name, self._sae, self._map = model, hook_name, sae, error_map
        self._parts, self._seed = tuple(parts), seed
        self._noise = {name: each.to(model.device) for name, each in noise.items()}

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """Of contexts [c, t] int64."""
        activations = self._model.activations(ids, self._hook_name)
        rows = [self.of_context(row, x) for row, x in zip(ids, activations, strict=True)]
        made = {part: torch.stack([row[part] for row in rows]) for part in self._parts}
        return made if self._outliers is None else {**made, LEFT_OUT: self._outliers.among(activations)}

    @torch.inference_mode()
    def of_context(self, ids: Tensor, x: Tensor) -> dict[str, Tensor]:
        """[t, d] each, of one context's tokens [t] and activations [t, d]."""
        split = decompose(x, self._sae.reconstruct(x).x_hat.to(x), self._map)
        found = {name: getattr(split, name) for name in self._parts if name not in NOISE}
        for name in self._parts:
            if name in NOISE:
                found[name] = self._noise[name].draw(len(x), noise_seed(ids, name, self._seed))
        return found


def noise_seed(ids: Tensor, name: str, seed: int) -> int:
    """A context's own seed."""
    digest = hashlib.sha256(f"{seed}/{name}/".encode() + ids.cpu().numpy().astype("<i8").tobytes()).digest()
    return int.from_bytes(digest[:7], "big")


def geometric_median(points: Tensor, *, iterations: int = 100) -> Tensor:
    """[d] the point whose distances to the points [n, d] sum to the least, by Weiszfeld's iteration in float64."""
    points = points.double() if points.device.type != "mps" else points
    median = points.mean(dim=0)
    for _ in range(iterations):
        weights = 1.0 / (points - median).norm(dim=1).clamp_min(1e-12)
        moved = (weights[:, None] * points).sum(dim=0) / weights.sum()
        step = float((moved - median).norm())
        median = moved
        if step <= 1e-9 * float(median.norm()):
            break
    return median.float()
