"""SAEs that were trained on a model whose writing weights are centred, run on the model as it is published.

transformer-lens can take off every weight that writes to the residual stream its mean over dimensions. A model whose
norms are LayerNorms computes the same logits then, as these take that mean off anyway; only the stream and what is
added to it lose their mean over dimensions, one number per token. An SAE of such a stream reads x without that mean
here, and what it makes has it again: `sae_error` is exactly the error on the processed model, and a splice of x_hat
gives its logits. FVU is of x as published, mean included. Layer-normed SAEs of sae-lens do the same with that mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import SaeRef

_STREAM = re.compile(r"(?:blocks\.\d+\.)?hook_(?:resid_pre|resid_mid|resid_post|mlp_out|attn_out|embed|pos_embed)$")
"""Hooks whose values weights write directly."""
_HARMLESS = frozenset(
    {"center_unembed", "n_devices", "dtype", "device", "torch_dtype", "trust_remote_code", "revision"}
)
"""Arguments of loading that change no activation, or none that is chosen here."""
CENTRING = "center_writing_weights"


def is_centred(hook_name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Whether an SAE with these `model_from_pretrained_kwargs` reads a stream without its mean over dimensions."""
    return bool((kwargs or {}).get(CENTRING)) and _STREAM.match(hook_name) is not None


def processing(hook_name: str, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of `model_from_pretrained_kwargs`, what was done to the model in training and is not done here."""
    done = {CENTRING} if _STREAM.match(hook_name) else set()
    return {key: value for key, value in (kwargs or {}).items() if value and key not in _HARMLESS and key not in done}


def centre(sae: Any) -> None:
    """Let a sae-lens object take off each token's mean over dimensions before it encodes, and put it back.

    It keeps the last input's means in between, as its own normalisations keep their scales: decode after each encode.
    """
    inner_in, inner_out = sae.run_time_activation_norm_fn_in, sae.run_time_activation_norm_fn_out
    kept: list[Tensor] = []

    def without(x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        kept[:] = [mean]
        centred: Tensor = inner_in(x - mean)
        return centred

    def again(x_hat: Tensor) -> Tensor:
        whole: Tensor = inner_out(x_hat) + kept[0][: len(x_hat)]
        return whole

    sae.run_time_activation_norm_fn_in, sae.run_time_activation_norm_fn_out = without, again


def note(ref: SaeRef) -> str:
    """What a user should know about a centred SAE."""
    return (
        f"SAE {ref.sae_id} was trained on a stream without its mean over dimensions ({CENTRING}): it is taken off "
        "before the SAE and put back behind it, so that the error is that of training."
    )
