"""Models and SAEs of other publishers than Gemma Scope, in the hub's cache layout and in folders, healthy and tiny.

Random weights, exact formats. Beside each stands what its authors compute with the files, in NumPy and float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tests import toy
from tests.published import Published, snapshot_folder, token_rows

D, HEADS, CONTEXT, VOCABULARY, LAYER = 32, 4, 128, 300, 1
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Reference = Callable[[Path, Array, Array], Array]
"""Folder, x [n, d] and the l0 [n] that the program counted, to x_hat [n, d]; see `gated`."""
ROUNDING = 1e-5
"""Relative to the threshold: float32's error of a product of 32 terms, with room."""
_IDS = {"pad_token_id": toy.PAD_ID, "bos_token_id": toy.BOS_ID, "eos_token_id": toy.EOS_ID}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=D,
            intermediate_size=2 * D,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.5 * D**-0.5,
            **_IDS,
        )
    )


def gemma_3() -> PreTrainedModel:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=VOCABULARY,
            hidden_size=D,
            intermediate_size=2 * D,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            head_dim=D // HEADS,
            query_pre_attn_scalar=D // HEADS,
            max_position_embeddings=CONTEXT,
            sliding_window=CONTEXT // 2,
            initializer_range=0.5 * D**-0.5,
            **_IDS,
        )
    )


def pythia() -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=D,
            intermediate_size=4 * D,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            initializer_range=0.5 * D**-0.5,
            **_IDS,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=D,
            n_layer=3,
            n_head=HEADS,
            n_positions=CONTEXT,
            initializer_range=0.5 * D**-0.5,
            **_IDS,
        )
    )


def publish_model(cache: Path, repo: str, make: Callable[[], PreTrainedModel]) -> Published:
    """The model under its published id."""
    folder = snapshot_folder(cache, repo)
    torch.manual_seed(5)
    make().save_pretrained(folder)
    toy.save_tokenizer(toy.toy_tokenizer(VOCABULARY), folder, CONTEXT)
    return Published(cache=cache, model=folder, saes=folder)


@torch.inference_mode()
def residual_stream(model: Path, token_ids: torch.Tensor, layer: int = LAYER) -> Array:
    """[c, t, d] float64 after a block, from transformers alone."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    blocks = next(module for module in loaded.modules() if isinstance(module, torch.nn.ModuleList))
    taken: list[torch.Tensor] = []
    handle = blocks[layer].register_forward_hook(
        lambda _module, _inputs, output: taken.append(output[0] if isinstance(output, tuple) else output)
    )
    for row in token_ids.split(1):
        loaded(row, use_cache=False)
    handle.remove()
    return torch.cat([value.reshape(1, token_ids.shape[1], -1) for value in taken]).double().numpy()


@dataclass(frozen=True, kw_only=True)
class Directions:
    """An SAE that explains some of x: codes are `scale` times the projection, where it passes."""

    rows: Array
    """[m, d], of unit norm."""
    mean: Array
    theta: float
    """Projections above it pass, so many that `l0` do on average."""
    scale: float


def directions(
    published: Published, d_sae: int, l0: float, *, top_k: bool = False, centred: bool = False
) -> Directions:
    """Fitted to the model's own activations; centred: without each token's mean over dimensions."""
    x = residual_stream(published.model, token_rows(published, 80, CONTEXT))[:, 16:].reshape(-1, D)
    x = x - centred * x.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(d_sae)
    x = x[rng.choice(len(x), 1500, replace=False)]
    rows = rng.standard_normal((d_sae, D))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mean = x.mean(axis=0)
    z = (x - mean).astype(np.float32) @ rows.T.astype(np.float32)
    n_below = round((1 - l0 / d_sae) * z.size)
    theta = float(np.partition(z.ravel(), n_below)[n_below])
    passes = z >= np.sort(z, axis=1)[:, -int(l0)][:, None] if top_k else z > theta
    made = np.where(passes, z, 0) @ rows
    return Directions(rows=rows, mean=mean, theta=theta, scale=float((made * (x - mean)).sum() / (made**2).sum()))


def _tensors(values: dict[str, Array], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)).to(dtype) for name, value in values.items()}


def gated(z: Array, threshold: float | Array, l0: Array) -> Array:
    """Codes: z [n, m] where it passes the threshold.

    A latent within float32's rounding of it may fall on either side. Where the program counted one more or fewer, the
    nearest is put on the program's side if it is that near; otherwise the counts stay different and are an error.
    """
    passes = z > threshold
    margin = np.abs(z - threshold) / np.max(threshold)
    counts = passes.sum(axis=1)
    assert (counts != l0).mean() < 0.02, "counts differ at more tokens than rounding explains"
    for row in np.flatnonzero(counts != l0):
        (near,) = np.nonzero(margin[row] < ROUNDING)
        passes[row, near] = counts[row] < l0[row]
    assert (passes.sum(axis=1) == l0).all(), "counts differ where no latent is near its threshold"
    return np.where(passes, np.maximum(z, 0), 0)


# ---- Llama Scope ----------------------------------------------------------------------------------------------------


def llama_scope(folder: Path, made: Directions, *, d_sae: int, factor: float) -> None:
    """With decoder rows of different norms, as the published ones have; stored in bfloat16."""
    norm = np.random.default_rng(1).uniform(0.5, 2.5, d_sae)  # after the data set's norm was folded
    (folder / "checkpoints").mkdir(parents=True)
    about = {
        "d_model": D,
        "d_sae": d_sae,
        "hook_point_in": f"blocks.{LAYER}.hook_resid_post",
        "jump_relu_threshold": made.theta * made.scale,
        "dataset_average_activation_norm": {"in": D**0.5 / factor, "out": D**0.5 / factor},
    }
    (folder / "hyperparams.json").write_text(json.dumps(about))
    stored = {
        "encoder.weight": made.scale * made.rows / (norm[:, None] * factor),
        "encoder.bias": -made.scale * (made.rows @ made.mean) / norm,
        "decoder.weight": (made.rows * norm[:, None] * factor).T,
        "decoder.bias": made.mean * factor,
    }
    save_file(_tensors(stored, torch.bfloat16), folder / "checkpoints" / "final.safetensors")


def run_llama_scope(folder: Path, x: Array, l0: Array) -> Array:
    """The three steps of its authors: fold the norm, make decoder rows of unit norm, apply the threshold."""
    about = json.loads((folder / "hyperparams.json").read_text())
    from safetensors.torch import load_file as load_torch

    raw = load_torch(folder / "checkpoints" / "final.safetensors")
    w = {name: value.float().double().numpy() for name, value in raw.items()}
    factor = about["d_model"] ** 0.5 / about["dataset_average_activation_norm"]["in"]
    w_dec = w["decoder.weight"].T / factor
    norm = np.linalg.norm(w_dec, axis=1)
    z = (x * factor @ w["encoder.weight"].T + w["encoder.bias"]) * norm
    return gated(z, about["jump_relu_threshold"], l0) @ (w_dec / norm[:, None]) + w["decoder.bias"] / factor


def openmoss(folder: Path, made: Directions, *, d_sae: int, factor: float) -> None:
    """The newer folders: a threshold per latent, of activations scaled by decoder norms, in the data set's unit."""
    norm = np.random.default_rng(2).uniform(0.5, 2.5, d_sae)
    folder.mkdir(parents=True)
    point = f"blocks.{LAYER}.hook_resid_post"
    about = {
        "sae_type": "sae",
        "d_model": D,
        "expansion_factor": d_sae // D,
        "hook_point_in": point,
        "hook_point_out": point,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(about))
    stored = {
        "encoder.weight": made.scale * made.rows / norm[:, None],
        "encoder.bias": -made.scale * factor * (made.rows @ made.mean) / norm,
        "decoder.weight": (made.rows * norm[:, None]).T,
        "decoder.bias": made.mean * factor,
        "log_jumprelu_threshold": np.log(np.full(d_sae, made.theta * made.scale * factor)),
    }
    save_file(_tensors(stored), folder / "sae_weights.safetensors")


def run_openmoss(factor: float) -> Callable[[Path, Array, Array], Array]:
    """Of a factor that the registry alone knows."""

    def run(folder: Path, x: Array, l0: Array) -> Array:
        w = {name: value.astype(np.float64) for name, value in load_file(folder / "sae_weights.safetensors").items()}
        norm = np.linalg.norm(w["decoder.weight"], axis=0)
        z = (x * factor @ w["encoder.weight"].T + w["encoder.bias"]) * norm
        codes = gated(z, np.exp(w["log_jumprelu_threshold"]), l0) / norm
        return (codes @ w["decoder.weight"].T + w["decoder.bias"]) / factor

    return run


# ---- sae-lens, of a GPT-2 with centred writing weights --------------------------------------------------------------


def centred_gpt2(folder: Path, made: Directions, *, d_sae: int, hook_name: str) -> None:
    """As sae-lens wrote it before version 6. That the stream was centred only the registry says."""
    folder.mkdir(parents=True)
    about = {"d_in": D, "d_sae": d_sae, "dtype": "torch.float32", "hook_point": hook_name, "model_name": "gpt2-small"}
    (folder / "cfg.json").write_text(json.dumps(about))
    stored = {
        "W_enc": made.rows.T,
        "b_enc": np.full(d_sae, -made.theta),
        "W_dec": made.scale * made.rows,
        "b_dec": made.mean,
    }
    save_file(_tensors(stored), folder / "sae_weights.safetensors")


def run_centred_gpt2(folder: Path, x: Array, l0: Array) -> Array:
    w = {name: value.astype(np.float64) for name, value in load_file(folder / "sae_weights.safetensors").items()}
    mean = x.mean(axis=1, keepdims=True)
    z = np.maximum((x - mean - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    assert ((z > 0).sum(axis=1) == l0).mean() > 0.98  # a latent may lie within rounding of its threshold, and adds 0
    return z @ w["W_dec"] + w["b_dec"] + mean


# ---- Gemma Scope 2 --------------------------------------------------------------------------------------------------


def gemma_scope_2(folder: Path, made: Directions, *, d_sae: int, l0: float) -> None:
    folder.mkdir(parents=True)
    stored = {
        "w_enc": made.rows.T,
        "w_dec": made.scale * made.rows,
        "b_enc": -(made.rows @ made.mean),
        "b_dec": made.mean,
        "threshold": np.full(d_sae, made.theta),
    }
    save_file(_tensors(stored), folder / "params.safetensors")
    about = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "type": "sae", "width": d_sae, "l0": l0}
    (folder / "config.json").write_text(json.dumps(about))


def run_gemma_scope_2(folder: Path, x: Array, l0: Array) -> Array:
    w = {name: value.astype(np.float64) for name, value in load_file(folder / "params.safetensors").items()}
    z = x @ w["w_enc"] + w["b_enc"]
    return gated(z, w["threshold"], l0) @ w["w_dec"] + w["b_dec"]


# ---- sparsify -------------------------------------------------------------------------------------------------------


def sparsify(folder: Path, made: Directions, *, d_sae: int, k: int) -> None:
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"expansion_factor": 32, "num_latents": d_sae, "k": k, "d_in": D}))
    stored = {
        "encoder.weight": made.rows,
        "encoder.bias": np.zeros(d_sae),
        "W_dec": made.scale * made.rows,
        "b_dec": made.mean,
    }
    save_file(_tensors(stored), folder / "sae.safetensors")


def run_sparsify(folder: Path, x: Array, l0: Array) -> Array:
    w = {name: value.astype(np.float64) for name, value in load_file(folder / "sae.safetensors").items()}
    k = json.loads((folder / "cfg.json").read_text())["k"]
    z = np.maximum((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0)
    codes = np.where(z >= np.sort(z, axis=1)[:, -k][:, None], z, 0)
    assert ((codes > 0).sum(axis=1) == l0).all()
    return codes @ w["W_dec"] + w["b_dec"]


# ---- dictionary_learning --------------------------------------------------------------------------------------------


def dictionary_learning(folder: Path, made: Directions, *, d_sae: int, k: int, model: str) -> None:
    """BatchTopK, run with the threshold that was found for it."""
    folder.mkdir(parents=True)
    trainer = {
        "dict_class": "BatchTopKSAE",
        "activation_dim": D,
        "dict_size": d_sae,
        "k": k,
        "layer": LAYER,
        "lm_name": model,
    }
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": CONTEXT}}))
    stored = {
        "encoder.weight": made.rows,
        "encoder.bias": np.zeros(d_sae),
        "decoder.weight": (made.scale * made.rows).T,
        "b_dec": made.mean,
    }
    torch.save(_tensors(stored) | {"threshold": torch.tensor(made.theta), "k": torch.tensor(k)}, folder / "ae.pt")


def run_dictionary_learning(folder: Path, x: Array, l0: Array) -> Array:
    w = {name: value.double().numpy() for name, value in torch.load(folder / "ae.pt", weights_only=True).items()}
    z = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    return gated(z, w["threshold"], l0) @ w["decoder.weight"].T + w["b_dec"]
