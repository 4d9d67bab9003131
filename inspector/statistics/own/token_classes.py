"""Which class a token belongs to, for what its identity alone predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inspector.engine.plan import Plan

LEAST_SEEN = 10
"""Training tokens of an id from which it is a class of its own in `within`; means of fewer are mostly noise."""
MOST_CLASSES = 4096
"""Classes for which the mean of x is kept: 4096 x 3584 numbers are 0.1 GB, whatever the vocabulary."""


class TokenClasses:
    """Two ways to class tokens: by id, and by id where it is frequent among the training tokens.

    Args:
        token_ids: [c, t] int64, of all contexts.
        plan: which of them are included, and which train.
    """

    def __init__(self, token_ids: Tensor, plan: Plan) -> None:
        token_ids = token_ids.cpu()
        self._ids = torch.unique(token_ids[plan.included])
        self.n_ids = len(self._ids)
        counts = torch.bincount(self.by_id(token_ids[plan.train]), minlength=self.n_ids)
        order = counts.argsort(descending=True, stable=True)[:MOST_CLASSES]
        order = order[counts[order] >= LEAST_SEEN]
        self.n_frequent = len(order)
        self._frequent = torch.full((self.n_ids,), self.n_frequent, dtype=torch.int64)
        self._frequent[order] = torch.arange(self.n_frequent)

    def by_id(self, token_ids: Tensor) -> Tensor:
        """[n] class of every included token: one per id."""
        return torch.searchsorted(self._ids, token_ids.cpu())

    def by_frequency(self, token_ids: Tensor) -> Tensor:
        """[n] class of every included token: one per frequent id, and the last for all others."""
        return self._frequent[self.by_id(token_ids)]
