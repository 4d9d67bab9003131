"""What every SAE in training has in common, and several that learn from the same batches.

Inputs are scaled to a mean norm of sqrt(d_in), so that one learning rate suits every hook; the scale is undone when the
weights are written. Which batch comes next follows from a number; together with the learners' own state and that of the
random numbers it is all that a killed run needs to go on to the same weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from inspector.events import TrainProgress

Architecture = Literal["topk", "batchtopk", "jumprelu"]
"""TopK keeps the k largest latents of each token, BatchTopK k times the tokens of a batch (and is stored as JumpReLU
with one threshold), JumpReLU learns a threshold per latent. All are stored as sae-lens stores them."""


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """How one SAE learns; the same for all SAEs of a suite."""

    learning_rate: float = 2e-3
    """Adam's, after warm-up. Ten times more kills latents, ten times less leaves them near their start."""
    warmup_tokens: int = 75_000
    """The learning rate rises over the first so many tokens, or over a tenth of all if that is less."""
    decay_share: float = 0.3
    """Share of the tokens, at the end, during which it falls linearly to 0."""
    dead_after_tokens: int = 150_000
    """A latent that did not fire for so long is dead, and the auxiliary loss tries to revive it."""
    auxiliary_weight: float = 1 / 32
    """Of the auxiliary loss, in which dead latents explain what the living left over. 0 turns it off."""
    clip_norm: float | None = None
    """The gradients of the batch's FVU are scaled down to this common norm where it is larger; None: never, and the
    loss is the plain squared error. Adam does not mind the size of a loss, clipping does."""
    selection_dtype: str = "float32"
    """Precision in which the k largest pre-activations are searched; bfloat16 is faster on some CPUs and picks a
    near-tie differently now and then. The activations themselves are always float32."""

    def rate(self, tokens_done: int, total: int) -> float:
        """Learning rate after `tokens_done` of `total` tokens."""
        rise = tokens_done / min(self.warmup_tokens, 0.1 * total) if self.warmup_tokens else 1.0
        fall = (total - tokens_done) / (self.decay_share * total) if self.decay_share else 1.0
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What an SAE in training makes of a batch."""

    x_hat: Tensor
    """[tokens, d_in], scaled as its input."""
    l0: Tensor
    """[tokens] active latents."""
    fired: Tensor
    """[d_sae] bool, active on any of the tokens."""


class Learner(Protocol):
    """One SAE while it learns."""

    d_in: int

    @property
    def n_dead(self) -> int:
        """Latents that did not fire for `dead_after_tokens`."""

    def step(self, x: Tensor, learning_rate: float) -> float:
        """Learn from scaled activations [tokens, d_in]; returns the batch's FVU before the step."""

    def reconstruct(self, x: Tensor) -> Reconstructed:
        """What the SAE makes of scaled activations [tokens, d_in] as it is now, as it would be stored."""

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name; what `load_state` takes."""

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue where `state` was taken."""

    def finished(self, scale: float) -> Any:
        """The sae-lens training SAE of x itself, where `scale` times x was learned from; the end of the learning."""


def seed_of(seed: int, name: str) -> int:
    """The seed of an SAE's first weights: its own, whatever is trained beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


def mean_norm_scale(x: Tensor) -> float:
    """The factor that gives activations [tokens, d_in] a mean norm of sqrt(d_in)."""
    return math.sqrt(x.shape[1]) / float(x.norm(dim=1).mean())


def deviation_scale(x: Tensor) -> float:
    """The factor that gives activations [tokens, d_in] a variance of d_in per token: 1 per dimension, on average."""
    return math.sqrt(x.shape[1] / max(float((x - x.mean(0)).square().sum()) / len(x), 1e-30))


Blocks = Callable[[int], Generator[tuple[int, int], None, Mapping[str, Tensor]]]
"""The number of a block to its shuffled activations [tokens, d_in] by stream, the same tokens in the same order in
each; the same answer whenever it is asked. With pauses on the way, in which others may work."""
PROBE_TOKENS = 1024
"""Held-out tokens at once: bounds the dense latents of the widest SAE."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What one SAE does on text that it does not learn from, as it is now."""

    fvu: float
    """Centred, pooled over tokens and dimensions. Unitless."""
    l0: float
    """Mean number of active latents per token."""
    dead: int
    """Latents that did not fire in training for so long that they count as dead."""


class Lockstep:
    """Learners by name, each of which reads one stream of the blocks.

    Args:
        blocks: see `Blocks`.
        first: the block of number 0.
        reads: stream by the learner's name.
        make: (name, scaled activations of the first block [tokens, d_in]) to a new learner.
        batch_tokens: of a step; a block is cut into whole batches and the rest of it is left out.
        seed: of the random numbers that learners draw, which nothing else draws from.
        scale_of: activations of the first block to what they and all others are multiplied by.
    """

    def __init__(
        self,
        blocks: Blocks,
        first: Mapping[str, Tensor],
        reads: Mapping[str, str],
        make: Callable[[str, Tensor], Learner],
        *,
        batch_tokens: int,
        seed: int,
        scale_of: Callable[[Tensor], float] = mean_norm_scale,
    ) -> None:
        self._blocks, self._reads, self._batch_tokens = blocks, dict(reads), batch_tokens
        self._first = self._held = first
        self.scales = {stream: scale_of(x) for stream, x in first.items()}
        """By stream: what activations are multiplied by before an SAE sees them."""
        self.learners: dict[str, Learner] = {}
        for name, stream in self._reads.items():
            self.learners[name] = make(name, first[stream] * self.scales[stream])
        self.tokens_done = 0
        """By each learner."""
        self._block, self._offset = 0, 0
        self._random = torch.Generator().manual_seed(seed).get_state()

    def prepare(self) -> Generator[tuple[int, int], None, None]:
        """See to it that the next batch is there; pauses while a block is made, and says how much of it there is. To be
        run through before every step.
        """
        if not self._held:
            self._held = self._first if self._block == 0 else (yield from self._blocks(self._block))

    @property
    def next_batch(self) -> int:
        """Tokens of the next batch."""
        return min(self._batch_tokens, len(next(iter(self._held.values()))))

    def step(self, learning_rate: float) -> dict[str, float]:
        """Show the next batch to every learner; returns each one's FVU on it before it learned."""
        batch, held = self.next_batch, self._held
        here = slice(self._offset, self._offset + batch)
        scaled = {stream: x[here] * self.scales[stream] for stream, x in held.items()}
        fvu = {}
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            for name, learner in self.learners.items():
                fvu[name] = learner.step(scaled[self._reads[name]], learning_rate)
            self._random = torch.get_rng_state()
        self._offset += batch
        self.tokens_done += batch
        if self._offset + batch > len(next(iter(held.values()))):
            self._block, self._offset = self._block + 1, 0
            self._held = self._first = {}
        return fvu

    @torch.no_grad()
    def held_out(self, activations: Mapping[str, Tensor]) -> dict[str, HeldOut]:
        """What every learner does on activations [tokens, d_in] by stream. Changes nothing."""
        found = {}
        for name, learner in self.learners.items():
            x = activations[self._reads[name]] * self.scales[self._reads[name]]
            error, active = 0.0, 0
            for part in x.split(PROBE_TOKENS):
                made = learner.reconstruct(part)
                error += float((part - made.x_hat).double().square().sum())
                active += int(made.l0.sum())
            variance = float((x - x.mean(0)).double().square().sum())
            found[name] = HeldOut(fvu=error / max(variance, 1e-30), l0=active / len(x), dead=learner.n_dead)
        return found

    def progress(
        self,
        fvu: Mapping[str, float],
        probe: Mapping[str, Tensor],
        *,
        total: int,
        every: float,
        tokens_per_second: float,
        spelled: Callable[[str], str] = str,
    ) -> TrainProgress:
        """The event of a step that is done; now and then with what the learners do on held-out text.

        Args:
            fvu: that `step` returned.
            probe: held-out activations [tokens, d_in] by stream.
            total: tokens at which the training ends.
            every: so many tokens, and at the end, the probe is measured.
            tokens_per_second: of this process.
            spelled: a learner's name as it is told.
        """
        done = self.tokens_done
        due = done // every > (done - self._batch_tokens) // every or done >= total
        probed = self.held_out(probe) if due else {}
        return TrainProgress(
            tokens_done=min(done, total),
            tokens_total=total,
            tokens_per_second=tokens_per_second,
            seconds_left=max(0, total - done) / max(tokens_per_second, 1e-9),
            fvu={spelled(name): value for name, value in fvu.items()},
            held_out={spelled(name): asdict(found) for name, found in probed.items()},
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is not a number, by name; see `restore`."""
        found = {f"{name}|{key}": value for name, own in self.learners.items() for key, value in own.state().items()}
        return found | {"|random": self._random}

    def place(self) -> dict[str, Any]:
        """The numbers."""
        return {"block": self._block, "offset": self._offset, "tokens_done": self.tokens_done}

    def restore(self, tensors: Mapping[str, Tensor], place: Mapping[str, Any]) -> None:
        """Continue where `tensors` and `place` were taken.

        Raises:
            KeyError: something is missing.
        """
        states: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            name, _, own = key.rpartition("|")
            states.setdefault(name, {})[own] = tensor
        self._random = states.pop("")["random"]
        for name, learner in self.learners.items():
            learner.load_state(states[name])
        self._block, self._offset, self.tokens_done = place["block"], place["offset"], place["tokens_done"]
        self._held = self._first if self._block == 0 else {}
