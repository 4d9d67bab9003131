"""Gemma Scope 2: `config.json` and `params.safetensors`, JumpReLU as in Gemma Scope. Needs no network.

Shapes come from the file itself; sae-lens asks the hub for them on every load. The hook is what `config.json` says in
the words of the Hugging Face model; where there is none, the publishers' folder names say it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.formats.hooks import hook_of_point
from inspector.formats.layout import CROSS_LAYER, TRANSCODER, Facts, Folder, Layout, Named, NoHook, Refused, Settings
from inspector.formats.weights import Converted, Weights, config, stored_shape, tensor_entries
from inspector.options import WIDTH_OF_LABEL
from inspector.spec import Site, hook_name_of

if TYPE_CHECKING:
    from inspector.spec import SaeRef

CONFIG, WEIGHTS = "config.json", "params.safetensors"
_SITES: dict[str, Site] = {"resid_post": "resid", "mlp_out": "mlp", "attn_out": "attn"}
_FOLDER = re.compile(r"layer_(\d+)_width_(\d+[km]?)(?:_|$)")
_KNOWN = frozenset(
    (
        "architecture", "model_name", "hf_hook_point_in", "hf_hook_point_out", "type", "width", "l0",
        "affine_connection", "dtype", "layer", "d_in", "d_sae", "num_latents",
    )
)  # fmt: skip
_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}


def _about(folder: Path) -> Settings:
    """The configuration, if there is one, of a kind that is an SAE.

    Raises:
        Refused: it is a transcoder, or its latents pass in a way that is not known.
    """
    path = folder / CONFIG
    about = Settings.read(path) if path.is_file() else Settings({}, path)
    kind = str(about.get("type") or "sae")
    point_in, point_out = about.get("hf_hook_point_in"), about.get("hf_hook_point_out")
    if kind == "clt":
        raise Refused(f"{folder} is {CROSS_LAYER}.")
    if (point_in and point_out and point_in != point_out) or kind not in ("sae", "jump_relu"):
        points = f" ({point_in} and {point_out} differ)" if point_out else ""
        raise Refused(f"{folder} is {TRANSCODER if kind == 'sae' else kind}{points}. Choose an SAE.")
    if about.get("affine_connection"):
        raise Refused(f"{folder} has an affine connection from its input, as transcoders do. Choose an SAE.")
    architecture = about.get("architecture", "jump_relu")
    if architecture != "jump_relu":
        raise Refused(f"{folder} has the architecture {architecture!r}, and only jump_relu is known here.")
    return about


def _facts(folder: Folder) -> Facts:
    about = _about(folder.path)
    path = folder.path / WEIGHTS
    entries, _ = tensor_entries(path)
    if "affine_skip_connection" in entries:
        raise Refused(f"{folder.path} is {TRANSCODER}. Choose an SAE.")
    shape = stored_shape(entries, "w_enc")
    if len(shape) != 2 or stored_shape(entries, "w_dec")[1:] != shape[:1]:
        raise Refused(f"{folder.path} writes vectors of another size than it reads: {TRANSCODER}.")
    return Facts(
        d_in=shape[0],
        d_sae=shape[1],
        hook_name=_hook(folder, about),
        module=_module(about),
        weights=path,
        l0=about.number("l0"),
        model=about.text("model_name"),
        notes=about.unknown(_KNOWN),
    )


def _hook(folder: Folder, about: Settings) -> str | None:
    """As the configuration says, else as the publishers' folders do.

    Raises:
        Refused: the names say that it is none of one hook.
        NoHook: the configuration names a module that no hook here holds.
    """
    if point := about.text("hf_hook_point_in"):
        found = hook_of_point(point)
        if found is None:
            raise NoHook(f"{folder.path} reads {point!r}, which is no hook that is known here. Say which with --hook.")
        return found
    for part in reversed(folder.parts):
        if "transcoder" in part or part.startswith("clt"):
            raise Refused(f"{folder.path} is in {part!r} and no file says otherwise: {TRANSCODER}.")
        site = _SITES.get(part.removesuffix("_all"))
        layer = next((int(match[1]) for each in folder.parts if (match := _FOLDER.match(each))), None)
        if site is not None and layer is not None:
            return hook_name_of(site, layer)
    return None


def _module(about: Settings) -> str | None:
    path, _, side = (about.text("hf_hook_point_in") or "").rpartition(".")
    return path if side == "output" else None


def _named(_repo: str, path: str, _sae_id: str, _release: str) -> Named:
    if path.startswith("transcoder"):
        return Named(refused=TRANSCODER)
    if path.startswith("clt") or "crosscoder" in path:
        return Named(refused=CROSS_LAYER)
    match = re.match(r"(resid_post|mlp_out|attn_out)(?:_all)?/layer_(\d+)_width_(\d+[km]?)_", path)
    if match is None:
        return Named()
    return Named(hook_name=hook_name_of(_SITES[match[1]], int(match[2])), d_sae=WIDTH_OF_LABEL.get(match[3]))


def _read(ref: SaeRef, folder: Path, _gate: str) -> Converted:
    _about(folder)
    stored = Weights.of_safetensors(folder / WEIGHTS)
    if "affine_skip_connection" in stored:
        raise Refused(f"{folder} is {TRANSCODER}. Choose an SAE.")
    state = {name: stored.pick(low, name) for low, name in _NAMES.items()}
    return Converted(cfg=config("jumprelu", ref), state=state, source=stored)


LAYOUTS = (
    Layout(
        name="gemma-scope-2",
        files=(CONFIG, WEIGHTS),
        optional=(CONFIG,),  # some folders have none, and sae-lens goes by their names as well
        marks=(WEIGHTS,),
        facts=_facts,
        read=_read,
        conversions=("gemma_3",),
        named=_named,
        is_family=True,
        stored_bytes=4,
    ),
)
