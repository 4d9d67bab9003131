"""Special tokens in or out: for each policy its plan, its maps, and the fit that makes them better.

The beginning-of-sequence token and the first positions have activations unlike all others, a few of them enough to
move a fit. So they are left out ("excluded"); a view may ask to see what they do ("included"). Both share the model,
the SAEs and every text that was looked at, and what was fitted stays, so that switching back costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from inspector.engine.plan import Plan, with_everything
from inspector.session import fitting
from inspector.session.pairing import ErrorNorms
from inspector.session.protocol import MapImproved, Policy, PolicySet

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.session.fitting import Improvement
    from inspector.sources.target import Loaded

POLICIES: tuple[Policy, ...] = ("excluded", "included")


@dataclass(kw_only=True)
class Reading:
    """What is known under one policy. Grows with every fit."""

    policy: Policy
    plan: Plan
    norms: ErrorNorms
    maps: Mapping[str, LinearMap] = field(default_factory=dict)
    """By sae_id; none before the first fit."""
    epoch: int = 0
    """Of the maps, as in MapImproved."""
    told: MapImproved | None = None
    """The newest message about it."""

    def improve(self, improved: Improvement) -> bool:
        """Take over a fit; whether the maps are others than before."""
        self.told = improved.message
        if improved.message.epoch <= self.epoch:
            return False
        self.maps, self.epoch = improved.maps, improved.message.epoch
        return True

    def split_of(self, context: int) -> str:
        """The letters of ContextScores.split for a context."""
        return "".join(
            "t" if train else "h" if included else "x"
            for included, train in zip(
                self.plan.included[context].tolist(), self.plan.train[context].tolist(), strict=True
            )
        )

    def split_of_ids(self, token_ids: Collection[int], special_ids: Collection[int]) -> str:
        """The letters for a text that is not among the contexts: held out, but for special tokens if they are out."""
        out = special_ids if self.policy == "excluded" else ()
        return "".join("x" if token in out else "h" for token in token_ids)


def readings(loaded: Loaded) -> dict[Policy, Reading]:
    """One per policy, nothing fitted yet."""
    target = loaded.target
    plans: dict[Policy, Plan] = {
        "excluded": loaded.plan,
        "included": with_everything(loaded.plan, target.split, target.seed),
    }
    sae_ids = [sae.ref.sae_id for sae in loaded.saes]
    return {policy: Reading(policy=policy, plan=plans[policy], norms=ErrorNorms(sae_ids)) for policy in POLICIES}


def policy_set(loaded: Loaded, policy: Policy, request: int) -> PolicySet:
    """The answer to SetPolicy: how many tokens it is about."""
    ids, plan = loaded.contexts.token_ids, loaded.plan
    special = torch.isin(ids, torch.tensor(sorted(loaded.model.special_ids), dtype=torch.int64))
    out = ~plan.included
    out[:, -1] = False  # never counted, whatever the policy
    return PolicySet(
        request=request, policy=policy, n_special=int((out & special).sum()), n_before=int((out & ~special).sum())
    )


class Fits:
    """The background fits of all policies, one step at a time: first of those that a view waits for, in turns.

    Args:
        loaded: the target.
        states: by policy; each fit adds to the norms of its own.
    """

    def __init__(self, loaded: Loaded, states: Mapping[Policy, Reading]) -> None:
        self._loaded = loaded
        self._states = states
        self._running: dict[Policy, Iterator[Improvement | None]] = {}
        self._started: set[Policy] = set()
        self._turns: deque[Policy] = deque(POLICIES)

    def want(self, policy: Policy) -> None:
        """Begin its fit, if it was not."""
        if policy in self._started:
            return
        self._started.add(policy)
        state = self._states[policy]
        loaded = replace(self._loaded, plan=state.plan)
        self._running[policy] = fitting.background_fit(loaded, state.norms, policy)

    @property
    def has_work(self) -> bool:
        """Whether a fit is unfinished."""
        return bool(self._running)

    def step(self, waited_for: Collection[Policy]) -> Improvement | None:
        """One step of one fit; nothing if none is running.

        Args:
            waited_for: policies of the views that are there.

        Raises:
            Exception: whatever the fit raised; it is over then, and the others go on.
        """
        wanted = [policy for policy in self._turns if policy in self._running and policy in waited_for]
        order = wanted or [policy for policy in self._turns if policy in self._running]
        if not order:
            return None
        policy = order[0]
        self._turns.remove(policy)
        self._turns.append(policy)
        try:
            return next(self._running[policy])
        except StopIteration:
            del self._running[policy]
            return None
        except Exception:
            del self._running[policy]
            raise
