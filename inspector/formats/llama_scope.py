"""OpenMOSS: Llama Scope's `hyperparams.json` with `checkpoints/final.safetensors`, and the newer `config.json` with
`sae_weights.safetensors`. Run as the authors' loader runs them.

Three steps turn the stored weights into an SAE of plain activations. The data set's norm is folded: the encoder reads
x times `factor`, the decoder's output is divided by it. Every latent is rescaled to a decoder row of unit norm, which
moves its activation by that norm. Then the published threshold is applied. sae-lens leaves out the second step; where
decoder rows are not of unit norm it lets other latents through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError
from inspector.formats.hooks import hook_of_name
from inspector.formats.layout import (
    Converted,
    Facts,
    Folder,
    Layout,
    Named,
    Refused,
    config,
    number_of,
    pick,
    read_json,
    read_safetensors,
    text_of,
    unknown_keys,
    whole_number,
)
from inspector.formats.refused import TRANSCODER

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import LlamaGate, SaeRef

TOP_K = 50
"""Latents per token in the authors' training."""
GATES: dict[LlamaGate, str] = {
    "published": "published JumpReLU threshold on unit-norm decoder rows",
    "topk": f"the {TOP_K} largest on unit-norm decoder rows",
}
_ACTIVATIONS = ("jumprelu", "topk", "relu")
_READ = frozenset(
    (
        "act_fn", "activation_fn", "apply_decoder_bias_to_pre_encoder", "d_model", "d_sae",
        "dataset_average_activation_norm", "expansion_factor", "hook_point_in", "hook_point_out", "hook_points",
        "jump_relu_threshold", "norm_activation", "sae_type", "sparsity_include_decoder_norm", "top_k",
        "use_decoder_bias", "use_glu_encoder", "k", "d_head", "model_name",
    )
)  # fmt: skip
_OF_TRAINING = frozenset(
    (
        "d_sae", "decoder_exactly_unit_norm", "decoder_exactly_fixed_norm", "device", "dtype", "fp16",
        "l1_coefficient", "l1_coefficient_warmup_steps", "lp", "sae_pretrained_name_or_path", "seed",
        "strict_loading", "tp_size", "ddp_size", "use_ghost_grads", "ghost_grads", "init_decoder_norm",
        "init_encoder_norm", "init_encoder_with_decoder_transpose", "init_search", "initial_k", "k_warmup_steps",
        "norm_activation_value", "remove_gradient_parallel_to_decoder_directions", "tied", "transcoder",
        "clip_grad_norm", "batch_size", "lr", "betas", "jumprelu_threshold_window", "use_triton_kernel",
        "sparsity_threshold_for_triton_spmm_kernel",
    )
)  # fmt: skip
"""Keys that say how it was trained and nothing about what it computes."""


def _about(folder: Path, file: str) -> dict[str, Any]:
    """The configuration of an SAE of one hook whose every key that matters is one that is honoured.

    Raises:
        Refused: it is none, or a key asks for what is not done here.
    """
    path = folder / file
    about = read_json(path)
    kind = str(about.get("sae_type") or "sae").lower()
    if kind != "sae" or "hook_points" in about:
        what = TRANSCODER if "transcoder" in kind else f"of the type {about.get('sae_type')!r}"
        raise Refused(f"{folder} is {what}. Choose an SAE of one hook.")
    point_in, point_out = about.get("hook_point_in"), about.get("hook_point_out")
    if point_in and point_out and point_in != point_out:
        raise Refused(f"{folder} is {TRANSCODER} ({point_in} and {point_out} differ). Choose an SAE.")
    if about.get("use_glu_encoder"):
        raise Refused(f"{path} asks for use_glu_encoder, which is not known here. Choose another SAE.")
    if about.get("sparsity_include_decoder_norm") is False:
        raise Refused(
            f"{path} has sparsity_include_decoder_norm false: its threshold is of activations that are not scaled by "
            "decoder norms, which is not done here. Choose another SAE."
        )
    if about.get("apply_decoder_bias_to_pre_encoder"):
        raise Refused(f"{path} asks for apply_decoder_bias_to_pre_encoder, which is not done here. Choose another SAE.")
    norm = about.get("norm_activation", "dataset-wise")
    if norm not in ("dataset-wise", "inference"):
        raise Refused(f"{path} has norm_activation {norm!r}; known here are 'dataset-wise' and 'inference'.")
    activation = _activation(about)
    if activation not in _ACTIVATIONS:
        raise Refused(f"{path} has the activation {activation!r}; known here are {', '.join(_ACTIVATIONS)}.")
    return about


def _facts_of(folder: Folder, file: str, weights: str, usual_l0: float | None) -> Facts:
    about = _about(folder.path, file)
    path = folder.path / file
    point = text_of(about.get("hook_point_in"))
    d_in = whole_number(about, "d_model", path)
    notes = unknown_keys(about, _READ | _OF_TRAINING, str(path))
    return Facts(
        d_in=d_in,
        d_sae=_latents(about, d_in, path),
        hook_name=None if point is None else hook_of_name(point),
        weights=folder.path / weights,
        l0=_nominal_l0(about, usual_l0),
        model=text_of(about.get("model_name")),
        notes=notes,
    )


def _nominal_l0(about: Mapping[str, Any], usual: float | None) -> float | None:
    """The k of training; newer configurations of other activations than TopK have one too, which nothing reads."""
    if usual is None and _activation(about) != "topk":
        return None
    return number_of(about.get("top_k") or about.get("k")) or usual


def _activation(about: Mapping[str, Any]) -> str:
    return str(about.get("act_fn") or about.get("activation_fn") or "jumprelu").lower()


def _latents(about: Mapping[str, Any], d_in: int, path: Path) -> int:
    if about.get("d_sae") is not None:
        return whole_number(about, "d_sae", path)
    return d_in * whole_number(about, "expansion_factor", path)


def _named(repo: str, path: str, _sae_id: str, _release: str) -> Named:
    match = re.search(r"-L(\d+)([RMA])-(\d+)x$", path) or re.search(r"/L(\d+)(R)()$", path)
    if match is None:
        return Named(refused=TRANSCODER if "TC" in path else None)
    ends = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}
    d_sae = 4096 * int(match[3]) if match[3] else None
    return Named(hook_name=f"blocks.{match[1]}.{ends[match[2]]}", d_sae=d_sae)


def _reader(file: str, weights: str, usual_l0: float | None) -> Callable[[SaeRef, Path, str], Converted]:
    def read(ref: SaeRef, folder: Path, gate: str) -> Converted:
        asked = gate if usual_l0 is not None else "published"  # only Llama Scope was trained with its 50 largest
        return _converted(ref, _about(folder, file), folder / file, folder / weights, asked)

    return read


def _teller(file: str, weights: str, usual_l0: float | None) -> Callable[[Folder], Facts]:
    return lambda folder: _facts_of(folder, file, weights, usual_l0)


def _converted(ref: SaeRef, about: Mapping[str, Any], about_path: Path, path: Path, gate: str) -> Converted:
    import torch

    d_in = whole_number(about, "d_model", about_path)
    d_sae = _latents(about, d_in, about_path)
    stored = read_safetensors(path)
    factor = _factor(about, d_in, about_path, ref)
    w_dec = pick(stored, ("decoder.weight",), path).float().T
    norm = w_dec.norm(dim=1)
    if not bool((norm > 0).all()):
        raise TargetError(f"{path} has {int((norm == 0).sum())} decoder rows of zero, which no threshold suits.")
    b_dec = pick(stored, ("decoder.bias",), path).float() if about.get("use_decoder_bias", True) else torch.zeros(d_in)
    # In units of x: a row of the decoder divided by the factor has norm `norm / factor`.
    scale = norm / factor
    state = {
        "W_enc": pick(stored, ("encoder.weight",), path).float().T * factor * scale,
        "b_enc": pick(stored, ("encoder.bias",), path).float() * scale,
        "W_dec": w_dec / norm[:, None],
        "b_dec": b_dec / factor,
    }
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "hook_name": ref.hook_name, "model": ref.model}
    activation = _activation(about)
    if activation == "relu":
        return Converted(cfg=config("standard", **common), state=state)
    if activation == "topk":  # not saved for inference: as in training
        k = whole_number(about, "top_k" if about.get("top_k") else "k", about_path)
        return Converted(cfg=config("topk", k=min(k, d_sae), **common), state=state)
    if gate == "topk":
        return Converted(cfg=config("topk", k=min(TOP_K, d_sae), **common), state=state, gate=GATES["topk"])
    state["threshold"] = _threshold(about, stored, d_sae, factor, about_path, path)
    return Converted(cfg=config("jumprelu", **common), state=state, gate=GATES["published"])


def _threshold(
    about: Mapping[str, Any], stored: Mapping[str, Tensor], d_sae: int, factor: float, about_path: Path, path: Path
) -> Tensor:
    """[d_sae] in units of x: the stored one per latent, of activations in the data set's unit; or one for all."""
    import torch

    if "log_jumprelu_threshold" in stored:
        return pick(stored, ("log_jumprelu_threshold",), path).float().exp() / factor
    threshold = about.get("jump_relu_threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < float("inf"):
        raise TargetError(f"{about_path} has no jump_relu_threshold but {threshold!r}. It is not a published SAE.")
    return torch.full((d_sae,), float(threshold))


def _factor(about: Mapping[str, Any], d_in: int, path: Path, ref: SaeRef) -> float:
    """sqrt(d) over the mean norm of the activations it was trained on; 1 where the weights are folded already.

    Raises:
        TargetError: it is not known, or the folder and the registry disagree.
    """
    if about.get("norm_activation") == "inference":
        return 1.0
    norms = about.get("dataset_average_activation_norm")
    norm = number_of(norms.get("in")) if isinstance(norms, dict) else None
    if norm is None:
        if ref.norm_factor is None:
            raise TargetError(
                f"{path} has no dataset_average_activation_norm for its input, and no registry gives it. "
                "Without it the SAE's scale is not known."
            )
        return ref.norm_factor
    factor = float(d_in**0.5 / norm)
    if ref.norm_factor is not None and abs(factor / ref.norm_factor - 1) > 0.01:
        raise TargetError(
            f"{path} gives a norm factor of {factor:.4g}, but the registry {ref.norm_factor:.4g}. "
            "They are not of the same SAE; fetch it again."
        )
    return factor


_OLDER_FILES = ("hyperparams.json", "checkpoints/final.safetensors")
_NEWER_FILES = ("config.json", "sae_weights.safetensors")
LAYOUTS = (
    Layout(
        name="llama-scope",
        files=_OLDER_FILES,
        facts=_teller(*_OLDER_FILES, float(TOP_K)),
        read=_reader(*_OLDER_FILES, float(TOP_K)),
        conversions=("llama_scope",),
        named=_named,
        stored_bytes=2,
        loading_halves=3,
    ),
    Layout(
        name="openmoss",
        files=_NEWER_FILES,
        facts=_teller(*_NEWER_FILES, None),
        read=_reader(*_NEWER_FILES, None),
        conversions=("llama_scope_r1_distill",),
        named=_named,
        stored_bytes=4,
        loading_halves=3,
    ),
)
