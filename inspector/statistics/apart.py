"""The first pass with outliers apart: two accumulators over the training tokens, whose sum is all of them.

Moments are additive, so one pass gives both fits, that of ordinary tokens and that of all. Outliers' own sums begin
with the first outlier: a hook without any pays nothing. See `engine.outliers` for which tokens are meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.statistics.first_pass import FirstPass, Reconstruction, Reconstructions, pairs

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A reconstruction of some tokens only."""

    x_hat: Tensor
    l0: Tensor


class FirstApart:
    """Accumulator over training tokens: ordinary ones, outliers, and where those are.

    Args:
        d: as of `FirstPass`; so the others.
        sae_ids: the SAEs.
        covariance: keep the whole covariance of every error.
    """

    def __init__(self, d: int, sae_ids: Sequence[str], *, covariance: bool = False) -> None:
        self._new = partial(FirstPass, d, sae_ids, covariance=covariance)
        self.ordinary = self._new()
        self.outliers: FirstPass | None = None
        """None until one came."""
        self.places = no_places()
        """[k, 2] int64 context and position of the outliers."""

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions) -> None:
        """Add a batch, all of whose tokens are training tokens; see `FirstPass.update`."""
        everything = torch.ones(len(batch.positions), dtype=torch.bool)
        apart = batch.outlier
        if apart is None or not bool(apart.any()):
            self.ordinary.update(batch, reconstructions, everything)
            return
        few: list[tuple[str, Reconstruction]] = []
        rows = apart.to(batch.x.device)

        def noticed() -> Iterator[tuple[str, Reconstruction]]:
            """One reconstruction at a time, of which the outliers' few rows are kept."""
            for sae_id, made in pairs(reconstructions):
                few.append((sae_id, Rows(x_hat=made.x_hat[rows], l0=made.l0[rows])))
                yield sae_id, made

        made = noticed()
        self.ordinary.update(batch, made, ~apart)
        for _ in made:  # a batch of outliers alone asks for none
            pass
        self.outliers = self.outliers or self._new()
        self.outliers.update(batch.rows(apart), few, everything[apart])
        self.places = torch.cat([self.places, places_of(batch)])

    def merge(self, other: FirstApart) -> None:
        """Add what another one has seen."""
        self.ordinary.merge(other.ordinary)
        self.places = torch.cat([self.places, other.places])
        if other.outliers is not None:
            self.outliers = self.outliers or self._new()
            self.outliers.merge(other.outliers)

    def of_all_tokens(self) -> FirstPass:
        """The sums of both; the ordinary tokens' own where there is no outlier, else new ones."""
        if self.outliers is None:
            return self.ordinary
        both = self._new()
        both.merge(self.outliers)
        both.merge(self.ordinary)
        return both

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `walking.Sums`. What a version without outliers kept is the state of the ordinary tokens' alone."""
        tensors, facts = self.ordinary.state()
        if self.outliers is None:
            return tensors, facts
        own, own_facts = self.outliers.state()
        found = {**tensors, "outliers' places": self.places}
        return found | {f"outliers' {name}": values for name, values in own.items()}, {**facts, "outliers": own_facts}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state` gave; this one must be new.

        Raises:
            ValueError: it is not of such a pass.
        """
        self.ordinary.restore(tensors, facts, device)
        if "outliers" not in facts:
            return
        own = {name.removeprefix("outliers' "): v for name, v in tensors.items() if name.startswith("outliers' ")}
        self.places = own.pop("places").clone()
        self.outliers = self._new()
        self.outliers.restore(own, facts["outliers"], device)


def no_places() -> Tensor:
    """None: [0, 2]."""
    return torch.zeros((0, 2), dtype=torch.int64)


def places_of(batch: ActivationBatch) -> Tensor:
    """[k, 2] int64 context and position of the batch's outliers."""
    if batch.outlier is None:
        return no_places()
    return torch.stack([batch.contexts.cpu()[batch.outlier], batch.positions.cpu()[batch.outlier]], dim=1)
