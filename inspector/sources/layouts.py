"""Which files an SAE of each published layout consists of, below its folder. No torch: lists and downloads need it."""

from __future__ import annotations

from inspector.spec import SaeFormat

FILES: dict[SaeFormat, tuple[str, ...]] = {
    "sae-lens": ("cfg.json", "sae_weights.safetensors"),
    "gemma-scope": ("params.npz",),
    "gemma-scope-2": ("config.json", "params.safetensors"),
    "llama-scope": ("hyperparams.json", "checkpoints/final.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "dictionary-learning": ("config.json", "ae.pt"),
}
"""Small files first, weights last."""
