"""A TransformerBridge as a source of training activations: one pass, several hooks, heads flattened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError


class BridgeSource:
    """Call it with token ids [contexts, positions] to get activations [contexts, positions, d_in] by hook name.

    The pass ends with the last layer that is asked for.

    Args:
        bridge: a `TransformerBridge` (untyped here: importing it costs twenty seconds).
        hook_names: full names; one that does not exist raises `TargetError` at the first call, because the
            bridge itself passes over it in silence.
    """

    def __init__(self, bridge: Any, hook_names: Sequence[str]) -> None:
        self._bridge = bridge
        self._hook_names = list(dict.fromkeys(hook_names))
        layers = [re.match(r"blocks\.(\d+)\.", name) for name in self._hook_names]
        self._stop = max(int(layer[1]) for layer in layers if layer) + 1 if all(layers) else None

    @torch.inference_mode()
    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """One pass over `ids`; see the class."""
        device = next(self._bridge.parameters()).device
        _, cache = self._bridge.run_with_cache(
            ids.to(device),
            names_filter=self._hook_names,
            return_cache_object=False,
            stop_at_layer=self._stop,
            # The bridge keeps every attention pattern otherwise: more memory than all that is asked for.
            output_attentions=False,
        )
        missing = [name for name in self._hook_names if name not in cache]
        if missing:
            raise TargetError(f"The model has no hook {missing[0]!r}. Names look like blocks.3.hook_resid_post.")
        return {name: cache[name].flatten(2) for name in self._hook_names}
