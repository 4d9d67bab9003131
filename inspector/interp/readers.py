"""What an SAE reads, and which latents that makes active: x itself, or one part of a base SAE's error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.spec import SaeRef

Part = Literal["linear_error", "nonlinear_error"]


@dataclass(frozen=True, kw_only=True)
class Active:
    """What some latents do at some tokens."""

    latents: Tensor
    """[n, c] float32 on the CPU, of the columns asked for."""
    n_active: int
    """Positive latents of all, over all n tokens."""


class Reader(Protocol):
    """An SAE with what it reads."""

    name: str
    """Of the SAE in results."""
    sae: LoadedSae

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """The latents `columns` at the tokens x [n, d]; each row depends on its token alone."""


class PlainReader:
    """An SAE that reads x."""

    def __init__(self, sae: LoadedSae) -> None:
        self.sae, self.name = sae, sae.ref.sae_id

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """See `Reader`."""
        return _active(self.sae, x, columns)


class ErrorReader:
    """An SAE that reads one part of what a base SAE leaves over.

    Args:
        name: of it in results.
        sae: trained on the part.
        base: whose error it is.
        error_map: from x to the base's error.
        part: which part.
    """

    def __init__(self, name: str, sae: LoadedSae, base: LoadedSae, error_map: LinearMap, part: Part) -> None:
        self.name, self.sae, self.part = name, sae, part
        self._base, self._map = base, error_map

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """See `Reader`."""
        with torch.inference_mode():
            parts = decompose(x, self._base.reconstruct(x).x_hat, self._map)
        return _active(self.sae, parts.linear_error if self.part == "linear_error" else parts.nonlinear_error, columns)


def _active(sae: LoadedSae, x: Tensor, columns: Tensor) -> Active:
    chosen, n_active = [], 0
    for _, latents in sae.chunks(x):
        with torch.inference_mode():
            chosen.append(latents[:, columns.to(latents.device)].float().cpu())
            n_active += int((latents > 0).sum())
    return Active(latents=torch.cat(chosen), n_active=n_active)


def ref_of(reader: Reader) -> SaeRef:
    """The reference of its SAE."""
    return reader.sae.ref
