"""sae-lens' own layout: `cfg.json` and `sae_weights.safetensors`, of any of its versions; training checkpoints as well.

What sae-lens would leave out without a word is done here or refused: scaling factors of fine-tuned SAEs, the activation
function of old configurations, the data set's norm that only the registry knows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.disk.files import MOST
from inspector.formats.hooks import hook_of_name, hook_of_point
from inspector.formats.layout import (
    CROSS_LAYER,
    TEMPORAL,
    TRANSCODER,
    Facts,
    Folder,
    Layout,
    Named,
    NoHook,
    Refused,
    Settings,
    number_of,
)
from inspector.formats.weights import Converted, Folds, Kept, Weights, stored_number

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import SaeRef

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = frozenset({"standard", "gated", "jumprelu", "topk", "matching_pursuit"})
"""That reconstruct a token from itself alone, as they are saved for use."""
TRAINED = frozenset({"batchtopk", "matryoshka_batchtopk"})
"""Saved by a checkpoint of training; used as JumpReLU with the threshold that training has found."""
_MATRICES = ("W_enc", "W_dec")
_ACTIVATIONS = {"standard": ("relu",), "gated": ("relu",), "jumprelu": ("relu", "jumprelu"), "topk": ("topk", "relu")}
_L0_IN_PATH = re.compile(r"(?:^|[/_-])(?:average_)?l0_(\d+(?:\.\d+)?)(?=$|[/_-])")
_HOOK_IN_ID = re.compile(
    r"blocks\.(\d+)\.(?:attn\.)?(hook_(?:resid_pre|resid_mid|resid_post|mlp_out|attn_out|z))(?:$|_)"
)
_KNOWN = frozenset(
    (
        "architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
        "reshape_activations", "metadata", "k", "rescale_acts_by_decoder_norm", "use_sparse_activations",
        "decoder_init_norm", "topk_threshold_lr", "aux_loss_coefficient", "matryoshka_widths", "l1_coefficient",
        "l1_warm_up_steps", "lp_norm", "l0_coefficient", "l0_warm_up_steps", "jumprelu_init_threshold",
        "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode", "jumprelu_tanh_scale", "pre_act_loss_coefficient",
        "residual_threshold", "max_iterations", "stop_on_duplicate_support", "detach_matryoshka_losses",
        "include_outer_loss", "use_matryoshka_aux_loss", "topk_warm_up_steps",
    )
)  # fmt: skip
"""Keys since version 6, of SAEs and of their training."""
_ABOUT_THE_RUN = frozenset(
    (
        "hook_name", "hook_point", "hf_hook_name", "hook_name_out", "hf_hook_name_out", "hook_layer", "hook_head_index",
        "model_name", "activation_fn", "activation_fn_str", "activation_fn_kwargs", "finetuning_scaling_factor",
        "prepend_bos", "seqpos_slice", "context_size", "exclude_special_tokens", "dataset_path", "sae_lens_version",
        "sae_lens_training_version", "neuronpedia_id",
    )
)  # fmt: skip
"""Keys that may stand beside the metadata as well as in it, and are read or judged in both places."""
_OF_OLD_RUNS = frozenset(
    (
        "act_store_device", "adam_beta1", "adam_beta2", "autocast", "autocast_lm", "b_dec_init_method",
        "cached_activations_path", "checkpoint_path", "compile_llm", "compile_sae", "dataset_trust_remote_code",
        "dead_feature_estimation_method", "dead_feature_threshold", "dead_feature_window", "decoder_heuristic_init",
        "decoder_heuristic_init_norm", "decoder_orthogonal_init", "eval_batch_size_prompts",
        "eval_every_n_wandb_logs", "expansion_factor", "feature_reinit_scale", "feature_sampling_method",
        "feature_sampling_window", "finetuning_method", "finetuning_tokens", "from_pretrained_path", "hook_eval",
        "hook_point_eval", "hook_point_head_index", "hook_point_layer", "init_encoder_as_decoder_transpose",
        "is_dataset_tokenized", "llm_compilation_mode", "log_activations_store_to_wandb",
        "log_optimizer_state_to_wandb", "log_to_wandb", "lr", "lr_decay_steps", "lr_end", "lr_scheduler_name",
        "lr_warm_up_steps", "model_class_name", "model_from_pretrained_kwargs", "model_kwargs",
        "mse_loss_normalization", "n_batches_in_buffer", "n_checkpoints", "n_eval_batches", "n_eval_seqs",
        "n_restart_cycles", "noise_scale", "normalize_sae_decoder", "resample_batches", "resume", "run_name",
        "sae_compilation_mode", "scale_sparsity_penalty_by_decoder_norm", "seed", "shuffle_buffer_size",
        "store_batch_size", "store_batch_size_prompts", "streaming", "tokens_per_buffer", "total_training_tokens",
        "train_batch_size", "train_batch_size_tokens", "training_tokens", "use_cached_activations",
        "use_ghost_grads", "verbose", "wandb_entity", "wandb_id", "wandb_log_frequency", "wandb_project",
    )
)  # fmt: skip
"""Keys up to version 5, whose files hold the whole of a run and no metadata: the fields that the classes
LanguageModelSAERunnerConfig, RunnerConfig, SAEConfig and TrainingSAEConfig had in any commit up to v5.11.0."""


def _about(folder: Path) -> Settings:
    """The configuration, of an SAE of one hook whose function is known.

    Raises:
        Refused: it is another kind of dictionary, or a key asks for what is not done here.
    """
    about = Settings.read(folder / CONFIG)
    both = {**about, **about.part("metadata")}
    architecture = str(about.get("architecture") or "standard")
    if "clt" in architecture or "crosscoder" in architecture:
        raise Refused(f"{folder} is {CROSS_LAYER} ({architecture}). Choose an SAE of one hook.")
    if "transcoder" in architecture:
        raise Refused(f"{folder} is {TRANSCODER} ({architecture}). Choose an SAE.")
    if architecture == "temporal":
        raise Refused(f"{folder} is {TEMPORAL}. Choose another SAE.")
    if architecture not in ARCHITECTURES | TRAINED:
        known = ", ".join(sorted(ARCHITECTURES | TRAINED))
        raise Refused(f"{folder} is of the architecture {architecture!r}, which is not known here. Known: {known}.")
    hook, out = _hook(about), both.get("hook_name_out") or both.get("hf_hook_name_out")
    if out and hook and hook_of_name(str(out)) != hook:
        raise Refused(f"{folder} is {TRANSCODER} ({hook} and {out} differ). Choose an SAE.")
    for key in ("hook_head_index", "hook_point_head_index"):
        if (head := both.get(key)) is not None:
            raise Refused(f"{folder} reads head {head} alone ({key}). Choose an SAE of all that its hook holds.")
    for key in ("activation_fn", "activation_fn_str"):
        activation = about.get(key)
        if isinstance(activation, str) and activation not in _ACTIVATIONS.get(architecture, (activation, "topk")):
            if architecture == "standard" and activation == "topk":
                continue  # how TopK was written before it was an architecture
            raise Refused(f"{folder} has {key} {activation!r}, which an SAE of sae-lens 6 cannot run. Choose another.")
    return about


def _hook(about: Settings) -> str | None:
    metadata = about.part("metadata")
    for key in ("hook_name", "hook_point"):
        if name := metadata.text(key) or about.text(key):
            return hook_of_name(name)
    name = metadata.text("hf_hook_name") or about.text("hf_hook_name")
    return hook_of_point(name) if name else None


def _facts(folder: Folder) -> Facts:
    about = _about(folder.path)
    d_in, d_sae = int(about["d_in"]), int(about["d_sae"])
    if not (0 < d_in < MOST and 0 < d_sae < MOST):
        raise ValueError(f"{d_in:,} dimensions and {d_sae:,} latents are no sizes of an SAE")
    if about.get("architecture") in TRAINED:
        _require_found(stored_number(folder.path / WEIGHTS, "topk_threshold"), folder.path / WEIGHTS)
    hook = _hook(about)
    if hook is not None and "hook_" not in hook:
        raise NoHook(
            f"{about.path} says that it reads {hook!r}, which is no hook that is known here. Say which with --hook."
        )
    return Facts(
        d_in=d_in,
        d_sae=d_sae,
        hook_name=hook,
        weights=folder.path / WEIGHTS,
        l0=_l0(about, folder.name),
        model=None,
        notes=_notes(about),
    )


def _notes(about: Settings) -> tuple[str, ...]:
    """What it says about text that may not be done here, and keys that are not known."""
    notes, name, both = [], about.path.parent.name, {**about, **about.part("metadata")}
    if both.get("prepend_bos") is False:
        notes.append(
            f"{name} was trained on text without a beginning-of-sequence token; here each context begins "
            "with one where the model has one."
        )
    slices = both.get("seqpos_slice")
    if isinstance(slices, list | tuple) and any(end is not None for end in slices):
        notes.append(f"{name} was trained on positions {list(slices)} alone; compare with --positions.")
    known = _KNOWN | _ABOUT_THE_RUN | (frozenset() if "metadata" in about else _OF_OLD_RUNS)
    return (*notes, *about.unknown(known))


def _l0(about: Settings, name: str) -> float | None:
    """The k of a TopK SAE, the L0 measured in training, or the one in its path."""
    k = about.get("k", (about.get("activation_fn_kwargs") or {}).get("k"))
    for known in (number_of(k), about.part("metadata").number("l0")):
        if known is not None:
            return known
    found = _L0_IN_PATH.findall(name)
    return float(found[-1]) if found else None


def _named(_repo: str, path: str, sae_id: str, _release: str) -> Named:
    for text in (sae_id, path):
        if match := _HOOK_IN_ID.search(text):
            return Named(hook_name=f"blocks.{match[1]}.{'attn.' if match[2] == 'hook_z' else ''}{match[2]}")
    return Named()


def _read(ref: SaeRef, folder: Path, _gate: str) -> Converted:
    path = folder / WEIGHTS
    overrides: dict[str, Any] = json.loads(ref.overrides) if ref.overrides else {}
    about = _about(folder)
    cfg = {**about, **overrides}
    if "metadata" in cfg and "model_from_pretrained_kwargs" in overrides:  # where it stands since version 6
        cfg["metadata"] = {
            **about.part("metadata"),
            "model_from_pretrained_kwargs": overrides["model_from_pretrained_kwargs"],
        }
    stored = Weights.of_safetensors(path)
    state = {name: stored.pick(name) if name in _MATRICES else stored.pick(name).float() for name in stored}
    folds = Folds()
    _fold_scaling(cfg, state, folds, folder)
    if cfg.get("architecture") in TRAINED:
        _for_use(cfg, state, folds, path)
    norm_factor = ref.norm_factor
    if cfg.get("normalize_activations") in ("expected_average_only_in", True) and norm_factor is not None:
        # As sae-lens does for what it downloads, and leaves out with a warning for what is on disk.
        folds.then("W_enc", lambda part, at: part * norm_factor)
        folds.then("W_dec", lambda part, at: part / norm_factor)
        state["b_dec"] = state["b_dec"] / norm_factor
        cfg["normalize_activations"] = "none"
    return Converted(cfg=cfg, state=state, folds=folds, source=stored)


def _fold_scaling(cfg: dict[str, Any], state: dict[str, Tensor], folds: Folds, folder: Path) -> None:
    """Put the scaling factors of a fine-tuned SAE, one per latent, into its decoder rows; all ones mean nothing."""
    found = [state.pop(name) for name in ("scaling_factor", "finetuning_scaling_factor") if name in state]
    asked = bool(cfg.pop("finetuning_scaling_factor", False))
    for factor in found:
        if bool((factor == 1).all()):
            continue
        if not asked:
            raise Refused(
                f"{folder} stores scaling factors, but its finetuning_scaling_factor is off: which of the two is meant "
                "is not known. Save it again with one or the other."
            )
        folds.then("W_dec", lambda part, at, factor=factor: part * factor[at, None])  # type: ignore[misc]


def _require_found(threshold: float, path: Path) -> None:
    if not threshold > 0:
        raise Refused(
            f"{path} has the topk_threshold {threshold:g}: training has not found one, and without it every positive "
            "latent is active. Take a later checkpoint."
        )


def _for_use(cfg: dict[str, Any], state: dict[str, Tensor], folds: Folds, path: Path) -> None:
    """A training checkpoint as sae-lens saves it for use: JumpReLU with the threshold found in training."""
    import torch

    threshold = float(Weights(state, path).pick("topk_threshold"))
    _require_found(threshold, path)
    del state["topk_threshold"]
    if cfg.pop("rescale_acts_by_decoder_norm", False):
        norm = folds.row_norms("W_dec", state["W_dec"])
        folds.then("W_enc", lambda part, at: part * norm[at])
        folds.then("W_dec", lambda part, at: part / norm[at, None])
        state["b_enc"] = state["b_enc"] * norm
    state["threshold"] = torch.full_like(state["b_enc"], threshold)
    for key in ("k", "topk_threshold_lr", "matryoshka_widths", "aux_loss_coefficient"):
        cfg.pop(key, None)
    cfg["architecture"] = "jumprelu"


def _kept(folder: Path) -> Kept:
    # Matching pursuit picks among all latents at each of its steps.
    return "whole" if Settings.read(folder / CONFIG).get("architecture") == "matching_pursuit" else "in parts"


LAYOUTS = (
    Layout(
        name="sae-lens",
        files=(CONFIG, WEIGHTS),
        facts=_facts,
        read=_read,
        conversions=(None,),
        rank=0,
        kept=_kept,
        named=_named,
    ),
)
