"""What is known of the scored tokens: sums from which every score and its interval follow.

Kept are sums per context and dimension, around the training means so that subtracting the held-out mean later loses
nothing; nothing of the size of the tokens, because many contexts share their sums in blocks (`grouping`). Resampling
contexts is then a matrix product (`engine.resampling`).

Beside them stand the tokens that carry most of the squared error, a thousandth of all, and how many tokens the mean
really averages: the largest of the largest of parts are the largest of the whole, so batches and shards change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from inspector.engine.scores import CONSTANT_BELOW, nan_if_zero
from inspector.statistics.first_pass import SaeMaps
from inspector.statistics.sums import FIXED, Sums, shaped

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


@dataclass
class Heaviest(Sums):
    """The tokens of the largest errors; the largest of parts are the largest of the whole."""

    top: Tensor
    """[k, 4] rows of |sae_error|^2, context, position, |x|, largest error first; -1 where there is no token."""

    @classmethod
    def of(cls, k: int) -> Heaviest:
        """So many are kept; none came yet."""
        return cls(torch.full((k, 4), -1.0, dtype=torch.float64))

    def candidates(self, norm_sq: Tensor, places: Tensor) -> Tensor:
        """Rows as of `top` of the k largest of norm_sq [n] at `places` [n, 3]; equal ones at the border all come."""
        norm_sq, k = norm_sq.double(), len(self.top)
        if len(norm_sq) > k:
            chosen = norm_sq >= norm_sq.topk(k).values[-1]
            norm_sq, places = norm_sq[chosen], places[chosen]
        return torch.cat([norm_sq[:, None], places], dim=1)

    def add(self, rows: Tensor) -> None:
        """Keep the largest of these and those before; among equals the earlier place."""
        both = torch.cat([self.top, rows]).numpy()
        order = np.lexsort((both[:, 2], both[:, 1], -both[:, 0]))[: len(self.top)]
        self.top = torch.from_numpy(both[order])

    def merge(self, other: Heaviest) -> None:
        """Add what another one has seen."""
        self.add(other.top)

    def weights(self, n: float, sum_sq: float, sum_fourth: float) -> Weights:
        """How the squared error is spread, with the sums of e^2 and e^4 over all n tokens."""
        if sum_sq <= 0 or sum_fourth <= 0:
            return Weights()
        rows = self.top[self.top[:, 0] >= 0]
        carried = rows[: max(1, math.ceil(SHARE * n)), 0].sum()
        named = tuple(
            HeavyToken(context=int(context), position=int(position), share=norm_sq / sum_sq, x_norm=x_norm)
            for norm_sq, context, position, x_norm in rows[:NAMED].tolist()
        )
        return Weights(n_eff=sum_sq**2 / sum_fourth, top_share=float(carried) / sum_sq, heaviest=named)


def placed(contexts: Tensor, positions: Tensor, x_norm: Tensor) -> Tensor:
    """[n, 3] context, position and |x| of n tokens, on the CPU."""
    return torch.stack([contexts.double(), positions.double(), x_norm.double()], dim=1)


ROUNDING = 1e-13
"""A centred sum of squares below this share of the sum it was taken from is what float64 rounding left of zero."""


@dataclass(kw_only=True)
class SaeSums(Sums):
    """Sums over the scored tokens of each of c contexts, or blocks of contexts, float64 on the CPU."""

    l0: Tensor = shaped("c")
    """[c] of active latents."""
    norm_sum: Tensor = shaped("c")
    """[c] of y = ‖sae_error‖², around its training mean."""
    norm_sq: Tensor = shaped("c")
    """[c] of the squares of those."""
    norm_rest_sq: Tensor = shaped("c")
    """[c] of the squared residual of the norm map."""
    norm_rest_h: Tensor = shaped("c")
    """[c] of that residual times h = 1 - g x."""
    error_sum: Tensor = shaped("c", "d")
    """[c, d] of sae_error, around its training mean."""
    error_sq: Tensor = shaped("c", "d")
    """[c, d] of the squares of those."""
    rest_sq: Tensor = shaped("c", "d")
    """[c, d] of the squares of nonlinear_error."""
    rest_h: Tensor = shaped("c", "d")
    """[c, d] of nonlinear_error times h."""


@dataclass(kw_only=True)
class HookSums(Sums):
    """Sums over the scored tokens of each of c contexts that all SAEs share, and the SAEs' own. Sorted by context.

    Beyond `grouping.MOST_GROUPS` contexts c counts blocks of them. The scores take `counts` [r, c], how often each
    context enters (see `engine.resampling`), and give [r], NaN where undefined. Formulas: specification 1.5.
    """

    maps: Mapping[str, SaeMaps] = field(metadata=FIXED)
    """The maps that are scored."""
    contexts: Tensor = field(metadata=FIXED)
    """[c] int64 index of the context, or of the first of its block."""
    seen: Tensor = shaped("text", dtype=torch.bool)
    """[text] bool: those contexts of the text of which a token was scored."""
    n: Tensor = shaped("c")
    """[c] float64 scored tokens."""
    x_sum: Tensor = shaped("c", "d")
    """[c, d] of x, around its training mean."""
    x_sq: Tensor = shaped("c", "d")
    """[c, d] of the squares of those."""
    h_sq: Tensor = shaped("c")
    """[c] of h^2 with h = 1 - g x, what an intercept adds to what x expresses of the constant."""
    saes: dict[str, SaeSums]
    top: dict[str, Heaviest]
    """By SAE: the scored tokens of the largest errors."""

    @classmethod
    def of_nothing(cls, maps: Mapping[str, SaeMaps], scored: Tensor, contexts: Tensor) -> HookSums:
        """Before the first; the tokens [text, t] that are to be scored say how many of the largest errors are kept."""
        c, d, kept = len(contexts), len(next(iter(maps.values())).error_map.centre), n_kept(int(scored.sum()))
        saes = {sae_id: SaeSums.zeros(c=c, d=d) for sae_id in maps}
        top = {sae_id: Heaviest.of(kept) for sae_id in maps}
        return cls.zeros(c=c, d=d, text=len(scored), maps=maps, contexts=contexts, saes=saes, top=top)

    def of_contexts(self, chosen: Tensor) -> HookSums:
        """Those of some of the contexts [c]; shares memory with these."""
        if bool(chosen.all()):
            return replace(self)
        parts = {name: getattr(self, name)[chosen] for name in ("contexts", "n", "x_sum", "x_sq", "h_sq")}
        saes = {
            sae_id: SaeSums(**{name: values[chosen] for name, values in vars(own).items()})
            for sae_id, own in self.saes.items()
        }
        return replace(self, **parts, saes=saes)

    @property
    def n_contexts(self) -> int:
        """With scored tokens, in all blocks."""
        return int(self.seen.sum())

    def fvu(self, sae_id: str, counts: Tensor) -> Tensor:
        """Sum ‖sae_error‖² / sum ‖x - mean(x)‖²."""
        n = counts @ self.n
        unexplained = counts @ self.saes[sae_id].norm_sum + n * float(self.maps[sae_id].mean_norm_sq)
        return unexplained / self._x_variance(counts)

    def fvu_nonlinear(self, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
        """Sum ‖nonlinear_error‖² / sum ‖x - mean(x)‖²; `switched`: with the intercept the other way."""
        return self._rest_sq(sae_id, counts, switched).sum(dim=1) / self._x_variance(counts)

    def r2_pooled(self, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
        """1 - sum ‖nonlinear_error‖² / sum ‖sae_error - mean‖², pooled over dimensions."""
        total = self._error_variance(self.saes[sae_id], counts, self.maps[sae_id].mean_error).sum(dim=1)
        return 1.0 - self._rest_sq(sae_id, counts, switched).sum(dim=1) / nan_if_zero(total)

    def r2_mean_dims(self, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
        """Unweighted mean over the dimensions that have an R-squared."""
        total = self._error_variance(self.saes[sae_id], counts, self.maps[sae_id].mean_error)
        return (1.0 - self._rest_sq(sae_id, counts, switched) / nan_if_zero(total)).nanmean(dim=1)

    def undefined_dims(self, sae_id: str) -> int:
        """Dimensions in which sae_error is constant over the scored tokens, so that they have no R-squared."""
        everything = torch.ones(1, len(self.n), dtype=torch.float64)
        total = self._error_variance(self.saes[sae_id], everything, self.maps[sae_id].mean_error)
        return int((total == 0).sum())

    def r2_norm(self, sae_id: str, counts: Tensor, *, switched: bool = False) -> Tensor:
        """1 - sum (y - prediction)^2 / sum (y - mean)^2 of y = ‖sae_error‖²."""
        sae, maps, n = self.saes[sae_id], self.maps[sae_id], counts @ self.n
        rest = counts @ sae.norm_rest_sq
        if switched:
            change = float(maps.norm_switch)
            rest = rest - 2.0 * change * (counts @ sae.norm_rest_h) + change**2 * (counts @ self.h_sq)
        total = _centred(counts @ sae.norm_sq, counts @ sae.norm_sum, n, maps.mean_norm_sq)
        return 1.0 - rest / nan_if_zero(total)

    def l0(self, sae_id: str) -> float:
        """Mean number of active latents per scored token."""
        return float(self.saes[sae_id].l0.sum() / self.n.sum())

    def weights(self, sae_id: str) -> Weights:
        """How the squared error is spread over the scored tokens."""
        sae, mean, n = self.saes[sae_id], float(self.maps[sae_id].mean_norm_sq), float(self.n.sum())
        around, around_sq = float(sae.norm_sum.sum()), float(sae.norm_sq.sum())  # both around the training mean
        sum_sq = around + n * mean
        return self.top[sae_id].weights(n, sum_sq, around_sq + 2.0 * mean * around + n * mean**2)

    def _rest_sq(self, sae_id: str, counts: Tensor, switched: bool) -> Tensor:
        """[r, d] sums of squared nonlinear error per dimension."""
        sae = self.saes[sae_id]
        rest = counts @ sae.rest_sq
        if switched:
            change = self.maps[sae_id].error_switch.cpu()
            h_sq = (counts @ self.h_sq)[:, None]
            rest = rest - 2.0 * change * (counts @ sae.rest_h) + change.square() * h_sq
        return rest

    def _x_variance(self, counts: Tensor) -> Tensor:
        """[r] sum ‖x - mean(x)‖², NaN where zero."""
        n = (counts @ self.n)[:, None]
        centre = next(iter(self.maps.values())).error_map.centre
        return nan_if_zero(_centred(counts @ self.x_sq, counts @ self.x_sum, n, centre).sum(dim=1))

    def _error_variance(self, sae: SaeSums, counts: Tensor, shift: Tensor) -> Tensor:
        """[r, d] sums of squares of sae_error around its mean, zero where it is constant."""
        return _centred(counts @ sae.error_sq, counts @ sae.error_sum, (counts @ self.n)[:, None], shift)


def _centred(square: Tensor, total: Tensor, n: Tensor, shift: Tensor) -> Tensor:
    """Sums of squares around the mean, from sums around `shift`; exactly zero where only rounding is left."""
    around_mean = square - total.square() / n
    rounding = torch.maximum(ROUNDING * square, n * (CONSTANT_BELOW * shift.to(square)).square())
    return torch.where(around_mean > rounding, around_mean, torch.zeros_like(around_mean))
