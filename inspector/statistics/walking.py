"""A walk of one pass over its contexts: shard by shard and batch by batch, from where an interrupted run stopped.

Two things may go wrong on the way and cost little. The process dies: sums are kept from time to time (`keeping`), with
the place they were kept at, and added up from there in the same order, so that the end is the same to the last bit.
Memory runs out: the batch is halved and the walk goes on; sums that may hold a part of the batch are dropped for those
kept last, or begun again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from inspector.errors import ResourceError, is_out_of_memory
from inspector.events import Event, Loading, PassProgress, Warned

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch
    from inspector.statistics.keeping import Keeper
    from inspector.statistics.passes import Activations


class Accumulator(Protocol):
    """What a walk feeds."""

    def merge(self, other: Self, /) -> None:
        """Add what another one has seen."""


A = TypeVar("A", bound=Accumulator)
State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and JSON data."""


@dataclass(frozen=True, kw_only=True)
class Sums(Generic[A]):
    """How the sums of a walk are made, fed and stored."""

    new: Callable[[], A]
    """Without anything added."""
    add: Callable[[A, ActivationBatch], None]
    """A batch of whole contexts; under inference mode."""
    state: Callable[[A], State]
    restored: Callable[[Mapping[str, Tensor], Mapping[str, Any]], A]
    """From a state. Raises ValueError or KeyError if it is of something else."""
    whole_batches: bool
    """`add` adds all of a batch or, if it raises, nothing."""


class Progress:
    """Turns contexts done into events with rate and remaining time."""

    def __init__(self, name: str, n_contexts: int, tokens_per_context: int) -> None:
        self._name, self._total, self._per_context = name, n_contexts, tokens_per_context
        self._started = time.perf_counter()
        self._done = self._before = 0

    def advance(self, batch: ActivationBatch) -> PassProgress:
        """The event after one more batch of whole contexts."""
        return self.advance_by(len(batch.positions) // self._per_context)

    def advance_by(self, n_contexts: int) -> PassProgress:
        """The event after so many more contexts."""
        self._done += n_contexts
        seconds = max(time.perf_counter() - self._started, 1e-9)
        now = max(1, self._done - self._before)
        return PassProgress(
            name=self._name,
            contexts_done=self._done,
            contexts_total=self._total,
            tokens_per_second=now * self._per_context / seconds,
            seconds_left=seconds / now * (self._total - self._done),
        )

    def restart(self, done: int) -> None:
        """So many contexts are done without any work from now on."""
        self._done = self._before = done
        self._started = time.perf_counter()


def shards_of(indices: Sequence[int], n_shards: int) -> list[Sequence[int]]:
    """The contexts dealt out to so many shards; empty ones are left out."""
    return [shard for shard in (indices[i::n_shards] for i in range(n_shards)) if shard]


def walk(
    activations: Activations,
    indices: Sequence[int],
    sums: Sums[A],
    *,
    name: str,
    tokens_per_context: int,
    shards: int = 1,
    keeper: Keeper | None = None,
) -> Generator[Event, None, A]:
    """Feed the contexts with these indices, in this order, and return what they add up to.

    Args:
        activations: of the target.
        indices: of the contexts.
        sums: what is added up.
        name: of the pass, for events and for what is kept.
        tokens_per_context: all of them alike.
        shards: added up apart and then merged.
        keeper: where sums are kept; None: nowhere.

    Raises:
        ResourceError: memory ran out with one context at a time, or what is to be kept finds no room.
    """
    parts = shards_of(indices, shards)
    progress = Progress(name, len(indices), tokens_per_context)
    place = _begin(sums, keeper, name)
    if place.batch_size is not None:  # memory may have run out before: the same order of sums, and no second try
        activations.batch_size = min(activations.batch_size, place.batch_size)
    if place.contexts(parts):
        progress.restart(place.contexts(parts))
        what = f"'{name}' of an interrupted run, {place.contexts(parts):,} of {len(indices):,} contexts"
        yield Loading(what=what, seconds=0.0)
    while place.shard < len(parts):
        shard = parts[place.shard]
        while place.done < len(shard):
            size = min(activations.batch_size, len(shard) - place.done)
            # An error keeps all alive that the frames it went through hold, so nothing is repaired inside `except`.
            memory_ran_out = began_to_add = False
            try:
                whole = activations.batch(shard[place.done : place.done + size])
                began_to_add = True
                with torch.inference_mode():
                    sums.add(place.part, whole)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                memory_ran_out = True
            if memory_ran_out:
                yield from _halve(activations, size, name)
                if began_to_add and not sums.whole_batches:
                    place = _begin(sums, keeper, name)
                    progress.restart(place.contexts(parts))
                    break
                continue
            place.done += size
            if place.done == len(shard):
                place.end_shard(sums.new)
            if keeper is not None and keeper.due():
                _keep(keeper, name, sums, place, activations.batch_size)
            event = progress.advance(whole)
            del whole  # or it would be held while the next batch is made
            yield event
            if place.done == 0:
                break
    assert place.merged is not None, "there are contexts; the runner checked"
    return place.merged


@dataclass
class _Place(Generic[A]):
    """How far a walk is, and what it has added up."""

    part: A
    """Of the shard under way."""
    merged: A | None = None
    """Of the shards before."""
    shard: int = 0
    done: int = 0
    """Contexts of the shard under way."""
    batch_size: int | None = None
    """Contexts at once when this was kept; None if it never was."""

    def contexts(self, parts: Sequence[Sequence[int]]) -> int:
        """Contexts done in all."""
        return sum(len(part) for part in parts[: self.shard]) + self.done

    def end_shard(self, new: Callable[[], A]) -> None:
        """Join the shard with those before it."""
        if self.merged is None:
            self.merged = self.part
        else:
            self.merged.merge(self.part)
        self.part, self.shard, self.done = new(), self.shard + 1, 0


def _begin(sums: Sums[A], keeper: Keeper | None, name: str) -> _Place[A]:
    """Where sums were kept last, or the beginning."""
    kept = None if keeper is None else keeper.load(name)
    if kept is None:
        return _Place(part=sums.new())
    facts = kept.facts
    try:
        parts = [
            None if facts[side] is None else sums.restored(_side(kept.tensors, side), facts[side])
            for side in ("merged", "part")
        ]
        return _Place(
            merged=parts[0],
            part=parts[1] or sums.new(),
            shard=int(facts["shard"]),
            done=int(facts["done"]),
            batch_size=int(facts["batch_size"]),
        )
    except (ValueError, KeyError, TypeError):  # undamaged, but of a pass that adds up something else
        return _Place(part=sums.new())


def _keep(keeper: Keeper, name: str, sums: Sums[A], place: _Place[A], batch_size: int) -> None:
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {
        "shard": place.shard,
        "done": place.done,
        "batch_size": batch_size,
        "merged": None,
        "part": None,
    }
    for side, what in (("merged", place.merged), ("part", place.part if place.done else None)):
        if what is not None:
            own, facts[side] = sums.state(what)
            tensors |= {f"{side} {key}": values for key, values in own.items()}
    keeper.store(name, tensors, facts)


def _side(tensors: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{side} "): values for key, values in tensors.items() if key.startswith(f"{side} ")}


def _halve(activations: Activations, size: int, name: str) -> Generator[Event, None, None]:
    """Go on with batches of half the size.

    Raises:
        ResourceError: there is no half.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if size == 1:
        raise ResourceError(
            f"Memory ran out in the pass '{name}' with one context at a time. "
            "Lower --context-length, take fewer SAEs with --widths, or use --dtype bfloat16 or another --device."
        )
    activations.batch_size = size // 2
    yield Warned(
        message=f"Memory ran out with {size} contexts at once. The pass '{name}' goes on with {size // 2} at a time."
    )
