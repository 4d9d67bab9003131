"""SAEs on the parts of one SAE's error: trained from one stream, and scored each on its own part."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.events import Event
from inspector.statistics.own.error_recipe import Recipe
from inspector.statistics.own.error_scores import ErrorScores, score
from inspector.statistics.own.error_stream import ErrorStream
from inspector.statistics.own.error_training import ErrorTraining, check_place
from inspector.statistics.passes import contexts_with

if TYPE_CHECKING:
    from inspector.statistics.measuring import Measuring


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the training gave."""

    sae: str
    """The base SAE."""
    recipe: Recipe
    d_sae: int
    batch_tokens: int
    n_steps: int
    tokens: int
    """Seen by each SAE."""
    n_contexts: int
    """That were learned from; none of them holds a held-out token."""
    epochs: float
    learning_rate: float
    n_test: int
    n_test_contexts: int
    shares: dict[str, float]
    """By part: its variance as a share of the variance of x, on held-out tokens."""
    saes: tuple[ErrorScores, ...]
    folder: str
    at_home: bool
    """Whether the target is the one the preset belongs to."""


def measure_error_saes(
    measuring: Measuring, recipe: Recipe, *, sae_id: str, folder: str
) -> Generator[Event, None, Trained]:
    """Train the SAEs of a recipe, or find them trained, and score them on the plan's held-out tokens.

    Args:
        measuring: the target.
        recipe: how.
        sae_id: the base SAE; empty: the one nearest to what the recipe names.
        folder: where the SAEs are kept; empty: a folder of this very training in the cache.

    Raises:
        TargetError: there is no such SAE.
        UsageError: `folder` holds another training.
        DataError: the text has no context without held-out tokens, or a checkpoint is damaged.
    """
    stream = ErrorStream(measuring, recipe, sae_id)
    if folder:
        check_place(Path(folder))
    yield from stream.prepare()
    training = ErrorTraining(stream, Path(folder) if folder else None)
    yield from training.train()
    scores, shares, n_test = yield from score(measuring, stream.parts, training.folder, training.saes())
    n_steps = math.ceil(recipe.tokens / stream.batch_tokens)
    return Trained(
        sae=stream.base.ref.sae_id,
        recipe=recipe,
        d_sae=stream.d_sae,
        batch_tokens=stream.batch_tokens,
        n_steps=n_steps,
        tokens=n_steps * stream.batch_tokens,
        n_contexts=len(stream.contexts),
        epochs=recipe.tokens / max(1, stream.tokens_per_epoch),
        learning_rate=recipe.rate_at(stream.d_sae),
        n_test=n_test,
        n_test_contexts=len(contexts_with(measuring.plan.test)),
        shares=shares,
        saes=tuple(replace(each, curve=training.curves.get(f"{each.part}|{each.seed}", ())) for each in scores),
        folder=str(training.folder),
        at_home=stream.at_home,
    )
