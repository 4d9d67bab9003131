"""SAEs against their formulas, and everything that must not be loaded quietly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import TargetError
from inspector.sources.memory_sums import chunk_tokens
from inspector.sources.sae import LoadedSae
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from tests.toy import write_toy_sae

CPU = torch.device("cpu")
HOOK = "blocks.1.hook_resid_post"


def load(folder: Path, d_in: int = 16) -> LoadedSae:
    return load_sae(list_suite(folder)[0], CPU, d_in)


def some_x(n: int = 600, d: int = 16) -> torch.Tensor:
    return 2 * torch.randn(n, d, generator=torch.Generator().manual_seed(9))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], **cfg: Any) -> Path:
    weights = load_file(folder / "sae_weights.safetensors")
    change(weights)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "sae_weights.safetensors")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | cfg))
    return folder


def refusal(folder: Path, d_in: int = 16) -> str:
    with pytest.raises(TargetError) as caught:
        load(folder, d_in)
    return str(caught.value)


@pytest.mark.holds("sae-lens")
def test_topk_is_its_formula(tmp_path: Path) -> None:
    sae = load(write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK))
    w = load_file(tmp_path / "sae_weights.safetensors")
    x = some_x()
    z = torch.relu((x - w["b_dec"]).double() @ w["W_enc"].double() + w["b_enc"])
    z = z * (z >= z.topk(5, dim=-1).values[:, -1:])
    result = sae.reconstruct(x)
    # float32 products of 16 and 64 terms of size 1 against float64: 1e-5.
    torch.testing.assert_close(result.x_hat.double(), z @ w["W_dec"].double() + w["b_dec"], rtol=0, atol=1e-5)
    assert torch.equal(result.l0, (z > 0).sum(-1, dtype=torch.int32))
    assert result.x_hat.dtype == torch.float32


def test_jumprelu_is_its_formula_and_does_not_subtract_b_dec(tmp_path: Path) -> None:
    sae = load(write_toy_sae(tmp_path, d_in=16, d_sae=64, threshold=1.5, hook_name=HOOK))
    w = load_file(tmp_path / "sae_weights.safetensors")
    x = some_x()
    pre = x.double() @ w["W_enc"].double() + w["b_enc"]
    z = torch.relu(pre) * (pre > 1.5)
    result = sae.reconstruct(x)
    torch.testing.assert_close(result.x_hat.double(), z @ w["W_dec"].double() + w["b_dec"], rtol=0, atol=1e-5)
    assert torch.equal(result.l0, (z > 0).sum(-1, dtype=torch.int32))


def drop_threshold(weights: dict[str, torch.Tensor]) -> None:
    del weights["threshold"]


def gated(weights: dict[str, torch.Tensor]) -> None:
    del weights["threshold"], weights["b_enc"]
    generator = torch.Generator().manual_seed(1)
    for name in ("b_gate", "r_mag", "b_mag"):
        weights[name] = 0.3 * torch.randn(64, generator=generator)


@pytest.mark.holds("sae-lens")
def test_standard_is_its_formula(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, hook_name=HOOK, architecture="standard")
    sae, x = load(rewrite(folder, drop_threshold)), some_x(50)
    w = load_file(folder / "sae_weights.safetensors")
    expected = torch.relu(x @ w["W_enc"] + w["b_enc"]) @ w["W_dec"] + w["b_dec"]
    torch.testing.assert_close(sae.reconstruct(x).x_hat, expected, rtol=0, atol=1e-5)


@pytest.mark.holds("sae-lens")
def test_gated_is_its_formula(tmp_path: Path) -> None:
    """Rajamanoharan et al. 2024, Eq. 6: which latents are active and how strongly are decided apart."""
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, hook_name=HOOK, architecture="gated")
    sae, x = load(rewrite(folder, gated)), some_x(50)
    w = load_file(folder / "sae_weights.safetensors")
    active = x @ w["W_enc"] + w["b_gate"] > 0
    z = active * torch.relu(x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
    torch.testing.assert_close(sae.reconstruct(x).x_hat, z @ w["W_dec"] + w["b_dec"], rtol=0, atol=1e-5)
    assert torch.equal(sae.reconstruct(x).l0, (z > 0).sum(-1, dtype=torch.int32))


def test_layer_norm_inside_an_sae_is_undone_on_every_chunk(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK, normalize_activations="layer_norm")
    sae, plain = load(folder), load(write_toy_sae(tmp_path / "p", d_in=16, d_sae=64, k=5, hook_name=HOOK))
    x = some_x(700) + 3
    mean, centred = x.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True)
    std = centred.std(-1, keepdim=True)
    expected = plain.reconstruct(centred / (std + 1e-5)).x_hat * std + mean
    torch.testing.assert_close(sae.reconstruct(x).x_hat, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 250, 256, 257, 513])
def test_a_tokens_reconstruction_does_not_depend_on_its_batch(tmp_path: Path, batch: int) -> None:
    sae = load(write_toy_sae(tmp_path, d_in=16, d_sae=512, k=5, hook_name=HOOK))
    x = some_x()
    whole = sae.reconstruct(x)
    parts = [sae.reconstruct(part) for part in x.split(batch)]
    x_hat = torch.cat([part.x_hat for part in parts])
    if batch == 1:  # live generation, not padded to a chunk
        torch.testing.assert_close(x_hat, whole.x_hat, rtol=1e-5, atol=1e-5)
    else:
        rows = slice(0, len(x) - len(x) % batch if len(x) % batch == 1 else len(x))
        assert torch.equal(x_hat[rows], whole.x_hat[rows])
        assert torch.equal(torch.cat([part.l0 for part in parts])[rows], whole.l0[rows])


def test_chunks_depend_on_the_width_alone_and_stay_small() -> None:
    assert [chunk_tokens(d_sae) for d_sae in (256, 16384, 1 << 20, 1 << 22)] == [256, 256, 64, 16]
    assert all(chunk_tokens(d_sae) * d_sae * 16 <= 1 << 30 for d_sae in (256, 1 << 20, 1 << 22))


def test_no_tokens_give_no_rows(tmp_path: Path) -> None:
    result = load(write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK)).reconstruct(torch.zeros(0, 16))
    assert (result.x_hat.shape, result.l0.shape) == ((0, 16), (0,))


def test_active_latents_rebuild_x_hat_strongest_first(tmp_path: Path) -> None:
    sae = load(write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK))
    w, x = load_file(tmp_path / "sae_weights.safetensors"), some_x(1)[0]
    latents = sae.active_latents(x)
    assert len(latents) == 5
    assert [value for _, value in latents] == sorted((value for _, value in latents), reverse=True)
    rebuilt = sum(value * w["W_dec"][index] for index, value in latents) + w["b_dec"]
    torch.testing.assert_close(sae.reconstruct(x[None]).x_hat[0], rebuilt, rtol=0, atol=1e-5)


def test_attention_saes_read_flattened_heads(tmp_path: Path) -> None:
    sae = load(write_toy_sae(tmp_path, d_in=24, d_sae=64, k=5, hook_name="blocks.1.attn.hook_z"), 24)
    assert sae.reconstruct(some_x(10, 24)).x_hat.shape == (10, 24)


def test_half_precision_on_disk_is_computed_in_float32(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK)
    rewrite(folder, lambda weights: weights.update({n: w.half() for n, w in weights.items()}), dtype="float16")
    w, x = load_file(folder / "sae_weights.safetensors"), some_x(50)
    z = torch.relu((x - w["b_dec"].float()) @ w["W_enc"].float())
    z = z * (z >= z.topk(5, dim=-1).values[:, -1:])
    x_hat = load(folder).reconstruct(x).x_hat
    torch.testing.assert_close(x_hat, z @ w["W_dec"].float() + w["b_dec"].float(), rtol=0, atol=1e-5)


def test_another_models_sae_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=24, d_sae=64, k=5, hook_name=HOOK)
    message = refusal(folder, 16)
    assert "reads vectors of size 24 (d_in 24 x d_sae 64) but blocks.1.hook_resid_post gives 16" in message
    assert message.endswith("Are model and SAE from the same family?")
    with pytest.raises(TargetError, match=r"x has shape \[3, 16\] but SAE .* reads \[n, 24\]"):
        load(folder, 24).reconstruct(torch.zeros(3, 16))


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
def test_normalisations_that_sae_lens_skips_are_refused(tmp_path: Path, normalisation: str) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK, normalize_activations=normalisation)
    assert f"normalize_activations='{normalisation}', whose factor is not in the weights" in refusal(folder)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_dec"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[name].view(-1)[7] = value

    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK)
    assert f"weights that are not finite, in {name}" in refusal(rewrite(folder, poison))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK)
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert "is not a whole safetensors file" in refusal(folder)
    weights.write_bytes(b"")
    assert "is not a whole safetensors file" in refusal(folder)


def test_weights_of_another_shape_than_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, k=5, hook_name=HOOK)
    assert "W_dec of shape [64, 16] instead of [65, 16]" in refusal(rewrite(folder, lambda weights: None, d_sae=65))
    assert "cannot be loaded" in refusal(rewrite(folder, lambda weights: None, d_sae=64, architecture="jumprelu"))


@pytest.mark.parametrize("architecture", ["transcoder", "no_such_thing"])
def test_what_is_not_an_sae_is_refused(tmp_path: Path, architecture: str) -> None:
    folder = write_toy_sae(tmp_path, d_in=16, d_sae=64, hook_name=HOOK, architecture=architecture, d_out=16)
    message = refusal(rewrite(folder, drop_threshold))
    assert architecture in message


def test_hash_follows_weights_and_configuration(tmp_path: Path) -> None:
    folders = [
        write_toy_sae(tmp_path / str(i), d_in=16, d_sae=64, k=k, hook_name=HOOK) for i, k in enumerate((5, 5, 6))
    ]
    hashes = [load(folder).weights_hash for folder in folders]
    assert hashes[0] == hashes[1] != hashes[2]
