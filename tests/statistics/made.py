"""Batches, plans and reconstructions made from the engine's toy data, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inspector.engine.plan import Plan, make_plan
from inspector.sources.activations import ActivationBatch
from inspector.statistics.first_pass import FirstPass
from inspector.statistics.held_out import HookSums
from inspector.statistics.second_pass import SecondPass
from tests.engine.toy import toy

N_CONTEXTS, LENGTH, D = 30, 40, 6
SAES = ("narrow", "wide")


@dataclass(frozen=True, kw_only=True)
class FakeReconstruction:
    x_hat: Tensor
    l0: Tensor


@dataclass(frozen=True, kw_only=True)
class Data:
    """x [c, t, d] and x_hat [c, t, d] by SAE, float32."""

    x: Tensor
    x_hat: dict[str, Tensor]
    plan: Plan

    def batch(self, contexts: Sequence[int]) -> tuple[ActivationBatch, dict[str, FakeReconstruction]]:
        chosen = torch.tensor(contexts)
        n = len(chosen) * LENGTH
        batch = ActivationBatch(
            contexts=chosen.repeat_interleave(LENGTH),
            positions=torch.arange(LENGTH).repeat(len(chosen)),
            token_ids=torch.full((n,), 5),
            x=self.x[chosen].flatten(0, 1),
        )
        made = {
            name: FakeReconstruction(x_hat=x_hat[chosen].flatten(0, 1), l0=torch.full((n,), 3 + i, dtype=torch.int32))
            for i, (name, x_hat) in enumerate(self.x_hat.items())
        }
        return batch, made

    def rows(self, mask: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """x and x_hat of the tokens where mask [c, t], float64."""
        return self.x[mask].double(), self.x_hat[name][mask].double()


def data(seed: int = 0, split: str = "context") -> Data:
    made = toy(N_CONTEXTS * LENGTH, D, seed)
    x = made.x.float().view(N_CONTEXTS, LENGTH, D)
    # Contexts differ, as texts do: otherwise resampling them would be resampling tokens.
    x = x + torch.randn(N_CONTEXTS, 1, D, generator=torch.Generator().manual_seed(seed))
    narrow = torch.relu(x - 0.5) + 0.2
    plan = make_plan(torch.full((N_CONTEXTS, LENGTH), 5), (), (3, None), 600, split, seed)  # type: ignore[arg-type]
    return Data(x=x, x_hat={"narrow": narrow, "wide": 0.7 * narrow + 0.3 * x.sin()}, plan=plan)


def first_pass(of: Data, groups: Sequence[Sequence[int]], *, covariance: bool = True) -> FirstPass:
    first = FirstPass(D, SAES, covariance=covariance)
    for group in groups:
        batch, made = of.batch(group)
        first.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    return first


def second_pass(of: Data, second: SecondPass, groups: Sequence[Sequence[int]]) -> HookSums:
    for group in groups:
        batch, made = of.batch(group)
        second.update(batch, made)
    sums = second.finish()
    assert sums is not None
    return sums


ALL = [list(range(N_CONTEXTS))]
