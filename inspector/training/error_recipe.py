"""How SAEs on errors are trained: what the paper says, what its authors' script does, and what a laptop can do.

No torch: the command line checks a preset's name before it loads anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inspector.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the trained SAEs beside the target."""

    preset: str
    model: str
    """Where the preset belongs; any other target is measured as well, and the result says so."""
    layer: int
    width: int
    """Of the base SAE; the nearest there is."""
    l0: float
    """Nominal, of the base SAE; the nearest of that width."""
    k: int
    expansion: int
    """Latents per dimension of x."""
    tokens: int
    """Seen by each SAE."""
    learning_rate: float
    """At 2^14 latents; it falls with the root of their number (`rate_at`)."""
    scale_rate: bool
    """Whether it does, or `learning_rate` holds whatever their number."""
    warmup_steps: int
    decay_share: float
    """Of the steps, at the end, in which the rate falls linearly to 0; 1: all after the warm-up."""
    clip_norm: float | None
    """Of the gradient of the batch's FVU, over all weights; None: not clipped."""
    batch_contexts: int
    """Contexts per step; 0: `batch_tokens` counts."""
    batch_tokens: int
    seeds: int
    control_seeds: int
    """SAEs per control; 0: no controls."""

    def rate_at(self, d_sae: int) -> float:
        """Adam's learning rate for so many latents."""
        return self.learning_rate / math.sqrt(d_sae / 2**14) if self.scale_rate else self.learning_rate


PAPER = Recipe(
    preset="paper",
    model="gemma-2-9b",
    layer=20,
    width=16_384,
    l0=60.0,
    k=32,
    expansion=16,
    tokens=100_000_000,
    learning_rate=2e-4,
    scale_rate=True,
    warmup_steps=1000,
    decay_share=1.0,
    clip_norm=1.0,
    batch_contexts=8,
    batch_tokens=0,
    seeds=3,
    control_seeds=1,
)
AUTHORS = replace(PAPER, preset="authors", model="gemma-2-2b", layer=12, l0=82.0)
"""The published script's site (D-13); trained as the paper says."""
DEMO = replace(
    PAPER,
    preset="demo",
    model="demo",
    layer=3,
    width=1024,
    l0=16.0,
    k=16,
    expansion=8,
    tokens=200_000,
    learning_rate=2e-3,
    scale_rate=False,
    warmup_steps=30,
    decay_share=0.3,
    clip_norm=None,
    batch_contexts=0,
    batch_tokens=1024,
)
"""A minute or two on one core. Few steps, hence a high rate, and no clipping, which many steps can afford."""
PRESETS = {recipe.preset: recipe for recipe in (PAPER, AUTHORS, DEMO)}


def recipe_of(
    preset: str,
    *,
    k: int = 0,
    expansion: int = 0,
    tokens: int = 0,
    learning_rate: float = 0.0,
    seeds: int = 0,
    control_seeds: int | None = None,
) -> Recipe:
    """A preset with what was asked for otherwise; 0 (None for the controls) leaves the preset's.

    Raises:
        UsageError: there is no such preset.
    """
    if preset not in PRESETS:
        raise UsageError(f"'preset={preset}' is not known.{nearest(preset, PRESETS)}")
    found = PRESETS[preset]
    return replace(
        found,
        k=k or found.k,
        expansion=expansion or found.expansion,
        tokens=tokens or found.tokens,
        learning_rate=learning_rate or found.learning_rate,
        # A rate that was typed is the rate that is used.
        scale_rate=found.scale_rate and not learning_rate,
        seeds=seeds or found.seeds,
        control_seeds=found.control_seeds if control_seeds is None else control_seeds,
    )
