"""Training activations from a bare TransformerBridge, several hooks in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.sources import hooks


class BridgeSource:
    """Call it with token ids [contexts, positions] to get activations [contexts, positions, d_in] by hook name.

    All contexts run in one batch and the pass ends with the last hook asked for, which is several times faster than a
    pass per context and hook. What is learned does not need the last bits that `LanguageModel` keeps the same.

    Args:
        bridge: a `TransformerBridge` (untyped here: importing it costs twenty seconds).
        hook_names: full names; one the model does not have raises `TargetError` at the first call.
    """

    def __init__(self, bridge: Any, hook_names: Sequence[str]) -> None:
        self._bridge = bridge
        self._hook_names = list(dict.fromkeys(hook_names))

    @torch.inference_mode()
    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """One pass over `ids`; see the class."""
        device = next(self._bridge.parameters()).device
        with hooks.capture(self._bridge.hook_dict, self._hook_names, stop=True) as taken:
            # The bridge keeps every attention pattern otherwise: more memory than all that is asked for.
            self._bridge.forward(ids.to(device), return_type="logits", output_attentions=False, use_cache=False)
        return {name: taken[name].flatten(2) for name in self._hook_names}
