"""The beginning of every command that computes: load the target, and say on stderr what the user should know."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from inspector import threads
from inspector.events import Event, Warned

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec


def opened(target: TargetSpec) -> Generator[Event, None, Loaded]:
    """Load the target; its warnings become events. Leaves a core to others, as a session does: the same number of
    threads, so that a job and its command end in the same bits.
    """
    from inspector.sources.target import open_target

    threads.limit(spare=1)
    loaded = yield from open_target(target)
    for warning in loaded.warnings:
        yield Warned(message=warning)
    return loaded


def one_context(loaded: Loaded, index: int = 0) -> Loaded:
    """The same target with a single context; what was fitted on all of them can be applied to it."""
    contexts, plan = loaded.contexts, loaded.plan
    here = slice(index, index + 1)
    included, train = plan.included[here], plan.train[here]
    return replace(
        loaded,
        contexts=replace(contexts, token_ids=contexts.token_ids[here], names=contexts.names[here]),
        plan=replace(
            plan, included=included, train=train, n_train=int(train.sum()), n_test=int((included & ~train).sum())
        ),
    )
