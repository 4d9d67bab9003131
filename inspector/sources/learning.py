"""What every SAE in training has in common: its settings, and what the trainer asks of it.

Inputs are scaled to a mean norm of sqrt(d_in), so that one learning rate suits every hook; the scale is undone when the
weights are written.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

Architecture = Literal["topk", "batchtopk", "jumprelu"]
"""TopK keeps the k largest latents of each token, BatchTopK k
times the tokens of a batch (and is stored as JumpReLU with one threshold), JumpReLU learns a threshold per latent. All
are stored as sae-lens stores them."""


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
