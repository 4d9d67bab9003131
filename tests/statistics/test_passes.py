"""A walk over contexts: in order, kept at its places, halved where memory ends, and gone on with where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from inspector.errors import ResourceError
from inspector.events import Event, Loading, PassProgress, Warned
from inspector.sources.activations import ActivationBatch
from inspector.statistics.passes import Progress, shards_of, walk
from inspector.statistics.sums import LARGEST, Kept, State, Sums

LENGTH = 4


@dataclass
class Seen:
    """Remembers contexts in the order they were added; one that raises has added the first half of its batch."""

    contexts: list[int] = field(default_factory=list)

    def merge(self, other: Seen) -> None:
        self.contexts += other.contexts

    def state(self) -> State:
        return {"contexts": torch.tensor(self.contexts, dtype=torch.int64)}, {"kind": "seen"}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        if facts["kind"] != "seen":
            raise ValueError("of another pass")
        self.contexts = tensors["contexts"].tolist()


@dataclass
class FakeActivations:
    batch_size: int = 4
    shards: int = 1
    keeper: FakeKeeper | None = None
    tokens_per_context: int = LENGTH
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    asked: list[list[int]] = field(default_factory=list)
    most: int = 100

    def kept_name(self, name: str) -> str:
        return name

    def batch(self, group: list[int]) -> ActivationBatch:
        self.asked.append(list(group))
        if len(group) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        chosen = torch.tensor(group).repeat_interleave(LENGTH)
        return ActivationBatch(contexts=chosen, positions=chosen, token_ids=chosen, x=torch.zeros(len(chosen), 1))


@dataclass
class FakeKeeper:
    kept: dict[str, Kept] = field(default_factory=dict)
    every: int = 1
    calls: int = 0

    def due(self) -> bool:
        self.calls += 1
        return self.calls % self.every == 0

    def load(self, name: str) -> Kept | None:
        return self.kept.get(name)

    def store(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.kept[name] = Kept(tensors={key: values.clone() for key, values in tensors.items()}, facts=dict(facts))


def adding(most: int = 100, *, whole_batches: bool = False) -> Callable[[Seen, ActivationBatch], None]:
    def add(seen: Seen, batch: ActivationBatch) -> None:
        contexts = batch.contexts[::LENGTH].tolist()
        if len(contexts) > most:
            if not whole_batches:
                seen.contexts += contexts[: len(contexts) // 2]
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        seen.contexts += contexts

    return add


def walked(
    activations: FakeActivations,
    add: Callable[[Seen, ActivationBatch], Iterator[None] | None],
    n: int = 10,
    stop_after: int | None = None,
    **options: Any,
) -> tuple[list[Event], list[int] | None]:
    for name in ("shards", "keeper"):
        setattr(activations, name, options.pop(name, getattr(activations, name)))
    work = walk(activations, list(range(n)), Seen, add, name="pass", **options)  # type: ignore[arg-type]
    events: list[Event] = []
    while stop_after is None or len(events) < stop_after:
        try:
            events.append(next(work))
        except StopIteration as end:
            return events, end.value.contexts
    work.close()
    return events, None


def done(events: list[Event]) -> list[int]:
    return [event.contexts_done for event in events if isinstance(event, PassProgress)]


def test_every_context_is_added_once_in_its_order() -> None:
    events, found = walked(FakeActivations(), adding())
    assert found == list(range(10)) and done(events) == [4, 8, 10]
    events, found = walked(FakeActivations(), adding(), shards=3)
    assert found == [0, 3, 6, 9, 1, 4, 7, 2, 5, 8] and done(events) == [4, 7, 10]
    assert shards_of(range(2), 5) == [range(0, 2, 5), range(1, 2, 5)]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("every", [1, 2])
def test_it_goes_on_at_the_place_that_was_kept_last(shards: int, every: int) -> None:
    _, expected = walked(FakeActivations(batch_size=2), adding(), shards=shards)
    for stop_after in range(1, 6):
        keeper = FakeKeeper(every=every)
        before, _ = walked(FakeActivations(batch_size=2), adding(), stop_after=stop_after, shards=shards, keeper=keeper)
        n_kept = done(before)[: stop_after // every * every]
        activations = FakeActivations(batch_size=2)
        after, found = walked(activations, adding(), shards=shards, keeper=keeper)
        assert found == expected
        first = [(n_kept[-1] if n_kept else 0) + len(group) for group in activations.asked[:1]]
        assert done(after)[:1] == first and (first or n_kept == [2, 4, 6, 8, 10])
        loading = [event.what for event in after if isinstance(event, Loading)]
        assert loading == ([f"'pass' of an interrupted run, {n_kept[-1]} of 10 contexts"] if n_kept else [])
    again, found = walked(FakeActivations(), adding(), shards=shards, keeper=keeper)
    assert found == expected and (every > 1 or done(again) == [])  # all of it is there


def test_sums_of_another_kind_are_not_gone_on_with() -> None:
    keeper = FakeKeeper()
    facts = {"shard": 0, "done": 4, "batch_size": 4, "merged": None, "part": {"kind": "other"}}
    keeper.store("pass", {"part contexts": torch.zeros(4)}, facts)
    events, found = walked(FakeActivations(), adding(), keeper=keeper)
    assert found == list(range(10))
    said = "What an interrupted run kept of 'pass' is laid out otherwise. It is added up anew."
    assert [event.message for event in events if isinstance(event, Warned)] == [said]


@pytest.mark.parametrize("keeper", [None, FakeKeeper()])
def test_a_batch_that_was_half_added_is_never_counted_twice(keeper: FakeKeeper | None) -> None:
    activations = FakeActivations(batch_size=8)
    events, found = walked(activations, adding(most=3), n=10, keeper=keeper)
    assert found == list(range(10)) and activations.batch_size == 2
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "Memory ran out with 8 contexts at once. The pass 'pass' goes on with 4 at a time.",
        "Memory ran out with 4 contexts at once. The pass 'pass' goes on with 2 at a time.",
    ]
    assert done(events) == [2, 4, 6, 8, 10]


def test_what_adds_whole_batches_or_nothing_goes_on_where_it_was() -> None:
    activations = FakeActivations(batch_size=4)
    limit = iter([100, 100, 2, 2, 2, 2, 2])

    def add(seen: Seen, batch: ActivationBatch) -> None:
        adding(most=next(limit), whole_batches=True)(seen, batch)

    events, found = walked(activations, add, n=14, whole_batches=True)
    assert found == list(range(14)) and done(events) == [4, 8, 10, 12, 14]


def test_a_batch_that_was_halved_stays_so_for_the_run_that_goes_on() -> None:
    keeper = FakeKeeper()
    walked(FakeActivations(batch_size=4, most=2), adding(), stop_after=3, keeper=keeper)
    activations = FakeActivations(batch_size=4)
    _, found = walked(activations, adding(), keeper=keeper)
    assert found == list(range(10)) and [len(group) for group in activations.asked] == [2, 2, 2]


def test_memory_for_less_than_one_context_is_an_error() -> None:
    for activations, what in ((FakeActivations(most=0), adding()), (FakeActivations(), adding(most=0))):
        with pytest.raises(ResourceError, match="Memory ran out in the pass 'pass' with one context at a time"):
            walked(activations, what)


def test_other_errors_are_not_caught() -> None:
    def add(seen: Seen, batch: ActivationBatch) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        walked(FakeActivations(), add)


def test_work_may_pause_within_a_batch_and_its_mode_does_not_leak() -> None:
    def add(seen: Seen, batch: ActivationBatch) -> Iterator[None]:
        for context in batch.contexts[::LENGTH].tolist():
            assert torch.is_inference_mode_enabled()
            seen.contexts.append(context)
            yield

    seen: list[bool] = []
    activations = FakeActivations(batch_size=2)
    work = walk(activations, [0, 1, 2], Seen, add, name="pass")  # type: ignore[arg-type, var-annotated]
    counts = []
    for event in work:
        seen.append(torch.is_inference_mode_enabled())
        counts.append(event.contexts_done if isinstance(event, PassProgress) else -1)
    assert counts == [0, 0, 2, 2, 3] and not any(seen)


def test_a_walk_may_go_on_from_the_sums_of_another_and_counts_with_it() -> None:
    for shards in (1, 3):
        activations = FakeActivations(batch_size=2)
        progress = Progress("both", 14, LENGTH)
        options = {"first": lambda: Seen([100]), "progress": progress, "shards": shards}
        progress.advance(4)
        events, found = walked(activations, adding(), **options)
        assert found is not None and found[0] == 100 and sorted(found[1:]) == list(range(10))
        assert done(events)[-1] == 14
        for stop_after in range(1, 6):
            keeper = FakeKeeper()
            walked(FakeActivations(batch_size=2), adding(), stop_after=stop_after, keeper=keeper, **options)
            assert walked(FakeActivations(batch_size=2), adding(), keeper=keeper, **options)[1] == found


@dataclass
class Both(Sums):
    """Every kind of field."""

    total: Tensor
    seen: Tensor
    own: dict[str, Seen]
    n: int = 0
    gap: float = field(default=0.0, metadata=LARGEST)


def test_sums_merge_and_are_restored_field_by_field() -> None:
    def both(value: float) -> Both:
        seen = torch.tensor([value > 1, value > 2])
        return Both(total=torch.full((2,), value), seen=seen, own={"a": Seen([int(value)])}, n=3, gap=value)

    one, other = both(2.0), both(3.0)
    one.merge(other)
    assert one.total.tolist() == [5.0, 5.0] and one.seen.tolist() == [True, True]
    assert (one.own["a"].contexts, one.n, one.gap) == ([2, 3], 6, 3.0)
    new, cpu = both(0.0), torch.device("cpu")
    new.restore(*one.state(), cpu)
    assert torch.equal(new.total, one.total) and torch.equal(new.seen, one.seen)
    assert (new.own["a"].contexts, new.n, new.gap) == ([2, 3], 6, 3.0)
    tensors, facts = one.state()
    for changed in ({}, {**tensors, "total": torch.zeros(3)}):
        with pytest.raises(ValueError, match=r"[Ss]tored sum"):
            both(0.0).restore(changed, facts, cpu)
    with pytest.raises(ValueError, match="of another pass"):
        Both(total=one.total, seen=one.seen, own={}).restore(tensors, facts, cpu)
