"""SAEs of the same suite at the hooks that feed a target's: the residual before it, its layer's MLP and attention.

Known from names alone, as everything in `suites`; loading is for who needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inspector.errors import InspectorError
from inspector.sources import suites
from inspector.spec import SaeRef, hook_name_of

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

Component = Literal["previous", "mlp", "attn"]
COMPONENTS: tuple[Component, ...] = ("previous", "mlp", "attn")
"""Residual stream one layer before, MLP output, attention heads before their projection."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """An SAE of a component, in memory."""

    component: Component
    hook_name: str
    sae: LoadedSae


def hooks_of(layer: int, component_layer: int) -> dict[Component, str]:
    """The components' hooks: the residual of `layer` - 1, MLP and attention of `component_layer`.

    The paper's text takes MLP and attention of the layer before, its Eq. 16 and code of the same layer (E-12, D-22).
    """
    return {
        "previous": hook_name_of("resid", layer - 1),
        "mlp": hook_name_of("mlp", component_layer),
        "attn": hook_name_of("attn", component_layer),
    }


def known_refs(loaded: Loaded) -> list[SaeRef]:
    """Every SAE that the target's suite is known to have at any hook."""
    try:
        found = suites.known_saes(loaded.target)
    except InspectorError:
        found = []
    roots = {sae.ref.release for sae in loaded.saes if Path(sae.ref.release).is_dir()}
    for root in sorted(roots):
        found += [ref for ref in suites.list_suite(Path(root)) if ref not in found]
    return found


def choose_companions(refs: Sequence[SaeRef], hooks: dict[Component, str], like: SaeRef) -> dict[Component, SaeRef]:
    """Per component the SAE nearest in width to `like`, then in nominal L0; components without one are left out."""
    chosen: dict[Component, SaeRef] = {}
    for component, hook_name in hooks.items():
        here = [ref for ref in refs if ref.hook_name == hook_name and ref.on_disk and ref.path is not None]
        if here:
            chosen[component] = min(
                here,
                key=lambda ref: (
                    abs(math.log(ref.d_sae / like.d_sae)),
                    abs((ref.nominal_l0 or math.inf) - (like.nominal_l0 or 0.0)),
                    ref.sae_id,
                ),
            )
    return chosen


def load_companions(loaded: Loaded, layer: int, component_layer: int, like: SaeRef) -> list[Companion]:
    """Load the companions of an SAE of the target, in the order of COMPONENTS; those that are missing are missing."""
    from inspector.sources.sae_loading import load_sae

    hooks = hooks_of(layer, component_layer)
    chosen = choose_companions(known_refs(loaded), hooks, like)
    return [
        Companion(
            component=component,
            hook_name=hooks[component],
            sae=load_sae(chosen[component], loaded.model.device, loaded.model.check_hook(hooks[component])),
        )
        for component in COMPONENTS
        if component in chosen
    ]
