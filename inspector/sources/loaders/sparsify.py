"""sparsify: `cfg.json` and `sae.safetensors`, TopK on the residual stream; run in float32 whatever is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted, config, pick, read_json, read_safetensors, whole_number
from inspector.spec import SaeRef

FILES = layouts.FILES["sparsify"]


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder; see the module.

    Raises:
        TargetError: a file is missing or damaged, or it is a transcoder.
    """
    about_path, path = folder / FILES[0], folder / FILES[1]
    about = read_json(about_path)
    if about.get("transcode") or about.get("skip_connection"):
        raise TargetError(f"{folder} is a transcoder: it does not reconstruct its own input. Choose an SAE.")
    if about.get("signed"):
        raise TargetError(f"{folder} has signed latents, which sae-lens cannot run. Choose another SAE.")
    activation = about.get("activation", "topk")
    if activation not in ("topk", None):
        raise TargetError(f"{folder} uses the activation {activation!r}, which is not supported. Choose a TopK SAE.")
    d_in = whole_number(about, "d_in", about_path)
    d_sae = d_in * whole_number(about, "expansion_factor", about_path)
    if about.get("num_latents"):
        d_sae = whole_number(about, "num_latents", about_path)
    k = whole_number(about, "k", about_path)
    stored = read_safetensors(path)
    if "W_skip" in stored:
        raise TargetError(f"{folder} is a transcoder: it does not reconstruct its own input. Choose an SAE.")
    w_dec = pick(stored, ("W_dec",), path)
    state = {
        "W_enc": pick(stored, ("encoder.weight",), path).T,
        # Rows are latents, as sae-lens has them.
        "W_dec": w_dec if tuple(w_dec.shape) == (d_sae, d_in) else w_dec.T,
        "b_enc": stored.get("encoder.bias", torch.zeros(d_sae)),
        "b_dec": pick(stored, ("b_dec",), path),
    }
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "hook_name": ref.hook_name, "model": ref.model}
    return Converted(cfg=config("topk", k=k, **common) | {"apply_b_dec_to_input": True}, state=state)
