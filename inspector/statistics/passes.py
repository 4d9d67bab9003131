"""Run the model over the contexts a pass needs, once, and feed what comes to the accumulators.

The model and every SAE see each token once: training contexts in the first pass, held-out contexts in the second. Only
when a context has tokens of both kinds are its activations wanted twice; then they are kept in memory up to a bound and
recomputed beyond it, so that memory does not grow with the text.

A walk goes shard by shard and batch by batch, from where an interrupted run stopped. Two things may go wrong on the way
and cost little. The process dies: sums are kept from time to time, with the place they were kept at, and added up from
there in the same order, so that the end is the same to the last bit. Memory runs out: the batch is halved and the walk
goes on; sums that may hold a part of the batch are dropped for those kept last, or begun again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from inspector.errors import DataError, ResourceError, is_out_of_memory
from inspector.events import Event, Loading, PassProgress, Warned
from inspector.sources.activations import ActivationBatch, origin_of, stream

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.engine.plan import Outliers
    from inspector.sources.activations import ActivationBatch
    from inspector.sources.target import Loaded


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


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Sums that were kept."""

    tensors: Mapping[str, Tensor]
    """By name, on the CPU, in memory of their own."""
    facts: Mapping[str, Any]
    """JSON data."""


class Keeper(Protocol):
    """Keeps the newest sums of each pass by the pass's name."""

    def due(self) -> bool:
        """Whether it is time to keep sums again."""

    def load(self, name: str) -> Kept | None:
        """What was kept last; None if nothing was, or it is damaged."""

    def store(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep these instead of what was kept before.

        Raises:
            ResourceError: there is no room; what was kept before is still there.
        """


class RowKeeper(Keeper, Protocol):
    """Keeps rows of a table as well, in the order they are made."""

    def rows(self) -> tuple[list[pa.Table], int]:
        """What was kept of them, as it was given, and how many contexts it is of."""

    def store_rows(self, tables: Sequence[pa.Table], stop: int) -> None:
        """Keep more rows.

        Args:
            tables: not kept before, in their order.
            stop: contexts that all rows together are of.

        Raises:
            ResourceError: there is no room; what was kept before is still there.
        """


def require_finite(values: Tensor, batch: ActivationBatch, what: str, rows: Tensor | None = None) -> None:
    """Raise if any number is NaN or infinite, naming the first token where it is.

    Args:
        values: [n, d] numbers of the batch's tokens, or of those in `rows`.
        batch: where they are from.
        what: 'activation', 'reconstruction of SAE ...': begins the message.
        rows: [n] bool over the batch, True for the tokens `values` has; None for all.

    Raises:
        DataError: with the context and position, whether it is NaN or infinite, and the hook, layer and dtype.
    """
    # One sum instead of a mask of the same size: it is finite unless a number is not, or they add up beyond 3e38.
    if bool(torch.isfinite(values.sum())):
        return
    bad = (~torch.isfinite(values)).any(dim=-1).nonzero()[:, 0]
    if len(bad) == 0:
        return
    contexts = batch.contexts if rows is None else batch.contexts[rows.to(batch.contexts.device)]
    positions = batch.positions if rows is None else batch.positions[rows.to(batch.positions.device)]
    first = int(bad[0])
    kind = "NaN" if bool(values[first].isnan().any()) else "infinite"
    origin = f"; {batch.origin}" if batch.origin else ""
    raise DataError(
        f"The {what} is not finite at context {int(contexts[first])}, position {int(positions[first])} "
        f"({kind}; {len(bad)} of {len(values)} tokens of its batch{origin}). "
        "Check the weights, or try --dtype float32."
    )


CACHE_BYTES = 256 * 1024 * 1024
"""Activations kept for the second pass. The demo's 300 contexts are 40 MB; larger models run again instead."""


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
