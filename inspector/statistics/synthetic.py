"""Plant noise in data of which everything else is known, and see whether the decomposition finds it.

x' = Sae(x) stands in for activations that are exactly sums of latents. Noise of known size is added to x' ("dense") and
to the reconstruction ("introduced"); latents are taken away ("absent"). Noise is drawn per context, so that both passes
see the same numbers and no batch size changes them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.events import Event
from inspector.statistics.passes import contexts_with
from inspector.statistics.pursued import Draws
from inspector.statistics.regressing import regress
from inspector.statistics.sampling import nearest_l0, sample_plan, tokens_wanted
from inspector.statistics.substitutes import Made

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.activations import ActivationBatch
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.first_pass import Reconstruction
    from inspector.statistics.pipeline import Measuring

GRID = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Both noise levels, in units; 25 combinations."""
EXTRA = ((1.0, 0.6), (0.6, 1.0))
"""(dense, introduced) of the two panels that are drawn against the share of latents ablated."""
ABLATED = (0, 10, 20, 30, 40, 50)
"""Percent of latents, those of the smallest mean activation."""
UNIT_SHARE = 0.05
"""A unit of noise has this share of the variance of x'. The paper's unit is 1, which is that of its one SAE."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of noises and one share of latents ablated."""

    dense: float
    """Standard deviation per dimension, in units."""
    introduced: float
    ablated: int
    """Percent."""
    fvu: Draws
    fvu_nonlinear: Draws
    variance: float
    """Of x' + dense noise, per token."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """All points."""

    sae: str
    d: int
    unit: float
    """Standard deviation per dimension of one unit, in the units of x."""
    variance: float
    """Of x', per token, around its mean."""
    encode: str
    n_train: int
    n_test: int
    points: tuple[Point, ...]


def measure_planted(
    measuring: Measuring, *, sae_id: str, l0: float, tokens: int, encode: str, unit: float
) -> Generator[Event, None, Planted]:
    """Plant every combination of noises in one SAE's reconstructions.

    Args:
        measuring: the target.
        sae_id: of the target; empty: of the narrowest width the one nearest `l0`.
        l0: nominal, where `sae_id` is empty.
        tokens: about so many; 0: see `tokens_wanted`.
        encode: 'clean' encodes x' as the paper does, 'noisy' x' + dense noise.
        unit: of the noise; 0: by UNIT_SHARE, and 1 in the paper-code profile.
    """
    from inspector.errors import TargetError, nearest

    loaded = measuring.loaded
    assert loaded is not None, "synthetic data begin with a target's SAE"
    by_id = {sae.ref.sae_id: sae for sae in loaded.saes}
    if sae_id and sae_id not in by_id:
        raise TargetError(f"'sae={sae_id}' is not among the target's SAEs.{nearest(sae_id, by_id)}")
    sae = by_id[sae_id] if sae_id else nearest_l0(loaded.saes, l0)[0]
    published = measuring.protocol.planted_as_published
    d = loaded.model.check_hook(loaded.hook_name)
    plan = sample_plan(measuring.plan, tokens_wanted(tokens, d), measuring.seed)
    if published:  # fitted and scored on the same tokens, as its threshold of 150,000 makes of 50,000 (D-21)
        plan = replace(plan, train=plan.included, n_train=plan.n_train + plan.n_test, n_test=plan.n_train + plan.n_test)
    clean, order, variance, scalar = _clean(measuring, plan, sae)
    size = unit or (1.0 if published else float(np.sqrt(UNIT_SHARE * variance / d)))
    source = _Source(measuring, plan, sae, clean, order, size, encode)
    points = []
    for dense in sorted({*GRID, *(pair[0] for pair in EXTRA)}):
        names = _combinations(dense)
        found = yield from regress(
            source.at(dense),
            plan,
            d,
            [_name(introduced, ablated) for introduced, ablated in names],
            label=f"planted noise {dense:g}",
            intercept=measuring.intercept,
            scored="all" if published else "test",
            seed=measuring.seed,
            n_resamples=measuring.n_resamples,
        )
        for introduced, ablated in names:
            scored = found[_name(introduced, ablated)]
            # The public code divides by the variance around one mean of all dimensions (D-21).
            factor = scored.variance / (scored.variance + scalar) if published else 1.0
            points.append(
                Point(
                    dense=dense,
                    introduced=introduced,
                    ablated=ablated,
                    fvu=tuple((factor * scored.fvu).tolist()),
                    fvu_nonlinear=tuple((factor * scored.fvu_nonlinear).tolist()),
                    variance=scored.variance / factor,
                )
            )
    return Planted(
        sae=sae.ref.sae_id,
        d=d,
        unit=size,
        variance=variance,
        encode=encode,
        n_train=plan.n_train,
        n_test=plan.n_test,
        points=tuple(points),
    )


def _combinations(dense: float) -> list[tuple[float, int]]:
    """(introduced, percent ablated) wanted at one level of dense noise."""
    wanted = [(introduced, 0) for introduced in GRID] if dense in GRID else []
    for other, introduced in EXTRA:
        if other == dense:
            wanted += [(introduced, ablated) for ablated in ABLATED]
    return wanted


def _name(introduced: float, ablated: int) -> str:
    return f"{introduced:g} {ablated}"


def _clean(measuring: Measuring, plan: Plan, sae: LoadedSae) -> tuple[dict[int, Tensor], Tensor, float, float]:
    """X' of every context, latents by mean activation on x ascending, variance of x' per token around its mean, and
    what a single mean for all dimensions adds to that.
    """
    activations = torch.zeros(sae.ref.d_sae, dtype=torch.float64)
    contexts: dict[int, Tensor] = {}
    total, square, n = 0.0, 0.0, 0
    sums = torch.zeros(sae.ref.d_in, dtype=torch.float64)
    with torch.inference_mode():
        for batch in measuring.activations.batches(contexts_with(plan.included)):
            made = torch.empty_like(batch.x)
            rows = plan.included[batch.contexts, batch.positions].to(batch.x.device)
            for part, latents in sae.chunks(batch.x):
                made[part] = sae.decode(latents)[: part.stop - part.start].to(made)
                activations += latents[rows[part]].sum(dim=0, dtype=torch.float64).cpu()
            indices = torch.unique_consecutive(batch.contexts).tolist()
            contexts |= dict(zip(indices, made.view(len(indices), -1, made.shape[1]).cpu(), strict=True))
            own = made[rows].double().cpu()
            sums += own.sum(dim=0)
            square += float(own.square().sum())
            n += len(own)
        mean = sums / n
        total = square / n - float(mean.square().sum())
        scalar = float((mean - mean.mean()).square().sum())
    return contexts, activations.argsort(stable=True), total, scalar


class _Source:
    """Batches of x' + dense noise with their reconstructions."""

    def __init__(
        self,
        measuring: Measuring,
        plan: Plan,
        sae: LoadedSae,
        clean: Mapping[int, Tensor],
        order: Tensor,
        unit: float,
        encode: str,
    ) -> None:
        self._measuring, self._plan, self._sae, self._clean = measuring, plan, sae, clean
        self._order, self._unit, self._encode = order, unit, encode

    def at(self, dense: float) -> _AtLevel:
        """Batches at one level of dense noise."""
        return _AtLevel(self, dense)

    def context(self, index: int, dense: float) -> tuple[Tensor, dict[str, Made]]:
        """One context: its activations [t, d] and their reconstructions."""
        clean = self._clean[index].to(self._measuring.loaded.model.device if self._measuring.loaded else "cpu")
        rng = np.random.default_rng((self._measuring.seed, index))
        noise = [torch.from_numpy(rng.standard_normal(clean.shape)).to(clean) for _ in range(2)]
        x = clean + dense * self._unit * noise[0]
        wanted = _combinations(dense)
        made: dict[int, Tensor] = {ablated: torch.empty_like(clean) for _, ablated in wanted}
        l0 = torch.zeros(len(clean), dtype=torch.int32, device=clean.device)
        for part, latents in self._sae.chunks(x if self._encode == "noisy" else clean):
            n = part.stop - part.start
            l0[part] = (latents[:n] > 0).sum(dim=1, dtype=torch.int32)
            for ablated, x_hat in made.items():
                masked = latents.clone()
                masked[:, self._order[: len(self._order) * ablated // 100].to(latents.device)] = 0.0
                x_hat[part] = self._sae.decode(masked)[:n].to(x_hat)
        return x, {
            _name(introduced, ablated): Made(x_hat=made[ablated] + introduced * self._unit * noise[1], l0=l0)
            for introduced, ablated in wanted
        }


class _AtLevel:
    """`regressing.Batches` at one level of dense noise, one context at a time."""

    def __init__(self, source: _Source, dense: float) -> None:
        self._source, self._dense = source, dense

    def __call__(self, indices: Sequence[int]) -> Iterator[tuple[ActivationBatch, Mapping[str, Reconstruction]]]:
        from inspector.sources.activations import ActivationBatch

        loaded = self._source._measuring.loaded
        assert loaded is not None
        for index in indices:
            with torch.inference_mode():
                x, made = self._source.context(index, self._dense)
            token_ids = loaded.contexts.token_ids[index]
            batch = ActivationBatch(
                contexts=torch.full((len(x),), index, dtype=torch.int64),
                positions=torch.arange(len(x)),
                token_ids=token_ids,
                x=x,
            )
            yield batch, made
