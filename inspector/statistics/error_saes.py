"""SAEs on the parts of one SAE's error: trained from one stream, and scored each on its own part."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.engine.resampling import counts_together
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.statistics.error_recipe import Recipe
from inspector.statistics.error_stream import ErrorStream
from inspector.statistics.error_training import ErrorTraining, check_place
from inspector.statistics.grouping import drawn_together
from inspector.statistics.passes import Progress, contexts_with
from inspector.training.error_saes import ErrorParts, sae_folder

if TYPE_CHECKING:
    from inspector.statistics.pipeline import Measuring


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


TOKENS_AT_ONCE = 512
"""Through an SAE; bounds the dense latents."""


@dataclass(frozen=True, kw_only=True)
class ErrorScores:
    """One SAE."""

    part: str
    seed: int
    fvu: list[float]
    """Sum ‖part - reconstruction‖² / sum ‖part - mean‖²: as measured, then for each bootstrap draw of contexts."""
    l0: float
    dead: int
    """Latents not active on any held-out token."""
    curve: tuple[tuple[int, float], ...] = ()
    """(tokens seen, FVU on a few held-out contexts) on the way."""


class _Sums:
    """Of one SAE or of one part, per context."""

    def __init__(self, d_sae: int = 0) -> None:
        self.error: list[float] = []
        self.active = 0
        self.fired = torch.zeros(d_sae, dtype=torch.bool)


def score(
    measuring: Measuring, parts: ErrorParts, folder: Path, saes: Sequence[tuple[str, int]]
) -> Generator[Event, None, tuple[list[ErrorScores], dict[str, float], int]]:
    """Scores of every (part, seed) below `folder`; the parts' variances over that of x; and the tokens scored."""
    import sae_lens

    assert measuring.loaded is not None, "an error is an SAE's"
    token_ids, plan = measuring.loaded.contexts.token_ids, measuring.plan
    device = str(measuring.loaded.model.device)
    loaded: dict[tuple[str, int], Any] = {
        key: sae_lens.SAE.load_from_disk(sae_folder(folder, *key), device=device, dtype="float32") for key in saes
    }
    sums = {key: _Sums(sae.cfg.d_sae) for key, sae in loaded.items()}
    names = tuple(dict.fromkeys(("x", *(part for part, _ in saes))))
    totals: dict[str, list[Tensor]] = {name: [] for name in names}
    squares: dict[str, list[float]] = {name: [] for name in names}
    shifts: dict[str, Tensor] = {}
    n: list[int] = []
    scored: list[int] = []
    chosen = contexts_with(plan.test)
    progress = Progress("scores of the SAEs on errors", len(chosen), token_ids.shape[1])
    for batch in measuring.activations.batches(chosen):
        indices = torch.unique_consecutive(batch.contexts).tolist()
        for index, x in zip(indices, batch.x.view(len(indices), -1, batch.x.shape[1]), strict=True):
            rows = plan.test[index].to(x.device)
            own = {name: value[rows] for name, value in {"x": x, **parts.of_context(token_ids[index], x)}.items()}
            n.append(int(rows.sum()))
            scored.append(index)
            for name in names:
                # Around the first context's mean: a mean far from 0 would cost the variance its digits.
                shift = shifts.setdefault(name, own[name].double().mean(dim=0))
                around = own[name].double() - shift
                totals[name].append(around.sum(dim=0).cpu())
                squares[name].append(float(around.square().sum()))
            for key, sae in loaded.items():
                _add(sae, own[key[0]], sums[key])
            yield progress.advance_by(1)
    groups = drawn_together(plan.test, plan.documents, scored)
    counts = counts_together(groups, seed=measuring.seed, n_resamples=measuring.n_resamples)
    variance = {name: _variance(counts, n, totals[name], squares[name]) for name in names}
    found = []
    for (part, seed), own_sums in sums.items():
        error = counts @ torch.tensor(own_sums.error, dtype=torch.float64)
        found.append(
            ErrorScores(
                part=part,
                seed=seed,
                fvu=(error / nan_if_zero(variance[part])).tolist(),
                l0=own_sums.active / sum(n),
                dead=int((~own_sums.fired).sum()),
            )
        )
    shares = {name: float(variance[name][0] / variance["x"][0]) for name in names}
    return found, shares, sum(n)


@torch.inference_mode()
def _add(sae: Any, values: Tensor, sums: _Sums) -> None:
    error = 0.0
    for first in range(0, len(values), TOKENS_AT_ONCE):
        part = values[first : first + TOKENS_AT_ONCE]
        latents = sae.encode(part)
        error += float((part - sae.decode(latents)).double().square().sum())
        active = latents > 0
        sums.active += int(active.sum())
        sums.fired |= active.any(dim=0).cpu()
    sums.error.append(error)


def _variance(counts: Tensor, n: Sequence[int], totals: Sequence[Tensor], squares: Sequence[float]) -> Tensor:
    """[r] sum ‖v - mean(v)‖² for each draw."""
    tokens = counts @ torch.tensor(n, dtype=torch.float64)
    total = counts @ torch.stack(list(totals))
    return counts @ torch.tensor(squares, dtype=torch.float64) - total.square().sum(dim=1) / tokens
