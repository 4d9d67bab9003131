"""Suites that are published as one torch file per SAE, whose size, hook and kind are in names alone.

All are read with torch's restricted unpickler and only as named tensors, where sae-lens leaves that to torch's default
and asks the hub on the way. Orientation, biases and activation are those of sae-lens' own loaders of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError
from inspector.formats.layout import Facts, Folder, Layout, Named, Settings
from inspector.formats.weights import Converted, Weights, config, kept_of_torch
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import SaeRef

_QWEN = re.compile(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)$")
_QWEN_WIDTHS = {
    "Qwen3-1.7B-Base": 2048, "Qwen3-8B-Base": 4096, "Qwen3-30B-A3B-Base": 2048, "Qwen3.5-2B-Base": 2048,
    "Qwen3.5-9B-Base": 4096, "Qwen3.5-27B": 5120, "Qwen3.5-35B-A3B-Base": 2048,
}  # fmt: skip
"""d_model, which neither the repository's name nor the file says before it is there."""
_GOODFIRE = {"Llama-3.3-70B-Instruct-SAE-l50": (50, 8192), "Llama-3.1-8B-Instruct-SAE-l19": (19, 4096)}
"""Layer and d_model by the repository's name; 65,536 latents each."""


_VALUE_BIASES = (
    "The authors of these attention SAEs load GPT-2 with transformer-lens' defaults, which move the value biases "
    "from the heads' values to the output bias. Neither file nor registry says so, and here they are where GPT-2 has "
    "them; it may be why L0 or FVU are not as published."
)


def _read_with(*names: str) -> Callable[[SaeRef, Path, str], Converted]:
    """A reader of encoder and decoder matrices that are stored transposed, as torch.nn.Linear does, and two biases."""

    def read(ref: SaeRef, path: Path, _gate: str) -> Converted:
        stored = Weights.of_torch(path)
        enc, dec, b_enc, b_dec = (stored.pick(name) for name in names)
        state: dict[str, Tensor] = {"W_enc": enc.T, "W_dec": dec.T, "b_enc": b_enc, "b_dec": b_dec}
        return Converted(cfg=config("standard", ref), state=state)

    return read


def _qwen_named(repo: str, path: str, _sae_id: str, _release: str) -> Named:
    match, layer = _QWEN.search(repo), re.fullmatch(r"layer(\d+)\.sae\.pt", path)
    if match is None or layer is None:
        return Named()
    return Named(
        hook_name=hook_name_of("resid", int(layer[1])),
        d_sae=1024 * int(match[2]),
        d_in=_QWEN_WIDTHS.get(match[1]),
        nominal_l0=float(match[3]),
    )


def _read_qwen(ref: SaeRef, path: Path, _gate: str) -> Converted:
    match = _QWEN.search(ref.repo or "")
    if match is None:
        raise TargetError(f"{path} does not say how many latents it keeps; the repository's name would. Use --suite.")
    stored = Weights.of_torch(path)
    state = {
        "W_enc": stored.pick("W_enc").T,  # stored [d_sae, d_in], and the decoder [d_in, d_sae]
        "W_dec": stored.pick("W_dec").T,
        "b_enc": stored.pick("b_enc"),
        "b_dec": stored.pick("b_dec"),
    }
    return Converted(cfg=config("topk", ref, k=int(match[3])), state=state)


def _goodfire_named(repo: str, _path: str, _sae_id: str, _release: str) -> Named:
    layer, d_in = _GOODFIRE.get(repo.rpartition("/")[2], (None, None))
    return Named(hook_name=None if layer is None else hook_name_of("resid", layer), d_sae=65_536, d_in=d_in)


def _deepseek_named(_repo: str, path: str, _sae_id: str, _release: str) -> Named:
    match = re.search(r"-l(\d+)\.pt$", path)
    return Named(hook_name=hook_name_of("resid", int(match[1])) if match else None, d_sae=65_536, d_in=4096)


def _heads_config(path: str) -> str:
    return f"{path.removesuffix('.pt')}_cfg.json"


def _heads_named(_repo: str, path: str, sae_id: str, _release: str) -> Named:
    match, width = re.match(r"blocks\.(\d+)\.hook_z", sae_id), re.search(r"_ds(\d+)_", path)
    return Named(
        hook_name=f"blocks.{match[1]}.attn.hook_z" if match else None, d_sae=int(width[1]) if width else None, d_in=768
    )


def _heads_facts(folder: Folder) -> Facts:
    about = Settings.read(folder.path / _heads_config(folder.stem))
    return Facts(
        d_in=about.whole("act_size"),
        d_sae=about.whole("dict_size"),
        hook_name=about.text("act_name"),
        weights=folder.path / folder.stem,
        notes=(_VALUE_BIASES,),
    )


def _read_heads(ref: SaeRef, path: Path, _gate: str) -> Converted:
    stored = Weights.of_torch(path)
    state = {name: stored.pick(name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    return Converted(cfg=config("standard", ref, apply_b_dec_to_input=True), state=state)


def _layout(name: str, conversion: str, **more: Any) -> Layout:
    return Layout(
        name=name,
        conversions=(conversion,),
        files=(),
        is_file=True,
        kept=kept_of_torch,
        **{"facts": None, "stored_bytes": 4, **more},
    )


LAYOUTS = (
    _layout("qwen-scope", "qwen_scope", read=_read_qwen, named=_qwen_named),
    _layout(
        "goodfire",
        "goodfire",
        read=_read_with("encoder_linear.weight", "decoder_linear.weight", "encoder_linear.bias", "decoder_linear.bias"),
        named=_goodfire_named,
    ),
    _layout(
        "deepseek-r1",
        "deepseek_r1",
        read=_read_with("encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias"),
        named=_deepseek_named,
        stored_bytes=2,
    ),
    _layout(
        "attention-heads",
        "connor_rob_hook_z",
        read=_read_heads,
        named=_heads_named,
        facts=_heads_facts,
        beside=lambda path: (_heads_config(path),),
    ),
)
