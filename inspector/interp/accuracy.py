"""Accuracy per decile and of the negatives, over latents, with intervals that draw whole latents.

The paper pools the 120 answers of a latent as if they were independent; they share an explanation, so a good or bad one
moves them all. Here latents are drawn, not answers: the interval is about other latents of the same SAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.interp.scorers import GROUPS, NEGATIVES, Counts

BALANCED = "balanced"


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracies:
    """Of one SAE."""

    by_group: dict[str, Estimate]
    """'Not', 'Q1' to 'Q10': right answers over answers that could be read."""
    balanced: Estimate
    """Mean of the accuracies on all active and on all silent windows."""
    draws: dict[str, Tensor]
    """[1 + n_resamples] of each of the above, 'balanced' among them; row 0 is the data."""


def accuracies(counts: Sequence[Counts], *, seed: int, n_resamples: int) -> Accuracies:
    """Pool the answers about several latents; undefined where nothing could be read."""
    if not counts:
        nothing = torch.full((1,), torch.nan, dtype=torch.float64)
        return Accuracies(
            by_group={name: Estimate(value=None) for name in GROUPS},
            balanced=Estimate(value=None),
            draws={name: nothing for name in (*GROUPS, BALANCED)},
        )
    right = torch.from_numpy(np.stack([each.right for each in counts])).double()
    parsed = torch.from_numpy(np.stack([each.parsed for each in counts])).double()
    # Latents are drawn here, and few are looked at on purpose; the claim about them asks for thirty.
    weights = resampling_counts(len(counts), seed=seed, n_resamples=n_resamples, fewest=2)
    right, parsed = weights @ right, weights @ parsed  # [draws, groups]
    draws = {name: right[:, i] / parsed[:, i] for i, name in enumerate(GROUPS)}
    active = right[:, NEGATIVES + 1 :].sum(dim=1) / parsed[:, NEGATIVES + 1 :].sum(dim=1)
    draws[BALANCED] = (active + draws[GROUPS[NEGATIVES]]) / 2
    estimates = {name: percentile_estimate(values) for name, values in draws.items()}
    balanced = estimates.pop(BALANCED)
    return Accuracies(by_group=estimates, balanced=balanced, draws=draws)


def differences(one: Accuracies, other: Accuracies) -> dict[str, Estimate]:
    """One less the other, by group and balanced; the latents of both are drawn independently.

    For that, both must have been made with different seeds and as many draws.
    """
    found = {}
    for name, draws in one.draws.items():
        n = min(len(draws), len(other.draws[name]))
        found[name] = percentile_estimate(draws[:n] - other.draws[name][:n])
    return found
