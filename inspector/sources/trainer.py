"""Trains a suite of TopK SAEs on any model and hooks: the engine of `dm-inspect train`, which made the demo's suite.

All SAEs learn in lockstep from one model pass, batch by batch. First weights, order and shuffle follow from the seed,
and a checkpoint holds everything else: a run that was killed and given again ends with the bytes of a run that was not
(same machine, same thread count).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from inspector.errors import UsageError
from inspector.events import TrainProgress, Warned
from inspector.sources.activation_blocks import ActivationBlocks, ActivationSource, Ids
from inspector.sources.suite_files import DiskType, Quality, SaePlan, save_quality, save_sae
from inspector.sources.suite_quality import measure
from inspector.sources.topk_learner import LearnerSettings, TopKLearner, mean_norm_scale

CHECKPOINT_FILE = ".training.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a suite is trained; all of it but the minutes is part of the run's fingerprint."""

    tokens: int
    """Activations each SAE sees; rounded up to whole batches."""
    minutes: float | None = None
    """Wall-clock budget over all resumptions: the learning rate begins to fall early enough to end about then, which
    makes the run one of fewer tokens. None: as long as it takes."""
    seed: int = 0
    batch_tokens: int = 2048
    block_contexts: int = 256
    """Contexts whose activations are shuffled together: memory is block x context length x d_in x 4 bytes per hook."""
    model_batch: int = 16
    """Contexts per model pass."""
    special_ids: tuple[int, ...] = ()
    """Token ids whose activations are neither trained on nor measured: the norms at BOS are unlike all others."""
    disk_dtype: DiskType = "float16"
    checkpoint_minutes: float = 5.0
    learner: LearnerSettings = field(default_factory=LearnerSettings)


def train_suite(
    source: ActivationSource,
    contexts: Ids,
    held_out: Ids,
    plans: Sequence[SaePlan],
    settings: TrainSettings,
    out: Path,
    metadata: dict[str, Any],
) -> Generator[TrainProgress | Warned, None, tuple[Quality, ...]]:
    """Train every SAE of `plans`, write them below `out`, and return what they do on held-out text.

    Yields once per batch. Stop it by closing the generator: it keeps a checkpoint, and the same call continues there.

    Args:
        source: the model.
        contexts: [contexts, positions] token ids to learn from; read again in another order if `tokens` asks for more.
        held_out: [contexts, positions] token ids for the quality.
        plans: the SAEs, of one hook or several.
        settings: budgets and seeds.
        out: the suite's root.
        metadata: joins every `cfg.json`; `model_name` at least.

    Raises:
        UsageError: if `out` holds the checkpoint of a different run.
        DataError: if there is no text.
    """
    run = _Run(source, contexts, plans, settings, out)
    epochs = settings.tokens / run.blocks.tokens_per_epoch
    if epochs > 1:
        yield Warned(message=f"{len(contexts)} contexts are read {epochs:.1f} times to reach {settings.tokens} tokens.")
    started = saved = clock = time.monotonic()
    already = run.tokens_done
    try:
        while run.tokens_done < run.total:
            fvu = run.step()
            now = time.monotonic()
            run.add_time(now - clock)
            clock = now
            yield run.progress(fvu, (run.tokens_done - already) / max(now - started, 1e-9))
            if now - saved > settings.checkpoint_minutes * 60:
                run.save()
                saved = now
    except GeneratorExit:
        run.save()
        raise
    for plan in plans:
        run.export(plan, metadata)
    qualities = measure(source, held_out, out, plans, run.tokens_done, settings.special_ids, settings.model_batch)
    for quality in qualities:
        save_quality(out, quality)
    run.forget()
    return qualities


class _Run:
    """The state of one training run: the learners, and the place of the next batch."""

    def __init__(
        self, source: ActivationSource, contexts: Ids, plans: Sequence[SaePlan], settings: TrainSettings, out: Path
    ) -> None:
        self._settings, self._out = settings, out
        self._plans = {plan.sae_id: plan for plan in plans}
        if len(self._plans) < len(plans):
            raise UsageError("Two of the SAEs asked for have the same name. Choose widths that differ in their label.")
        self.blocks = ActivationBlocks(
            source,
            contexts,
            block_contexts=settings.block_contexts,
            model_batch=settings.model_batch,
            special_ids=settings.special_ids,
            seed=settings.seed,
        )
        self.tokens_done, self.total = 0, settings.tokens
        self._block, self._offset, self._seconds = 0, 0, 0.0
        self._held: dict[str, Tensor] | None = self.blocks(0)
        self._scales = {hook: mean_norm_scale(x) for hook, x in self._held.items()}
        self.learners = {
            sae_id: self._learner(plan, self._held[plan.hook_name]) for sae_id, plan in self._plans.items()
        }
        self._load()

    def _learner(self, plan: SaePlan, x: Tensor) -> TopKLearner:
        center = x.mean(0) * self._scales[plan.hook_name]
        return TopKLearner(
            plan.sae_id, plan.d_sae, plan.k, seed=self._settings.seed, settings=self._settings.learner, center=center
        )

    def step(self) -> dict[str, float]:
        """Show the next batch to every learner; returns each SAE's FVU on it."""
        if self._held is None:
            self._held = self.blocks(self._block)
        n_tokens = len(next(iter(self._held.values())))
        batch = min(self._settings.batch_tokens, n_tokens)
        here = slice(self._offset, self._offset + batch)
        rate = self._settings.learner.rate(self.tokens_done + batch, self.total)
        scaled = {hook: x[here] * self._scales[hook] for hook, x in self._held.items()}
        fvu = {
            sae_id: learner.step(scaled[self._plans[sae_id].hook_name], rate)
            for sae_id, learner in self.learners.items()
        }
        self._offset += batch
        self.tokens_done += batch
        if self._offset + batch > n_tokens:
            self._block, self._offset, self._held = self._block + 1, 0, None
        return fvu

    def add_time(self, seconds: float) -> None:
        """Count the time of a step; bring the end forward once the time left is needed for the decay."""
        self._seconds += seconds
        constant = 1 - self._settings.learner.decay_share
        late = self._settings.minutes is not None and self._seconds >= constant * self._settings.minutes * 60
        if late and self.tokens_done < constant * self.total:
            self.total = math.ceil(self.tokens_done / constant)

    def progress(self, fvu: dict[str, float], tokens_per_second: float) -> TrainProgress:
        """The event of one step."""
        return TrainProgress(
            tokens_done=min(self.tokens_done, self.total),
            tokens_total=self.total,
            tokens_per_second=tokens_per_second,
            seconds_left=max(0, self.total - self.tokens_done) / max(tokens_per_second, 1e-9),
            fvu=fvu,
        )

    def export(self, plan: SaePlan, metadata: dict[str, Any]) -> None:
        """Write one SAE in sae-lens' layout."""
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

        learner = self.learners[plan.sae_id]
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=learner.d_in,
                d_sae=plan.d_sae,
                k=plan.k,
                apply_b_dec_to_input=True,
                normalize_activations="none",
                # Rows have unit norm, so rescaling by it would change nothing but cost a pass over the decoder.
                rescale_acts_by_decoder_norm=False,
                decoder_init_norm=None,
            )
        )
        learner.write_into(sae, self._scales[plan.hook_name])
        about = {"hook_name": plan.hook_name, "l0": plan.k, "trained_tokens": self.tokens_done, **metadata}
        save_sae(sae, self._out / plan.sae_id, self._settings.disk_dtype, about)

    def save(self) -> None:
        """Keep all learners and the place of the next batch in one file, written whole or not at all."""
        tensors = {
            f"{sae_id}|{name}": tensor.contiguous()
            for sae_id, learner in self.learners.items()
            for name, tensor in learner.state().items()
        }
        place = {
            "block": self._block,
            "offset": self._offset,
            "tokens_done": self.tokens_done,
            "total": self.total,
            "seconds": self._seconds,
        }
        self._out.mkdir(parents=True, exist_ok=True)
        partial = self._out / f"{CHECKPOINT_FILE}.partial"
        save_file(tensors, partial, metadata={"fingerprint": self._fingerprint(), "place": json.dumps(place)})
        os.replace(partial, self._out / CHECKPOINT_FILE)

    def _load(self) -> None:
        path = self._out / CHECKPOINT_FILE
        if not path.exists():
            return
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        if about["fingerprint"] != self._fingerprint():
            raise UsageError(
                f"{self._out} holds the checkpoint of a different training run. "
                f"Choose another --out, or delete {CHECKPOINT_FILE} there."
            )
        states: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(path).items():
            sae_id, name = key.split("|")
            states.setdefault(sae_id, {})[name] = tensor
        for sae_id, learner in self.learners.items():
            learner.load_state(states[sae_id])
        place = json.loads(about["place"])
        self._block, self._offset, self._seconds = place["block"], place["offset"], place["seconds"]
        self.tokens_done, self.total = place["tokens_done"], place["total"]
        self._held = None

    def _fingerprint(self) -> str:
        asked = asdict(replace(self._settings, checkpoint_minutes=0.0, minutes=None))
        asked |= {"plans": [asdict(plan) for plan in self._plans.values()], "text": self.blocks.fingerprint()}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def forget(self) -> None:
        """Remove the checkpoint of a finished run."""
        (self._out / CHECKPOINT_FILE).unlink(missing_ok=True)
