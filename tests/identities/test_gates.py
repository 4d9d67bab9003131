"""S-23: gates that are one another's limits."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from inspector.sources.sae import LoadedSae
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from tests.toy import write_toy_sae

D, M = 16, 64
HOOK = "blocks.1.hook_resid_post"


def written(root: Path, architecture: str, *, threshold: float | None = None, k: int | None = None) -> LoadedSae:
    """One SAE of the same weights whatever its gate."""
    folder = write_toy_sae(root / f"{architecture}-{threshold}-{k}", d_in=D, d_sae=M, k=M, hook_name=HOOK)
    path = folder / "sae_weights.safetensors"
    weights = load_file(path)
    if threshold is not None:
        weights["threshold"] = torch.full((M,), threshold)
    save_file(weights, path)
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg = {key: value for key, value in cfg.items() if key not in ("k", "architecture")} | {
        "architecture": architecture
    }
    (folder / "cfg.json").write_text(json.dumps(cfg | ({} if k is None else {"k": k})))
    return load_sae(list_suite(folder)[0], torch.device("cpu"), D)


def latents(sae: LoadedSae, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([made for _, made in sae.chunks(x)])


def test_s23_jumprelu_at_threshold_zero_is_relu_and_topk_of_all_too(tmp_path: Path) -> None:
    """Bit for bit: the same products, gated where they are positive."""
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(0))
    relu = written(tmp_path, "standard")
    for other in (written(tmp_path, "jumprelu", threshold=0.0), written(tmp_path, "topk", k=M)):
        assert torch.equal(latents(other, x), latents(relu, x))
        assert torch.equal(other.reconstruct(x).x_hat, relu.reconstruct(x).x_hat)


def test_s23_would_notice_another_gate(tmp_path: Path) -> None:
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(0))
    relu = latents(written(tmp_path, "standard"), x)
    assert not torch.equal(latents(written(tmp_path, "jumprelu", threshold=0.5), x), relu)
    assert not torch.equal(latents(written(tmp_path, "topk", k=M // 4), x), relu)
