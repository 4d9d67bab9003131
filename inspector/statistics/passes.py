"""Run the model over the contexts a pass needs, once, and feed what comes to the accumulators.

The model and every SAE see each token once: training contexts in the first pass, held-out contexts in the second. Only
when a context has tokens of both kinds are its activations wanted twice; then they are kept in memory up to a bound and
recomputed beyond it, so that memory does not grow with the text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.events import Event, PassProgress
from inspector.sources.activations import ActivationBatch, stream
from inspector.statistics.first_pass import FirstPass, Reconstruction
from inspector.statistics.second_pass import SecondPass

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

CACHE_BYTES = 256 * 1024 * 1024
"""Activations kept for the second pass. The demo's 300 contexts are 40 MB; larger models run again instead."""

Reconstruct = Callable[["LoadedSae", ActivationBatch], Reconstruction]
"""What stands in the SAE's place: (sae, tokens) to their reconstruction."""


def by_the_sae(sae: LoadedSae, batch: ActivationBatch) -> Reconstruction:
    """The SAE itself."""
    return sae.reconstruct(batch.x)


@dataclass(kw_only=True)
class Activations:
    """The activations of a target's contexts, in batches, kept while there is room."""

    loaded: Loaded
    batch_size: int
    """Contexts per batch."""
    keep: frozenset[int] = frozenset()
    """Contexts that will be asked for again."""
    substitute: Callable[[ActivationBatch], Tensor] | None = None
    """Puts other numbers in the place of x, for a null."""
    _kept: dict[int, Tensor] = field(default_factory=dict)
    _kept_bytes: int = 0

    def batches(self, indices: Sequence[int]) -> Iterator[ActivationBatch]:
        """The contexts with these indices, in this order."""
        loaded = self.loaded
        for first in range(0, len(indices), self.batch_size):
            group = indices[first : first + self.batch_size]
            if all(index in self._kept for index in group):
                yield self._from_memory(group)
                continue
            (batch,) = stream(loaded.model, loaded.contexts, loaded.hook_name, group, self.batch_size)
            if self.substitute is not None:
                batch = replace(batch, x=self.substitute(batch))
            self._remember(group, batch)
            yield batch

    def _remember(self, group: Sequence[int], batch: ActivationBatch) -> None:
        rows = batch.x.view(len(group), -1, batch.x.shape[1])
        for index, x in zip(group, rows, strict=True):
            n_bytes = x.numel() * x.element_size()
            if index in self.keep and self._kept_bytes + n_bytes <= CACHE_BYTES:
                self._kept[index] = x
                self._kept_bytes += n_bytes

    def _from_memory(self, group: Sequence[int]) -> ActivationBatch:
        chosen = torch.tensor(list(group), dtype=torch.int64)
        tokens = self.loaded.contexts.token_ids[chosen]
        return ActivationBatch(
            contexts=chosen.repeat_interleave(tokens.shape[1]),
            positions=torch.arange(tokens.shape[1]).repeat(len(group)),
            token_ids=tokens.flatten(),
            x=torch.cat([self._kept[index] for index in group]),
        )


class Progress:
    """Turns contexts done into events with rate and remaining time."""

    def __init__(self, name: str, n_contexts: int, tokens_per_context: int) -> None:
        self._name, self._total, self._per_context = name, n_contexts, tokens_per_context
        self._started = time.perf_counter()
        self._done = 0

    def advance(self, batch: ActivationBatch) -> PassProgress:
        """The event after one more batch of whole contexts."""
        return self.advance_by(len(batch.positions) // self._per_context)

    def advance_by(self, n_contexts: int) -> PassProgress:
        """The event after so many more contexts."""
        self._done += n_contexts
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return PassProgress(
            name=self._name,
            contexts_done=self._done,
            contexts_total=self._total,
            tokens_per_second=self._done * self._per_context / seconds,
            seconds_left=seconds / self._done * (self._total - self._done),
        )


def contexts_with(mask: Tensor) -> list[int]:
    """Indices of the contexts in which any position of the [c, t] mask is True."""
    indices: list[int] = mask.any(dim=1).nonzero()[:, 0].tolist()
    return indices


def shards_of(indices: Sequence[int], n_shards: int) -> list[Sequence[int]]:
    """The contexts dealt out to so many shards; empty ones are left out."""
    return [shard for shard in (indices[i::n_shards] for i in range(n_shards)) if shard]


def select(batch: ActivationBatch, rows: Tensor) -> ActivationBatch:
    """The batch's tokens where `rows` [n] is True."""
    if bool(rows.all()):
        return batch
    return replace(
        batch,
        contexts=batch.contexts[rows],
        positions=batch.positions[rows],
        token_ids=batch.token_ids[rows],
        x=batch.x[rows.to(batch.x.device)],
    )


def collect_first(
    activations: Activations,
    plan: Plan,
    *,
    reconstruct: Reconstruct = by_the_sae,
    covariance: bool = False,
    shards: int = 1,
    name: str = "moments",
) -> Generator[Event, None, FirstPass]:
    """Moments over the plan's training tokens, of all SAEs of the target.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
    """
    loaded = activations.loaded
    saes = {sae.ref.sae_id: sae for sae in loaded.saes}
    d = loaded.model.check_hook(loaded.hook_name)
    indices = contexts_with(plan.train)
    progress = Progress(name, len(indices), plan.train.shape[1])
    merged: FirstPass | None = None
    for shard in shards_of(indices, shards):
        part = FirstPass(d, list(saes), covariance=covariance)
        for whole in activations.batches(shard):
            with torch.inference_mode():
                batch = select(whole, plan.train[whole.contexts, whole.positions])
                everything = torch.ones(len(batch.positions), dtype=torch.bool)
                part.update(batch, _one_by_one(saes, batch, reconstruct), everything)
            yield progress.advance(whole)
        if merged is None:
            merged = part
        else:
            merged.merge(part)
    assert merged is not None, "the plan has training tokens; the runner checked"
    return merged


def collect_second(
    activations: Activations,
    plan: Plan,
    passes: Sequence[Callable[[], SecondPass]],
    *,
    reconstruct: Reconstruct = by_the_sae,
    shards: int = 1,
    name: str = "scores",
) -> Generator[Event, None, list[SecondPass]]:
    """Sums over the scored tokens for one or more accumulators (held out; all) from one run over the contexts.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
    """
    loaded = activations.loaded
    saes = {sae.ref.sae_id: sae for sae in loaded.saes}
    merged = [make() for make in passes]
    scored = plan.included if any(each.scored == "all" for each in merged) else plan.test
    indices = contexts_with(scored)
    progress = Progress(name, len(indices), plan.train.shape[1])
    for shard in shards_of(indices, shards):
        parts = [make() for make in passes]
        for whole in activations.batches(shard):
            with torch.inference_mode():
                batch = select(whole, scored[whole.contexts, whole.positions])
                made: Iterable[tuple[str, Reconstruction]] = _one_by_one(saes, batch, reconstruct)
                if len(parts) > 1:
                    made = list(made)
                for part in parts:
                    part.update(batch, made, plan)
            yield progress.advance(whole)
        for whole_pass, part in zip(merged, parts, strict=True):
            whole_pass.merge(part)
    return merged


def _one_by_one(
    saes: dict[str, LoadedSae], batch: ActivationBatch, reconstruct: Reconstruct
) -> Iterator[tuple[str, Reconstruction]]:
    """Reconstructions made as they are asked for, so that one x_hat is alive at a time."""
    for sae_id, sae in saes.items():
        yield sae_id, reconstruct(sae, batch)
