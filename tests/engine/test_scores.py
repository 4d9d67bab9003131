"""Scores against scikit-learn, against each other in closed form, and where they are undefined."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor

from inspector.engine import scores
from inspector.engine.moments import Moments
from inspector.engine.regression import Factorisation
from tests.engine.toy import Toy, toy


def fitted(x: Tensor, x_hat: Tensor) -> Factorisation:
    moments = Moments(x.shape[1])
    error = x - x_hat
    moments.update(x, {"error": error, "norm": error.square().sum(dim=1)})
    return Factorisation(moments)


def measured(data: Toy, *, intercept: bool = True) -> dict[str, float | None]:
    """All held-out metrics of a toy, through the public functions."""
    factorisation = fitted(*data.half(train=True))
    x, x_hat = data.half(train=False)
    error = x - x_hat
    linear = factorisation.fit("error", intercept=intercept).predict(x)
    norm = factorisation.fit("norm", intercept=intercept).predict(x)[:, 0]
    return {
        "fvu": scores.fvu(x, x_hat),
        "fvu_nonlinear": scores.fvu_nonlinear(x, x_hat, linear),
        "r2_norm": scores.r2_scalar(error.square().sum(dim=1), norm),
        "r2_pooled": scores.r2_pooled(error, linear),
        "r2_mean_dims": scores.r2_mean_dims(error, linear),
    }


def test_scores_are_those_of_scikit_learn() -> None:
    data = toy()
    x, x_hat = data.half(train=False)
    error, guess = x - x_hat, 0.5 * (x - x_hat) + 0.1
    assert scores.r2_mean_dims(error, guess) == pytest.approx(r2_score(error, guess), rel=1e-12)
    weighted = r2_score(error, guess, multioutput="variance_weighted")
    assert scores.r2_pooled(error, guess) == pytest.approx(weighted, rel=1e-12)
    assert scores.r2_scalar(error[:, 0], guess[:, 0]) == pytest.approx(r2_score(error[:, 0], guess[:, 0]), rel=1e-12)
    fvu = 1 - r2_score(x, x_hat, multioutput="variance_weighted")
    assert scores.fvu(x, x_hat) == pytest.approx(fvu, rel=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
def test_closed_forms_are_the_direct_scores_of_the_training_tokens(intercept: bool) -> None:
    x, x_hat = toy().half(train=True)
    factorisation = fitted(x, x_hat)
    error_map = factorisation.fit("error", intercept=intercept)
    target, linear = factorisation.moments.target("error"), error_map.predict(x)
    pooled, mean_dims = scores.r2_from_moments(target, error_map)
    assert pooled == pytest.approx(scores.r2_pooled(x - x_hat, linear), rel=1e-10)
    assert mean_dims == pytest.approx(scores.r2_mean_dims(x - x_hat, linear), rel=1e-10)
    assert scores.fvu_from_moments(target, None) == pytest.approx(scores.fvu(x, x_hat), rel=1e-10)
    direct = scores.fvu_nonlinear(x, x_hat, linear)
    assert scores.fvu_from_moments(target, error_map) == pytest.approx(direct, rel=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_s07_fvu_nonlinear_is_the_same_whichever_is_regressed(intercept: bool) -> None:
    """S-07: the residuals differ in sign only; the two R-squared do not agree."""
    data = toy()
    x, x_hat = data.half(train=True)
    moments = Moments(12)
    moments.update(x, {"error": x - x_hat, "x_hat": x_hat})
    factorisation = Factorisation(moments)
    held, held_hat = data.half(train=False)
    linear = factorisation.fit("error", intercept=intercept).predict(held)
    of_x_hat = factorisation.fit("x_hat", intercept=intercept).predict(held)
    one = scores.fvu_nonlinear(held, held_hat, linear)
    other = float((held_hat - of_x_hat).square().sum() / (held - held.mean(dim=0)).square().sum())
    assert one == pytest.approx(other, rel=1e-10)
    r2_error, r2_sae = scores.r2_pooled(held - held_hat, linear), scores.r2_pooled(held_hat, of_x_hat)
    assert r2_error is not None and r2_sae is not None and abs(r2_error - r2_sae) > 0.01


def test_s08_fvu_nonlinear_from_fvu_and_r2() -> None:
    """S-08 exactly, and that the simple product with the centred R-squared is wrong when the mean error is not 0."""
    x, x_hat = toy().half(train=False)
    error = x - x_hat
    linear = fitted(x, x_hat).fit("error").predict(x)
    fvu, nonlinear = scores.fvu(x, x_hat), scores.fvu_nonlinear(x, x_hat, linear)
    pooled = scores.r2_pooled(error, linear)
    assert fvu is not None and nonlinear is not None and pooled is not None
    uncentred = 1 - float((error - linear).square().sum() / error.square().sum())
    assert nonlinear == pytest.approx(fvu * (1 - uncentred), rel=1e-10)
    variance = float((x - x.mean(dim=0)).square().sum())
    mean_part = len(x) * float(error.mean(dim=0).square().sum()) / variance
    assert nonlinear == pytest.approx((1 - pooled) * (fvu - mean_part), rel=1e-10)
    assert abs(nonlinear - fvu * (1 - pooled)) > 1e-3
    recovered = [1 - (scores.fvu(x, x_hat + part) or 0.0) / fvu for part in (linear, error - linear)]
    assert recovered == pytest.approx([uncentred, 1 - uncentred], rel=1e-9)


@pytest.mark.parametrize("name", ["zero", "identity", "projection", "general"])
def test_s10_an_affine_map_has_no_nonlinear_error(name: str) -> None:
    data = toy()
    basis = torch.linalg.qr(torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    affine = {
        "zero": torch.zeros_like(data.x),
        "identity": data.x.clone(),
        "projection": data.x @ basis @ basis.T,
        "general": data.x @ torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 3,
    }[name]
    value = measured(Toy(x=data.x, x_hat=affine, train=data.train))["fvu_nonlinear"]
    assert value is not None and abs(value) < 1e-10


def test_s13_a_perfect_sae_has_fvu_zero_and_no_r2() -> None:
    data = toy()
    perfect = measured(Toy(x=data.x, x_hat=data.x.clone(), train=data.train))
    assert perfect["fvu"] == 0.0
    assert perfect["fvu_nonlinear"] is not None and abs(perfect["fvu_nonlinear"]) < 1e-20
    assert perfect["r2_norm"] is None and perfect["r2_pooled"] is None and perfect["r2_mean_dims"] is None


def test_constant_x_has_no_fvu_and_constant_dimensions_have_no_r2() -> None:
    same = torch.full((10, 3), 0.1)
    assert scores.fvu(same, same + 1) is None
    y = torch.randn(10, 3, dtype=torch.float64)
    y[:, 1] = 0.1
    per_dim = scores.r2_per_dim(y, y + 0.1)
    assert per_dim.isnan().tolist() == [False, True, False]
    assert scores.r2_mean_dims(y, y + 0.1) == pytest.approx(float(per_dim[[0, 2]].mean()))
    moments = Moments(3)
    moments.update(y, {"y": same})
    pooled, mean_dims = scores.r2_from_moments(moments.target("y"), Factorisation(moments).fit("y"))
    assert pooled is None and mean_dims is None


def test_a_bad_value_is_shown() -> None:
    y = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert scores.r2_scalar(y, y + 10) == pytest.approx(1 - 400 / 5)
    assert scores.fvu(y[:, None], y[:, None] + 10) == pytest.approx(80.0)


def test_s21_rotation_changes_only_the_mean_over_dimensions() -> None:
    data = toy()
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    before = measured(data)
    after = measured(Toy(x=data.x @ rotation, x_hat=data.x_hat @ rotation, train=data.train))
    for name in ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled"):
        assert after[name] == pytest.approx(before[name], rel=1e-10), name
    assert abs((after["r2_mean_dims"] or 0) - (before["r2_mean_dims"] or 0)) > 1e-3


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_s22_scale_changes_nothing_but_the_norm_map(factor: float) -> None:
    data = toy()
    scaled = Toy(x=factor * data.x, x_hat=factor * data.x_hat, train=data.train)
    before, after = measured(data), measured(scaled)
    for name, value in before.items():
        assert after[name] == pytest.approx(value, rel=1e-10), name
    one, other = fitted(*data.half(train=True)).fit("norm"), fitted(*scaled.half(train=True)).fit("norm")
    torch.testing.assert_close(other.weight, factor * one.weight, rtol=1e-9, atol=1e-9 * factor)


def test_pooled_and_mean_dims_are_different_numbers() -> None:
    """One huge well-predicted dimension beside many small unpredicted ones: 1 pooled, near 0 in the mean."""
    y = torch.randn(1000, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    guess = torch.zeros_like(y)
    y[:, 0] *= 1000
    guess[:, 0] = y[:, 0]
    assert (scores.r2_pooled(y, guess) or 0) > 0.99
    assert (scores.r2_mean_dims(y, guess) or 0) == pytest.approx(0.1, abs=0.01)
