"""The split of an error into its affine part and the rest, for reconstructions that no pass of the runner makes.

The same two accumulators as the runner's: moments over the training tokens, then sums per context over the scored ones,
so that every number here means what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.events import Event
from inspector.statistics import held_out as scoring
from inspector.statistics.first_pass import FirstPass, Reconstruction
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.second_pass import SecondPass

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.activations import ActivationBatch

Batches = Callable[[Sequence[int]], Iterator[tuple["ActivationBatch", Mapping[str, Reconstruction]]]]
"""Context indices to whole contexts with the named reconstructions of all their tokens; asked twice, same answer."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of one reconstruction: entry 0 is the data as they are, the others are bootstrap draws of contexts."""

    fvu: Tensor
    """[1 + r]"""
    fvu_nonlinear: Tensor
    """[1 + r]"""
    r2_pooled: Tensor
    """[1 + r] of the error on x."""
    l0: float
    variance: float
    """Sum of ‖x - mean(x)‖² over the scored tokens, per token."""

    def estimates(self) -> dict[str, Estimate]:
        """By name of the score."""
        return {
            "fvu": percentile_estimate(self.fvu),
            "fvu_nonlinear": percentile_estimate(self.fvu_nonlinear),
            "r2_pooled": percentile_estimate(self.r2_pooled),
        }


def regress(
    batches: Batches,
    plan: Plan,
    d: int,
    names: Sequence[str],
    *,
    label: str,
    intercept: bool,
    scored: str,
    seed: int,
    n_resamples: int,
) -> Generator[Event, None, dict[str, Scored]]:
    """Fit each reconstruction's error map on the plan's training tokens and score it on the others.

    Args:
        batches: what to regress; see `Batches`.
        plan: train and test.
        d: width of x.
        names: of the reconstructions, the same in every batch.
        label: shown while it runs.
        intercept: of the maps.
        scored: 'test', or 'all' to score training tokens too (D-04).
        seed: of the bootstrap, the same for all, so that differences between them can be resampled.
        n_resamples: draws.
    """
    first = FirstPass(d, names)
    training, testing = contexts_with(plan.train), contexts_with(plan.included if scored == "all" else plan.test)
    progress = Progress(label, len(training) + len(testing), plan.train.shape[1])
    for batch, made in batches(training):
        with torch.inference_mode():
            first.update(batch, made, plan.train[batch.contexts, batch.positions])
        yield progress.advance(batch)
    with torch.inference_mode():
        second = SecondPass(first.fit(intercept=intercept), scored="all" if scored == "all" else "test")
    for batch, made in batches(testing):
        with torch.inference_mode():
            second.update(batch, made, plan)
        yield progress.advance(batch)
    with torch.inference_mode():
        sums = second.finish()
        assert sums is not None, "a plan has held-out tokens"
        counts = resampling_counts(len(sums.n), seed=seed, n_resamples=n_resamples)
        x_sum, n = sums.x_sum.sum(dim=0), sums.n.sum()
        variance = float((sums.x_sq.sum(dim=0) - x_sum.square() / n).sum() / n)
        return {
            name: Scored(
                fvu=scoring.fvu(sums, name, counts),
                fvu_nonlinear=scoring.fvu_nonlinear(sums, name, counts),
                r2_pooled=scoring.r2_pooled(sums, name, counts),
                l0=scoring.l0(sums, name),
                variance=variance,
            )
            for name in names
        }
