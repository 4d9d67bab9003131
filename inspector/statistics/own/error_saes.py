"""Train SAEs on the parts of one SAE's error from one stream, and say how well each explains its own part.

The same tokens in the same order, the same first weights and the same number of steps for every part: whatever differs
between two of the SAEs is what they were shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.engine.moments import Moments
from inspector.errors import DataError, TargetError, UsageError, nearest
from inspector.events import Event, Loading, TrainProgress
from inspector.sources import error_sae_files as files
from inspector.sources import training_checkpoint
from inspector.sources.activation_blocks import ActivationBlocks, Ids
from inspector.sources.error_parts import NOISE, ErrorParts, Gaussian, geometric_median
from inspector.sources.learning import Learner, LearnerSettings, deviation_scale
from inspector.sources.lockstep import Lockstep
from inspector.sources.suite_files import save_sae
from inspector.sources.topk_learner import TopKLearner
from inspector.statistics.own.error_recipe import Recipe
from inspector.statistics.own.error_scores import ErrorScores, score
from inspector.statistics.passes import Progress, contexts_with

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.measuring import Measuring

MAIN = ("linear_error", "nonlinear_error")
CONTROLS = ("x", "sae_error", *NOISE)
PROBES = 10
"""Times that held-out tokens are measured on the way."""
PROBED_CONTEXTS = 8
BLOCK_BYTES = 1 << 30
"""Of all parts of the tokens that are shuffled together."""
MOST_BLOCK_CONTEXTS = 128
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 30.0, 20.0
"""Between two checkpoints, and at least so many times what the last one took."""


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
    run = _Training(measuring, recipe, sae_id)
    yield from run.prepare(Path(folder) if folder else None)
    yield from run.train()
    scores, shares, n_test = yield from score(measuring, run.parts, run.folder, run.saes())
    return Trained(
        sae=run.base.ref.sae_id,
        recipe=recipe,
        d_sae=run.d_sae,
        batch_tokens=run.batch_tokens,
        n_steps=math.ceil(recipe.tokens / run.batch_tokens),
        tokens=math.ceil(recipe.tokens / run.batch_tokens) * run.batch_tokens,
        n_contexts=len(run.contexts),
        epochs=recipe.tokens / max(1, run.tokens_per_epoch),
        learning_rate=recipe.rate_at(run.d_sae),
        n_test=n_test,
        n_test_contexts=len(contexts_with(measuring.plan.test)),
        shares=shares,
        saes=tuple(replace(each, curve=run.curves.get(f"{each.part}|{each.seed}", ())) for each in scores),
        folder=str(run.folder),
        at_home=run.at_home,
    )


class _Training:
    """One training: what it reads, what it has learned, where it is kept."""

    def __init__(self, measuring: Measuring, recipe: Recipe, sae_id: str) -> None:
        loaded = measuring.loaded
        assert loaded is not None, "an error is an SAE's"
        self._measuring, self._loaded, self._recipe = measuring, loaded, recipe
        self.base = _pick(loaded.saes, recipe, sae_id)
        self._map = measuring.maps[self.base.ref.sae_id].error_map
        d = loaded.model.check_hook(loaded.hook_name)
        self.d_sae = recipe.expansion * d
        if recipe.k > self.d_sae:
            raise UsageError(f"'k={recipe.k}' is more than the {self.d_sae:,} latents. Lower k, or raise expansion.")
        self.at_home = loaded.target.model == recipe.model and self.base.ref.layer == recipe.layer
        controls = CONTROLS if recipe.control_seeds else ()
        self._streams = (*MAIN, *controls)
        self._names = {f"{part}|{seed}": part for part in MAIN for seed in range(recipe.seeds)}
        self._names |= {
            f"{part}|{seed}": part for part in controls for seed in range(min(recipe.control_seeds, recipe.seeds))
        }
        self.curves: dict[str, tuple[tuple[int, float], ...]] = {}

    def saes(self) -> list[tuple[str, int]]:
        """(part, seed) of every SAE."""
        return [(part, int(name.partition("|")[2])) for name, part in self._names.items()]

    def prepare(self, folder: Path | None) -> Generator[Event, None, None]:
        """Find the text, fit the noise, and decide where everything is kept."""
        loaded, measuring, recipe = self._loaded, self._measuring, self._recipe
        start, end = loaded.target.positions or (0, None)
        self._positions = (start, end)
        if folder is not None:
            _check_place(folder)
        length = loaded.contexts.token_ids.shape[1]
        usable = len(range(*slice(start, end).indices(length)))
        yield Loading(what="text", detail="to learn from")
        began = time.perf_counter()
        self.contexts, noticed = self._text(math.ceil(recipe.tokens / usable))
        yield Loading(
            what="text",
            detail=f"to learn from, {len(self.contexts):,} contexts, none with held-out tokens{noticed}",
            seconds=time.perf_counter() - began,
        )
        noise = (yield from self._noise()) if recipe.control_seeds else {}
        self.parts = ErrorParts(
            loaded.model, loaded.hook_name, self.base, self._map, self._streams, noise, measuring.seed
        )
        per_context = 4 * length * self._map.weight.shape[1] * len(self._streams)
        step = recipe.batch_contexts or 1
        block = max(step, min(MOST_BLOCK_CONTEXTS, BLOCK_BYTES // per_context) // step * step)
        special = () if loaded.target.include_special else tuple(sorted(loaded.model.special_ids))
        self._blocks = ActivationBlocks(
            self.parts,
            self.contexts,
            block_contexts=min(block, max(1, math.ceil(recipe.tokens / usable))),
            model_batch=8,
            special_ids=special,
            seed=measuring.seed,
            positions=self._positions,
        )
        self.tokens_per_epoch = self._blocks.tokens_per_epoch
        # A little less than so many contexts hold, so that a block with a special token more loses no batch.
        of_contexts = int(0.98 * self.tokens_per_epoch / len(self.contexts) * recipe.batch_contexts)
        self.batch_tokens = min(recipe.tokens, of_contexts or recipe.batch_tokens)
        self._fingerprint = self._digest()
        self.folder = folder or files.error_saes_folder() / self._fingerprint[:16]

    def _text(self, wanted: int) -> tuple[Ids, str]:
        """Contexts [c, t] to learn from: of the target's text, without those that hold held-out tokens."""
        from inspector.sources.contexts import load_contexts

        loaded, plan = self._loaded, self._measuring.plan
        ids = loaded.contexts.token_ids
        tested = {row.numpy().tobytes() for row in ids[plan.test.any(dim=1)]}
        target = replace(loaded.target, contexts=wanted + len(ids), context_length=ids.shape[1])
        found = load_contexts(target, loaded.model).token_ids
        kept = [row for row in found if row.numpy().tobytes() not in tested][:wanted]
        if not kept:
            raise DataError(
                f"All {len(found)} contexts of the text hold held-out tokens, so there is nothing to learn from. "
                "Give a longer --text, or fewer --contexts."
            )
        short = "" if len(kept) >= wanted else f", to be read {wanted / len(kept):.1f} times"
        return torch.stack(kept).numpy(), short

    def _noise(self) -> Generator[Event, None, dict[str, Gaussian]]:
        """Mean and covariance of either part over the tokens that the map was fitted on."""
        plan = self._measuring.plan
        moments = {part: Moments(self._map.weight.shape[0]) for part in MAIN}
        plain = ErrorParts(self._loaded.model, self._loaded.hook_name, self.base, self._map, MAIN, {}, 0)
        chosen = contexts_with(plan.train)
        progress = Progress("covariance of the parts", len(chosen), plan.train.shape[1])
        for batch in self._measuring.activations.batches(chosen):
            with torch.inference_mode():
                rows = plan.train[batch.contexts, batch.positions].to(batch.x.device)
                own = plain.of_context(batch.token_ids, batch.x)
                for part in MAIN:
                    moments[part].update(own[part][rows])
            yield progress.advance(batch)
        return {
            name: Gaussian.of(moments[part].mean_x, moments[part].s_xx / max(1, moments[part].n))
            for name, part in NOISE.items()
        }

    def _digest(self) -> str:
        """Everything that decides the weights."""
        base, model = self.base, self._loaded.model
        made_from: dict[str, Any] = {
            "model": model.weights_hash,
            "hook_name": self._loaded.hook_name,
            "sae": base.weights_hash,
            "map": files.map_hash(self._map),
            "text": hashlib.sha256(self.contexts.tobytes()).hexdigest(),
            "fitted_on": self._loaded.contexts.sha256,
            "positions": self._positions,
            "seed": self._measuring.seed,
            "recipe": asdict(self._recipe),
            "saes": sorted(self._names),
            "dtype": str(model.dtype),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _settings(self) -> LearnerSettings:
        recipe = self._recipe
        return LearnerSettings(
            learning_rate=recipe.rate_at(self.d_sae),
            warmup_tokens=recipe.warmup_steps * self.batch_tokens,
            decay_share=recipe.decay_share,
            auxiliary_weight=0.0,
            clip_norm=recipe.clip_norm,
        )

    def _learner(self, name: str, sample: Tensor) -> Learner:
        # The name is left out of the seed: the same first weights for every part.
        seed = int(name.partition("|")[2])
        center = geometric_median(sample[: self.batch_tokens]).to(sample.device)
        return TopKLearner(
            "error-saes", self.d_sae, self._recipe.k, seed=seed, settings=self._settings(), center=center
        )

    def train(self) -> Generator[Event, None, None]:
        """Train, or go on, or find that nothing is left to be done."""
        if files.finished(self.folder, self._fingerprint):
            about = files.read_error_saes(self.folder).about
            self.curves = {f"{each['part']}|{each['seed']}": tuple(map(tuple, each["curve"])) for each in about["saes"]}
            yield Loading(what="SAEs", detail=f"trained before, in {self.folder}", seconds=0.0)
            return
        kept = training_checkpoint.load(self.folder, self._fingerprint)
        yield Loading(what="SAEs", detail=f"of {self.d_sae:,} latents, {len(self._names)} to be trained")
        lockstep, block_seconds, step_seconds = yield from self._lockstep()
        if kept is not None:
            lockstep.restore(kept.tensors, kept.facts)
            self.curves = {name: tuple(map(tuple, curve)) for name, curve in kept.facts["curves"].items()}
        left = self._recipe.tokens - lockstep.tokens_done
        steps = left / self.batch_tokens
        blocks = left / max(1, self._block_tokens)
        yield Loading(
            what="training",
            detail=f"{len(self._names)} SAEs on {left:,} tokens will take about "
            f"{_minutes(steps * step_seconds + blocks * block_seconds)}; kept in {self.folder}",
        )
        yield from self._steps(lockstep)
        self._write(lockstep)

    def _lockstep(self) -> Generator[Event, None, tuple[Lockstep, float, float]]:
        """The learners, the seconds of a block and of a step of all of them."""
        began = time.perf_counter()
        work = self._blocks.pieces(0)
        while True:
            try:
                next(work)
            except StopIteration as end:
                first: dict[str, Tensor] = end.value
                break
            yield Loading(what="activations", detail="to learn from")
        block_seconds = time.perf_counter() - began
        self._block_tokens = len(next(iter(first.values())))
        lockstep = Lockstep(
            self._blocks.pieces,
            first,
            self._names,
            self._learner,
            batch_tokens=self.batch_tokens,
            seed=self._measuring.seed,
            scale_of=deviation_scale,
        )
        # The second step of a learner that is thrown away tells the pace; the first one warms up.
        part = MAIN[0]
        sample = first[part][: self.batch_tokens] * lockstep.scales[part]
        trial = self._learner(f"{part}|0", sample)
        trial.step(sample, 0.0)
        began = time.perf_counter()
        trial.step(sample, 0.0)
        return lockstep, block_seconds, (time.perf_counter() - began) * len(self._names)

    def _steps(self, lockstep: Lockstep) -> Generator[Event, None, None]:
        settings, total = self._settings(), self._recipe.tokens
        probe = self._probe()
        began = saved = time.monotonic()
        already, cost = lockstep.tokens_done, 0.0
        progress: TrainProgress | None = None
        try:
            while lockstep.tokens_done < total:
                for _ in lockstep.prepare():
                    if progress is not None:
                        yield replace(progress, held_out={})
                fvu = lockstep.step(settings.rate(lockstep.tokens_done + lockstep.next_batch, total))
                done, every = lockstep.tokens_done, total / PROBES
                held_out: dict[str, dict[str, float]] = {}
                if done // every > (done - self.batch_tokens) // every or done >= total:
                    for name, found in lockstep.held_out(probe).items():
                        held_out[name.replace("|", "/seed_")] = asdict(found)
                        self.curves[name] = (*self.curves.get(name, ()), (done, found.fvu))
                now = time.monotonic()
                rate = (done - already) / max(now - began, 1e-9)
                progress = TrainProgress(
                    tokens_done=min(done, total),
                    tokens_total=total,
                    tokens_per_second=rate,
                    seconds_left=max(0, total - done) / max(rate, 1e-9),
                    fvu={name.replace("|", "/seed_"): value for name, value in fvu.items()},
                    held_out=held_out,
                )
                yield progress
                if now - saved > max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * cost):
                    self._save(lockstep)
                    saved = time.monotonic()
                    cost = saved - now
        except GeneratorExit:
            self._save(lockstep)
            raise
        self._save(lockstep)

    def _probe(self) -> dict[str, Tensor]:
        """A few held-out contexts' parts [n, d], to watch the training by."""
        plan, found = self._measuring.plan, []
        for index in contexts_with(plan.test)[:PROBED_CONTEXTS]:
            (batch,) = self._measuring.activations.batches([index])
            rows = plan.test[index].to(batch.x.device)
            own = self.parts.of_context(self._loaded.contexts.token_ids[index], batch.x)
            found.append({part: value[rows] for part, value in own.items()})
        return {part: torch.cat([each[part] for each in found]) for part in self._streams}

    def _save(self, lockstep: Lockstep) -> None:
        facts = {**lockstep.place(), "curves": self.curves}
        training_checkpoint.save(self.folder, self._fingerprint, lockstep.tokens_done, lockstep.tensors(), facts)

    def _write(self, lockstep: Lockstep) -> None:
        base, model = self.base, self._loaded.model
        for name, part in self._names.items():
            seed = int(name.partition("|")[2])
            sae = lockstep.learners[name].finished(lockstep.scales[part])
            about = {
                "hook_name": self._loaded.hook_name if part == "x" else f"{self._loaded.hook_name}.{part}",
                "model_name": model.name,
                "reads": part,
                "base_sae": base.ref.sae_id,
                "seed": seed,
                "l0": self._recipe.k,
                "trained_tokens": lockstep.tokens_done,
            }
            save_sae(sae, files.sae_folder(self.folder, part, seed), "float32", about)
        files.save_map(self.folder / files.MAP_FILE, self._map)
        files.write_about(
            self.folder,
            {
                "fingerprint": self._fingerprint,
                "model": model.name,
                "model_sha256": model.weights_hash,
                "base": {
                    "sae": base.ref.sae_id,
                    "release": base.ref.release,
                    "layer": base.ref.layer,
                    "hook_name": self._loaded.hook_name,
                    "d_sae": base.ref.d_sae,
                    "nominal_l0": base.ref.nominal_l0,
                    "weights_hash": base.weights_hash,
                },
                "map_sha256": files.map_hash(self._map),
                "positions": list(self._positions),
                "context_length": int(self.contexts.shape[1]),
                "text": self._loaded.target.text,
                "seed": self._measuring.seed,
                "trained_tokens": lockstep.tokens_done,
                "recipe": asdict(self._recipe),
                "saes": [
                    {
                        "part": part,
                        "seed": int(name.partition("|")[2]),
                        "dead_in_training": lockstep.learners[name].n_dead,
                        "curve": [list(point) for point in self.curves.get(name, ())],
                    }
                    for name, part in self._names.items()
                ],
            },
        )
        training_checkpoint.forget(self.folder)


def _pick(saes: Sequence[LoadedSae], recipe: Recipe, sae_id: str) -> LoadedSae:
    """The SAE that was named; else of the width nearest to the recipe's, the one of the nearest nominal L0."""
    by_id = {sae.ref.sae_id: sae for sae in saes}
    if sae_id:
        if sae_id not in by_id:
            raise TargetError(f"'sae={sae_id}' is not among the target's SAEs.{nearest(sae_id, by_id)}")
        return by_id[sae_id]
    return min(
        saes,
        key=lambda sae: (
            abs(math.log2(sae.ref.d_sae / recipe.width)),
            math.inf if sae.ref.nominal_l0 is None else abs(sae.ref.nominal_l0 - recipe.l0),
            sae.ref.sae_id,
        ),
    )


def _check_place(folder: Path) -> None:
    """Find out before the work whether the SAEs can be kept there.

    Raises:
        UsageError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"'folder={folder}' cannot be made: {error.strerror}. Choose another place.") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"'folder={folder}' cannot be written to. Choose another place.")


def _minutes(seconds: float) -> str:
    """`40 s`, `3 min`, `5 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
