"""How few linear directions carry the linear error: an SAE with a side channel of rank k beside it, for every k.

The best rank-k affine map from x to sae_error is the full one followed by a projection on the k leading principal
directions of its predictions (reduced-rank regression). So one eigen-decomposition per SAE gives every rank, and the
held-out error of all ranks needs two sums per direction and context:

    ‖e - mean - P_k l‖² = ‖r‖² + sum over the directions j > k of (l_j^2 + 2 l_j r_j),

with l the centred linear_error, r the nonlinear_error. On training tokens the second term sums to zero (S-03).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.moments import Moments, to_float64
from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.sampling import nearest_l0, sample_plan
from inspector.statistics.token_sums import Blocks, RowSums, Runs

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.pipeline import Measuring


@dataclass(frozen=True, kw_only=True)
class ChannelSae:
    """One SAE, held-out tokens unless it says otherwise. Fractions of the variance of x, unitless."""

    sae: str
    fvu: Estimate
    """Of x_hat alone."""
    by_rank: tuple[Estimate, ...]
    """FVU with a channel of each of the ranks; rank 0 adds the mean error alone."""
    spectrum: tuple[float, ...]
    """[d] share of the variance of linear_error along its principal directions, largest first, training tokens."""
    rank_half: Estimate
    """Smallest rank that recovers half of what the full map recovers beyond the mean error; fractional ranks never."""
    rank_most: Estimate
    """As `rank_half`, for 90%."""
    dense: tuple[tuple[int, float], ...]
    """(index, share of the tokens) of latents active on more than the limit, most frequent first, training tokens."""
    dense_of_l0: float | None
    """Share of the active latents of a token that are dense ones."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """All SAEs that were looked at."""

    n_train: int
    n_test: int
    ranks: tuple[int, ...]
    saes: tuple[ChannelSae, ...]


def ranks_for(d: int, asked: int) -> tuple[int, ...]:
    """0, the powers of two, the rank asked for, and d."""
    powers = [1 << i for i in range(d.bit_length()) if 1 << i < d]
    return tuple(sorted({0, *powers, min(asked, d), d}))


def measure_channels(
    measuring: Measuring, *, l0: float, tokens: int, rank: int, dense: float
) -> Generator[Event, None, Channels]:
    """Principal directions from training tokens, every rank's error from held-out ones.

    Args:
        measuring: the target.
        l0: per width, the SAE of the nearest nominal L0; 0 takes all.
        tokens: about so many of the plan's; 0 takes all.
        rank: one of the ranks to report.
        dense: a latent active on a larger share of the tokens counts as dense.
    """
    loaded = measuring.loaded
    assert loaded is not None, "a side channel needs a target"
    plan = sample_plan(measuring.plan, tokens, measuring.seed) if tokens else measuring.plan
    saes = nearest_l0(loaded.saes, l0)
    d = loaded.model.check_hook(loaded.hook_name)
    ranks = ranks_for(d, rank)
    blocks = Blocks(plan.test, plan.documents)
    directions = [_Directions(sae, measuring.maps[sae.ref.sae_id].error_map) for sae in saes]
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("side channel", len(training) + len(testing), plan.train.shape[1])
    for batch in measuring.activations.batches(training):
        with torch.inference_mode():
            x = batch.x[plan.train[batch.contexts, batch.positions].to(batch.x.device)]
            for each in directions:
                each.update(x)
        yield progress.advance(batch)
    with torch.inference_mode():
        channels = [_Channel(each, blocks.n) for each in directions]
    x_sums = _Variance(next(iter(measuring.maps.values())).error_map.centre, blocks.n)
    for batch in measuring.activations.batches(testing):
        with torch.inference_mode():
            mask = plan.test[batch.contexts, batch.positions]
            x, runs = batch.x[mask.to(batch.x.device)], blocks.runs(batch.contexts[mask])
            x_sums.update(x, runs)
            for channel in channels:
                channel.update(x, runs)
        yield progress.advance(batch)
    draws = resampling_counts(blocks.n, seed=measuring.seed, n_resamples=measuring.n_resamples)
    with torch.inference_mode():
        variance = x_sums.finish(draws)
        return Channels(
            n_train=plan.n_train,
            n_test=plan.n_test,
            ranks=ranks,
            saes=tuple(
                channel.finish(draws, variance, ranks, each.dense(dense))
                for channel, each in zip(channels, directions, strict=True)
            ),
        )


class _Directions:
    """Training sums of one SAE: covariance of its linear_error, and how often each latent is active."""

    def __init__(self, sae: LoadedSae, error_map: LinearMap) -> None:
        self.sae, self.error_map = sae, error_map
        self._moments = Moments(sae.ref.d_in)
        self._active = torch.zeros(sae.ref.d_sae, dtype=torch.int64)

    def update(self, x: Tensor) -> None:
        """Add tokens x [n, d]."""
        for rows, latents in self.sae.chunks(x):
            self._active += (latents[: rows.stop - rows.start] > 0).sum(dim=0).cpu()
        self._moments.update(self.error_map.predict(x), {})

    def principal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [d], shares [d] and directions [d, d] in columns, largest first. Around zero without an intercept."""
        sums, mean = self._moments.s_xx, self._moments.mean_x
        if not self.error_map.intercept:
            sums, mean = sums + self._moments.n * torch.outer(mean, mean), torch.zeros_like(mean)
        values, vectors = torch.linalg.eigh(sums)
        values = values.flip(0).clamp_min(0)
        total = float(values.sum())
        return mean, values / total if total else values, vectors.flip(1)

    def dense(self, limit: float) -> tuple[tuple[tuple[int, float], ...], float | None]:
        """The dense latents, and their share of all active ones."""
        frequency = self._active.double() / self._moments.n
        found = (frequency > limit).nonzero()[:, 0]
        order = found[frequency[found].argsort(descending=True, stable=True)]
        total = int(self._active.sum())
        share = float(self._active[found].sum()) / total if total else None
        return tuple(zip(order.tolist(), frequency[order].tolist(), strict=True)), share


class _Variance:
    """Sums of x around its training mean per group of contexts, for the variance that every fraction is of."""

    def __init__(self, centre: Tensor, n_groups: int) -> None:
        self._centre = centre
        self._n = RowSums(n_groups, 1)
        self._sum, self._square = (RowSums(n_groups, len(centre)) for _ in range(2))

    def update(self, x: Tensor, runs: Runs) -> None:
        """Add tokens x [n, d]."""
        wide = to_float64(x) - self._centre.to(x.device)
        self._n.update(torch.ones(len(x), 1), runs)
        self._sum.update(wide, runs)
        self._square.update(wide.square(), runs)

    def finish(self, draws: Tensor) -> Tensor:
        """[r] sum ‖x - mean(x)‖² for every draw of groups; NaN where zero."""
        n, total, square = (draws @ each.values for each in (self._n, self._sum, self._square))
        return nan_if_zero((square - total.square() / n).sum(dim=1))


class _Channel:
    """Held-out sums of one SAE, per group of contexts."""

    def __init__(self, directions: _Directions, n_groups: int) -> None:
        self._sae, self._map = directions.sae, directions.error_map
        self._mean, self._spectrum, self._vectors = directions.principal()
        self._squares = RowSums(n_groups, 2)
        """Of sae_error and of nonlinear_error."""
        self._along = RowSums(n_groups, len(self._mean))

    def update(self, x: Tensor, runs: Runs) -> None:
        """Add tokens x [n, d]."""
        parts = decompose(x, self._sae.reconstruct(x).x_hat, self._map)
        vectors = self._vectors.to(x.device)
        linear = (to_float64(parts.linear_error) - self._mean.to(x.device)) @ vectors
        along = linear.square() + 2.0 * linear * (to_float64(parts.nonlinear_error) @ vectors)
        squares = [squared_norm(parts.sae_error), squared_norm(parts.nonlinear_error)]
        self._squares.update(torch.stack(squares, dim=1), runs)
        self._along.update(along, runs)

    def finish(
        self,
        draws: Tensor,
        variance: Tensor,
        ranks: tuple[int, ...],
        dense: tuple[tuple[tuple[int, float], ...], float | None],
    ) -> ChannelSae:
        """Every rank's FVU for every draw [r, g] of groups of contexts."""
        along = draws @ self._along.values
        error, rest = (draws @ self._squares.values).unbind(dim=1)
        after = along.flip(1).cumsum(dim=1).flip(1)  # [r, d] what directions from j on add
        left = (torch.cat([after, torch.zeros_like(rest)[:, None]], dim=1) + rest[:, None]) / variance[:, None]
        return ChannelSae(
            sae=self._sae.ref.sae_id,
            fvu=percentile_estimate(error / variance),
            by_rank=tuple(percentile_estimate(left[:, rank]) for rank in ranks),
            spectrum=tuple(float(f"{share:.6g}") for share in self._spectrum.tolist()),
            rank_half=percentile_estimate(_rank_for(left, 0.5)),
            rank_most=percentile_estimate(_rank_for(left, 0.9)),
            dense=dense[0],
            dense_of_l0=dense[1],
        )


def _rank_for(left: Tensor, share: float) -> Tensor:
    """[r] smallest rank whose FVU, of [r, d + 1] by rank, has fallen by a share of the whole fall.

    NaN where the full map recovers nothing. Where a direction hurts on held-out tokens the fall is not monotone; the
    first rank that is low enough counts.
    """
    fall = left[:, :1] - left[:, -1:]
    enough = left <= left[:, :1] - share * fall
    first = enough.double().argmax(dim=1).double()
    return torch.where(fall[:, 0] > 0, first, torch.full_like(first, torch.nan))
