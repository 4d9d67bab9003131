"""SAEs of GPT-2 with centred writing weights, on GPT-2 as published: NumPy's SAE on processed weights judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inspector.errors import DataError, TargetError
from inspector.sources.model import LanguageModel
from inspector.sources.sae import LoadedSae
from inspector.sources.sae_loading import load_sae, processing
from inspector.sources.suites import list_suite
from inspector.spec import TargetSpec
from tests.checkpoints import Array, tensor
from tests.sources.test_architectures import LAYERS, drawn, gpt2, loaded, made, written

D, CPU = 32, torch.device("cpu")
KWARGS = {"center_writing_weights": True}
STREAM = [f"blocks.{LAYERS - 1}.{end}" for end in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")]
ADDED = [f"blocks.{LAYERS - 1}.{end}" for end in ("hook_mlp_out", "hook_attn_out")]


def w() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    shapes = {"W_enc": (D, 80), "W_dec": (80, D), "b_enc": (80,), "b_dec": (D,)}
    return {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def relu(x: Array) -> tuple[Array, Array]:
    own = {name: value.astype(np.float64) for name, value in w().items()}
    codes = np.maximum((x - own["b_dec"]) @ own["W_enc"] + own["b_enc"], 0)
    return codes @ own["W_dec"] + own["b_dec"], codes


def sae(folder: Path, hook: str, kwargs: dict[str, Any] | None = None, **more: Any) -> LoadedSae:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    cfg = {"architecture": "standard", "d_in": D, "d_sae": 80, "hook_name": hook, "activation_fn_str": "relu", **more}
    if kwargs is not None:
        cfg["model_from_pretrained_kwargs"] = kwargs
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file({name: tensor(value) for name, value in w().items()}, folder / "sae_weights.safetensors")
    return load_sae(list_suite(folder)[0], CPU, D)


def processed(folder: Path) -> Any:
    """GPT-2 with every weight and bias that writes to the stream without its mean over dimensions, in NumPy."""
    own = drawn(gpt2())
    with torch.no_grad():
        for name, weight in own.named_parameters():
            if name.endswith(("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")):
                value = weight.numpy().astype(np.float64)  # the last axis is the stream
                weight.copy_(torch.from_numpy(value - value.mean(axis=-1, keepdims=True)))
    own.lm_head.weight = torch.nn.Parameter(drawn(gpt2()).transformer.wte.weight.detach().clone())
    own.config.tie_word_embeddings = False
    return written(own, folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, LanguageModel, torch.Tensor]:
    root = tmp_path_factory.mktemp("models")
    tokens = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(1))
    return loaded(written(drawn(gpt2()), root / "plain")), loaded(processed(root / "processed")), tokens


@pytest.mark.holds("sae-lens")
@pytest.mark.parametrize("hook", [*STREAM, *ADDED])
def test_the_error_is_that_on_the_processed_model(
    both: tuple[LanguageModel, LanguageModel, torch.Tensor], tmp_path: Path, hook: str
) -> None:
    plain, centred, tokens = both
    x, x_there = (model.activations(tokens, hook).flatten(0, 1) for model in (plain, centred))
    assert float(x.mean(dim=1).abs().max()) > 0.1 > 1e-4 > float(x_there.mean(dim=1).abs().max())
    expected, codes = relu(x_there.numpy().astype(np.float64))
    made = sae(tmp_path / "a", hook, KWARGS).reconstruct(x)
    # Activations of two float32 models of size ten, through sums of 80 products.
    np.testing.assert_allclose((x - made.x_hat).numpy(), x_there.numpy() - expected, rtol=1e-3, atol=2e-3)
    assert np.mean(made.l0.numpy() == (codes > 0).sum(axis=1)) > 0.9  # a latent may lie on its threshold
    naive = sae(tmp_path / "b", hook).reconstruct(x)
    assert float((x - naive.x_hat - torch.from_numpy(x_there.numpy() - expected)).abs().max()) > 0.1


def test_a_splice_gives_the_processed_models_logits(
    both: tuple[LanguageModel, LanguageModel, torch.Tensor], tmp_path: Path
) -> None:
    plain, centred, tokens = both
    hook, logits = STREAM[0], []
    for model, kwargs in ((plain, KWARGS), (centred, None)):
        x = model.activations(tokens, hook)
        x_hat = sae(tmp_path / str(kwargs), hook, kwargs).reconstruct(x.flatten(0, 1)).x_hat.reshape(x.shape)
        logits.append(model.splice(tokens, hook, x_hat).logits)
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-2)


def test_it_is_said_when_it_was_and_not_when_it_was_not(tmp_path: Path) -> None:
    hook = STREAM[0]
    assert "without its mean over dimensions" in " ".join(sae(tmp_path / "a", hook, KWARGS).notes)
    assert sae(tmp_path / "b", hook, {"center_writing_weights": False, "n_devices": 1}).notes == ()
    assert sae(tmp_path / "c", hook).notes == ()
    (note,) = sae(tmp_path / "d", "blocks.1.attn.hook_z", {"fold_ln": True, **KWARGS}).notes
    assert "trained on a processed model ({'fold_ln': True, 'center_writing_weights': True})" in note
    assert processing(hook, {"fold_value_biases": True, **KWARGS}) == {"fold_value_biases": True}


def test_the_registrys_word_counts_in_both_versions_of_the_configuration(tmp_path: Path) -> None:
    overrides = json.dumps({"model_from_pretrained_kwargs": KWARGS})
    for name, more in (("old", {}), ("new", {"metadata": {"hook_name": STREAM[0], "sae_lens_version": "6.0.0"}})):
        plain = sae(tmp_path / name, STREAM[0], **more)
        found = load_sae(replace(plain.ref, overrides=overrides), CPU, D)
        assert (plain.is_centred, found.is_centred) == (False, True)
        assert plain.weights_hash != found.weights_hash


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_what_is_kept_between_encoding_and_decoding_fits_the_last_rows_too(tmp_path: Path, norm: str) -> None:
    found = sae(tmp_path / "a", STREAM[0], KWARGS, normalize_activations=norm)
    x = torch.randn(300, D, generator=torch.Generator().manual_seed(2)) + 1
    parts = [found.decode(latents) for _, latents in found.chunks(x)]
    torch.testing.assert_close(torch.cat(parts), found.reconstruct(x).x_hat, rtol=0, atol=0)


def test_a_model_whose_norms_keep_the_mean_is_refused(tmp_path: Path) -> None:
    from inspector.sources.target import open_target

    model = written(made("llama"), tmp_path / "llama")
    sae(tmp_path / "suite" / "a", "blocks.1.hook_resid_post", KWARGS)
    target = TargetSpec(
        model=str(model), suite=str(tmp_path / "suite"), layers=(1,), text="demo", contexts=4, context_length=32
    )
    with pytest.raises(TargetError, match="has no LayerNorm, so centring would change what it computes"):
        list(open_target(target))


@pytest.mark.parametrize(
    ("kwargs", "norm"), [(KWARGS, "none"), (None, "layer_norm"), (None, "constant_norm_rescale"), (None, "none")]
)
def test_codes_are_pursued_only_where_x_hat_is_a_sum_of_rows(
    tmp_path: Path, kwargs: dict[str, Any] | None, norm: str
) -> None:
    from inspector.statistics.pursued import _Source

    found = sae(tmp_path / "a", STREAM[0], kwargs, normalize_activations=norm)
    mask = torch.ones(1, 3, dtype=torch.bool)
    made_of: Any = (SimpleNamespace(train=mask, test=mask), [found], "paper-text")
    if norm == "none" and kwargs is None:
        assert set(_Source(*made_of).pursuits) == {found.ref.sae_id}
    else:
        with pytest.raises(DataError, match="x_hat is no sum of its decoder's rows"):
            _Source(*made_of)


def test_centring_goes_with_the_registrys_norm_factor(tmp_path: Path) -> None:
    """As `gpt2-small-mlp-tm` has both: the stream is centred first, then brought to the unit of training."""
    plain = sae(tmp_path / "a", ADDED[0], KWARGS, normalize_activations=False)
    (tmp_path / "a" / "cfg.json").write_text(
        json.dumps(json.loads((tmp_path / "a" / "cfg.json").read_text()) | {"normalize_activations": True})
    )
    x = 3 + np.random.default_rng(5).standard_normal((40, D)).astype(np.float32).astype(np.float64)
    mean = x.mean(axis=1, keepdims=True)
    expected, codes = relu((x - mean) * 1.5)
    made = load_sae(replace(plain.ref, norm_factor=1.5), CPU, D).reconstruct(torch.from_numpy(x).float())
    # float32 sums of 80 products of size one.
    np.testing.assert_allclose(made.x_hat.numpy(), expected / 1.5 + mean, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(made.l0.numpy(), (codes > 0).sum(axis=1))
