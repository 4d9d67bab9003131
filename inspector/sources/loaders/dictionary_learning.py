"""dictionary_learning: `config.json` and `ae.pt`, read with torch's restricted unpickler and only as named tensors.

BatchTopK and Matryoshka are trained with a batch-wide top k and run with the threshold that was found for it, as
JumpReLU. TopK runs per token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted, config, pick, read_json, whole_number
from inspector.spec import SaeRef

FILES = layouts.FILES["dictionary-learning"]
ARCHITECTURES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
    "JumpReluAutoEncoder": "jumprelu",
}
"""By `dict_class`."""


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder; see the module.

    Raises:
        TargetError: a file is missing or damaged, holds anything but tensors, or is of an unknown class.
    """
    about_path, path = folder / FILES[0], folder / FILES[1]
    trainer = read_json(about_path).get("trainer")
    if not isinstance(trainer, dict):
        raise TargetError(f"{about_path} has no trainer. It is not an SAE of dictionary_learning.")
    kind = trainer.get("dict_class")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise TargetError(f"{about_path} names the class {kind!r}, which is not supported. Known: {known}.")
    d_in = whole_number(trainer, "activation_dim", about_path)
    d_sae = whole_number(trainer, "dict_size", about_path)
    stored = _tensors(path)
    architecture = ARCHITECTURES[str(kind)]
    more: dict[str, Any] = {"apply_b_dec_to_input": kind != "JumpReluAutoEncoder"}
    state = {
        "W_enc": _rows(pick(stored, ("W_enc", "encoder.weight"), path), d_in, d_sae),
        "W_dec": _rows(pick(stored, ("W_dec", "decoder.weight"), path), d_sae, d_in),
        "b_dec": pick(stored, ("b_dec", "bias", "decoder_bias"), path),
    }
    if architecture == "gated":
        state |= {ours: pick(stored, (theirs,), path) for ours, theirs in _GATED.items()}
    else:
        state["b_enc"] = pick(stored, ("b_enc", "encoder.bias"), path)
    if architecture == "topk":
        more["k"] = whole_number(trainer, "k", about_path)
    if architecture == "jumprelu":
        threshold = pick(stored, ("threshold",), path).float()
        state["threshold"] = threshold if threshold.ndim == 1 else threshold.expand(d_sae)
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "hook_name": ref.hook_name, "model": ref.model}
    return Converted(cfg=config(architecture, **common) | more, state=state)


_GATED = {"b_mag": "mag_bias", "b_gate": "gate_bias", "r_mag": "r_mag"}


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's tensors by name. `weights_only` refuses whatever could run code."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and its restricted reader raise some ten kinds
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise TargetError(
            f"{path} is not a file of plain tensors ({first}). It is not loaded; fetch it again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise TargetError(f"{path} holds something else than named tensors. It is not loaded.")
    return {str(name): value for name, value in found.items()}


def _rows(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix as [rows, columns]; torch.nn.Linear stores it the other way round."""
    return matrix if tuple(matrix.shape) == (rows, columns) else matrix.T
