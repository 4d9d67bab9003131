"""Whether tokens on which one SAE does badly are those on which another does: Eq. 13, over the tokens seen so far.

The squared error norm of SAE j is predicted as c times that of SAE i; c is fitted through the origin on training
tokens, R-squared is of held-out tokens (spec `per-token-scaling`, the paper's text). Only one number per token and SAE
is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inspector.engine.scores import r2_scalar
from inspector.session.protocol import GetPairs, Pairs


class ErrorNorms:
    """Squared error norms of included tokens, as the background pass comes across them. Each context is added once."""

    def __init__(self, sae_ids: Sequence[str]) -> None:
        self._train: dict[str, list[Tensor]] = {sae_id: [] for sae_id in sae_ids}
        self._test: dict[str, list[Tensor]] = {sae_id: [] for sae_id in sae_ids}
        self.n_test = 0

    def add(self, norms_sq: Mapping[str, Tensor], train: Tensor, test: Tensor) -> None:
        """Add tokens.

        Args:
            norms_sq: [n] squared norm of sae_error by sae_id.
            train: [n] bool, tokens that may choose c.
            test: [n] bool, tokens that are scored.
        """
        for sae_id, values in norms_sq.items():
            values = values.detach().float().cpu()
            self._train[sae_id].append(values[train])
            self._test[sae_id].append(values[test])
        self.n_test += int(test.sum())

    def pairs(self, asked: GetPairs) -> Pairs:
        """R-squared of every pair in the order asked for: 1 on the diagonal, None below it or where undefined."""
        train = {sae_id: _joined(self._train[sae_id]) for sae_id in asked.sae_ids}
        test = {sae_id: _joined(self._test[sae_id]) for sae_id in asked.sae_ids}
        r2: list[list[float | None]] = []
        for i, first in enumerate(asked.sae_ids):
            row: list[float | None] = [None] * i + [1.0]
            row += [_r2(train[first], train[second], test[first], test[second]) for second in asked.sae_ids[i + 1 :]]
            r2.append(row)
        return Pairs(request=asked.request, sae_ids=asked.sae_ids, r2=r2, n_tokens=self.n_test)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double() if parts else torch.zeros(0, dtype=torch.float64)


def _r2(train_1: Tensor, train_2: Tensor, test_1: Tensor, test_2: Tensor) -> float | None:
    """R-squared on test tokens of ‖e_2‖² = c ‖e_1‖², c from the training tokens; None if either is undefined."""
    scale = float((train_1 * train_1).sum())
    if scale == 0.0 or len(test_1) < 2:
        return None
    return r2_scalar(test_2, float((train_1 * train_2).sum()) / scale * test_1)
