"""Steps of a generation become messages: how many, when, and with which losses."""

from array import array
from collections.abc import Iterator

import pytest
import torch

from inspector.session import documents
from inspector.session.frames import pack, unpack
from inspector.session.protocol import Generated
from inspector.sources.model import Step

NAN = float("nan")


def steps(n: int) -> Iterator[Step]:
    """A prompt of 3 tokens, then n; the loss of position p is p."""
    yield Step(token_ids=[100, 101, 102], x=torch.zeros(3, 2), loss_before=None, loss=torch.tensor([0.0, 1.0, NAN]))
    for p in range(3, 3 + n):
        yield Step(token_ids=[100 + p], x=torch.full((1, 2), p), loss_before=float(p - 1), loss=torch.tensor([NAN]))


def message(new: list[Step], start: int, finished: bool) -> Generated:
    ids = [token for step in new for token in step.token_ids]
    return Generated(
        token_ids=ids,
        tokens=[str(i) for i in ids],
        split="h" * len(ids),
        loss=pack(array("f", documents.losses_of(new).tolist())),
        x_norm=b"",
        saes=[],
        epoch=2,
        start=start,
        loss_before=new[0].loss_before,
        finished=finished,
    )


def told(n: int, seconds_per_step: float) -> tuple[list[Generated], int]:
    """The messages, and how many items there were."""
    now = [0.0]

    def timed() -> Iterator[Step]:
        for step in steps(n):
            now[0] += seconds_per_step
            yield step

    items = list(documents.in_messages(timed(), message, clock=lambda: now[0]))
    return [item for item in items if item is not None], len(items)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("seconds", [0.0, 0.03, 1.0])
def test_every_token_is_told_once_in_order_and_every_loss_arrives(n: int, seconds: float) -> None:
    messages, _ = told(n, seconds)
    ids = [token for message in messages for token in message.token_ids]
    assert ids == list(range(100, 103 + n))
    assert [m.start for m in messages] == [sum(len(m.token_ids) for m in messages[:i]) for i in range(len(messages))]
    assert [m.finished for m in messages] == [False] * (len(messages) - 1) + [True]
    assert all(len(m.token_ids) for m in messages)
    losses: list[float] = []
    for message in messages:
        if message.loss_before is not None:
            losses[-1] = message.loss_before
        losses += unpack(message.loss)
    assert losses[:-1] == [float(p) for p in range(2 + n)]
    assert losses[-1] != losses[-1]


def test_a_character_is_not_cut_between_two_messages() -> None:
    """Tokens 104 to 106 are one character: they are told together, and what is left at the end is told all the same."""

    def n_whole(waiting: list[Step]) -> int:
        ids = [token for step in waiting for token in step.token_ids]
        return len(waiting) - (2 if ids[-2:] == [104, 105] else 1 if ids[-1] in (104, 109) else 0)

    now = [0.0]

    def timed() -> Iterator[Step]:
        for step in steps(7):
            now[0] += 1.0
            yield step

    items = documents.in_messages(timed(), message, n_whole, clock=lambda: now[0])
    assert [item.token_ids for item in items if item] == [[100, 101, 102], [103], [104, 105, 106], [107], [108], [109]]


def test_the_prompt_is_told_alone_and_first() -> None:
    assert told(5, 0.0)[0][0].token_ids == [100, 101, 102]


def test_a_fast_generation_is_told_eight_times_a_second() -> None:
    messages, n_items = told(200, 0.01)
    assert len(messages) <= 2 + 2.0 * 8  # two seconds, the prompt and the end
    assert n_items == 201 + 1  # one per step, so that questions come between any two


def test_a_slow_one_token_by_token() -> None:
    assert [len(m.token_ids) for m in told(4, 1.0)[0]] == [3, 1, 1, 1, 1]
