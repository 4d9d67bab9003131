"""SAEs of every published layout, as one sae-lens object in float32.

One file per layout turns a folder into sae-lens' own terms (a configuration and a state dictionary); what is common,
checking above all, happens here. Nothing in a folder is trusted: a tensor is read only if its name, shape and type are
those that the layout has, and no file can run code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources.layouts import FILES
from inspector.sources.loaders import dictionary_learning, gemma_scope, gemma_scope_2, llama_scope, sae_lens, sparsify
from inspector.sources.loaders.converted import Converted
from inspector.spec import LlamaGate, SaeFormat, SaeRef

_READERS: dict[SaeFormat, Callable[[SaeRef, Path], Converted]] = {
    "sae-lens": sae_lens.read,
    "gemma-scope": gemma_scope.read,
    "gemma-scope-2": gemma_scope_2.read,
    "llama-scope": llama_scope.read,
    "sparsify": sparsify.read,
    "dictionary-learning": dictionary_learning.read,
}
SHAPES = {"W_enc": ("d_in", "d_sae"), "W_dec": ("d_sae", "d_in"), "b_enc": ("d_sae",), "b_dec": ("d_in",)}
PER_LATENT = ("threshold", "b_mag", "b_gate", "r_mag")


def read_sae(ref: SaeRef, device: torch.device | str, *, llama_gate: LlamaGate = "published") -> tuple[Any, str | None]:
    """The sae-lens object in float32 on the device, and the name of its gate where a layout leaves a choice.

    Args:
        ref: with `path` set: the folder of its files.
        device: where it goes.
        llama_gate: of Llama Scope; see `llama_scope`.

    Raises:
        TargetError: files that are missing, damaged, or not of this layout.
    """
    from sae_lens import SAE

    folder = Path(ref.path or "")
    for name in FILES[ref.format]:
        if (folder / name).exists() and not (folder / name).is_file():  # a pipe would be waited for, for ever
            raise TargetError(f"{folder / name} is not a regular file. Copy the SAE again.")
    if ref.format == "llama-scope":
        converted = llama_scope.read(ref, folder, gate=llama_gate)
    else:
        converted = _READERS[ref.format](ref, folder)

    def converter(_path: Any, _device: str, cfg_overrides: Any = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state = {name: value.to(_device, torch.float32).contiguous() for name, value in converted.state.items()}
        return {**converted.cfg, **(cfg_overrides or {}), "device": _device}, state

    if ref.format != "sae-lens":
        _check(ref, converted.state)
    return SAE.load_from_disk(folder, device=str(device), dtype="float32", converter=converter), converted.gate


def _check(ref: SaeRef, state: Mapping[str, Tensor]) -> None:
    """Refuse shapes that are not what the reference promises; swapped matrices are such."""
    sizes = {"d_in": ref.d_in, "d_sae": ref.d_sae}
    for name, value in state.items():
        expected = SHAPES.get(name, ("d_sae",) if name in PER_LATENT else None)
        if expected is not None and tuple(value.shape) != tuple(sizes[size] for size in expected):
            shape = [sizes[size] for size in expected]
            raise TargetError(
                f"SAE {ref.sae_id!r} has {name} of shape {list(value.shape)} instead of {shape}. "
                "Its file is damaged or another SAE's; fetch it again."
            )
