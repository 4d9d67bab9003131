"""SAEs of other layouts than sae-lens' in local folders, known from names, headers and small files alone.

Used while the user waits for a list, so nothing here imports torch or numpy and no weight is read.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from inspector.errors import TargetError
from inspector.sources.paths import read_json
from inspector.spec import SaeFormat, SaeRef, Site, hook_name_of

FORMATS: tuple[tuple[SaeFormat, tuple[str, ...]], ...] = (
    ("gemma-scope", ("params.npz",)),
    ("gemma-scope-2", ("params.safetensors",)),
    ("llama-scope", ("hyperparams.json", "checkpoints")),
    ("sparsify", ("cfg.json", "sae.safetensors")),
    ("dictionary-learning", ("config.json", "ae.pt")),
)
"""What a folder must hold to be an SAE of a layout."""
_MAX_HEADER = 1 << 20
_LAYER = (
    re.compile(r"layer[_.-]?(\d+)", re.I),
    re.compile(r"layers[._](\d+)", re.I),
    re.compile(r"(?:^|[/_-])l(\d+)[rma](?=$|[/_-])", re.I),
)
_L0 = re.compile(r"(?:average_)?l0_(\d+(?:\.\d+)?)(?=$|[/_-])")
_SITES: tuple[tuple[re.Pattern[str], Site], ...] = (
    (re.compile(r"(?:^|[/_-])(attn|att|attention)(?:[/_-]|$)|hook_z", re.I), "attn"),
    (re.compile(r"(?:^|[/_-])mlp(?:[/_-]|$)", re.I), "mlp"),
)


def format_of(names: Collection[str]) -> SaeFormat | None:
    """The layout of a folder with these files and folders in it; None if it is no SAE of these."""
    for found, needed in FORMATS:
        if all(name in names for name in needed):
            return found
    return None


def read_ref(folder: Path, root: Path, kind: SaeFormat) -> SaeRef:
    """The reference of one SAE folder.

    Args:
        folder: of the SAE.
        root: of the suite; the id is the path below it.
        kind: its layout.

    Raises:
        TargetError: when its files do not say what it is.
    """
    try:
        d_in, d_sae, hook_name, l0, weights, model = _READERS[kind](folder)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SyntaxError,
        OverflowError,
        RecursionError,
        zipfile.BadZipFile,
        struct.error,
    ) as e:
        why = (
            f"it has no {e}"
            if isinstance(e, KeyError)
            else str(e).splitlines()[0][:160]
            if str(e)
            else type(e).__name__
        )
        raise TargetError(f"{folder} is not a whole SAE of the layout {kind}: {why}. Repair or remove it.") from e
    below = folder.relative_to(root).as_posix()
    match = re.match(r"blocks\.(\d+)\.", hook_name)
    return SaeRef(
        sae_id=folder.name if below == "." else below,
        release=str(root),
        layer=int(match[1]) if match else None,
        hook_name=hook_name,
        d_in=d_in,
        d_sae=d_sae,
        nominal_l0=l0,
        n_bytes=weights.stat().st_size,
        path=str(folder),
        format=kind,
        model=model,
    )


_Found = tuple[int, int, str, float | None, Path, str | None]
"""d_in, d_sae, hook name, nominal L0, weights, model."""


def _gemma_scope(folder: Path) -> _Found:
    path = folder / "params.npz"
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in ("W_enc.npy", "w_enc.npy") if name in archive.namelist())
        with archive.open(member) as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("W_enc is no array")
            wide = file.read(2)[0] > 1
            (length,) = struct.unpack("<I" if wide else "<H", file.read(4 if wide else 2))
            if length > _MAX_HEADER:
                raise ValueError("the header of W_enc is too long")
            header = ast.literal_eval(file.read(length).decode("latin1"))
    d_in, d_sae = header["shape"]
    return int(d_in), int(d_sae), _hook(folder), _l0(folder), path, None


def _gemma_scope_2(folder: Path) -> _Found:
    path = folder / "params.safetensors"
    d_in, d_sae = _shape(path, "w_enc")
    about = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    l0 = about.get("l0")
    known = float(l0) if isinstance(l0, int | float) and l0 > 0 else _l0(folder)
    return d_in, d_sae, _hook(folder), known, path, _text(about.get("model_name"))


def _llama_scope(folder: Path) -> _Found:
    about, path = _json(folder / "hyperparams.json"), folder / "checkpoints" / "final.safetensors"
    return int(about["d_model"]), int(about["d_sae"]), str(about["hook_point_in"]), 50.0, path, None


def _sparsify(folder: Path) -> _Found:
    about, path = _json(folder / "cfg.json"), folder / "sae.safetensors"
    d_in = int(about["d_in"])
    d_sae = int(about.get("num_latents") or d_in * int(about["expansion_factor"]))
    run = folder.parent / "config.json"
    model = _text(_json(run).get("model")) if run.is_file() else None
    return d_in, d_sae, _hook(folder), float(about["k"]), path, model


def _dictionary_learning(folder: Path) -> _Found:
    trainer, path = _json(folder / "config.json")["trainer"], folder / "ae.pt"
    k = trainer.get("k")
    l0 = float(k) if isinstance(k, int | float) and k > 0 else _l0(folder)
    hook_name = hook_name_of("resid", int(trainer["layer"]))
    return int(trainer["activation_dim"]), int(trainer["dict_size"]), hook_name, l0, path, _text(trainer.get("lm_name"))


_READERS = {
    "gemma-scope": _gemma_scope,
    "gemma-scope-2": _gemma_scope_2,
    "llama-scope": _llama_scope,
    "sparsify": _sparsify,
    "dictionary-learning": _dictionary_learning,
}


def _hook(folder: Path) -> str:
    """From the names of the folder and those above it, the nearest first."""
    path = folder.resolve().as_posix()
    for pattern in _LAYER:
        if found := pattern.findall(path):
            site: Site = next((site for pattern, site in _SITES if pattern.search(path)), "resid")
            return hook_name_of(site, int(found[-1]))
    raise ValueError("no layer in its path, such as layer_12")


def _l0(folder: Path) -> float | None:
    found = _L0.findall(folder.as_posix())
    return float(found[-1]) if found else None


def _shape(path: Path, name: str) -> tuple[int, int]:
    """Of one tensor, from the header of a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
            raise ValueError("the header is too long")
        rows, columns = json.loads(file.read(length))[name]["shape"]
    return int(rows), int(columns)


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path, _MAX_HEADER)
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
