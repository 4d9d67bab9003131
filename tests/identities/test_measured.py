"""Identities S-16 to S-20 and S-24 to S-26, on data where they can be broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from inspector.engine.moments import Moments
from inspector.engine.nulls import gaussian_norm_r2
from inspector.engine.pursuit import Pursuit
from inspector.engine.regression import Factorisation
from inspector.experiments import synthetic_random
from inspector.experiments.dark_matter_breakdown import stacked
from inspector.experiments.theory_c1 import RAW_MOMENTS, bernoulli, draw_weights, predicted, sparse
from inspector.sources.forward import Outputs
from inspector.sources.model import ForwardPass
from inspector.statistics.passes import Activations
from inspector.statistics.pipeline import Measuring
from inspector.statistics.profiles import PROTOCOLS
from inspector.statistics.spliced import Spliced, measure_splices
from tests.experiments.own import LAYER, Toy, finish, opened


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("identities"))


def test_s15_bands_sum_to_the_fitted_total_and_a_negative_one_is_kept() -> None:
    bands = stacked(lambda width: 0.05 + 1 / width, 0.05, 0.08, [(100.0, 0.06), (1000.0, 0.09)])
    parts = zip(bands.absent_features, bands.linear_asymptotic, bands.encoder_error, bands.nonlinear_error, strict=True)
    assert [sum(part) for part in parts] == pytest.approx(list(bands.total), abs=1e-12)
    assert min(bands.linear_asymptotic) < 0 and min(bands.encoder_error) < 0
    assert bands.width[0] == pytest.approx(100 / 1.3) and bands.width[-1] == pytest.approx(10_000)
    assert bands.nonlinear_error[-1] == 0.09 and bands.extrapolated[-1] and not bands.extrapolated[0]


def test_s16_pursuit_keeps_its_promises() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 20))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    decoder, bias = torch.from_numpy(rows).float(), torch.from_numpy(rng.normal(size=20)).float()
    x = torch.from_numpy(rng.normal(size=(100, 20))).float()
    targets = torch.from_numpy(rng.integers(0, 12, size=100))
    pursuit = Pursuit(decoder, bias)
    left = []
    for most in (0, 2, 4, 8, 12):
        own = targets.clamp(max=most)
        codes = pursuit.encode(x, own)
        assert bool((codes.l0 <= own).all()) and bool((codes.coefficients >= 0).all())
        left.append(float((x - pursuit.decode(codes)).square().sum()))
    assert left == sorted(left, reverse=True)
    none = pursuit.decode(pursuit.encode(x, torch.zeros_like(targets)))
    torch.testing.assert_close(none, bias.expand(100, -1), atol=0, rtol=0)
    basis = torch.from_numpy(np.linalg.qr(rng.normal(size=(20, 20)))[0]).float()
    truth = torch.from_numpy((rng.random((100, 20)) < 0.3) * (0.1 + rng.random((100, 20)))).float()
    # The gradient of an orthonormal dictionary is the coefficient that is missing, so one step per feature is exact.
    exact = Pursuit(basis, bias)
    codes = exact.encode(truth @ basis + bias, (truth > 0).sum(dim=1))
    torch.testing.assert_close(exact.decode(codes), truth @ basis + bias, atol=1e-5, rtol=0)
    assert codes.l0.tolist() == (truth > 0).sum(dim=1).tolist()


def test_s17_random_features_leave_alpha_times_one_minus_alpha() -> None:
    """Isotropic, no noise, many more features than dimensions: to the specification's 0.01."""
    params = synthetic_random.Params(features=6000, dims=30, samples=8000, active=40.0, exponent=0.0)
    found: Any = finish(synthetic_random.simulate(0, params)).result
    expected = [alpha * (1 - alpha) for alpha in found.alpha]
    assert list(found.fvu_nonlinear) == pytest.approx(expected, abs=0.01)
    # It must fail where features are few: then most of what is missing can be told from what is there.
    params = synthetic_random.Params(features=40, dims=30, samples=8000, active=8.0, exponent=0.0)
    few: Any = finish(synthetic_random.simulate(0, params)).result
    assert max(abs(value - a * (1 - a)) for value, a in zip(few.fvu_nonlinear, few.alpha, strict=True)) > 0.05


@pytest.mark.parametrize("law", ["poisson 1", "sparse 0.1 uniform"])
def test_s18_probe_weight_is_covariance_over_variance(law: str) -> None:
    """200,000 vectors in a rotated basis: to 3%."""
    rng = np.random.default_rng(1)
    w = draw_weights(law, 200_000, 5, rng)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    x = w @ basis
    fitted = LinearRegression().fit(x, (x**2).sum(axis=1))
    assert (basis @ fitted.coef_).mean() == pytest.approx(predicted(law).slope, rel=0.03)
    assert fitted.score(x, (x**2).sum(axis=1)) == pytest.approx(predicted(law).r2, abs=0.02)
    assert [sparse(1e-7, each).r2 for each in RAW_MOMENTS] == pytest.approx([1, 0.9375, 0.8488, 0.75], abs=1e-4)


def test_s19_two_valued_weights_have_a_perfect_probe_dependent_or_not() -> None:
    """Exact, a = sum s_i y_i, no intercept needed; three values break it."""
    rng = np.random.default_rng(2)
    sizes = rng.uniform(0.5, 2, size=6)
    shared = rng.random((2000, 1)) < 0.4
    active = (rng.random((2000, 6)) < 0.3) | (shared & (np.arange(6) < 3))
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = (active * sizes) @ basis
    probe = sizes @ basis
    np.testing.assert_allclose(x @ probe, (x**2).sum(axis=1), atol=1e-12)
    assert bernoulli(0.3).r2 == pytest.approx(1.0) and bernoulli(0.3, 1.7).slope == pytest.approx(1.7)
    doubled = (active * sizes * rng.integers(1, 3, size=active.shape)) @ basis
    assert LinearRegression().fit(doubled, (doubled**2).sum(axis=1)).score(doubled, (doubled**2).sum(axis=1)) < 0.99


@pytest.mark.parametrize("mean", [0.0, 0.5, 1.5])
def test_s20_gaussian_norms_are_predictable_without_features(mean: float) -> None:
    """200,000 draws against the closed form: to 0.01."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(6, 6))
    x = torch.from_numpy(rng.normal(size=(200_000, 6)) @ root + mean * rng.normal(size=6))
    moments = Moments(6, full=["x"])
    moments.update(x, {"x": x})
    closed = gaussian_norm_r2(moments.target("x"), Factorisation(moments), "x")
    assert closed is not None
    y = (x.numpy() ** 2).sum(axis=1)
    assert closed == pytest.approx(LinearRegression().fit(x.numpy(), y).score(x.numpy(), y), abs=0.01)
    assert (closed < 0.01) == (mean == 0.0)


@pytest.fixture(scope="module")
def spliced(toy: Toy) -> dict[str, Any]:
    return toy.one("ce-splice", contexts="4", l0="0")


def test_s24_splicing_x_or_all_parts_changes_nothing(spliced: dict[str, Any]) -> None:
    """X exactly, the sum of the parts to float32; x recovers 100% and Sae(x) none by definition."""
    assert spliced["controls"]["exactness"]["x_spliced"] == 0.0
    assert spliced["controls"]["exactness"]["x_cached"] == 0.0
    for row in spliced["saes"]:
        assert row["ce_both"] == pytest.approx(spliced["result"]["ce_original"], abs=1e-5)
        own = spliced["controls"]["same_size_perturbations"]["saes"][row["sae"]]
        assert own["recovered_both"] == pytest.approx(100.0, abs=0.1) and own["kl_both"] < 1e-6
        assert row["ce_sae"] != spliced["result"]["ce_original"]


def test_s25_losses_before_the_splice_do_not_move(spliced: dict[str, Any]) -> None:
    assert spliced["controls"]["exactness"]["before_the_splice"] == 0.0


def test_s25_would_notice_an_acausal_splice(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With logits of a model that looks ahead the same check is not 0."""
    plain = type(toy.loaded.model).splice

    def looking_ahead(self: Any, tokens: torch.Tensor, hook_name: str, replacement: torch.Tensor) -> ForwardPass:
        made = plain(self, tokens, hook_name, replacement)
        logits = made.logits + 1e-3 * made.logits.mean(dim=1, keepdim=True).roll(1, dims=2)
        outputs = tuple(Outputs(n=len(each), make=each.__getitem__) for each in logits)
        return ForwardPass(outputs=outputs, activations={})

    monkeypatch.setattr(type(toy.loaded.model), "splice", looking_ahead)
    found: Spliced = finish(measure_splices(measuring_of(toy), contexts=1, l0=0, hook=""))
    assert found.before_gap > 0 and found.loss_gap > 0


def measuring_of(toy: Toy) -> Measuring:
    from inspector.statistics.first_pass import Fit, collect_first

    activations = Activations(loaded=toy.loaded, batch_size=8)
    first = finish(collect_first(activations, toy.loaded.plan)).ordinary
    return Measuring(
        activations=activations,
        plan=toy.loaded.plan,
        protocol=PROTOCOLS["careful"],
        fit=Fit.of(first, intercept=True),
        n_resamples=0,
    )


def test_s26_nothing_planted_in_an_idempotent_sae_is_found_as_nothing(tmp_path: Path, toy: Toy) -> None:
    """An SAE of orthonormal rows that keeps every latent above 0 reconstructs its own output exactly."""
    import json
    import warnings
    from dataclasses import replace

    from safetensors.torch import save_file

    from inspector.sources.target import open_target

    folder = tmp_path / "idempotent"
    folder.mkdir()
    source = toy.folder(LAYER, "resid", 32)
    rows = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q.contiguous()
    save_file(
        {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(16), "b_dec": torch.zeros(16)},
        folder / "sae_weights.safetensors",
    )
    config = json.loads((source / "cfg.json").read_text()) | {"d_sae": 16, "k": 16}
    (folder / "cfg.json").write_text(json.dumps(config))
    target = replace(toy.loaded.target, suite=None, saes=(str(folder),), accept_gate=True)  # half of its k is used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = Toy(toy.root, finish(open_target(target)))
    found = exact.one("synthetic-sae", tokens="0")
    assert found["controls"]["no_noise"]["dense"] == pytest.approx(0.0, abs=1e-6)
    assert found["controls"]["no_noise"]["introduced"] == pytest.approx(0.0, abs=1e-6)
    # The toy's own SAEs do not reconstruct their output, which the same control shows.
    assert toy.one("synthetic-sae", tokens="0")["controls"]["no_noise"]["introduced"] > 1e-4
