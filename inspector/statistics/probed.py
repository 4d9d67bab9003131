"""The best linear probe for ‖s‖² of the SAE's own output s, beside what its latents do.

Per latent only counts and the first three powers of its activation are summed, so nothing of tokens by latents is kept.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inspector.engine.moments import Moments, to_float64
from inspector.engine.regression import Factorisation
from inspector.engine.scores import r2_from_moments
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.sae import LoadedSae
from inspector.statistics.grouping import nearest_l0, sample_plan
from inspector.statistics.passes import contexts_with, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import ByName, Sums, shaped

DECODER_BYTES = 64 << 20
"""Of the decoder at once, in float64 twice that."""
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
    plan = sample_plan(measuring.plan, tokens, measuring.seed) if tokens else measuring.plan
    picks = nearest_l0(loaded.saes, l0)

    def new() -> ByName[_Latents]:
        return ByName(
            {sae.ref.sae_id: _Latents.zeros(powers=4, m=sae.ref.d_sae, moments=Moments(sae.ref.d_in)) for sae in picks}
        )

    def add(sums: ByName[_Latents], batch: ActivationBatch) -> None:
        x = batch.x[plan.train[batch.contexts, batch.positions].to(batch.x.device)]
        for sae in picks:
            sums.of[sae.ref.sae_id].update(sae, x)

    sums = yield from walk(measuring.activations, contexts_with(plan.train), new, add, name="probes")
    with torch.inference_mode():
        return Probed(
            n_tokens=plan.n_train,
            intercept=measuring.intercept,
            seed=measuring.seed,
            smoothed_over=measuring.protocol.smoothed_over,
            saes=tuple(sums.of[sae.ref.sae_id].concluded(sae, measuring.intercept) for sae in picks),
        )


@dataclass(kw_only=True)
class _Latents(Sums):
    """Of one SAE."""

    moments: Moments
    """Of its own output, with ‖s‖² as the target."""
    powers: Tensor = shaped("powers", "m")
    """[4, d_sae] sums of what `_powers` gives."""

    def update(self, sae: LoadedSae, x: Tensor) -> None:
        """Add tokens x [n, d]."""
        bias = sae.bias
        for rows, latents in sae.chunks(x):
            n = rows.stop - rows.start
            s = sae.decode(latents)[:n] - bias
            self.moments.update(s, {"norm": to_float64(s).square().sum(dim=1)})
            for power, values in enumerate(_powers(latents[:n])):
                self.powers[power] += values.sum(dim=0, dtype=torch.float64).cpu()

    def concluded(self, sae: LoadedSae, intercept: bool) -> ProbedSae:
        """What follows, for the latents that were active."""
        n = self.moments.n
        probe = Factorisation(self.moments).fit("norm", intercept=intercept)
        count, first, second, third = self.powers / n
        active = count > 0
        # By the mean when active, as the public code orders Fig. 14: then that curve falls from left to right (D-20).
        when_active = (first / count).where(active, torch.full_like(first, -torch.inf))
        order = when_active.argsort(descending=True, stable=True)
        chosen = order[: int(active.sum())]
        variance, covariance = second - first.square(), third - first * second
        weight = probe.weight[0].cpu()
        dot = torch.cat([to_float64(rows).cpu() @ weight for rows in sae.decoder_rows(DECODER_BYTES)])[chosen]

        def listed(values: Tensor) -> Numbers:
            return tuple(float(f"{value:.7g}") for value in values.tolist())

        return ProbedSae(
            sae=sae.ref.sae_id,
            d_sae=sae.ref.d_sae,
            n_active=len(chosen),
            latents=tuple(chosen.tolist()),
            frequency=listed(count[chosen]),
            mean_active=listed((first / count)[chosen]),
            power_ratio=listed((second / first)[chosen]),
            ols=listed((covariance / variance)[chosen]),
            dot=listed(dot),
            r2_probe=r2_from_moments(self.moments.target("norm"), probe)[0],
        )


def _powers(latents: Tensor) -> Iterator[Tensor]:
    """Whether active, w, w^2 and w^3, one at a time."""
    yield (latents > 0).float()
    yield latents
    square = latents.square()
    yield square
    yield square * latents
