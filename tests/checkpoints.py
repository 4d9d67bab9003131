"""Tiny SAEs in the exact layouts in which they are published, and what each makes of x, in NumPy and float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE, K = 12, 40, 5
Array = np.ndarray[Any, np.dtype[np.float64]]
Reference = Callable[[Array], tuple[Array, Array]]
"""x [n, d] to x_hat [n, d] and codes [n, d_sae]."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Random, with decoder rows of different norms and biases that matter."""

    w_enc: Array
    w_dec: Array
    b_enc: Array
    b_dec: Array
    threshold: Array


def weights(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    w_dec = rng.standard_normal((D_SAE, D_IN)) * rng.uniform(0.5, 2.0, (D_SAE, 1)) / D_IN**0.5
    values = (w_dec.T + 0.1 * rng.standard_normal((D_IN, D_SAE)), w_dec)
    small = (0.1 * rng.standard_normal(D_SAE), 0.3 * rng.standard_normal(D_IN), rng.uniform(0.2, 0.9, D_SAE))
    w_enc, w_dec, b_enc, b_dec, threshold = (v.astype(np.float32).astype(np.float64) for v in (*values, *small))
    return Weights(w_enc=w_enc, w_dec=w_dec, b_enc=b_enc, b_dec=b_dec, threshold=threshold)


def tensor(value: Array, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).to(dtype)


def jumprelu(w: Weights, x: Array, *, subtract: bool = False) -> tuple[Array, Array]:
    z = (x - w.b_dec * subtract) @ w.w_enc + w.b_enc
    codes = np.where(z > w.threshold, np.maximum(z, 0), 0)
    return codes @ w.w_dec + w.b_dec, codes


def top_k(w: Weights, x: Array, k: int, *, subtract: bool = True) -> tuple[Array, Array]:
    z = np.maximum((x - w.b_dec * subtract) @ w.w_enc + w.b_enc, 0)
    codes = np.where(z >= np.sort(z, axis=1)[:, -k][:, None], z, 0)
    return codes @ w.w_dec + w.b_dec, codes


def write_gemma_scope(root: Path, w: Weights) -> tuple[Path, Reference]:
    folder = root / "layer_1" / "width_40" / "average_l0_7"
    folder.mkdir(parents=True)
    arrays = {"W_enc": w.w_enc, "W_dec": w.w_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    np.savez(folder / "params.npz", **{name: value.astype(np.float32) for name, value in arrays.items()})
    return folder, lambda x: jumprelu(w, x)


def write_gemma_scope_2(root: Path, w: Weights) -> tuple[Path, Reference]:
    folder = root / "resid_post" / "layer_1_width_40_l0_small"
    folder.mkdir(parents=True)
    arrays = {"w_enc": w.w_enc, "w_dec": w.w_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    save_file({name: tensor(value) for name, value in arrays.items()}, folder / "params.safetensors")
    about = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "width": 40, "l0": 10}
    (folder / "config.json").write_text(json.dumps(about))
    return folder, lambda x: jumprelu(w, x)


LLAMA_NORM, LLAMA_THRESHOLD = 7.0, 0.6


def write_llama_scope(root: Path, w: Weights) -> tuple[Path, Reference]:
    """The reference does its three steps one after the other, as the authors' loader does."""
    folder = root / "Llama3_1-8B-Base-L1R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    about = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "hook_point_in": "blocks.1.hook_resid_post",
        "jump_relu_threshold": LLAMA_THRESHOLD,
        "dataset_average_activation_norm": {"in": LLAMA_NORM, "out": LLAMA_NORM},
    }
    (folder / "hyperparams.json").write_text(json.dumps(about))
    stored = {
        "encoder.weight": w.w_enc.T,
        "encoder.bias": w.b_enc,
        "decoder.weight": w.w_dec.T,
        "decoder.bias": w.b_dec,
    }
    save_file({name: tensor(value) for name, value in stored.items()}, folder / "checkpoints" / "final.safetensors")
    return folder, lambda x: llama_scope(w, x)


def llama_folded(w: Weights, x: Array) -> tuple[Array, Array, Array]:
    """Activations before the gate, decoder and b_dec, after the norm was folded and rows made of unit norm."""
    factor = D_IN**0.5 / LLAMA_NORM
    w_dec, b_dec = w.w_dec / factor, w.b_dec / factor
    norm = np.linalg.norm(w_dec, axis=1)
    return (x @ (w.w_enc * factor) + w.b_enc) * norm, w_dec / norm[:, None], b_dec


def llama_scope(w: Weights, x: Array) -> tuple[Array, Array]:
    z, w_dec, b_dec = llama_folded(w, x)
    codes = np.where(z > LLAMA_THRESHOLD, z, 0)
    return codes @ w_dec + b_dec, codes


def write_sparsify(root: Path, w: Weights) -> tuple[Path, Reference]:
    folder = root / "layers.1"
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"expansion_factor": 32, "num_latents": D_SAE, "k": K, "d_in": D_IN}))
    stored = {"encoder.weight": w.w_enc.T, "encoder.bias": w.b_enc, "W_dec": w.w_dec, "b_dec": w.b_dec}
    save_file({name: tensor(value) for name, value in stored.items()}, folder / "sae.safetensors")
    return folder, lambda x: top_k(w, x, K)


def write_dictionary_learning(kind: str) -> Callable[[Path, Weights], tuple[Path, Reference]]:
    """A writer of one class of dictionary_learning."""

    def write(root: Path, w: Weights) -> tuple[Path, Reference]:
        folder = root / f"trainer_{kind}"
        folder.mkdir(parents=True)
        trainer = {
            "dict_class": kind,
            "activation_dim": D_IN,
            "dict_size": D_SAE,
            "k": K,
            "layer": 1,
            "lm_name": "EleutherAI/pythia-70m-deduped",
        }
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
        state, reference = _DICTIONARIES[kind](w)
        torch.save(state, folder / "ae.pt")
        return folder, reference

    return write


def _linear(w: Weights) -> dict[str, torch.Tensor]:
    return {
        "encoder.weight": tensor(w.w_enc.T),
        "encoder.bias": tensor(w.b_enc),
        "decoder.weight": tensor(w.w_dec.T),
    }


def _relu(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    def reference(x: Array) -> tuple[Array, Array]:
        codes = np.maximum((x - w.b_dec) @ w.w_enc + w.b_enc, 0)
        return codes @ w.w_dec + w.b_dec, codes

    return _linear(w) | {"bias": tensor(w.b_dec)}, reference


def _top_k(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    state = _linear(w) | {"b_dec": tensor(w.b_dec), "threshold": torch.tensor(0.5), "k": torch.tensor(K)}
    return state, lambda x: top_k(w, x, K)


def _batch_top_k(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    scalar = Weights(w_enc=w.w_enc, w_dec=w.w_dec, b_enc=w.b_enc, b_dec=w.b_dec, threshold=np.array(0.5))
    state = _linear(w) | {"b_dec": tensor(w.b_dec), "threshold": torch.tensor(0.5), "k": torch.tensor(K)}
    return state, lambda x: jumprelu(scalar, x, subtract=True)


def _matryoshka(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    _, reference = _batch_top_k(w)
    state = {"W_enc": tensor(w.w_enc), "W_dec": tensor(w.w_dec), "b_enc": tensor(w.b_enc), "b_dec": tensor(w.b_dec)}
    return state | {"threshold": torch.tensor(0.5), "k": torch.tensor(K)}, reference


def _jumprelu(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    state = {"W_enc": tensor(w.w_enc), "W_dec": tensor(w.w_dec), "b_enc": tensor(w.b_enc), "b_dec": tensor(w.b_dec)}
    return state | {"threshold": tensor(w.threshold)}, lambda x: jumprelu(w, x)


def _gated(w: Weights) -> tuple[dict[str, torch.Tensor], Reference]:
    rng = np.random.default_rng(5)
    r_mag, b_gate = (v.astype(np.float32).astype(np.float64) for v in rng.standard_normal((2, D_SAE)) * 0.2)

    def reference(x: Array) -> tuple[Array, Array]:
        z = (x - w.b_dec) @ w.w_enc
        codes = (z + b_gate > 0) * np.maximum(z * np.exp(r_mag) + w.b_enc, 0)
        return codes @ w.w_dec + w.b_dec, codes

    state = {
        "encoder.weight": tensor(w.w_enc.T),
        "decoder.weight": tensor(w.w_dec.T),
        "decoder_bias": tensor(w.b_dec),
        "r_mag": tensor(r_mag),
        "gate_bias": tensor(b_gate),
        "mag_bias": tensor(w.b_enc),
    }
    return state, reference


_DICTIONARIES = {
    "AutoEncoder": _relu,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jumprelu,
    "GatedAutoEncoder": _gated,
}
WRITERS: dict[str, Callable[[Path, Weights], tuple[Path, Reference]]] = {
    "gemma-scope": write_gemma_scope,
    "gemma-scope-2": write_gemma_scope_2,
    "llama-scope": write_llama_scope,
    "sparsify": write_sparsify,
    **{f"dictionary-learning {kind}": write_dictionary_learning(kind) for kind in _DICTIONARIES},
}
"""By layout, and class where there are several."""
