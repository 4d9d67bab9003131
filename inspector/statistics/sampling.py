"""Which tokens and which SAEs a costly measurement takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from inspector.engine.plan import Plan

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae

LEAST_TOKENS = 12_000
TOKENS_PER_DIMENSION = 50
"""With the paper's share of them fitted, thirty training tokens per dimension."""


def tokens_wanted(asked: int, d: int) -> int:
    """How many tokens to take: what was asked for, or for 0 enough for a regression on d dimensions."""
    return asked or max(LEAST_TOKENS, TOKENS_PER_DIMENSION * d)


def sample_plan(plan: Plan, tokens: int, seed: int) -> Plan:
    """The plan on random contexts of either side that together hold about so many tokens.

    Whole contexts, and of training and held-out ones the same share, so that what was held out stays so. Never the
    first ones: contexts stand in the order of their text, and its beginning is not like the rest. The same seed takes
    the same ones, and fewer tokens a part of those of more.
    """
    n_included = int(plan.included.sum())
    if tokens >= n_included:
        return plan
    share = tokens / n_included
    kept = torch.zeros(len(plan.included), dtype=torch.bool)
    for number, side in enumerate((plan.train, plan.test)):
        contexts = side.any(dim=1).nonzero()[:, 0].tolist()
        kept[random_part(contexts, max(1, math.ceil(share * len(contexts))), (seed, number))] = True
    included, train = plan.included & kept[:, None], plan.train & kept[:, None]
    n_train = int(train.sum())
    return replace(plan, included=included, train=train, n_train=n_train, n_test=int(included.sum()) - n_train)


def random_part(indices: Sequence[int], n: int, seed: int | tuple[int, ...]) -> list[int]:
    """So many of the indices, in their order; fewer are a part of more."""
    # Sorted raw bits: numpy promises those across versions, not its shuffles.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(indices)), kind="stable")
    return [indices[place] for place in sorted(order[:n].tolist())]


def nearest_l0(saes: Sequence[LoadedSae], l0: float) -> list[LoadedSae]:
    """Per width the SAE nearest in nominal L0, the smaller of a tie; 0 takes all."""
    if l0 == 0:
        return list(saes)
    picks = []
    for d_sae in sorted({sae.ref.d_sae for sae in saes}):
        same = [sae for sae in saes if sae.ref.d_sae == d_sae]
        known = [sae for sae in same if sae.ref.nominal_l0 is not None]
        picks.append(
            min(known, key=lambda sae: (abs((sae.ref.nominal_l0 or 0.0) - l0), sae.ref.nominal_l0 or 0.0))
            if known
            else same[0]
        )
    return picks
