"""What every reader returns, and what readers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inspector.errors import TargetError
from inspector.sources.paths import MOST
from inspector.sources.paths import read_json as regular_json

MAX_CONFIG = 1 << 20
"""Bytes; a configuration is a few hundred."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """An SAE in sae-lens' terms."""

    cfg: dict[str, Any]
    state: dict[str, Tensor]
    """W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc [d_sae], b_dec [d_in], and what its architecture has besides."""
    gate: str | None = None
    """How latents are let through, where that is not clear from the layout alone."""


def config(
    architecture: str, *, d_in: int, d_sae: int, hook_name: str, model: str | None, **more: Any
) -> dict[str, Any]:
    """A sae-lens configuration. Heads come flattened and activations as they are."""
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": model, "hook_name": hook_name},
        **more,
    }


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        TargetError: it is missing, too large, or no object.
    """
    try:
        found = regular_json(path, MAX_CONFIG)
    except OSError as error:
        raise TargetError(f"{path} cannot be read ({error.strerror}). Fetch the SAE again.") from error
    except ValueError as error:
        raise TargetError(f"{path} is not JSON ({str(error)[:120]}). Fetch the SAE again.") from error
    if not isinstance(found, dict):
        raise TargetError(f"{path} holds no JSON object. Fetch the SAE again.")
    return found


def whole_number(found: Mapping[str, Any], key: str, path: Path) -> int:
    """A positive whole number of a configuration.

    Raises:
        TargetError: it is missing or something else.
    """
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST or value != int(value):
        raise TargetError(f"{path} has no positive whole number {key!r} but {value!r}. Is it an SAE of another layout?")
    return int(value)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, as they are stored.

    Raises:
        TargetError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TargetError(f"{path} is not a whole safetensors file ({str(error)[:120]}). Fetch it again.") from error


def pick(state: Mapping[str, Tensor], names: Iterable[str], path: Path) -> Tensor:
    """The first of these tensors that is there, of a floating type.

    Raises:
        TargetError: none is.
    """
    names = list(names)
    for name in names:
        if name in state:
            value = state[name]
            if not value.is_floating_point():
                kind = str(value.dtype).removeprefix("torch.")
                raise TargetError(f"{path} stores {name} as {kind}, not as floating-point numbers. Fetch it again.")
            return value
    raise TargetError(f"{path} has no tensor {names[0]!r} (it has {', '.join(list(state)[:6])}). Is it another layout?")
