"""Run the model over the contexts a pass needs, once, and feed what comes to sums: every pass over tokens is a `walk`.

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
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from inspector.engine.moments import sums_device
from inspector.engine.plan import Outliers
from inspector.errors import DataError, InspectorError, ResourceError, is_out_of_memory
from inspector.events import Event, Loading, PassProgress, PassShared, Warned
from inspector.sources.activations import ActivationBatch, origin_of, stream
from inspector.sources.target import Loaded
from inspector.statistics.sums import Accumulator, Keeper, Together, together

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
    shards: int = 1
    """Contexts are dealt out to so many parts, which are added up apart and then merged."""
    keeper: Keeper | None = None
    """Where sums are kept on the way; None: nowhere."""
    kept_as: str = ""
    """Begins the name that the sums of a pass are kept by: several measurements have passes of the same name."""
    _kept: dict[int, tuple[Tensor, Any]] = field(default_factory=dict, init=False)
    """By context: x, and which are outliers."""
    _kept_bytes: int = field(default=0, init=False)

    @property
    def tokens_per_context(self) -> int:
        """All contexts alike."""
        return self.loaded.contexts.token_ids.shape[1]

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self.loaded.model.device

    def kept_name(self, name: str) -> str:
        """What the sums of a pass are kept by, which may be part of a file's name."""
        return self.kept_as + re.sub(r"[^a-zA-Z0-9.]+", "_", name)

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
        length = self.tokens_per_context
        for place, index in enumerate(group):
            rows = slice(place * length, (place + 1) * length)
            n_bytes = batch.x[rows].numel() * batch.x.element_size()
            if index in self.keep and self._kept_bytes + n_bytes <= CACHE_BYTES:
                self._kept[index] = batch.x[rows], None if batch.outlier is None else batch.outlier[rows]
                self._kept_bytes += n_bytes

    def _from_memory(self, group: Sequence[int]) -> ActivationBatch:
        chosen = torch.tensor(list(group), dtype=torch.int64)
        tokens = self.loaded.contexts.token_ids[chosen]
        x, marks = zip(*(self._kept[index] for index in group), strict=True)
        return ActivationBatch(
            contexts=chosen.repeat_interleave(tokens.shape[1]),
            positions=torch.arange(tokens.shape[1]).repeat(len(group)),
            token_ids=tokens.flatten(),
            x=torch.cat(x),
            origin=origin_of(self.loaded.model, self.loaded.hook_name),
            outlier=None if self.outliers is None else torch.cat(marks),
        )


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
    watch = Watch(batch, None if rows is None else rows.cpu().nonzero()[:, 0])
    watch.add(values, what)
    watch.require(watch.sums.cpu())


class Watch:
    """Whether the numbers of a batch are finite: many are looked at together, so that a device is waited for once.

    Args:
        batch: where they are from.
        places: [k] int64 of its tokens, on the host; None: all.
    """

    def __init__(self, batch: ActivationBatch, places: Tensor | None = None) -> None:
        self._batch, self._places = batch, places
        self._sums: list[Tensor] = []
        self._names: list[str] = []

    def add(self, values: Tensor, what: str) -> None:
        """Numbers [k, d] of the tokens; `what` as of `require_finite`."""
        # A sum instead of a mask: finite unless a number is not, or they add up beyond 3e38, where no square is either.
        self._sums.append(values.sum(dim=-1))
        self._names.append(what)

    @property
    def sums(self) -> Tensor:
        """[m, k] of all that was added, where it is; for `require`."""
        return torch.stack(self._sums)

    def require(self, sums: Tensor) -> None:
        """Raise for the first that is not finite; see `require_finite`.

        Args:
            sums: `Watch.sums` on the host.
        """
        for what, of in zip(self._names, sums, strict=True):
            bad = (~torch.isfinite(of)).nonzero()[:, 0]
            if not len(bad):
                continue
            batch, first = self._batch, int(bad[0] if self._places is None else self._places[bad[0]])
            kind = "NaN" if bool(of[bad[0]].isnan()) else "infinite"
            origin = f"; {batch.origin}" if batch.origin else ""
            raise DataError(
                f"The {what} is not finite at context {int(batch.contexts[first])}, position "
                f"{int(batch.positions[first])} ({kind}; {len(bad)} of {len(of)} tokens of its batch{origin}). "
                "Check the weights, or try --dtype float32."
            )


# ---- the walk -------------------------------------------------------------------------------------------------------

A = TypeVar("A", bound=Accumulator)
B = TypeVar("B")


def walk(
    activations: Activations,
    indices: Sequence[int],
    new: Callable[[], A],
    add: Callable[[A, B], Iterator[None] | None],
    *,
    name: str,
    batch: Callable[[Sequence[int]], B] | None = None,
    at_once: int | None = None,
    progress: Progress | None = None,
    whole_batches: bool = False,
    resumable: bool = True,
    first: Callable[[], A] | None = None,
) -> Generator[Event, None, A]:
    """Feed the contexts with these indices, in this order, and return what they add up to.

    Args:
        activations: of the target; they say how many contexts at once, in how many shards, and where sums are kept.
        indices: of the contexts.
        new: sums without anything added.
        add: adds a batch of whole contexts, under inference mode; may pause, by yielding, where others may have a turn.
        name: of the pass, for events and for what is kept.
        batch: the contexts with some indices; None: those of `activations`.
        at_once: contexts per batch at most; None: as many as `activations` say.
        progress: of several walks that count together; None: its own.
        whole_batches: `add` adds all of a batch or, if it raises, nothing.
        resumable: the sums are all there is; False keeps none of them on the way.
        first: as `new`, for the first shard, if that goes on from other sums.

    Raises:
        ResourceError: memory ran out with one context at a time, or what is to be kept finds no room.
    """
    made = batch or cast("Callable[[Sequence[int]], B]", activations.batch)
    parts = shards_of(indices, activations.shards)
    told = progress or Progress(name, len(indices), activations.tokens_per_context)
    keeper = activations.keeper if resumable else None
    alone = _Walk(activations, new, add, made, name, at_once=at_once, told=told, whole_batches=whole_batches)
    others = together(keeper)
    if others is not None:
        return (yield from _walk_together(alone, others, parts, first or new))
    return (yield from alone.over(parts, keeper, first or new))


def _walk_together(
    alone: _Walk[A, B], others: Together, parts: Sequence[Sequence[int]], first: Callable[[], A]
) -> Generator[Event, None, A]:
    """Add up the shards that are this process's; one process merges those of all in their order, for all."""
    step, device = alone.activations.kept_name(alone.name), sums_device(alone.activations.device)
    took: dict[int, float] = {}
    while (number := others.claim(step, len(parts))) is not None:
        began = time.perf_counter()
        try:
            part = yield from alone.over([parts[number]], None, first if number == 0 else alone.new)
        except InspectorError:
            if not others.give_up(step, number):
                raise
            continue
        others.hand_in(step, number, *part.state())
        took[number] = time.perf_counter() - began
    whole = others.whole(step)
    place, began = _Place(part=alone.new()), time.perf_counter()
    while others.claim(whole, 1) is not None:
        for kept in others.handed_in(step, len(parts)):
            place.part.restore(kept.tensors, kept.facts, device)
            place.end_shard(alone.new)
        assert place.merged is not None, "there are contexts; the runner checked"
        others.hand_in(whole, 0, *place.merged.state())
    if place.merged is None:  # by another one
        (kept,) = others.handed_in(whole, 1)
        place.part.restore(kept.tensors, kept.facts, device)
        place.end_shard(alone.new)
    assert place.merged is not None, "there was one"
    yield PassShared(name=alone.name, seconds=took, merging=time.perf_counter() - began)
    return place.merged


@dataclass(frozen=True)
class _Walk(Generic[A, B]):
    """What `walk` was asked for; see there."""

    activations: Activations
    new: Callable[[], A]
    add: Callable[[A, B], Iterator[None] | None]
    made: Callable[[Sequence[int]], B]
    name: str
    _: KW_ONLY
    at_once: int | None
    told: Progress
    whole_batches: bool

    def over(
        self, parts: Sequence[Sequence[int]], keeper: Keeper | None, first: Callable[[], A]
    ) -> Generator[Event, None, A]:
        """Add up shard by shard, from where `keeper` has the sums of."""
        activations, told, new, name = self.activations, self.told, self.new, self.name
        before = told.done
        place = yield from _begin(activations, keeper, new, first, name)
        if place.batch_size is not None:  # memory may have run out before: the same order of sums, and no second try
            activations.batch_size = min(activations.batch_size, place.batch_size)
        if place.contexts(parts):
            told.restart(before + place.contexts(parts))
            n_all = sum(map(len, parts))
            what = f"'{name}' of an interrupted run, {place.contexts(parts):,} of {n_all:,} contexts"
            yield Loading(what=what, seconds=0.0)
        while place.shard < len(parts):
            shard = parts[place.shard]
            size = min(activations.batch_size, self.at_once or len(shard), len(shard) - place.done)
            # An error keeps all alive that the frames it went through hold, so nothing is repaired inside `except`.
            memory_ran_out = began_to_add = False
            try:
                whole = self.made(shard[place.done : place.done + size])
                began_to_add = True
                for _ in _fed(self.add, place.part, whole):
                    yield told.advance(0)
                del whole  # or it would be held while the next batch is made
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                memory_ran_out = True
            if memory_ran_out:
                yield from _halve(activations, size, name)
                if began_to_add and not self.whole_batches:
                    place = yield from _begin(activations, keeper, new, first, name)
                    told.restart(before + place.contexts(parts))
                continue
            place.done += size
            if place.done == len(shard):
                place.end_shard(new)
            if keeper is not None and keeper.due():
                _keep(keeper, activations.kept_name(name), place, activations.batch_size)
            yield told.advance(size)
        assert place.merged is not None, "there are contexts; the runner checked"
        return place.merged


class Progress:
    """Turns contexts done into events with rate and remaining time."""

    def __init__(self, name: str, n_contexts: int, tokens_per_context: int) -> None:
        self._name, self._total, self._per_context = name, n_contexts, tokens_per_context
        self._started = time.perf_counter()
        self.done = self._before = 0

    def advance(self, n_contexts: int) -> PassProgress:
        """The event after so many more contexts."""
        self.done += n_contexts
        seconds = max(time.perf_counter() - self._started, 1e-9)
        now = max(1, self.done - self._before)
        return PassProgress(
            name=self._name,
            contexts_done=self.done,
            contexts_total=self._total,
            tokens_per_second=now * self._per_context / seconds,
            seconds_left=seconds / now * (self._total - self.done),
        )

    def restart(self, done: int) -> None:
        """So many contexts are done without any work from now on."""
        self.done = self._before = done
        self._started = time.perf_counter()


def shards_of(indices: Sequence[int], n_shards: int) -> list[Sequence[int]]:
    """The contexts dealt out to so many shards; empty ones are left out."""
    return [shard for shard in (indices[i::n_shards] for i in range(n_shards)) if shard]


def contexts_with(mask: Tensor) -> list[int]:
    """Indices of the contexts in which any position of the [c, t] mask is True."""
    indices: list[int] = mask.any(dim=1).nonzero()[:, 0].tolist()
    return indices


def _fed(add: Callable[[A, B], Iterator[None] | None], part: A, whole: B) -> Iterator[None]:
    """Add a batch; an item wherever it pauses. The mode is of the work alone, not of what is done in a pause."""
    with torch.inference_mode():
        work = iter(add(part, whole) or ())
    while True:
        with torch.inference_mode():
            if next(work, work) is work:
                return
        yield


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

    @torch.inference_mode()
    def end_shard(self, new: Callable[[], A]) -> None:
        """Join the shard with those before it."""
        if self.merged is None:
            self.merged = self.part
        else:
            self.merged.merge(self.part)
        self.part, self.shard, self.done = new(), self.shard + 1, 0


def _begin(
    activations: Activations, keeper: Keeper | None, new: Callable[[], A], first: Callable[[], A], name: str
) -> Generator[Event, None, _Place[A]]:
    """Where sums were kept last, or the beginning."""
    kept = None if keeper is None else keeper.load(activations.kept_name(name))
    if kept is None:
        return _Place(part=first())
    place, facts = _Place(part=new()), kept.facts  # before the first shard's end its part is what was kept
    try:
        for side in ("merged", "part"):
            if facts[side] is not None:
                own = {key.removeprefix(f"{side} "): v for key, v in kept.tensors.items() if key.startswith(f"{side} ")}
                found = new()
                found.restore(own, facts[side], sums_device(activations.device))
                setattr(place, side, found)
        place.shard, place.done, place.batch_size = (int(facts[each]) for each in ("shard", "done", "batch_size"))
    except (ValueError, KeyError, TypeError):
        yield Warned(message=f"What an interrupted run kept of '{name}' is laid out otherwise. It is added up anew.")
        return _Place(part=first())
    return place


def _keep(keeper: Keeper, name: str, place: _Place[A], batch_size: int) -> None:
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"shard": place.shard, "done": place.done, "batch_size": batch_size}
    for side, what in (("merged", place.merged), ("part", place.part if place.done else None)):
        own, facts[side] = what.state() if what is not None else ({}, None)
        tensors |= {f"{side} {key}": values for key, values in own.items()}
    keeper.store(name, tensors, facts)


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
