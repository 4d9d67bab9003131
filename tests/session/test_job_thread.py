"""Work in turns: one thread at a time, rests where it may, ends when it is given up, and gives the same items."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from inspector.session import job_thread as module
from inspector.session.job_thread import RestingSae, Turns

if TYPE_CHECKING:
    from inspector.sources.target import Loaded


@pytest.fixture(autouse=True)
def always_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)


def all_of(turns: Turns[int]) -> list[int | None]:
    found: list[int | None] = []
    while True:
        try:
            found.append(turns.turn())
        except StopIteration:
            return found


def test_items_come_in_order_with_rests_between() -> None:
    def work(turns: Turns[int]) -> Generator[int, None, str]:
        turns.rest()
        yield 1
        yield 2
        turns.rest()
        turns.rest()
        return "unused"

    turns = Turns(work)
    assert all_of(turns) == [None, 1, 2, None, None]
    with pytest.raises(StopIteration):
        turns.turn()
    turns.close()


def test_only_one_of_both_threads_runs() -> None:
    running: list[str] = []

    def work(turns: Turns[int]) -> Generator[int, None, None]:
        for number in range(50):
            running.append("work")
            time.sleep(0.0005)
            running.append("work ends")
            if number % 2:
                turns.rest()
            else:
                yield number

    turns = Turns(work)
    while True:
        try:
            turns.turn()
        except StopIteration:
            break
        running.append("answer")
        time.sleep(0.0005)
        running.append("answer ends")
    assert all(running[i + 1] == f"{running[i]} ends" for i in range(0, len(running), 2))
    assert len(running) == 200


def test_what_the_work_raises_is_raised_here() -> None:
    def work(turns: Turns[int]) -> Generator[int, None, None]:
        yield 1
        turns.rest()
        raise ZeroDivisionError("odd")

    turns = Turns(work)
    assert [turns.turn(), turns.turn()] == [1, None]
    with pytest.raises(ZeroDivisionError, match="odd"):
        turns.turn()
    assert all_of(turns) == []


@pytest.mark.parametrize("n_turns", [0, 1, 2])
def test_work_that_is_given_up_tidies_up(n_turns: int) -> None:
    told: list[str] = []

    def work(turns: Turns[int]) -> Generator[int, None, None]:
        try:
            told.append("began")
            yield 1
            try:
                turns.rest()
            except Exception:  # what a library may do
                told.append("swallowed")
            yield 2
        finally:
            told.append("tidied")

    turns = Turns(work)
    for _ in range(n_turns):
        turns.turn()
    turns.close()
    turns.close()
    assert told == (["began", "tidied"] if n_turns else [])
    assert not [thread for thread in threading.enumerate() if thread.name == "job" and thread is turns._thread]


def test_nobody_rests_while_an_saes_state_is_needed() -> None:
    sae = SimpleNamespace(ref="ref", chunks=iter, reconstruct=lambda x: x, comes_in_slices=False)

    def work(turns: Turns[int]) -> Generator[int, None, None]:
        resting = RestingSae(cast("Any", sae), turns)
        assert resting.ref == "ref"
        for part in resting.chunks([1, 2]):  # a rest before the first
            resting.reconstruct(part)  # none
        resting.reconstruct(3)  # one
        yield 1

    assert all_of(Turns(work)) == [None, None, 1]


def test_a_rest_asked_for_in_another_thread_is_none() -> None:
    turns = Turns(lambda turns: iter(()))  # type: ignore[arg-type, return-value]
    turns.rest()


def test_the_works_modes_are_its_own() -> None:
    def work(turns: Turns[bool]) -> Generator[bool, None, None]:
        with torch.inference_mode():
            yield torch.is_inference_mode_enabled()
            turns.rest()
            yield torch.is_inference_mode_enabled()

    turns = Turns(work)
    assert turns.turn() is True
    assert not torch.is_inference_mode_enabled()
    assert turns.turn() is None
    assert not torch.is_inference_mode_enabled()
    assert turns.turn() is True
    turns.close()


def test_an_sae_and_a_model_asked_in_parts_give_the_same_bits(loaded: Loaded) -> None:
    """Rests change no number: whatever the number of tokens, and a lone row at the end is not asked alone."""
    sae, asked = loaded.saes[0], []
    chunk = sae.chunk_tokens
    x = torch.randn(3 * chunk + 7, sae.ref.d_in, generator=torch.Generator().manual_seed(0))
    tokens = loaded.contexts.token_ids[:5]
    sizes = (1, 2, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 3 * chunk + 7)

    def work(turns: Turns[Any]) -> Generator[Any, None, None]:
        there = module.resting(loaded, turns)
        assert there.hook_name == loaded.hook_name
        for size in sizes:
            yield there.saes[0].reconstruct(x[:size])
        yield there.model.activations(tokens, loaded.hook_name)

    found = []
    turns = Turns(work)
    while True:
        try:
            item = turns.turn()
        except StopIteration:
            break
        asked.append(item)
        if item is not None:
            found.append(item)
    assert asked.count(None) > len(sizes) + 2  # it rested
    for size, made in zip(sizes, found[:-1], strict=True):
        plain = sae.reconstruct(x[:size])
        assert torch.equal(made.x_hat, plain.x_hat)
        assert torch.equal(made.l0, plain.l0)
    assert torch.equal(found[-1], loaded.model.activations(tokens, loaded.hook_name))
