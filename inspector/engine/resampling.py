"""Uncertainty by resampling held-out documents, with the fitted maps held fixed.

Tokens of one document are not independent, so documents with all their contexts are drawn, not tokens. What the
interval covers is the choice of text that was scored; the choice of text the maps were fitted on is not in it.

A bootstrap draw is a row of multinomial counts, and every score here is a function of sums over documents: all draws
together are one matrix product of counts with those sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

N_RESAMPLES = 1000
FEWEST = 10
"""Documents, or groups of them; an interval from fewer is of the draws and says little about other text."""
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None if there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def resampling_counts(n: int, *, seed: int, n_resamples: int = N_RESAMPLES, fewest: int = FEWEST) -> Tensor:
    """[1 + n_resamples, n] float64: how often each document is drawn. Row 0 is the data as they are.

    Of fewer than `fewest` there are no draws, and so no interval anywhere.
    """
    if n < fewest:
        return torch.ones(1, n, dtype=torch.float64)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_resamples)
    return torch.from_numpy(np.concatenate([np.ones((1, n)), draws.astype(np.float64)]))


def counts_together(groups: Sequence[int], *, seed: int, n_resamples: int = N_RESAMPLES) -> Tensor:
    """[1 + n_resamples, c] float64: how often each context is drawn, those of one group always together.

    Args:
        groups: [c] the group of each, from 0 without a gap.
        seed: of the draws.
        n_resamples: draws.
    """
    counts = resampling_counts(max(groups, default=-1) + 1, seed=seed, n_resamples=n_resamples)
    return counts[:, torch.tensor(list(groups), dtype=torch.int64)]


def percentile_estimate(values: Tensor) -> Estimate:
    """The value of row 0 and the percentile interval of the others, which holds LEVEL of them.

    Args:
        values: [1 + n_resamples] a score for each row of `resampling_counts`; NaN is undefined. No interval is given
            if any draw is undefined, or if there are no draws: a percentile of the rest would be of other data.
    """
    value = float(values[0])
    if np.isnan(value):
        return Estimate(value=None)
    draws = values[1:]
    if len(draws) == 0 or bool(draws.isnan().any()):
        return Estimate(value=value)
    tail = (1.0 - LEVEL) / 2.0
    low, high = torch.quantile(draws, torch.tensor([tail, 1.0 - tail], dtype=draws.dtype)).tolist()
    return Estimate(value=value, low=low, high=high)
