"""A generation as messages: every token scored as it is sampled, a few of them to a message.

A terminal shows eight changes a second as a stream; thirty would cost a slow line four times as much for the same
words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.session.documents import packed
from inspector.session.protocol import Floats, Generated, Policy, SaeScores

if TYPE_CHECKING:
    from inspector.sources.generation import Step

MESSAGE_SECONDS = 1 / 8
"""Between two messages, at least."""


Score = Callable[[list[int], Tensor, int], "Scored"]
"""From ids, x [n, d] and the position of the first: what a message says about these tokens."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """New tokens, scored."""

    tokens: list[str]
    split: str
    x_norm: Floats
    saes: list[SaeScores]


def messages(
    steps: Iterator[Step],
    score: Score,
    *,
    request: int,
    epoch: int,
    policy: Policy = "excluded",
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Generated | None]:
    """One item per sampled token: a message that is due, or None. The last item is the message with `finished`.

    The newest step always waits for the next one, so that there is something left to say when there is none.

    Args:
        steps: of LanguageModel.generate, the prompt first.
        score: scores new tokens.
        request: number of the request that is answered.
        epoch: of the maps `score` uses.
        policy: of those maps.
        clock: seconds.
    """
    waiting: list[Step] = []
    start = 0
    last = -math.inf
    for step in steps:
        if waiting and clock() - last >= MESSAGE_SECONDS:
            last = clock()
            told = _message(waiting, score, request=request, epoch=epoch, policy=policy, start=start, finished=False)
            yield told
            start += len(told.token_ids)
            waiting = []
        else:
            yield None
        waiting.append(step)
    if waiting:
        yield _message(waiting, score, request=request, epoch=epoch, policy=policy, start=start, finished=True)


def _message(
    steps: list[Step], score: Score, *, request: int, epoch: int, policy: Policy, start: int, finished: bool
) -> Generated:
    ids = [token for step in steps for token in step.token_ids]
    loss = torch.cat([step.loss.detach().float().cpu() for step in steps])
    # A step knows the loss of the position before it: within the message that place is here, before it in the last one.
    at = len(steps[0].token_ids)
    for step in steps[1:]:
        if step.loss_before is not None:
            loss[at - 1] = step.loss_before
        at += len(step.token_ids)
    scored = score(ids, torch.cat([step.x for step in steps]), start)
    return Generated(
        request=request,
        start=start,
        token_ids=ids,
        tokens=scored.tokens,
        split=scored.split,
        loss=packed(loss),
        loss_before=steps[0].loss_before,
        x_norm=scored.x_norm,
        saes=scored.saes,
        epoch=epoch,
        policy=policy,
        finished=finished,
    )
