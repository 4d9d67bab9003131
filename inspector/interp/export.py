"""Examples for other programs: as JSON, and as EleutherAI's delphi keeps latents.

delphi reads, per hook, `START_END.safetensors` with `locations` [n, 3] (row of tokens, place in it, latent less START),
`activations` [n] float16 and `tokens` [rows, length], and a `config.json`. Every activation of the drawn latents in
every window is there, not only those of the examples: delphi takes a window without one as proof of silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from inspector.disk.files import write_whole
from inspector.interp.examples import Example

if TYPE_CHECKING:
    from inspector.interp.examples import Gathered
    from inspector.interp.windows import Windows
    from inspector.sources.target import Loaded

_UINT16 = 2**16


def examples_json(one: Gathered, loaded: Loaded) -> dict[str, Any]:
    """Every example of every latent of one SAE, with its text."""
    text_of = loaded.model.tokenizer.text

    def told(example: Example) -> dict[str, Any]:
        return {
            "context": example.context,
            "name": loaded.contexts.names[example.context],
            "start": example.start,
            "text": text_of(example.token_ids.tolist()),
            "tokens": loaded.model.token_texts(example.token_ids.tolist()),
            "token_ids": example.token_ids.tolist(),
            "activations": [float(value) for value in example.activations],
        }

    return {
        "sae": one.reader.name,
        "hook_name": one.reader.sae.ref.hook_name,
        "tokens_sha256": loaded.contexts.sha256,
        "skipped": {reason: list(found) for reason, found in one.skipped.items()},
        "latents": [
            {
                "latent": latent.index,
                "density": latent.density,
                "explained_from": [told(example) for example in latent.shown],
                "deciles": [[told(example) for example in decile] for decile in latent.deciles],
                "negatives": [told(example) for example in latent.negatives],
            }
            for latent in one.latents
        ],
    }


def file_name(reader_name: str) -> str:
    """Of what is written of one reader: one name, that leads nowhere else and is not hidden."""
    return reader_name.replace("/", ".").lstrip(".") or "sae"


def write_delphi(folder: Path, one: Gathered, windows: Windows, loaded: Loaded) -> Path:
    """Write one SAE's activations as a cache of delphi; returns its folder.

    Raises:
        ResourceError: the disk is full or cannot be written to.
    """
    found = one.everything
    assert found is not None, "the examples were gathered for an export"
    # delphi drops what is this small, and float16 would make zeros of some.
    found = found[np.abs(found["value"]) > 1e-5]
    small = max(len(windows), windows.length, one.reader.sae.ref.d_sae) <= _UINT16
    data = {
        "locations": np.stack([found[name] for name in ("window", "place", "latent")], axis=1).astype(
            np.uint16 if small else np.uint32
        ),
        # float16 ends at 65504; delphi's own cache overflows there, this one stays at the end.
        "activations": np.clip(found["value"], -65504.0, 65504.0).astype(np.float16),
        "tokens": windows.tokens(loaded.contexts.token_ids).numpy().astype(np.int64),
    }
    here = folder / file_name(one.reader.name)
    write_whole(here / f"0_{one.reader.sae.ref.d_sae - 1}.safetensors", to_safetensors(data))
    config = {
        "dataset_repo": loaded.target.text,
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": loaded.contexts.field or "text",
        "batch_size": 1,
        "ctx_len": windows.length,
        "n_tokens": len(windows) * windows.length,
        "n_splits": 1,
        "model_name": loaded.model.name,
    }
    write_whole(here / "config.json", json.dumps(config, indent=1) + "\n")
    return here
