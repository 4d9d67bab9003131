"""The training of SAEs on the parts of an error: all in lockstep, kept on disk, gone on with after a kill.

The same tokens in the same order, the same first weights and the same number of steps for every part: whatever differs
between two of the SAEs is what they were shown: one of the parts of which SAE's error, of which text, in which blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.disk.folders import ERROR_SAES
from inspector.disk.locks import alone
from inspector.engine.plan import random_part
from inspector.errors import DataError, UsageError
from inspector.events import Event, Loading, TrainProgress, Warned
from inspector.training import checkpoint
from inspector.training import error_saes as files
from inspector.training.blocks import ActivationBlocks, Ids
from inspector.training.error_recipe import Recipe
from inspector.training.error_saes import NOISE, ErrorParts, Gaussian, geometric_median, map_hash
from inspector.training.learners import Learner, LearnerSettings, Lockstep, deviation_scale
from inspector.training.suite_files import remove_halves, save_sae
from inspector.training.topk_learner import TopKLearner

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

MAIN = ("linear_error", "nonlinear_error")
CONTROLS = ("x", "sae_error", *NOISE)
PROBED_CONTEXTS = 8
BLOCK_BYTES = 1 << 30
"""Of all parts of the tokens that are shuffled together."""
MOST_BLOCK_CONTEXTS = 128
MODEL_BATCH = 8
"""Contexts between two pauses."""


class ErrorStream:
    """The shared stream of one training. `find_text` first, then `prepare`.

    Args:
        loaded: the target.
        plan: what is held out, which nothing learns from.
        base: the SAE whose error it is.
        error_map: that splits it.
        recipe: of the training.
        seed: of the run.

    Raises:
        UsageError: the recipe wants more active latents than there are.
    """

    contexts: Ids
    """[c, t] that are learned from; none of them holds a held-out token."""
    parts: ErrorParts
    blocks: ActivationBlocks
    batch_tokens: int
    """Of every step."""

    def __init__(
        self, loaded: Loaded, plan: Plan, base: LoadedSae, error_map: LinearMap, recipe: Recipe, seed: int
    ) -> None:
        self.loaded, self.recipe, self.seed = loaded, recipe, seed
        self.base, self.error_map, self._plan = base, error_map, plan
        self.d_sae = recipe.expansion * loaded.model.check_hook(loaded.hook_name)
        if recipe.k > self.d_sae:
            raise UsageError(f"'k={recipe.k}' is more than the {self.d_sae:,} latents. Lower k, or raise expansion.")
        self.at_home = loaded.target.model == recipe.model and self.base.ref.layer == recipe.layer
        """Whether the target is the one the preset belongs to."""
        self.names = (*MAIN, *(CONTROLS if recipe.control_seeds else ()))
        """Of the parts."""
        found = int(loaded.plan.included.sum()) - int(plan.included.sum())
        self.outliers = loaded.outliers if found > 0 else None
        """Tokens that nothing learns from; None also where the target's own text has none, so that what was trained
        on it before is found again."""
        self.positions = loaded.target.positions or (0, None)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens before the text repeats."""
        return self.blocks.tokens_per_epoch

    def find_text(self) -> Generator[Event, None, None]:
        """Find the text to learn from.

        Raises:
            DataError: every context of the text holds a held-out token.
        """
        yield Loading(what="text", detail="to learn from")
        began = time.perf_counter()
        self.contexts, noticed = self._text(self._contexts_wanted())
        yield Loading(
            what="text",
            detail=f"to learn from, {len(self.contexts):,} contexts, none with held-out tokens{noticed}",
            seconds=time.perf_counter() - began,
        )

    def prepare(self, noise: Mapping[str, Gaussian]) -> None:
        """Lay out the blocks, with this noise among the controls."""
        loaded, recipe = self.loaded, self.recipe
        length = loaded.contexts.token_ids.shape[1]
        self.parts = ErrorParts(
            loaded.model,
            loaded.hook_name,
            self.base,
            self.error_map,
            self.names,
            noise,
            self.seed,
            outliers=self.outliers,
        )
        per_context = 4 * length * self.error_map.weight.shape[1] * len(self.names)
        step = recipe.batch_contexts or 1
        block = max(step, min(MOST_BLOCK_CONTEXTS, BLOCK_BYTES // per_context) // step * step)
        special = () if loaded.target.include_special else tuple(sorted(loaded.model.special_ids))
        self.blocks = ActivationBlocks(
            self.parts,
            self.contexts,
            block_contexts=min(block, max(1, self._contexts_wanted())),
            model_batch=MODEL_BATCH,
            special_ids=special,
            seed=self.seed,
            positions=self.positions,
        )
        # A little less than so many contexts hold, so that a block with a special token more loses no batch.
        of_contexts = int(0.98 * self.tokens_per_epoch / len(self.contexts) * recipe.batch_contexts)
        self.batch_tokens = min(recipe.tokens, of_contexts or recipe.batch_tokens)

    def _contexts_wanted(self) -> int:
        length = self.loaded.contexts.token_ids.shape[1]
        return math.ceil(self.recipe.tokens / len(range(*slice(*self.positions).indices(length))))

    def _text(self, wanted: int) -> tuple[Ids, str]:
        """Contexts [c, t] to learn from: of the target's text, without those that hold held-out tokens."""
        from inspector.sources.contexts import load_contexts

        loaded, plan = self.loaded, self._plan
        ids = loaded.contexts.token_ids
        tested = {row.numpy().tobytes() for row in ids[plan.test.any(dim=1)]}
        target = replace(loaded.target, contexts=wanted + len(ids), context_length=ids.shape[1])
        found = load_contexts(target, loaded.model).token_ids
        usable = [row for row in found if row.numpy().tobytes() not in tested]
        # In the order of the file: the first ones would leave out its end.
        kept = [usable[i] for i in random_part(range(len(usable)), wanted, self.seed)]
        if not kept:
            raise DataError(
                f"All {len(found)} contexts of the text hold held-out tokens, so there is nothing to learn from. "
                "Give a longer --text, or fewer --contexts."
            )
        short = "" if len(kept) >= wanted else f", to be read {wanted / len(kept):.1f} times"
        return torch.stack(kept).numpy(), short

    def probe(self) -> dict[str, Tensor]:
        """A few held-out contexts' parts [n, d], to watch the training by."""
        held_out = self._plan.test
        chosen = random_part(held_out.any(dim=1).nonzero()[:, 0].tolist(), PROBED_CONTEXTS, self.seed)
        values = self.parts(self.loaded.contexts.token_ids[chosen])
        rows = held_out[chosen].to(self.loaded.model.device)
        return {part: values[part][rows] for part in self.names}

    def identity(self) -> dict[str, Any]:
        """What the stream follows from, as plain JSON data."""
        loaded = self.loaded
        return {
            "model": loaded.model.weights_hash,
            "hook_name": loaded.hook_name,
            "sae": self.base.weights_hash,
            "map": map_hash(self.error_map),
            "text": hashlib.sha256(self.contexts.tobytes()).hexdigest(),
            "fitted_on": loaded.contexts.sha256,
            "positions": self.positions,
            "seed": self.seed,
            "dtype": str(loaded.model.dtype),
            **({} if self.outliers is None else {"outliers": self.outliers.threshold}),
        }


PROBES = 10
"""Times that held-out tokens are measured on the way."""
SEEDS_APART = 1_000
"""Between two seeds of a run: more than SAEs of one part, so that no two runs share first weights."""
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 30.0, 20.0
"""Between two checkpoints, and at least so many times what the last one took."""


class ErrorTraining:
    """One training: what it has learned, and where that is kept.

    Args:
        stream: prepared.
        folder: where; None: a folder of this very training in the cache.
    """

    def __init__(self, stream: ErrorStream, folder: Path | None) -> None:
        self._stream, self._recipe = stream, stream.recipe
        recipe = stream.recipe
        self._names = {
            f"{part}|{seed}": part
            for part in stream.names
            for seed in range(recipe.seeds if part in MAIN else min(recipe.control_seeds, recipe.seeds))
        }
        self.curves: dict[str, tuple[tuple[int, float], ...]] = {}
        """By name, 'part|seed': tokens seen, FVU on a few held-out contexts."""
        made_from = {**stream.identity(), "recipe": asdict(recipe), "saes": sorted(self._names)}
        self._fingerprint = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        self.folder = folder or ERROR_SAES.path() / self._fingerprint[:16]

    def saes(self) -> list[tuple[str, int]]:
        """(part, seed) of every SAE."""
        return [(part, int(name.partition("|")[2])) for name, part in self._names.items()]

    def train(self) -> Generator[Event, None, None]:
        """Train, or go on, or find that nothing is left to be done.

        Raises:
            UsageError: the folder holds another training, or another process trains into it.
            DataError: its checkpoint is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            yield from self._trained()

    def _trained(self) -> Generator[Event, None, None]:
        if files.finished(self.folder, self._fingerprint):
            about = files.read_error_saes(self.folder).about
            self.curves = {f"{each['part']}|{each['seed']}": tuple(map(tuple, each["curve"])) for each in about["saes"]}
            checkpoint.forget(self.folder)  # of a process that was killed while it did so
            yield Loading(what="SAEs", detail=f"trained before, in {self.folder}", seconds=0.0)
            return
        kept = checkpoint.load(self.folder, self._fingerprint)
        yield Loading(what="SAEs", detail=f"of {self._stream.d_sae:,} latents, {len(self._names)} to be trained")
        lockstep, block_seconds, step_seconds = yield from self._lockstep()
        if kept is not None:
            lockstep.restore(kept.tensors, kept.facts)
            self.curves = {name: tuple(map(tuple, curve)) for name, curve in kept.facts["curves"].items()}
        left = self._recipe.tokens - lockstep.tokens_done
        steps = left / self._stream.batch_tokens
        blocks = left / max(1, self._block_tokens)
        yield Loading(
            what="training",
            detail=f"{len(self._names)} SAEs on {left:,} tokens will take about "
            f"{_minutes(steps * step_seconds + blocks * block_seconds)}; kept in {self.folder}",
        )
        yield from self._steps(lockstep)
        n_left_out, n_all = self._stream.blocks.n_left_out()
        if n_left_out:
            yield Warned(message=f"{n_left_out:,} of {n_all:,} tokens are outliers: no SAE learned from them.")
        self._write(lockstep)

    def _settings(self) -> LearnerSettings:
        recipe = self._recipe
        return LearnerSettings(
            learning_rate=recipe.rate_at(self._stream.d_sae),
            warmup_tokens=recipe.warmup_steps * self._stream.batch_tokens,
            decay_share=recipe.decay_share,
            auxiliary_weight=0.0,
            clip_norm=recipe.clip_norm,
        )

    def _learner(self, name: str, sample: Tensor) -> Learner:
        # The part is left out of the seed: the same first weights for every part. Other ones for every seed of the run.
        seed = self._stream.seed * SEEDS_APART + int(name.partition("|")[2])
        center = geometric_median(sample[: self._stream.batch_tokens]).to(sample.device)
        return TopKLearner(
            "error-saes", self._stream.d_sae, self._recipe.k, seed=seed, settings=self._settings(), center=center
        )

    def _lockstep(self) -> Generator[Event, None, tuple[Lockstep, float, float]]:
        """The learners, the seconds of a block and of a step of all of them."""
        began = time.perf_counter()
        work = self._stream.blocks.pieces(0)
        while True:
            try:
                done, n = next(work)
            except StopIteration as end:
                first: dict[str, Tensor] = end.value
                break
            yield Loading(what="activations", detail="to learn from", done=done, total=n)
        block_seconds = time.perf_counter() - began
        self._block_tokens = len(next(iter(first.values())))
        lockstep = Lockstep(
            self._stream.blocks.pieces,
            first,
            self._names,
            self._learner,
            batch_tokens=self._stream.batch_tokens,
            seed=self._stream.seed,
            scale_of=deviation_scale,
        )
        # The second step of a learner that is thrown away tells the pace; the first one warms up.
        part = MAIN[0]
        sample = first[part][: self._stream.batch_tokens] * lockstep.scales[part]
        trial = self._learner(f"{part}|0", sample)
        trial.step(sample, 0.0)
        began = time.perf_counter()
        trial.step(sample, 0.0)
        return lockstep, block_seconds, (time.perf_counter() - began) * len(self._names)

    def _steps(self, lockstep: Lockstep) -> Generator[Event, None, None]:
        settings, total = self._settings(), self._recipe.tokens
        probe = self._stream.probe()
        began = saved = time.monotonic()
        already, cost = lockstep.tokens_done, 0.0
        progress: TrainProgress | None = None
        try:
            while lockstep.tokens_done < total:
                for _ in lockstep.prepare():
                    if progress is not None:
                        yield replace(progress, held_out={})
                fvu = lockstep.step(settings.rate(lockstep.tokens_done + lockstep.next_batch, total))
                done, now = lockstep.tokens_done, time.monotonic()
                rate = (done - already) / max(now - began, 1e-9)
                progress = lockstep.progress(
                    fvu, probe, total=total, every=total / PROBES, tokens_per_second=rate, spelled=_spelled
                )
                for name in self._names if progress.held_out else ():
                    found = progress.held_out[_spelled(name)]["fvu"]
                    self.curves[name] = (*self.curves.get(name, ()), (done, found))
                yield progress
                if now - saved > max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * cost):
                    self._save(lockstep)
                    saved = time.monotonic()
                    cost = saved - now
        except GeneratorExit:
            self._save(lockstep)
            raise
        self._save(lockstep)

    def _save(self, lockstep: Lockstep) -> None:
        facts = {**lockstep.place(), "curves": self.curves}
        checkpoint.save(self.folder, self._fingerprint, lockstep.tokens_done, lockstep.tensors(), facts)

    def _write(self, lockstep: Lockstep) -> None:
        base, model = self._stream.base, self._stream.loaded.model
        for name, part in self._names.items():
            seed = int(name.partition("|")[2])
            sae = lockstep.learners[name].finished(lockstep.scales[part])
            about = {
                "hook_name": self._stream.loaded.hook_name
                if part == "x"
                else f"{self._stream.loaded.hook_name}.{part}",
                "model_name": model.name,
                "reads": part,
                "base_sae": base.ref.sae_id,
                "seed": seed,
                "l0": self._recipe.k,
                "trained_tokens": lockstep.tokens_done,
            }
            folder = files.sae_folder(self.folder, part, seed)
            remove_halves(folder)
            save_sae(sae, folder, "float32", about)
        files.save_map(self.folder / files.MAP_FILE, self._stream.error_map)
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
                    "hook_name": self._stream.loaded.hook_name,
                    "d_sae": base.ref.d_sae,
                    "nominal_l0": base.ref.nominal_l0,
                    "weights_hash": base.weights_hash,
                },
                "map_sha256": files.map_hash(self._stream.error_map),
                "positions": list(self._stream.positions),
                "context_length": int(self._stream.contexts.shape[1]),
                "text": self._stream.loaded.target.text,
                "seed": self._stream.seed,
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
        checkpoint.forget(self.folder)


def _spelled(name: str) -> str:
    return name.replace("|", "/seed_")


def check_place(folder: Path) -> None:
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
