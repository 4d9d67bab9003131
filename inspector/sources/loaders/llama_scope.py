"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`, run as its authors' loader runs them.

Three steps turn the stored weights into an SAE of plain activations. The data set's norm is folded: the encoder reads
x times `factor`, the decoder's output is divided by it. Every latent is rescaled to a decoder row of unit norm, which
moves its activation by that norm. Then the one published threshold is applied to all latents. sae-lens leaves out the
middle step; where decoder rows are not of unit norm it lets other latents through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted, config, pick, read_json, read_safetensors, whole_number
from inspector.spec import LlamaGate, SaeRef

FILES = layouts.FILES["llama-scope"]
TOP_K = 50
"""Latents per token in the authors' training."""
GATES: dict[LlamaGate, str] = {
    "published": "published JumpReLU threshold on unit-norm decoder rows",
    "topk": f"the {TOP_K} largest on unit-norm decoder rows",
}


def read(ref: SaeRef, folder: Path, gate: LlamaGate = "published") -> Converted:
    """The SAE of a folder; see the module.

    Args:
        ref: its `norm_factor`, if it has one, must agree with the folder's own.
        folder: with both files.
        gate: 'published' thresholds, or the 50 largest latents of each token.

    Raises:
        TargetError: a file is missing or damaged, or the two norm factors differ.
    """
    about_path, path = folder / FILES[0], folder / FILES[1]
    about = read_json(about_path)
    d_in, d_sae = whole_number(about, "d_model", about_path), whole_number(about, "d_sae", about_path)
    factor = _factor(about, d_in, about_path)
    if ref.norm_factor is not None and abs(factor / ref.norm_factor - 1) > 0.01:
        raise TargetError(
            f"{about_path} gives a norm factor of {factor:.4g}, but the registry {ref.norm_factor:.4g}. "
            "They are not of the same SAE; fetch it again."
        )
    threshold = about.get("jump_relu_threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < float("inf"):
        raise TargetError(f"{about_path} has no jump_relu_threshold but {threshold!r}. Fetch it again.")
    stored = read_safetensors(path)
    w_dec = pick(stored, ("decoder.weight",), path).float().T
    norm = w_dec.norm(dim=1)
    if not bool((norm > 0).all()):
        raise TargetError(f"{path} has {int((norm == 0).sum())} decoder rows of zero, which no threshold suits.")
    # In units of x: a row of the decoder divided by the factor has norm `norm / factor`.
    scale = norm / factor
    state = {
        "W_enc": pick(stored, ("encoder.weight",), path).float().T * factor * scale,
        "b_enc": pick(stored, ("encoder.bias",), path).float() * scale,
        "W_dec": w_dec / norm[:, None],
        "b_dec": pick(stored, ("decoder.bias",), path).float() / factor,
    }
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "hook_name": ref.hook_name, "model": ref.model}
    if gate == "topk":
        return Converted(cfg=config("topk", k=min(TOP_K, d_sae), **common), state=state, gate=GATES[gate])
    state["threshold"] = torch.full((d_sae,), float(threshold))
    return Converted(cfg=config("jumprelu", **common), state=state, gate=GATES[gate])


def _factor(about: dict[str, object], d_in: int, path: Path) -> float:
    """sqrt(d) over the mean norm of the activations it was trained on."""
    norms = about.get("dataset_average_activation_norm")
    norm = norms.get("in") if isinstance(norms, dict) else None
    if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < float("inf"):
        raise TargetError(f"{path} has no dataset_average_activation_norm for its input. Fetch it again.")
    return float(d_in**0.5 / norm)
