"""OpenMOSS: Llama Scope's `hyperparams.json` with `checkpoints/final.safetensors`, and the newer `config.json` with
`sae_weights.safetensors`. Run as the authors' loader runs them.

Three steps turn the stored weights into an SAE of plain activations. The data set's norm is folded: the encoder reads
x times `factor`, the decoder's output is divided by it. Every latent is rescaled to a decoder row of unit norm, which
moves its activation by that norm. Then the published threshold is applied. sae-lens leaves out the second step; where
decoder rows are not of unit norm it lets other latents through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError
from inspector.formats.hooks import hook_of_name
from inspector.formats.layout import TRANSCODER, Facts, Folder, Layout, Named, Refused, Settings, number_of
from inspector.formats.weights import Converted, Folds, Weights, config

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


def _about(path: Path) -> Settings:
    """The configuration of an SAE of one hook whose every key that matters is one that is honoured.

    Raises:
        Refused: it is none, or a key asks for what is not done here.
    """
    about, folder = Settings.read(path), path.parent
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


def _nominal_l0(about: Settings, usual: float | None) -> float | None:
    """The k of training; newer configurations of other activations than TopK have one too, which nothing reads."""
    if usual is None and _activation(about) != "topk":
        return None
    return number_of(about.get("top_k") or about.get("k")) or usual


def _activation(about: Mapping[str, Any]) -> str:
    return str(about.get("act_fn") or about.get("activation_fn") or "jumprelu").lower()


def _latents(about: Settings, d_in: int) -> int:
    if about.get("d_sae") is not None:
        return about.whole("d_sae")
    return d_in * about.whole("expansion_factor")


def _named(repo: str, path: str, _sae_id: str, _release: str) -> Named:
    match = re.search(r"-L(\d+)([RMA])-(\d+)x$", path) or re.search(r"/L(\d+)(R)()$", path)
    if match is None:
        return Named(refused=TRANSCODER if "TC" in path else None)
    ends = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}
    d_sae = 4096 * int(match[3]) if match[3] else None
    return Named(hook_name=f"blocks.{match[1]}.{ends[match[2]]}", d_sae=d_sae)


def _converted(ref: SaeRef, about: Settings, path: Path, gate: str) -> Converted:
    import torch

    stored = Weights.of_safetensors(path)
    factor = _factor(about, ref)
    w_dec, folds = stored.pick("decoder.weight").T, Folds()
    norm = folds.row_norms("W_dec", w_dec)
    if not bool((norm > 0).all()):
        raise TargetError(f"{path} has {int((norm == 0).sum())} decoder rows of zero, which no threshold suits.")
    b_dec = stored.pick("decoder.bias").float() if about.get("use_decoder_bias", True) else torch.zeros(ref.d_in)
    # In units of x: a row of the decoder divided by the factor has norm `norm / factor`.
    scale = norm / factor
    folds.then("W_enc", lambda part, at: part * factor * scale[at])
    folds.then("W_dec", lambda part, at: part / norm[at, None])
    state = {
        "W_enc": stored.pick("encoder.weight").T,
        "b_enc": stored.pick("encoder.bias").float() * scale,
        "W_dec": w_dec,
        "b_dec": b_dec / factor,
    }
    activation, gates = _activation(about), None
    if activation == "relu":
        cfg = config("standard", ref)
    elif activation == "topk":  # not saved for inference: as in training
        k = about.whole("top_k" if about.get("top_k") else "k")
        cfg = config("topk", ref, k=min(k, ref.d_sae))
    elif gate == "topk":
        cfg, gates = config("topk", ref, k=min(TOP_K, ref.d_sae)), GATES["topk"]
    else:
        state["threshold"] = _threshold(about, stored, ref.d_sae, factor)
        cfg, gates = config("jumprelu", ref), GATES["published"]
    return Converted(cfg=cfg, state=state, gate=gates, folds=folds, source=stored)


def _threshold(about: Settings, stored: Weights, d_sae: int, factor: float) -> Tensor:
    """[d_sae] in units of x: the stored one per latent, of activations in the data set's unit; or one for all."""
    import torch

    if "log_jumprelu_threshold" in stored:
        return stored.pick("log_jumprelu_threshold").float().exp() / factor
    threshold = about.get("jump_relu_threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < float("inf"):
        raise TargetError(f"{about.path} has no jump_relu_threshold but {threshold!r}. It is not a published SAE.")
    return torch.full((d_sae,), float(threshold))


def _factor(about: Settings, ref: SaeRef) -> float:
    """sqrt(d) over the mean norm of the activations it was trained on; 1 where the weights are folded already.

    Raises:
        TargetError: it is not known, or the folder and the registry disagree.
    """
    if about.get("norm_activation") == "inference":
        return 1.0
    norm = about.part("dataset_average_activation_norm").number("in")
    if norm is None:
        if ref.norm_factor is None:
            raise TargetError(
                f"{about.path} has no dataset_average_activation_norm for its input, and no registry gives it. "
                "Without it the SAE's scale is not known."
            )
        return ref.norm_factor
    factor = float(ref.d_in**0.5 / norm)
    if ref.norm_factor is not None and abs(factor / ref.norm_factor - 1) > 0.01:
        raise TargetError(
            f"{about.path} gives a norm factor of {factor:.4g}, but the registry {ref.norm_factor:.4g}. "
            "They are not of the same SAE; fetch it again."
        )
    return factor


def _layout(name: str, conversion: str, files: tuple[str, str], *, usual_l0: float | None, stored_bytes: int) -> Layout:
    """One of the two: its configuration and weights, and the L0 where all were trained with the same."""
    file, weights = files

    def facts(folder: Folder) -> Facts:
        about = _about(folder.path / file)
        point, d_in = about.text("hook_point_in"), about.whole("d_model")
        return Facts(
            d_in=d_in,
            d_sae=_latents(about, d_in),
            hook_name=None if point is None else hook_of_name(point),
            weights=folder.path / weights,
            l0=_nominal_l0(about, usual_l0),
            model=about.text("model_name"),
            notes=about.unknown(_READ | _OF_TRAINING),
        )

    def read(ref: SaeRef, folder: Path, gate: str) -> Converted:
        asked = gate if usual_l0 is not None else "published"  # only Llama Scope was trained with its 50 largest
        return _converted(ref, _about(folder / file), folder / weights, asked)

    return Layout(
        name=name,
        files=files,
        facts=facts,
        read=read,
        conversions=(conversion,),
        named=_named,
        is_family=True,
        stored_bytes=stored_bytes,
        loading_halves=3,
    )


LAYOUTS = (
    _layout(
        "llama-scope",
        "llama_scope",
        ("hyperparams.json", "checkpoints/final.safetensors"),
        usual_l0=float(TOP_K),
        stored_bytes=2,
    ),
    _layout(
        "openmoss",
        "llama_scope_r1_distill",
        ("config.json", "sae_weights.safetensors"),
        usual_l0=None,
        stored_bytes=4,
    ),
)
