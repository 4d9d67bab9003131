"""Trains a suite of SAEs on any model and hooks: the engine of `dm-inspect train`, which made the demo's suite.

All SAEs learn in lockstep from one model pass, batch by batch. First weights, order and shuffle follow from the seed,
and a checkpoint holds everything else: a run that was killed and given again ends with the bytes of a run that was not
(same machine, same thread count, on the CPU).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from inspector.errors import UsageError
from inspector.events import Loading, TrainProgress, Warned
from inspector.training import checkpoint
from inspector.training.blocks import (
    ActivationBlocks,
    ActivationSource,
    Ids,
    OutlierMarks,
    chosen_rows,
    is_ordinary,
    text_fingerprint,
)
from inspector.training.checkpoint import TrainingLog
from inspector.training.learners import Learner, LearnerSettings, Lockstep
from inspector.training.sae_lens_learner import SaeLensLearner
from inspector.training.suite_files import (
    DiskType,
    Quality,
    SaePlan,
    measure,
    remove_halves,
    save_measured_l0,
    save_quality,
    save_sae,
)
from inspector.training.topk_learner import TopKLearner

Made = TypeVar("Made")
PROBES = 20
"""Times that held-out text is measured on the way."""
PROBED_TOKENS = 4096


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
    first_contexts: int | None = None
    """Of the first block, so that learning begins sooner; None: as many as of the others."""
    model_batch: int = 16
    """Contexts per model pass."""
    special_ids: tuple[int, ...] = ()
    """Token ids whose activations are neither trained on nor measured: the norms at BOS are unlike all others."""
    outliers: float | None = None
    """Tokens with more than so many times the median norm are neither trained on nor measured; None: all are."""
    disk_dtype: DiskType = "float16"
    checkpoint_minutes: float = 5.0
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    steps_by: Literal["sae-lens", "us"] = "sae-lens"
    """Whose arithmetic: sae-lens' trainer, or our own TopK, which is two to six times faster on a CPU."""


def train_suite(
    source: ActivationSource,
    contexts: Ids,
    held_out: Ids,
    plans: Sequence[SaePlan],
    settings: TrainSettings,
    out: Path,
    metadata: dict[str, Any],
) -> Generator[Loading | TrainProgress | Warned, None, tuple[Quality, ...]]:
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
        DataError: if there is no text, or the checkpoint is damaged.
        ResourceError: if something cannot be written.
    """
    if settings.outliers is not None:
        yield Loading(what="activations", detail="of the first contexts, for their median norm")
        source = OutlierMarks(source, settings.outliers, contexts[: settings.model_batch], settings.special_ids)
    run = _Run(source, contexts, held_out, plans, settings, out, metadata)
    yield from run.begun()
    saved = clock = time.monotonic()
    try:
        while run.tokens_done < run.total:
            yield from run.prepared()
            fvu = run.step()
            now = time.monotonic()
            run.add_time(now - clock)
            clock = now
            progress = run.progress(fvu)
            run.note(progress)
            yield progress
            if now - saved > settings.checkpoint_minutes * 60:
                run.save()
                saved = now
    except GeneratorExit:
        run.save()
        raise
    yield from run.left_out()
    # From here on nothing is learned; a run that is killed while it writes or measures comes straight back.
    run.save()
    for plan in plans:
        run.export(plan, metadata)
    qualities = measure(source, held_out, out, plans, run.tokens_done, settings.special_ids, settings.model_batch)
    for plan, quality in zip(plans, qualities, strict=True):
        save_quality(out, quality)
        if plan.architecture != "topk":
            save_measured_l0(out, quality)
    checkpoint.forget(out)
    return qualities


@dataclass
class Pace:
    """How fast a training is. Activations are made a block at a time and learned from afterwards, and both count."""

    made: int = 0
    learned: int = 0
    """Tokens."""
    making: float = 0.0
    learning: float = 0.0
    """Seconds, of this process."""

    @property
    def tokens_per_second(self) -> float:
        """Of a token that is made and learned from; 0: not known."""
        seconds = self.making / max(1, self.made) + self.learning / max(1, self.learned)
        return 1 / max(seconds, 1e-9) if self.made else 0.0


class _Run:
    """The state of one training run: the learners, and the place of the next batch. `begun` makes the learners.

    Raises:
        UsageError: what is asked for does not go together.
        DataError: there is no text.
    """

    _lockstep: Lockstep

    def __init__(
        self,
        source: ActivationSource,
        contexts: Ids,
        held_out: Ids,
        plans: Sequence[SaePlan],
        settings: TrainSettings,
        out: Path,
        metadata: Mapping[str, Any],
    ) -> None:
        self._out, self._metadata = out, metadata
        self._plans = {plan.sae_id: plan for plan in plans}
        if len(self._plans) < len(plans):
            raise UsageError("Two of the SAEs asked for have the same name. Choose widths that differ in their label.")
        if settings.steps_by == "us" and any(plan.architecture != "topk" for plan in plans):
            raise UsageError("Our own steps know TopK alone. Let sae-lens' trainer do the steps.")
        self._text = text_fingerprint(contexts)
        self._settings = settings = self._as_begun(settings)
        self._blocks = ActivationBlocks(
            source,
            contexts,
            block_contexts=settings.block_contexts,
            model_batch=settings.model_batch,
            special_ids=settings.special_ids,
            seed=settings.seed,
            first_contexts=settings.first_contexts,
        )
        self._source, self._contexts, self._held_out = source, contexts, held_out
        self._pace = Pace()
        self.total = settings.tokens
        """Tokens at which it ends; fewer than asked for once time runs out."""
        self._seconds = 0.0

    def begun(self) -> Generator[Loading | Warned, None, None]:
        """Make the first block and the learners, or go on from the checkpoint.

        Raises:
            UsageError: it is of a different run.
            DataError: it is damaged.
        """
        settings = self._settings
        found = checkpoint.load(self._out, self._fingerprint(settings))
        yield from self.warnings()
        first = yield from self._told(self._blocks.pieces(0))
        self._lockstep = Lockstep(
            self._blocks.pieces,
            first,
            {sae_id: plan.hook_name for sae_id, plan in self._plans.items()},
            self._learner,
            batch_tokens=settings.batch_tokens,
            seed=settings.seed,
        )
        if found is not None:
            self._lockstep.restore(found.tensors, found.facts)
            self._seconds, self.total = found.facts["seconds"], found.facts["total"]
            if found.facts["machine"] != _machine():
                yield Warned(
                    message=f"The checkpoint is of {found.facts['machine']} and this is {_machine()}: it goes on, but "
                    "the weights will differ in their last bits from those of a run that was not interrupted."
                )
        self._log = TrainingLog(self._out, self._fingerprint(settings)[:12], self.tokens_done)
        yield Loading(what="activations", detail="held out")
        ids = self._held_out[: math.ceil(PROBED_TOKENS / self._held_out.shape[1])]
        ordinary = torch.from_numpy(is_ordinary(ids, settings.special_ids))
        self._probe, _ = chosen_rows(self._source(torch.from_numpy(ids)), ordinary)

    @property
    def tokens_done(self) -> int:
        """By each SAE."""
        return self._lockstep.tokens_done

    def warnings(self) -> Generator[Warned, None, None]:
        """What the user should know before it begins."""
        epochs = self._settings.tokens / self._blocks.tokens_per_epoch
        if epochs > 1:
            yield Warned(
                message=f"{len(self._contexts)} contexts are read {epochs:.1f} times to reach "
                f"{self._settings.tokens} tokens."
            )

    def left_out(self) -> Generator[Warned, None, None]:
        """How many tokens outweighed all others, of those that came since this process began."""
        n_left_out, n_all = self._blocks.n_left_out()
        if n_left_out:
            yield Warned(
                message=f"{n_left_out:,} of {n_all:,} tokens have more than {self._settings.outliers:g} times the "
                "median norm: no SAE learned from them, and its quality is without them. --outliers off takes them in."
            )

    def _learner(self, sae_id: str, sample: Tensor) -> Learner:
        plan, settings = self._plans[sae_id], self._settings
        if settings.steps_by == "us":
            return TopKLearner(
                sae_id, plan.d_sae, plan.k, seed=settings.seed, settings=settings.learner, center=sample.mean(0)
            )
        return SaeLensLearner(
            sae_id,
            plan.architecture,
            plan.d_sae,
            plan.k,
            seed=settings.seed,
            settings=settings.learner,
            sample=sample,
            batch_tokens=settings.batch_tokens,
            total_steps=settings.tokens // settings.batch_tokens,
        )

    def prepared(self) -> Generator[Loading, None, None]:
        """Make the next block if the one before is used up. On a large model that takes minutes, so there is a chance
        to be stopped at each model pass, and in the middle of one; no learner has changed then.
        """
        try:
            yield from self._told(self._lockstep.prepare())
        except KeyboardInterrupt:
            self.save()
            raise

    def _told(self, work: Generator[tuple[int, int], None, Made]) -> Generator[Loading, None, Made]:
        """Say how much of a block there is."""
        counted, since = 0, time.monotonic()
        while True:
            try:
                done, n = next(work)
            except StopIteration as end:
                made: Made = end.value
                return made
            self._pace.made += (done - counted) * self._contexts.shape[1]
            self._pace.making += time.monotonic() - since
            yield Loading(
                what="activations", detail=f"to learn from: {done:,} of {n:,} contexts of a block", done=done, total=n
            )
            counted, since = done, time.monotonic()

    def step(self) -> dict[str, float]:
        """Show the next batch to every learner; returns each SAE's FVU on it."""
        began, before = time.monotonic(), self.tokens_done
        fvu = self._lockstep.step(self._rate(before + self._lockstep.next_batch))
        self._pace.learned += self.tokens_done - before
        self._pace.learning += time.monotonic() - began
        return fvu

    def _rate(self, tokens: int) -> float:
        return self._settings.learner.rate(tokens, self.total)

    def add_time(self, seconds: float) -> None:
        """Count the time of a step; bring the end forward once the time left is needed for the decay."""
        self._seconds += seconds
        constant = 1 - self._settings.learner.decay_share
        late = self._settings.minutes is not None and self._seconds >= constant * self._settings.minutes * 60
        if late and self.tokens_done < constant * self.total:
            self.total = math.ceil(self.tokens_done / constant)

    def progress(self, fvu: dict[str, float]) -> TrainProgress:
        """The event of one step; now and then with what the SAEs do on held-out text."""
        return self._lockstep.progress(
            fvu,
            self._probe,
            total=self.total,
            every=self._settings.tokens / PROBES,
            tokens_per_second=self._pace.tokens_per_second,
        )

    def note(self, progress: TrainProgress) -> None:
        """Write what was measured on held-out text into the log."""
        if not progress.held_out:
            return
        saes = {sae_id: {"batch_fvu": progress.fvu[sae_id], **found} for sae_id, found in progress.held_out.items()}
        about = {
            "of": self.total,
            "seconds": round(self._seconds, 3),
            "learning_rate": self._rate(self.tokens_done),
            "saes": saes,
        }
        self._log.write(self.tokens_done, about)

    def export(self, plan: SaePlan, metadata: Mapping[str, Any]) -> None:
        """Write one SAE in sae-lens' layout. It can learn no more."""
        sae = self._lockstep.learners[plan.sae_id].finished(self._lockstep.scales[plan.hook_name])
        about = {"hook_name": plan.hook_name, "l0": plan.k, "trained_tokens": self.tokens_done, **metadata}
        remove_halves(self._out / plan.sae_id)
        save_sae(sae, self._out / plan.sae_id, self._settings.disk_dtype, about)

    def save(self) -> None:
        """Keep all learners and the place of the next batch, whole or not at all."""
        place = {**self._lockstep.place(), "total": self.total, "seconds": self._seconds, "machine": _machine()}
        checkpoint.save(self._out, self._fingerprint(self._settings), self.tokens_done, self._lockstep.tensors(), place)

    def _as_begun(self, settings: TrainSettings) -> TrainSettings:
        """As the run was begun that is gone on with: versions before this one made the first block like all others."""
        same = replace(settings, first_contexts=None)
        return same if checkpoint.is_of(self._out, self._fingerprint(same)) else settings

    def _fingerprint(self, settings: TrainSettings) -> str:
        asked: dict[str, Any] = asdict(replace(settings, checkpoint_minutes=0.0, minutes=None))
        for name in ("outliers", "first_contexts"):  # as a version that knew none said it: its runs go on
            if asked[name] is None:
                del asked[name]
        asked |= {"plans": [asdict(plan) for plan in self._plans.values()], "text": self._text}
        asked["metadata"] = dict(self._metadata)
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _machine() -> str:
    """What the last bits depend on."""
    return f"torch {torch.__version__} with {torch.get_num_threads()} threads"
