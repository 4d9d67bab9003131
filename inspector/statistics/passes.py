"""Run the model over the contexts a pass needs, once, and feed what comes to the accumulators.

The model and every SAE see each token once: training contexts in the first pass, held-out contexts in the second. Only
when a context has tokens of both kinds are its activations wanted twice; then they are kept in memory up to a bound and
recomputed beyond it, so that memory does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.engine.moments import sums_device
from inspector.events import Event
from inspector.sources.activations import ActivationBatch, origin_of, stream
from inspector.statistics.apart import FirstApart, no_places, places_of
from inspector.statistics.first_pass import Reconstruction
from inspector.statistics.second_pass import SecondPass
from inspector.statistics.walking import Progress, State, Sums, walk

if TYPE_CHECKING:
    from inspector.engine.outliers import Outliers
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.statistics.keeping import Keeper

__all__ = [
    "Activations", "Progress", "Reconstruct",
    "by_the_sae", "collect_first", "collect_second", "contexts_with",
]  # fmt: skip

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
    outliers: Outliers | None = None
    """Marks the tokens of every batch that outweigh all others; None: none is."""
    _kept: dict[int, Tensor] = field(default_factory=dict)
    _kept_marks: dict[int, Tensor] = field(default_factory=dict)
    _kept_bytes: int = 0

    def batches(self, indices: Sequence[int]) -> Iterator[ActivationBatch]:
        """The contexts with these indices, in this order."""
        for first in range(0, len(indices), self.batch_size):
            yield self.batch(indices[first : first + self.batch_size])

    def batch(self, group: Sequence[int]) -> ActivationBatch:
        """The contexts with these indices at once."""
        loaded = self.loaded
        if all(index in self._kept for index in group):
            return self._from_memory(group)
        (batch,) = stream(loaded.model, loaded.contexts, loaded.hook_name, group, len(group))
        if self.outliers is not None:  # by the model's own activations, whatever a null puts in their place
            batch = replace(batch, outlier=self.outliers.among(batch.x))
        if self.substitute is not None:
            batch = replace(batch, x=self.substitute(batch))
        self._remember(group, batch)
        return batch

    def _remember(self, group: Sequence[int], batch: ActivationBatch) -> None:
        rows = batch.x.view(len(group), -1, batch.x.shape[1])
        marks = None if batch.outlier is None else batch.outlier.view(len(group), -1)
        for place, (index, x) in enumerate(zip(group, rows, strict=True)):
            n_bytes = x.numel() * x.element_size()
            if index in self.keep and self._kept_bytes + n_bytes <= CACHE_BYTES:
                self._kept[index] = x
                if marks is not None:
                    self._kept_marks[index] = marks[place]
                self._kept_bytes += n_bytes

    def _from_memory(self, group: Sequence[int]) -> ActivationBatch:
        chosen = torch.tensor(list(group), dtype=torch.int64)
        tokens = self.loaded.contexts.token_ids[chosen]
        return ActivationBatch(
            contexts=chosen.repeat_interleave(tokens.shape[1]),
            positions=torch.arange(tokens.shape[1]).repeat(len(group)),
            token_ids=tokens.flatten(),
            x=torch.cat([self._kept[index] for index in group]),
            origin=origin_of(self.loaded.model, self.loaded.hook_name),
            outlier=None if self.outliers is None else torch.cat([self._kept_marks[index] for index in group]),
        )


def contexts_with(mask: Tensor) -> list[int]:
    """Indices of the contexts in which any position of the [c, t] mask is True."""
    indices: list[int] = mask.any(dim=1).nonzero()[:, 0].tolist()
    return indices


def collect_first(
    activations: Activations,
    plan: Plan,
    *,
    reconstruct: Reconstruct = by_the_sae,
    covariance: bool = False,
    shards: int = 1,
    name: str = "moments",
    keeper: Keeper | None = None,
) -> Generator[Event, None, FirstApart]:
    """Moments over the plan's training tokens, of all SAEs of the target; outliers apart, if the activations mark any.

    Args:
        activations: of the target.
        plan: what is training.
        reconstruct: what stands in the SAEs' place.
        covariance: keep the whole covariance of every error.
        shards: added up apart and then merged.
        name: of the pass, in events and for what is kept.
        keeper: where sums are kept on the way.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    loaded = activations.loaded
    saes = {sae.ref.sae_id: sae for sae in loaded.saes}
    d = loaded.model.check_hook(loaded.hook_name)

    def new() -> FirstApart:
        return FirstApart(d, list(saes), covariance=covariance)

    def add(part: FirstApart, whole: ActivationBatch) -> None:
        batch = whole.rows(plan.train[whole.contexts, whole.positions])
        part.update(batch, _one_by_one(saes, batch, reconstruct))

    def restored(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FirstApart:
        found = new()
        found.restore(tensors, facts, sums_device(loaded.model.device))
        return found

    sums = Sums(new=new, add=add, state=FirstApart.state, restored=restored, whole_batches=False)
    return (
        yield from walk(
            activations,
            contexts_with(plan.train),
            sums,
            name=name,
            tokens_per_context=plan.train.shape[1],
            shards=shards,
            keeper=keeper,
        )
    )


def collect_second(
    activations: Activations,
    plan: Plan,
    passes: Sequence[Callable[[], SecondPass]],
    *,
    reconstruct: Reconstruct = by_the_sae,
    shards: int = 1,
    name: str = "scores",
    keeper: Keeper | None = None,
) -> Generator[Event, None, Together]:
    """Sums over the scored tokens for one or more accumulators (held out; all) from one run over the contexts.

    They share each reconstruction, one of which is alive at a time.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    saes = {sae.ref.sae_id: sae for sae in activations.loaded.saes}

    def new() -> Together:
        return Together([make() for make in passes])

    scored = plan.included if any(each.scored == "all" for each in new().passes) else plan.test

    def add(part: Together, whole: ActivationBatch) -> None:
        batch = whole.rows(scored[whole.contexts, whole.positions])
        part.update(batch, _one_by_one(saes, batch, reconstruct), plan)

    def restored(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Together:
        found = new()
        found.restore(tensors, facts, plan)
        return found

    # Two accumulators may be left with one of them fed.
    sums = Sums(new=new, add=add, state=Together.state, restored=restored, whole_batches=len(passes) == 1)
    together = yield from walk(
        activations,
        contexts_with(scored),
        sums,
        name=name,
        tokens_per_context=plan.train.shape[1],
        shards=shards,
        keeper=keeper,
    )
    return together


class Together:
    """Accumulators that see the same batches.

    Args:
        passes: any number of them.
    """

    def __init__(self, passes: list[SecondPass]) -> None:
        self.passes = passes
        self.places = no_places()
        """[k, 2] int64 context and position of the outliers among what was scored."""

    def update(self, batch: ActivationBatch, made: Iterable[tuple[str, Reconstruction]], plan: Plan) -> None:
        """Add a batch to all of them."""
        adding = [one for each in self.passes if (one := each.adding(batch, plan)) is not None]
        for sae_id, reconstruction in made if adding else ():
            for one in adding:
                one.take(sae_id, reconstruction)
        for one in adding:
            one.done()
        self.places = torch.cat([self.places, places_of(batch)])

    def merge(self, other: Together) -> None:
        """Add what others of the same kinds have seen."""
        for mine, theirs in zip(self.passes, other.passes, strict=True):
            mine.merge(theirs)
        self.places = torch.cat([self.places, other.places])

    def state(self) -> State:
        """See `walking.Sums`."""
        states = [each.state() for each in self.passes]
        tensors = {f"{i} {name}": values for i, state in enumerate(states) for name, values in state.items()}
        return tensors | {"places": self.places}, {"scored": [[each.scored, each.tokens] for each in self.passes]}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], plan: Plan) -> None:
        """See `walking.Sums`."""
        if facts["scored"] != [[each.scored, each.tokens] for each in self.passes]:
            raise ValueError("The stored sums are of other passes.")
        for i, each in enumerate(self.passes):
            own = {name.removeprefix(f"{i} "): v for name, v in tensors.items() if name.startswith(f"{i} ")}
            each.restore(own, plan)
        self.places = tensors["places"].clone()


def _one_by_one(
    saes: dict[str, LoadedSae], batch: ActivationBatch, reconstruct: Reconstruct
) -> Iterator[tuple[str, Reconstruction]]:
    """Reconstructions made as they are asked for, so that one x_hat is alive at a time."""
    for sae_id, sae in saes.items():
        yield sae_id, reconstruct(sae, batch)
