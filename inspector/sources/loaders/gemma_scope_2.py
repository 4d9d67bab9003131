"""Gemma Scope 2: `config.json` and `params.safetensors`, JumpReLU as in Gemma Scope. Needs no network.

Shapes come from the file itself; sae-lens asks the hub for them on every load.
"""

from __future__ import annotations

from pathlib import Path

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted, config, pick, read_json, read_safetensors
from inspector.spec import SaeRef

FILES = layouts.FILES["gemma-scope-2"]


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder; see the module.

    Raises:
        TargetError: a file is missing, damaged, or of another kind of dictionary.
    """
    path = folder / FILES[1]
    about = read_json(folder / FILES[0]) if (folder / FILES[0]).is_file() else {}
    architecture = about.get("architecture", "jump_relu")
    if architecture != "jump_relu" or about.get("type", "sae") in ("transcoder", "clt", "crosscoder"):
        raise TargetError(f"{folder} is a {architecture} {about.get('type', '')}, no SAE that reconstructs its input.")
    stored = read_safetensors(path)
    if "affine_skip_connection" in stored:
        raise TargetError(f"{folder} is a transcoder: it does not reconstruct its own input. Choose an SAE.")
    state = {name: pick(stored, (low, name), path) for low, name in _NAMES.items()}
    return Converted(
        cfg=config("jumprelu", d_in=ref.d_in, d_sae=ref.d_sae, hook_name=ref.hook_name, model=ref.model), state=state
    )


_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
