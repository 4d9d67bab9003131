"""The tokens that carry most of a sum of squares, and how many tokens such a sum really averages.

`n_eff` follows from sums that are kept anyway. The largest tokens are kept beside them, a thousandth of all: the
largest of the largest of parts are the largest of the whole, so batches and shards change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHARE = 0.001
"""Of the scored tokens, those of the largest errors."""
FEWEST_EFFECTIVE, MOST_CARRIED = 200.0, 0.2
"""With fewer effective tokens, or more of the squared error in a thousandth of all tokens, a number is warned of."""
NAMED = 5
"""Tokens that a warning names."""


@dataclass(frozen=True, kw_only=True)
class HeavyToken:
    """A token of a large error."""

    context: int
    position: int
    share: float
    """Of the squared error of all scored tokens."""
    x_norm: float


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How the squared error of an SAE is spread over the scored tokens; None where there is no error."""

    n_eff: float | None = None
    """(sum e^2)^2 / sum e^4 with e = |sae_error|: how many tokens the mean really averages."""
    top_share: float | None = None
    """Of sum e^2, in the thousandth of the tokens with the largest errors."""
    heaviest: tuple[HeavyToken, ...] = ()
    """The first of those."""

    @property
    def few(self) -> bool:
        """Whether a handful of tokens decides."""
        return self.n_eff is not None and (self.n_eff < FEWEST_EFFECTIVE or (self.top_share or 0.0) > MOST_CARRIED)


def n_kept(n_tokens: int) -> int:
    """A thousandth of so many tokens; at least as many as are named."""
    return max(NAMED, math.ceil(SHARE * n_tokens))


def none_yet(k: int) -> Tensor:
    """[k, 4] rows of |sae_error|^2, context, position, |x|, largest error first; -1 where there is no token."""
    return torch.full((k, 4), -1.0, dtype=torch.float64)


def placed(contexts: Tensor, positions: Tensor, x: Tensor) -> Tensor:
    """[n, 3] context, position and |x| of x [n, d], on the CPU."""
    return torch.stack([contexts.double(), positions.double(), x.norm(dim=1).double().cpu()], dim=1)


def candidates(norm_sq: Tensor, places: Tensor, k: int) -> Tensor:
    """Rows as of `none_yet` of the k largest of norm_sq [n]; equal ones all the same at the border."""
    norm_sq = norm_sq.double().cpu()
    if len(norm_sq) > k:
        chosen = norm_sq >= norm_sq.topk(k).values[-1]
        norm_sq, places = norm_sq[chosen], places[chosen]
    return torch.cat([norm_sq[:, None], places], dim=1)


def merged(mine: Tensor, others: Tensor) -> Tensor:
    """The largest of both, as many as there are rows in `mine`; among equals the earlier place."""
    both = torch.cat([mine, others]).numpy()
    order = np.lexsort((both[:, 2], both[:, 1], -both[:, 0]))[: len(mine)]
    return torch.from_numpy(both[order])


def weights(top: Tensor, n: float, sum_sq: float, sum_fourth: float) -> Weights:
    """From the largest tokens, and the sums of e^2 and e^4 over all n."""
    if sum_sq <= 0 or sum_fourth <= 0:
        return Weights()
    rows = top[top[:, 0] >= 0]
    carried = rows[: max(1, math.ceil(SHARE * n)), 0].sum()
    named = tuple(
        HeavyToken(context=int(context), position=int(position), share=norm_sq / sum_sq, x_norm=x_norm)
        for norm_sq, context, position, x_norm in rows[:NAMED].tolist()
    )
    return Weights(n_eff=sum_sq**2 / sum_fourth, top_share=float(carried) / sum_sq, heaviest=named)
