"""Plant noise in data of which everything else is known, and see whether the decomposition finds it.

x' = Sae(x) stands in for activations that are exactly sums of latents. Noise of known size is added to x' ("dense") and
to the reconstruction ("introduced"); latents are taken away ("absent"). Noise is drawn per context, so that both passes
see the same numbers and no batch size changes them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inspector.events import Event
from inspector.sources.activations import ActivationBatch, Rows
from inspector.sources.sae import LoadedSae
from inspector.statistics.first_pass import Made, Reconstructed, Reconstruction
from inspector.statistics.grouping import named, nearest_l0, sample_plan, tokens_wanted
from inspector.statistics.passes import Activations, contexts_with, walk
from inspector.statistics.pipeline import Draws, Measuring, regress
from inspector.statistics.sums import Sums, shaped

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
    loaded = measuring.loaded
    sae = named(loaded.saes, sae_id) if sae_id else nearest_l0(loaded.saes, l0)[0]
    published = measuring.protocol.planted_as_published
    d = loaded.model.check_hook(loaded.hook_name)
    plan = sample_plan(measuring.plan, tokens_wanted(tokens, d), measuring.seed)
    if published:  # fitted and scored on the same tokens, as its threshold of 150,000 makes of 50,000 (D-21)
        plan = replace(plan, train=plan.included, n_train=plan.n_train + plan.n_test, n_test=plan.n_train + plan.n_test)
    planting = _Planting(measuring.activations, sae, encode, measuring.seed)
    sums = yield from walk(
        measuring.activations,
        contexts_with(plan.included),
        lambda: _CleanSums.zeros(d=d, m=sae.ref.d_sae),
        lambda sums, batch: planting.add(sums, batch, plan.included),
        name="synthetic data",
    )
    mean = sums.total / sums.n
    variance = sums.square / sums.n - float(mean.square().sum())
    scalar = float((mean - mean.mean()).square().sum())
    planting.order = sums.activations.argsort(stable=True)
    planting.unit = size = unit or (1.0 if published else float(np.sqrt(UNIT_SHARE * variance / d)))
    points = []
    for dense in sorted({*GRID, *(pair[0] for pair in EXTRA)}):
        names = _combinations(dense)
        of = planting.at(dense)
        found = yield from regress(measuring, plan, of, name=f"planted noise {dense:g}", on_all=published)
        for introduced, ablated in names:
            scored = found[_name(introduced, ablated)]
            # The public code divides by the variance around one mean of all dimensions (D-21).
            factor = scored.variance / (scored.variance + scalar) if published else 1.0
            points.append(
                Point(
                    dense=dense,
                    introduced=introduced,
                    ablated=ablated,
                    fvu=tuple(factor * value for value in scored.fvu),
                    fvu_nonlinear=tuple(factor * value for value in scored.fvu_nonlinear),
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


@dataclass(kw_only=True)
class _CleanSums(Sums):
    """Of x' over all tokens."""

    activations: Tensor = shaped("m")
    """[d_sae] of every latent on x."""
    total: Tensor = shaped("d")
    """[d]"""
    square: float = 0.0
    """Of all dimensions."""
    n: int = 0


class _Planting:
    """X' of every context with noise and its reconstructions. `add` first, of which `order` and `unit` follow.

    Args:
        activations: of the target.
        sae: whose reconstruction of x is x'.
        encode: 'clean' or 'noisy'.
        seed: of the noise, which a context has of its own.
    """

    order: Tensor
    """Of the latents, those to be ablated first."""
    unit: float
    """Of the noise."""

    def __init__(self, activations: Activations, sae: LoadedSae, encode: str, seed: int) -> None:
        self._activations, self._sae, self._encode, self._seed = activations, sae, encode, seed
        self._clean: dict[int, Tensor] = {}
        """X' of a context, kept once it was made: each level of noise begins with it."""

    def add(self, sums: _CleanSums, batch: ActivationBatch, included: Tensor) -> None:
        """Add the included tokens of whole contexts."""
        rows = included[batch.contexts, batch.positions].to(batch.x.device)
        made = self._reconstruct(batch.x, sums.activations, rows)
        indices = torch.unique_consecutive(batch.contexts).tolist()
        self._clean |= dict(zip(indices, made.view(len(indices), -1, made.shape[1]).cpu(), strict=True))
        own = made[rows].double().cpu()
        sums.total += own.sum(dim=0)
        sums.square += float(own.square().sum())
        sums.n += len(own)

    def _reconstruct(self, x: Tensor, activations: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """X' of x [n, d]; adds the latents of some rows to `activations` [d_sae]."""
        made = torch.empty_like(x)
        for part, latents in self._sae.chunks(x):
            made[part] = self._sae.decode(latents)[: part.stop - part.start].to(made)
            if activations is not None and rows is not None:
                activations += latents[rows[part]].sum(dim=0, dtype=torch.float64).cpu()
        return made

    def at(self, dense: float) -> Reconstructed:
        """Everything at one level of dense noise."""
        token_ids = self._activations.loaded.contexts.token_ids

        @torch.inference_mode()
        def batch(group: Sequence[int]) -> ActivationBatch:
            (index,) = group
            n = token_ids.shape[1]
            return ActivationBatch(
                contexts=torch.full((n,), index, dtype=torch.int64),
                positions=torch.arange(n),
                token_ids=token_ids[index],
                x=self._noisy(index, dense)[0],
            )

        def made(whole: ActivationBatch, rows: Tensor) -> Iterator[tuple[str, Reconstruction]]:
            chosen = Rows(rows, whole.x.device)
            for name, one in self._reconstructed(int(whole.contexts[0]), dense).items():
                yield name, Made(x_hat=chosen.of(one.x_hat), l0=chosen.of(one.l0))

        names = tuple(_name(introduced, ablated) for introduced, ablated in _combinations(dense))
        return Reconstructed(names=names, made=made, batch=batch, at_once=1)

    def _noisy(self, index: int, dense: float) -> tuple[Tensor, Tensor, Tensor]:
        """X' with dense noise, x' without, and the noise to be introduced."""
        if index not in self._clean:  # the walk went on where an interrupted run stopped
            self._clean[index] = self._reconstruct(self._activations.batch([index]).x).cpu()
        clean = self._clean[index].to(self._activations.device, non_blocking=True)
        rng = np.random.default_rng((self._seed, index))
        drawn = (torch.from_numpy(rng.standard_normal(clean.shape)).to(clean.dtype) for _ in range(2))
        noise = [each.to(clean.device, non_blocking=True) for each in drawn]
        return clean + dense * self.unit * noise[0], clean, noise[1]

    def _reconstructed(self, index: int, dense: float) -> dict[str, Made]:
        """By name, of all tokens of a context."""
        sae, wanted = self._sae, _combinations(dense)
        x, clean, noise = self._noisy(index, dense)
        made: dict[int, Tensor] = {ablated: torch.empty_like(clean) for _, ablated in wanted}
        l0 = torch.zeros(len(clean), dtype=torch.int32, device=clean.device)
        for part, latents in sae.chunks(x if self._encode == "noisy" else clean):
            n = part.stop - part.start
            l0[part] = (latents[:n] > 0).sum(dim=1, dtype=torch.int32)
            for ablated, x_hat in made.items():
                masked = latents.clone()
                masked[:, self.order[: len(self.order) * ablated // 100].to(latents.device, non_blocking=True)] = 0.0
                x_hat[part] = sae.decode(masked)[:n].to(x_hat)
        return {
            _name(introduced, ablated): Made(x_hat=made[ablated] + introduced * self.unit * noise, l0=l0)
            for introduced, ablated in wanted
        }
