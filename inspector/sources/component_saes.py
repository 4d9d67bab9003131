"""SAEs of the same suite at the hooks that feed a target's: the residual before it, its layer's MLP and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inspector.sources.sae_loading import load_sae
from inspector.spec import SaeRef, hook_name_of

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.sources.model import LanguageModel

Component = Literal["previous", "mlp", "attn"]
"""Residual stream one layer before, MLP output, attention heads before their projection."""


@dataclass(frozen=True, kw_only=True)
class ComponentSae:
    """An SAE of a component, in memory."""

    component: Component
    hook_name: str
    sae: LoadedSae


def load_component_saes(
    known: Sequence[SaeRef], model: LanguageModel, layer: int, component_layer: int, like: SaeRef
) -> list[ComponentSae]:
    """Per component the SAE on disk nearest in width to `like`, then in nominal L0; some components have none.

    Args:
        known: of the suite; see `suites.suite_of`.
        model: that they are of.
        layer: the residual stream is that before it.
        component_layer: of MLP and attention. The paper's text takes the layer before, its Eq. 16 and code the same
            layer (E-12, D-22).
        like: of the target.
    """
    hooks: dict[Component, str] = {
        "previous": hook_name_of("resid", layer - 1),
        "mlp": hook_name_of("mlp", component_layer),
        "attn": hook_name_of("attn", component_layer),
    }
    found = []
    for component, hook_name in hooks.items():
        here = [ref for ref in known if ref.hook_name == hook_name and ref.on_disk and ref.path is not None]
        if here:
            ref = min(
                here,
                key=lambda ref: (
                    abs(math.log(ref.d_sae / like.d_sae)),
                    abs((ref.nominal_l0 or math.inf) - (like.nominal_l0 or 0.0)),
                    ref.sae_id,
                ),
            )
            sae = load_sae(ref, model.device, model.check_hook(hook_name))
            found.append(ComponentSae(component=component, hook_name=hook_name, sae=sae))
    return found
