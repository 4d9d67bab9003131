"""The best linear probe for ‖s‖² of the SAE's own output s, beside what its latents do.

Per latent only counts and the first three powers of its activation are summed, so nothing of tokens by latents is kept.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.moments import Moments, to_float64
from inspector.engine.regression import Factorisation
from inspector.engine.scores import r2_from_moments
from inspector.events import Event
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.sampling import nearest_l0, sample_plan

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.pipeline import Measuring

Numbers = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ProbedSae:
    """One SAE; every tuple has an entry per latent that was active at all, strongest first where active, as Fig. 14."""

    sae: str
    d_sae: int
    n_active: int
    """Latents that were active on these tokens."""
    latents: Numbers
    """Index."""
    frequency: Numbers
    """Share of the tokens on which it is active."""
    mean_active: Numbers
    """Mean activation where active."""
    power_ratio: Numbers
    """E w^2 / E w over all tokens; the paper's prediction."""
    ols: Numbers
    """Cov(w, w^2) / Var(w) over all tokens: the weight of independent, orthogonal latents (S-18)."""
    dot: Numbers
    """a* . W_dec[i]."""
    r2_probe: float | None
    """Of ‖s‖² on s, training tokens."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """All SAEs that were probed."""

    n_tokens: int
    intercept: bool
    seed: int
    """Of the run, for what is drawn from these numbers."""
    smoothed_over: int
    """Latents in the running mean that the profile draws (D-20)."""
    saes: tuple[ProbedSae, ...]


def measure_probes(measuring: Measuring, *, l0: float, tokens: int) -> Generator[Event, None, Probed]:
    """Fit the probe and add up the latents' powers, over training tokens.

    Args:
        measuring: the target.
        l0: per width, the SAE of the nearest nominal L0; 0 takes all.
        tokens: about so many of the plan's; 0 takes all.
    """
    loaded = measuring.loaded
    assert loaded is not None, "a probe needs a target"
    plan = sample_plan(measuring.plan, tokens, measuring.seed) if tokens else measuring.plan
    picks = nearest_l0(loaded.saes, l0)
    sums = [_Sums(sae) for sae in picks]
    indices = contexts_with(plan.train)
    progress = Progress("probes", len(indices), plan.train.shape[1])
    for batch in measuring.activations.batches(indices):
        with torch.inference_mode():
            x = batch.x[plan.train[batch.contexts, batch.positions].to(batch.x.device)]
            for each in sums:
                each.update(x)
        yield progress.advance(batch)
    with torch.inference_mode():
        return Probed(
            n_tokens=plan.n_train,
            intercept=measuring.intercept,
            seed=measuring.seed,
            smoothed_over=measuring.protocol.smoothed_over,
            saes=tuple(each.finish(measuring.intercept) for each in sums),
        )


class _Sums:
    """Running sums of one SAE."""

    def __init__(self, sae: LoadedSae) -> None:
        self._sae = sae
        self._moments = Moments(sae.ref.d_in)
        rows, self._bias = sae.decoder
        self._rows = rows
        self._powers = torch.zeros(4, sae.ref.d_sae, dtype=torch.float64)

    def update(self, x: Tensor) -> None:
        """Add tokens x [n, d]."""
        for rows, latents in self._sae.chunks(x):
            n = rows.stop - rows.start
            s = self._sae.decode(latents)[:n] - self._bias
            self._moments.update(s, {"norm": to_float64(s).square().sum(dim=1)})
            wide = latents[:n]
            for power, values in enumerate(_powers(wide)):
                self._powers[power] += values.sum(dim=0, dtype=torch.float64).cpu()

    def finish(self, intercept: bool) -> ProbedSae:
        """What follows, for the latents that were active."""
        n = self._moments.n
        probe = Factorisation(self._moments).fit("norm", intercept=intercept)
        count, first, second, third = self._powers / n
        active = count > 0
        # By the mean when active, as the public code orders Fig. 14: then that curve falls from left to right (D-20).
        when_active = (first / count).where(active, torch.full_like(first, -torch.inf))
        order = when_active.argsort(descending=True, stable=True)
        chosen = order[: int(active.sum())]
        variance, covariance = second - first.square(), third - first * second
        dot = (to_float64(self._rows).cpu() @ probe.weight[0].cpu())[chosen]

        def listed(values: Tensor) -> Numbers:
            return tuple(float(f"{value:.7g}") for value in values.tolist())

        return ProbedSae(
            sae=self._sae.ref.sae_id,
            d_sae=self._sae.ref.d_sae,
            n_active=len(chosen),
            latents=tuple(chosen.tolist()),
            frequency=listed(count[chosen]),
            mean_active=listed((first / count)[chosen]),
            power_ratio=listed((second / first)[chosen]),
            ols=listed((covariance / variance)[chosen]),
            dot=listed(dot),
            r2_probe=r2_from_moments(self._moments.target("norm"), probe)[0],
        )


def _powers(latents: Tensor) -> Iterator[Tensor]:
    """Whether active, w, w^2 and w^3, one at a time."""
    yield (latents > 0).float()
    yield latents
    square = latents.square()
    yield square
    yield square * latents
