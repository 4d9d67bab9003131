"""One pass over all tokens for everything that is asked about single ones; see `token_norms` for what is kept.

The model runs to its end, because the loss is one of the things an error's size is compared with. Training contexts
come first and are fitted, held-out ones are then scored: each token is seen once where whole contexts are held out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.moments import to_float64
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.statistics.finite import require_finite
from inspector.statistics.own.token_norms import TokenNorms
from inspector.statistics.own.token_work import TokenWork
from inspector.statistics.passes import Progress, collect_first, contexts_with

if TYPE_CHECKING:
    from inspector.statistics.first_pass import SaeMaps
    from inspector.statistics.measuring import Measuring


def measure_tokens(measuring: Measuring, *, l0: float, start: int, length: int) -> Generator[Event, None, TokenNorms]:
    """Fit on the training tokens, score on the held-out ones.

    Args:
        measuring: the target, with the maps of every SAE.
        l0: per width, the SAE whose nominal L0 is nearest is in the series; 0 takes all into it.
        start: number of the trace's first token among all included ones.
        length: tokens of the trace; 0: none.

    Raises:
        DataError: an activation, a reconstruction or a loss is not finite; the message says where.
    """
    plan = measuring.plan
    tested = None
    if measuring.protocol.norm_test_map_on == "all":
        tested = yield from _maps_of_all(measuring)
    work = TokenWork(measuring, l0, tested)
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("token norms", len(training) + len(testing), plan.train.shape[1])
    for batch, loss in _scored(measuring, training):
        with torch.inference_mode():
            work.train(*_chosen(batch, loss, plan.train))
        yield progress.advance(batch)
    with torch.inference_mode():
        work.fit()
    for batch, loss in _scored(measuring, testing):
        with torch.inference_mode():
            work.test(*_chosen(batch, loss, plan.test))
        yield progress.advance(batch)
    with torch.inference_mode():
        return work.finish(start, length)


def _maps_of_all(measuring: Measuring) -> Generator[Event, None, Mapping[str, SaeMaps]]:
    """Maps fitted on training and held-out tokens, as the public code has them for the norm test."""
    assert measuring.first is not None, "tokens need a target"
    held_out = replace(measuring.plan, train=measuring.plan.test, n_train=measuring.plan.n_test)
    collected = yield from collect_first(
        measuring.activations, held_out, covariance=measuring.first.covariance, name="moments of all tokens"
    )
    with torch.inference_mode():
        everything = collected.of_all_tokens()
        everything.merge(measuring.first)
        return everything.fit(intercept=measuring.intercept)


def _scored(measuring: Measuring, indices: Sequence[int]) -> Iterator[tuple[ActivationBatch, Tensor]]:
    """Batches of whole contexts with the loss at every token, [n]."""
    loaded = measuring.loaded
    assert loaded is not None, "tokens need a target"
    for first in range(0, len(indices), measuring.batch_size):
        group = torch.tensor(list(indices[first : first + measuring.batch_size]), dtype=torch.int64)
        tokens = loaded.contexts.token_ids[group]
        scored = loaded.model.score(tokens, [loaded.hook_name])
        yield (
            ActivationBatch(
                contexts=group.repeat_interleave(tokens.shape[1]),
                positions=torch.arange(tokens.shape[1]).repeat(len(group)),
                token_ids=tokens.flatten(),
                x=scored.activations[loaded.hook_name].flatten(0, 1),
            ),
            scored.loss.flatten(),
        )


def _chosen(batch: ActivationBatch, loss: Tensor, mask: Tensor) -> tuple[ActivationBatch, Tensor]:
    """The batch's tokens of the [c, t] mask; what is wrong with any of them is raised."""
    rows = mask[batch.contexts, batch.positions]
    chosen, loss = batch.rows(rows), to_float64(loss[rows.to(loss.device)])
    require_finite(chosen.x, chosen, "activation")
    require_finite(loss[:, None], chosen, "loss")
    return chosen, loss
