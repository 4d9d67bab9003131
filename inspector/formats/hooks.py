"""Module paths of Hugging Face models as the hooks that hold the same values.

    layers.2, model.layers.2, transformer.h.2, gpt_neox.layers.2    a block: its output is hook_resid_post
    ... .mlp                                                        its output is what the block adds: hook_mlp_out
    ... .self_attn, .attention, .attn                               likewise hook_attn_out, and never hook_z
    ... .self_attn.o_proj, read                                     the heads' values, flattened: attn.hook_z
    embed_tokens, wte, embed_in                                     hook_embed

On models that normalise what a block adds (Gemma 2 and 3, OLMo 2) hook_mlp_out and hook_attn_out are behind that norm,
where the module's own output is not: `hook_on` names the hook before it.
"""

from __future__ import annotations

import re
from typing import Literal

Side = Literal["in", "out"]

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.(.+))?$")
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings"})
_OUTPUTS = {
    "": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "self_attn": "hook_attn_out",
    "attention": "hook_attn_out",
    "attn": "hook_attn_out",
    "post_feedforward_layernorm": "hook_mlp_out",
}
_INPUTS = {
    "": "hook_resid_pre",
    "mlp": "mlp.hook_in",
    "self_attn.o_proj": "attn.hook_z",
    "attention.dense": "attn.hook_z",
    "attn.c_proj": "attn.hook_z",
}
_OWN_OUTPUTS = {"mlp": "mlp.hook_out", "self_attn": "attn.hook_out"}
"""The module's own output, where the model normalises it before it is added."""
SANDWICHED = frozenset({"gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "olmo2", "olmo3", "glm4"})
"""Values of model_type of such models."""
_NORM = "post_feedforward_layernorm"


def hook_of_module(path: str, side: Side = "out") -> str | None:
    """The hook that holds what a module reads or gives; None if no hook here does.

    Args:
        path: of the module, e.g. `model.layers.12.mlp`.
        side: its input or its output.
    """
    path = path.strip().strip(".")
    if side == "out" and path.rpartition(".")[2] in _EMBEDDINGS:
        return "hook_embed"
    match = _BLOCK.search(path)
    if match is None:
        return None
    found = (_OUTPUTS if side == "out" else _INPUTS).get(match[2] or "")
    return f"blocks.{int(match[1])}.{found}" if found else None


def hook_on(module: str, hook_name: str, model_type: str) -> str:
    """The hook that holds a module's output on a model of this type; `hook_name` is the one of most models."""
    match = _BLOCK.search(module)
    own = _OWN_OUTPUTS.get((match[2] or "") if match else "")
    return f"blocks.{int(match[1])}.{own}" if match and own and model_type in SANDWICHED else hook_name


def lacks(module: str, model_type: str) -> str | None:
    """The module that an SAE reads and a model of this type does not have; None if nothing is known to be missing."""
    return _NORM if module.endswith(_NORM) and model_type not in SANDWICHED else None


def is_module(path: str) -> bool:
    """Whether it is a path into a model at all."""
    return _BLOCK.search(path) is not None or path.rpartition(".")[2] in _EMBEDDINGS


def hook_of_point(point: str) -> str | None:
    """The hook of a module path with its side at the end, as Gemma Scope 2 writes it: `model.layers.9.output`."""
    path, _, side = point.rpartition(".")
    if side not in ("input", "output"):
        return hook_of_module(point)
    return hook_of_module(path, "in" if side == "input" else "out")


def hook_of_name(name: str) -> str:
    """A hook name in either language, in transformer-lens' words; unchanged if it is in them, or in none."""
    if name.startswith(("blocks.", "hook_", "ln_final", "unembed")) and "hook_" in name:
        return name
    return hook_of_point(name) or name
