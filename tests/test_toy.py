"""The toys are what they claim to be, as seen by the libraries themselves."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.toy import BOS_ID, toy_tokenizer, write_toy_model, write_toy_sae, write_toy_suite


def test_tokenizer_spells_any_string_and_has_the_size_asked_for() -> None:
    tokenizer = toy_tokenizer(300)
    text = "naïve\t\x00\x1b[31m 日本 \N{FAMILY}\r\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a").ids[0] == BOS_ID


@pytest.mark.parametrize("kind", ["gemma2", "llama"])
def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(kind: str, tmp_path: Path) -> None:
    paths = [write_toy_model(tmp_path / str(i), kind, seed=seed) for i, seed in enumerate((3, 3, 4))]  # type: ignore[arg-type]
    weights = [(path / "model.safetensors").read_bytes() for path in paths]
    assert weights[0] == weights[1] != weights[2]


def test_sae_has_k_latents_active_and_beats_the_mean(tmp_path: Path) -> None:
    path = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=4, hook_name="blocks.0.hook_resid_post")
    w = load_file(path / "sae_weights.safetensors")
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(1))
    z = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    z = z * (z >= z.topk(4, dim=-1).values[:, -1:])
    x_hat = z @ w["W_dec"] + w["b_dec"]
    assert ((z > 0).sum(-1) == 4).all()
    assert ((x - x_hat) ** 2).sum() < 0.7 * (x**2).sum()


def test_suite_has_the_layout_of_train(tmp_path: Path) -> None:
    write_toy_suite(tmp_path, layers=(0, 1), widths=(32, 1024), l0s=(2,))
    found = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("cfg.json"))
    assert found == [f"layer_{layer}/resid/width_{width}/l0_2" for layer in (0, 1) for width in ("1k", "32")]
    cfg = json.loads((tmp_path / found[0] / "cfg.json").read_text())
    assert (cfg["d_sae"], cfg["k"], cfg["metadata"]["hook_name"]) == (1024, 2, "blocks.0.hook_resid_post")
