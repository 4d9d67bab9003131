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

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import Moments, to_float64
from inspector.engine.regression import LinearMap
from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.sae import LoadedSae
from inspector.statistics.grouping import Runs, groups_of, nearest_l0, sample_plan
from inspector.statistics.passes import Progress, contexts_with, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import ByName, Sums, shaped


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
    plan = sample_plan(measuring.plan, tokens, measuring.seed) if tokens else measuring.plan
    saes = nearest_l0(loaded.saes, l0)
    d = loaded.model.check_hook(loaded.hook_name)
    ranks = ranks_for(d, rank)
    maps = {sae.ref.sae_id: measuring.maps[sae.ref.sae_id].error_map for sae in saes}
    groups = groups_of(plan.test, plan.documents)
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("side channel", len(training) + len(testing), plan.train.shape[1])

    def new_directions() -> ByName[_Directions]:
        return ByName(
            {sae.ref.sae_id: _Directions.zeros(m=sae.ref.d_sae, moments=Moments(sae.ref.d_in)) for sae in saes}
        )

    def look(sums: ByName[_Directions], batch: ActivationBatch) -> None:
        x = batch.x[plan.train[batch.contexts, batch.positions].to(batch.x.device)]
        for sae in saes:
            sums.of[sae.ref.sae_id].update(sae, maps[sae.ref.sae_id], x)

    walked = measuring.activations
    directions = yield from walk(walked, training, new_directions, look, name="side channel", progress=progress)
    with torch.inference_mode():
        principal = {name: own.principal(maps[name].intercept) for name, own in directions.of.items()}

    def add(sums: _Channels, batch: ActivationBatch) -> None:
        mask = plan.test[batch.contexts, batch.positions]
        x, runs = batch.x[mask.to(batch.x.device)], groups.runs(batch.contexts[mask])
        sums.update(x, centre, runs)
        for sae in saes:
            name = sae.ref.sae_id
            sums.saes[name].update(decompose(x, sae.reconstruct(x).x_hat, maps[name]), principal[name], runs)

    def new() -> _Channels:
        g = groups.n
        return _Channels.zeros(g=g, d=d, saes={name: _Channel.zeros(g=g, d=d, parts=2) for name in maps})

    centre = next(iter(measuring.maps.values())).error_map.centre
    sums = yield from walk(walked, testing, new, add, name="side channel, held out", progress=progress)
    draws = resampling_counts(groups.n, seed=measuring.seed, n_resamples=measuring.n_resamples)
    with torch.inference_mode():
        variance = sums.variance(draws)
        return Channels(
            n_train=plan.n_train,
            n_test=plan.n_test,
            ranks=ranks,
            saes=tuple(
                sums.saes[name].concluded(
                    draws,
                    variance,
                    sae=name,
                    ranks=ranks,
                    spectrum=principal[name].shares,
                    dense=directions.of[name].dense(dense),
                )
                for name in maps
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Principal:
    """Principal directions of a linear_error."""

    mean: Tensor
    """[d] that they are around; zero without an intercept."""
    shares: Tensor
    """[d] of its variance, largest first."""
    vectors: Tensor
    """[d, d] in columns."""


@dataclass(kw_only=True)
class _Directions(Sums):
    """Training sums of one SAE."""

    moments: Moments
    """Of its linear_error."""
    active: Tensor = shaped("m", dtype=torch.int64)
    """[d_sae] int64 tokens on which each latent is active."""

    def update(self, sae: LoadedSae, error_map: LinearMap, x: Tensor) -> None:
        """Add tokens x [n, d]."""
        for rows, latents in sae.chunks(x):
            self.active += (latents[: rows.stop - rows.start] > 0).sum(dim=0).cpu()
        self.moments.update(error_map.predict(x), {})

    def principal(self, intercept: bool) -> _Principal:
        """The directions; around zero without an intercept."""
        sums, mean = self.moments.s_xx, self.moments.mean_x
        if not intercept:
            sums, mean = sums + self.moments.n * torch.outer(mean, mean), torch.zeros_like(mean)
        values, vectors = torch.linalg.eigh(sums)
        values = values.flip(0).clamp_min(0)
        total = float(values.sum())
        return _Principal(mean=mean, shares=values / total if total else values, vectors=vectors.flip(1))

    def dense(self, limit: float) -> tuple[tuple[tuple[int, float], ...], float | None]:
        """The dense latents, and their share of all active ones."""
        frequency = self.active.double() / self.moments.n
        found = (frequency > limit).nonzero()[:, 0]
        order = found[frequency[found].argsort(descending=True, stable=True)]
        total = int(self.active.sum())
        share = float(self.active[found].sum()) / total if total else None
        return tuple(zip(order.tolist(), frequency[order].tolist(), strict=True)), share


@dataclass(kw_only=True)
class _Channel(Sums):
    """Held-out sums of one SAE, per group of contexts."""

    squares: Tensor = shaped("g", "parts")
    """[g, 2] of sae_error and of nonlinear_error."""
    along: Tensor = shaped("g", "d")
    """[g, d] what each direction adds to the error where it is left out."""

    def update(self, parts: Decomposition, principal: _Principal, runs: Runs) -> None:
        """Add the split errors of some tokens."""
        vectors = principal.vectors.to(parts.x.device)
        linear = (to_float64(parts.linear_error) - principal.mean.to(parts.x.device)) @ vectors
        along = linear.square() + 2.0 * linear * (to_float64(parts.nonlinear_error) @ vectors)
        squares = [squared_norm(parts.sae_error), squared_norm(parts.nonlinear_error)]
        runs.add(self.squares, torch.stack(squares, dim=1))
        runs.add(self.along, along)

    def concluded(
        self,
        draws: Tensor,
        variance: Tensor,
        *,
        sae: str,
        ranks: tuple[int, ...],
        spectrum: Tensor,
        dense: tuple[tuple[tuple[int, float], ...], float | None],
    ) -> ChannelSae:
        """Every rank's FVU for every draw [r, g] of groups of contexts."""
        along = draws @ self.along
        error, rest = (draws @ self.squares).unbind(dim=1)
        after = along.flip(1).cumsum(dim=1).flip(1)  # [r, d] what directions from j on add
        left = (torch.cat([after, torch.zeros_like(rest)[:, None]], dim=1) + rest[:, None]) / variance[:, None]
        return ChannelSae(
            sae=sae,
            fvu=percentile_estimate(error / variance),
            by_rank=tuple(percentile_estimate(left[:, rank]) for rank in ranks),
            spectrum=tuple(float(f"{share:.6g}") for share in spectrum.tolist()),
            rank_half=percentile_estimate(_rank_for(left, 0.5)),
            rank_most=percentile_estimate(_rank_for(left, 0.9)),
            dense=dense[0],
            dense_of_l0=dense[1],
        )


@dataclass(kw_only=True)
class _Channels(Sums):
    """Held-out sums of all SAEs, and of x around its training mean, for the variance that every fraction is of."""

    n: Tensor = shaped("g")
    """[g]"""
    x_sum: Tensor = shaped("g", "d")
    """[g, d]"""
    x_sq: Tensor = shaped("g", "d")
    """[g, d]"""
    saes: dict[str, _Channel]

    def update(self, x: Tensor, centre: Tensor, runs: Runs) -> None:
        """Add tokens x [n, d]."""
        wide = to_float64(x) - centre.to(x.device)
        runs.add(self.n, torch.ones(len(x), dtype=torch.float64))
        runs.add(self.x_sum, wide)
        runs.add(self.x_sq, wide.square())

    def variance(self, draws: Tensor) -> Tensor:
        """[r] sum ‖x - mean(x)‖² for every draw of groups; NaN where zero."""
        n, total, square = (draws @ each for each in (self.n[:, None], self.x_sum, self.x_sq))
        return nan_if_zero((square - total.square() / n).sum(dim=1))


def _rank_for(left: Tensor, share: float) -> Tensor:
    """[r] smallest rank whose FVU, of [r, d + 1] by rank, has fallen by a share of the whole fall.

    NaN where the full map recovers nothing. Where a direction hurts on held-out tokens the fall is not monotone; the
    first rank that is low enough counts.
    """
    fall = left[:, :1] - left[:, -1:]
    enough = left <= left[:, :1] - share * fall
    first = enough.double().argmax(dim=1).double()
    return torch.where(fall[:, 0] > 0, first, torch.full_like(first, torch.nan))
