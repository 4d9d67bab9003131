"""What an experiment's own measurement may use: the target, its activations, and the maps the passes have fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.target import Loaded
    from inspector.statistics.first_pass import FirstPass, SaeMaps
    from inspector.statistics.passes import Activations
    from inspector.statistics.profiles import Protocol


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Handed to `Experiment.measure`, once the shared passes are over."""

    loaded: Loaded | None
    """None only for experiments that need no target."""
    plan: Plan
    """With the profile's split."""
    activations: Activations
    """Batches of contexts, kept in memory while there is room."""
    maps: Mapping[str, SaeMaps]
    """By sae_id, fitted on the training tokens."""
    protocol: Protocol
    intercept: bool
    """Of the maps."""
    seed: int
    batch_size: int
    """Contexts per batch; changes no number."""
    n_resamples: int
    """Bootstrap draws; 0 gives no intervals."""
    first: FirstPass | None = None
    """Moments over the training tokens that the maps were fitted from; None only where there is no target."""
