"""SAEs on the parts of one SAE's error: trained from one stream, and scored each on its own part."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.engine.moments import Moments, on_host
from inspector.engine.regression import LinearMap
from inspector.engine.resampling import counts_together
from inspector.engine.scores import nan_if_zero
from inspector.events import Event
from inspector.sources.activations import ActivationBatch, Rows
from inspector.sources.sae import LoadedSae
from inspector.statistics.grouping import drawn_together, named
from inspector.statistics.passes import contexts_with, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import ByName, Sums, shaped
from inspector.training.error_recipe import Recipe
from inspector.training.error_saes import NOISE, ErrorParts, Gaussian, sae_folder
from inspector.training.error_training import MAIN, ErrorStream, ErrorTraining, check_place

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
    base = _pick(measuring.loaded.saes, recipe, sae_id)
    error_map = measuring.maps[base.ref.sae_id].error_map
    stream = ErrorStream(measuring.loaded, measuring.plan, base, error_map, recipe, measuring.seed)
    if folder:
        check_place(Path(folder))
    yield from stream.find_text()
    stream.prepare((yield from _noise(measuring, base, error_map)) if recipe.control_seeds else {})
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


def _noise(measuring: Measuring, base: LoadedSae, error_map: LinearMap) -> Generator[Event, None, dict[str, Gaussian]]:
    """Mean and covariance of either part over the tokens that the map was fitted on."""
    plan, d, loaded = measuring.plan, len(error_map.centre), measuring.loaded
    plain = ErrorParts(loaded.model, loaded.hook_name, base, error_map, MAIN, {}, 0)

    def add(sums: ByName[Moments], batch: ActivationBatch) -> None:
        rows = plan.train[batch.contexts, batch.positions].to(batch.x.device)
        own = plain.of_context(batch.token_ids, batch.x)
        for part, moments in sums.of.items():
            moments.update(own[part][rows])

    def new() -> ByName[Moments]:
        return ByName({part: Moments(d) for part in MAIN})

    name = "covariance of the parts"
    moments = (yield from walk(measuring.activations, contexts_with(plan.train), new, add, name=name)).of
    return {
        name: Gaussian.of(moments[part].mean_x, moments[part].s_xx / max(1, moments[part].n))
        for name, part in NOISE.items()
    }


def score(
    measuring: Measuring, parts: ErrorParts, folder: Path, saes: Sequence[tuple[str, int]]
) -> Generator[Event, None, tuple[list[ErrorScores], dict[str, float], int]]:
    """Scores of every (part, seed) below `folder` on the held-out tokens of its part.

    The SAEs are read back through plain sae-lens from their files, so that the numbers describe what anybody will load.

    Returns:
        Scores; the parts' variances over that of x; and the tokens scored.
    """
    import sae_lens

    token_ids, plan = measuring.loaded.contexts.token_ids, measuring.plan
    device = str(measuring.loaded.model.device)
    loaded: dict[str, tuple[str, int, Any]] = {
        f"{part}|{seed}": (
            part,
            seed,
            sae_lens.SAE.load_from_disk(sae_folder(folder, part, seed), device=device, dtype="float32"),
        )
        for part, seed in saes
    }
    names = tuple(dict.fromkeys(("x", *(part for part, _ in saes))))
    chosen = contexts_with(plan.test)
    places = {context: place for place, context in enumerate(chosen)}

    def of_context(batch: ActivationBatch) -> dict[str, Tensor]:
        index = int(batch.contexts[0])
        rows = Rows(plan.test[index], batch.x.device)
        values = {"x": batch.x, **parts.of_context(token_ids[index], batch.x)}
        return {name: rows.of(values[name]) for name in names}

    with torch.inference_mode():
        first = of_context(measuring.activations.batch(chosen[:1]))
        # Around the first context's mean: a mean far from 0 would cost the variance its digits.
        shifts = {name: first[name].double().mean(dim=0) for name in names}

    def new() -> _Sums:
        c = len(chosen)
        of_parts = {name: _PartSums.zeros(c=c, d=len(shifts[name])) for name in names}
        of_saes = {key: _SaeSums.zeros(c=c, m=sae.cfg.d_sae) for key, (_, _, sae) in loaded.items()}
        return _Sums.zeros(c=c, parts=of_parts, saes=of_saes)

    def add(sums: _Sums, batch: ActivationBatch) -> None:
        own, place = of_context(batch), places[int(batch.contexts[0])]
        sums.n[place] += len(own["x"])
        for name in names:
            sums.parts[name].update(place, own[name].double() - shifts[name])
        for key, (part, _, sae) in loaded.items():
            sums.saes[key].update(place, sae, own[part])

    name = "scores of the SAEs on errors"
    sums = yield from walk(measuring.activations, chosen, new, add, name=name, at_once=1)
    groups = drawn_together(plan.test, plan.documents, chosen)
    counts = counts_together(groups, seed=measuring.seed, n_resamples=measuring.n_resamples)
    variance = {name: own.variance(counts, sums.n) for name, own in sums.parts.items()}
    n_tokens = int(sums.n.sum())
    found = [
        ErrorScores(
            part=part,
            seed=seed,
            fvu=(counts @ sums.saes[key].error / nan_if_zero(variance[part])).tolist(),
            l0=sums.saes[key].active / n_tokens,
            dead=int((~sums.saes[key].fired).sum()),
        )
        for key, (part, seed, _) in loaded.items()
    ]
    return found, {name: float(each[0] / variance["x"][0]) for name, each in variance.items()}, n_tokens


def _pick(saes: Sequence[LoadedSae], recipe: Recipe, sae_id: str) -> LoadedSae:
    """The SAE that was named; else of the width nearest to the recipe's, the one of the nearest nominal L0."""
    if sae_id:
        return named(saes, sae_id)
    return min(
        saes,
        key=lambda sae: (
            abs(math.log2(sae.ref.d_sae / recipe.width)),
            math.inf if sae.ref.nominal_l0 is None else abs(sae.ref.nominal_l0 - recipe.l0),
            sae.ref.sae_id,
        ),
    )


@dataclass(kw_only=True)
class _PartSums(Sums):
    """Of one part of the error, of c contexts."""

    total: Tensor = shaped("c", "d")
    """[c, d] around a shift."""
    squares: Tensor = shaped("c")
    """[c] of those."""

    def update(self, place: int, around: Tensor) -> None:
        """Add the tokens [n, d] of a context, around the shift."""
        total, squares = on_host([around.sum(dim=0), around.square().sum()])
        self.total[place] += total
        self.squares[place] += squares

    def variance(self, counts: Tensor, n: Tensor) -> Tensor:
        """[r] sum ‖v - mean(v)‖² for each draw; n [c] tokens."""
        total = counts @ self.total
        return counts @ self.squares - total.square().sum(dim=1) / (counts @ n)


@dataclass(kw_only=True)
class _SaeSums(Sums):
    """Of one SAE, of c contexts."""

    error: Tensor = shaped("c")
    """[c] of squares."""
    fired: Tensor = shaped("m", dtype=torch.bool)
    """[d_sae] bool: latents that were active at all."""
    active: int = 0
    """Latents, over all tokens."""

    def update(self, place: int, sae: Any, values: Tensor) -> None:
        """Add the tokens [n, d] of a context."""
        for part in torch.split(values, TOKENS_AT_ONCE):
            latents = sae.encode(part)
            error, active = (part - sae.decode(latents)).double().square().sum(), latents > 0
            error, n_active, fired = on_host([error, active.sum(), active.any(dim=0)])
            self.error[place] += error
            self.active += int(n_active)
            self.fired |= fired


@dataclass(kw_only=True)
class _Sums(Sums):
    """Of c contexts."""

    n: Tensor = shaped("c")
    """[c] tokens."""
    parts: dict[str, _PartSums]
    saes: dict[str, _SaeSums]
