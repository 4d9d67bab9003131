"""dictionary_learning: `config.json` and `ae.pt`, read with torch's restricted unpickler and only as named tensors.

BatchTopK and Matryoshka are trained with a batch-wide top k and run with the threshold that was found for it, as
JumpReLU. TopK runs per token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.formats.hooks import hook_of_module
from inspector.formats.layout import TRANSCODER, Facts, Folder, Layout, Named, Refused, Settings
from inspector.formats.weights import Converted, Weights, config, kept_of_torch
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from inspector.spec import SaeRef

CONFIG, WEIGHTS = "config.json", "ae.pt"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a class of dictionaries computes."""

    architecture: str
    """In sae-lens' words."""
    subtracts: bool
    """Whether the decoder's bias is subtracted from the input first."""
    keeps_k: bool = False
    """Whether the trainer's k says how many latents are active."""


KINDS = {
    "AutoEncoder": Kind(architecture="standard", subtracts=True),
    "AutoEncoderNew": Kind(architecture="standard", subtracts=False),
    "GatedAutoEncoder": Kind(architecture="gated", subtracts=True),
    "AutoEncoderTopK": Kind(architecture="topk", subtracts=True, keeps_k=True),
    "BatchTopKSAE": Kind(architecture="jumprelu", subtracts=True, keeps_k=True),
    "MatryoshkaBatchTopKSAE": Kind(architecture="jumprelu", subtracts=True, keeps_k=True),
    "JumpReluAutoEncoder": Kind(architecture="jumprelu", subtracts=False),
}
"""By `dict_class`."""
_GATED = {"b_mag": "mag_bias", "b_gate": "gate_bias", "r_mag": "r_mag"}
_SUBMODULE = re.compile(r"(resid_post|resid_pre|resid|mlp_out|mlp|attn_out|attention_out|attn)_layer_?(\d+)$")
_ENDS = {
    "resid_post": "hook_resid_post", "resid_pre": "hook_resid_pre", "resid": "hook_resid_post",
    "mlp_out": "hook_mlp_out", "mlp": "hook_mlp_out",
    "attn_out": "hook_attn_out", "attention_out": "hook_attn_out", "attn": "hook_attn_out",
}  # fmt: skip
_OF_TRAINING = frozenset(
    (
        "trainer_class", "lr", "steps", "seed", "warmup_steps", "sparsity_warmup_steps", "decay_start",
        "l1_penalty", "resample_steps", "device", "wandb_name", "lm_name", "submodule_name", "layer",
        "activation_dim", "dict_size", "dict_class", "k", "auxk_alpha", "threshold_beta", "threshold_start_step",
        "top_k_aux", "target_l0", "bandwidth", "sparsity_penalty", "group_fractions", "group_weights",
        "group_sizes", "k_anneal_steps", "sparsity_function", "sparsity_queue_length", "anneal_start", "anneal_end",
        "n_sparsity_updates", "p_start", "p_end", "initial_sparsity_penalty", "adaptive_sparsity_penalty",
        "initial_adaptive_scale", "name", "io", "b_dec_init", "dead_feature_threshold", "log_steps",
    )
)  # fmt: skip
"""Keys of the trainer that are read here, or say how it was trained and nothing about what it computes."""


def _about(folder: Path) -> tuple[Settings, Settings, Kind]:
    """The trainer's and the buffer's part of its configuration, and its class.

    Raises:
        Refused: it is another kind of dictionary, or of a class that is not known.
    """
    path = folder / CONFIG
    whole = Settings.read(path)
    trainer, buffer = whole.part("trainer"), whole.part("buffer")
    if not isinstance(whole.get("trainer"), dict):
        raise Refused(f"{path} has no trainer. It is not an SAE of dictionary_learning.")
    if buffer.get("io") == "in_and_out" or str(trainer.get("io")) == "in_and_out":
        raise Refused(f"{folder} is {TRANSCODER} (io is in_and_out). Choose an SAE.")
    name = trainer.get("dict_class")
    if name not in KINDS:
        why = TRANSCODER if "coder" in str(name).lower().replace("autoencoder", "") else "not known here"
        raise Refused(f"{path} names the class {name!r}, which is {why}. Known: {', '.join(KINDS)}.")
    return trainer, buffer, KINDS[name]


def _facts(folder: Folder) -> Facts:
    trainer, buffer, kind = _about(folder.path)
    return Facts(
        d_in=trainer.whole("activation_dim"),
        d_sae=trainer.whole("dict_size"),
        hook_name=_hook(trainer, buffer, folder),
        weights=folder.path / WEIGHTS,
        l0=trainer.number("k" if kind.keeps_k else "target_l0"),
        model=trainer.text("lm_name"),
        notes=trainer.unknown(_OF_TRAINING, "The trainer in "),
    )


def _hook(trainer: Settings, buffer: Settings, folder: Folder) -> str | None:
    """What the trainer calls its submodule, on the side that the buffer reads; a lone `layer` is its block's output.

    Raises:
        Refused: the submodule is none that a hook here holds.
    """
    side = buffer.get("io") or trainer.get("io") or "out"
    name = trainer.text("submodule_name") or buffer.text("submodule_name")
    layer = trainer.get("layer")
    known = type(layer) is int and layer >= 0
    if name is None:
        if side == "in":
            raise Refused(f"{folder.path} reads the input of a submodule that is not named. Say which with --hook.")
        return hook_name_of("resid", layer) if known else None  # type: ignore[arg-type]
    match = _SUBMODULE.search(name)
    if match is not None:
        end = _ENDS[match[1]]
        if side == "in":
            end = {"hook_resid_post": "hook_resid_pre", "hook_mlp_out": "mlp.hook_in"}.get(end, "")
        found = f"blocks.{int(match[2])}.{end}" if end else None
    else:
        found = hook_of_module(name, "in" if side == "in" else "out")
        if found is None and known and name in _ENDS:
            found = f"blocks.{layer}.{_ENDS[name]}" if side != "in" else None
    if found is None:
        raise Refused(
            f"{folder.path} reads the {side}put of {name!r}, which is no hook that is known here. Choose another SAE."
        )
    if known and found.startswith("blocks.") and not found.startswith(f"blocks.{layer}."):
        raise Refused(
            f"{folder.path} names the layer {layer} and the submodule {name!r}. Correct the wrong one in {CONFIG}."
        )
    return found


def _named(_repo: str, path: str, sae_id: str, release: str) -> Named:
    match = re.search(r"resid_post_layer_(\d+)", path) or re.match(r"blocks\.(\d+)\.hook_resid_post", sae_id)
    width = re.search(r"width-2pow(\d+)", f"{release} {path} {sae_id}")
    return Named(
        hook_name=hook_name_of("resid", int(match[1])) if match else None, d_sae=2 ** int(width[1]) if width else None
    )


def _read(ref: SaeRef, folder: Path, _gate: str) -> Converted:
    trainer, _, kind = _about(folder)
    stored = Weights.of_torch(folder / WEIGHTS)
    more: dict[str, Any] = {"apply_b_dec_to_input": kind.subtracts}
    state = {
        "W_enc": stored.matrix("W_enc", "encoder.weight"),
        "W_dec": stored.matrix("W_dec", "decoder.weight"),
        "b_dec": stored.pick("b_dec", "bias", "decoder_bias", "decoder.bias"),
    }
    if kind.architecture == "gated":
        state |= {ours: stored.pick(theirs) for ours, theirs in _GATED.items()}
    else:
        state["b_enc"] = stored.pick("b_enc", "encoder.bias")
    if kind.architecture == "topk":
        more["k"] = trainer.whole("k")
        if "k" in stored and stored["k"].numel() == 1 and int(stored["k"]) != more["k"]:
            raise Refused(
                f"{folder} has k {more['k']} in {CONFIG} and {int(stored['k'])} in {WEIGHTS}. Correct the wrong one."
            )
    if kind.architecture == "jumprelu":
        threshold = stored.pick("threshold").float()
        if kind.keeps_k and not bool((threshold > 0).all()):
            raise Refused(
                f"{folder} has the threshold {float(threshold.min()):g}: training has not found one, and without it "
                "every positive latent is active. Take a later checkpoint."
            )
        state["threshold"] = threshold if threshold.ndim == 1 else threshold.expand(ref.d_sae)
    return Converted(cfg=config(kind.architecture, ref) | more, state=state)


LAYOUTS = (
    Layout(
        name="dictionary-learning",
        files=(CONFIG, WEIGHTS),
        facts=_facts,
        read=_read,
        conversions=("dictionary_learning_1",),
        named=_named,
        stored_bytes=4,
        kept=lambda folder: kept_of_torch(folder / WEIGHTS),
    ),
)
