"""The fit against numpy's least squares, where that is easy and where it is hard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from inspector.engine.moments import Moments
from inspector.engine.regression import Factorisation, LinearMap, residual_squares
from inspector.engine.scores import r2_pooled
from tests.engine.toy import least_squares, toy


def factorised(x: Tensor, **targets: Tensor) -> Factorisation:
    moments = Moments(x.shape[1])
    for rows in torch.arange(len(x)).split(500):
        moments.update(x[rows], {name: y[rows] for name, y in targets.items()})
    return Factorisation(moments)


def predicted(x: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
    return torch.from_numpy(x.double().numpy() @ weight.T + bias)


def ill_conditioned(n: int = 15_000, d: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A few outlier dimensions, as residual streams have them; the singular values of x span about 3,750."""
    rng = np.random.default_rng(seed)
    scale = np.ones(d)
    scale[:3] = [3000.0, 1200.0, 400.0]
    x = rng.normal(size=(n, d)) * scale
    x[:, 3:] += 0.3 * rng.normal(size=(n, 1))
    weight = rng.normal(size=(d, d)) / np.sqrt(d) / scale
    weight[:, 3:] *= 3
    y = x @ weight.T + 0.02 * rng.normal(size=(n, d))
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


@pytest.mark.parametrize("intercept", [True, False])
def test_the_fit_is_least_squares(intercept: bool) -> None:
    data = toy()
    fitted = factorised(data.x, error=data.error, norm=data.error.square().sum(dim=1))
    for name, y in (("error", data.error), ("norm", data.error.square().sum(dim=1)[:, None])):
        weight, bias = least_squares(data.x, y, intercept)
        linear_map = fitted.fit(name, intercept=intercept)
        np.testing.assert_allclose(linear_map.weight, weight, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(linear_map.bias, bias, rtol=1e-9, atol=1e-10)
    assert fitted.effective_rank == 12


def test_s02_an_affine_target_is_found_exactly() -> None:
    """S-02: R2 = 1 on train and test, and the map itself."""
    data = toy()
    weight, bias = torch.randn(12, 12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    y = data.x @ weight.T + bias
    linear_map = factorised(data.x[data.train], y=y[data.train]).fit("y")
    torch.testing.assert_close(linear_map.weight, weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(linear_map.bias, bias, rtol=1e-10, atol=1e-10)
    for rows in (data.train, ~data.train):
        assert r2_pooled(y[rows], linear_map.predict(data.x[rows])) == pytest.approx(1.0, abs=1e-12)


def test_ill_conditioned_x_is_solved_where_float32_lstsq_fails() -> None:
    """Finding 3 of the facts: default float32 lstsq is wrong here by tens, ours agrees with float64 to 1e-6."""
    x, y = ill_conditioned()
    held_x, held_y = x[10_000:], y[10_000:]
    x, y = x[:10_000], y[:10_000]
    singular = torch.linalg.svdvals((x - x.mean(dim=0)).double())
    assert 2_000 < float(singular[0] / singular[-1]) < 6_000
    truth = r2_pooled(held_y, predicted(held_x, *least_squares(x, y)))
    linear_map = factorised(x, y=y).fit("y")
    ours = r2_pooled(held_y, linear_map.predict(held_x))
    careless = torch.linalg.lstsq(x, y, driver="gelsy").solution
    theirs = r2_pooled(held_y, held_x @ careless)
    assert truth is not None and ours is not None and theirs is not None
    assert truth > 0.99
    assert ours == pytest.approx(truth, abs=1e-6)
    assert theirs < 0.9


def test_the_weights_too_agree_when_ill_conditioned() -> None:
    x, y = ill_conditioned()
    weight, bias = least_squares(x, y)
    linear_map = factorised(x, y=y).fit("y")
    np.testing.assert_allclose(linear_map.weight, weight, rtol=1e-6, atol=1e-6 * np.abs(weight).max())
    np.testing.assert_allclose(linear_map.bias, bias, atol=1e-6)


def test_correlated_directions_at_a_condition_of_ten_thousand_agree_with_numpy() -> None:
    """Scaling per dimension does not help here; float64 normal equations still leave 1e-16 * 1e8 = 1e-8."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    x = torch.from_numpy(rng.normal(size=(4000, 24)) * np.geomspace(1e4, 1, 24) @ basis)
    y = torch.from_numpy(rng.normal(size=(4000, 3))) + x @ torch.from_numpy(rng.normal(size=(24, 3)))
    weight, bias = least_squares(x, y)
    fitted = factorised(x, y=y)
    torch.testing.assert_close(fitted.fit("y").predict(x), predicted(x, weight, bias), rtol=1e-6, atol=1e-6)
    assert fitted.effective_rank == 24 and fitted.condition_number > 1_000


def test_dependent_dimensions_lower_the_rank_and_predict_the_same() -> None:
    """A copied, a summed, a constant and a zero dimension, rounded to float32 as a model would."""
    data = toy()
    x = data.x.float()
    one = torch.ones(len(x), 1)
    wide = torch.cat([x, x[:, :1], x[:, :1] + x[:, 1:2], 700.0 * one, 0.0 * one], dim=1)
    fitted = factorised(wide[data.train], error=data.error[data.train])
    assert fitted.effective_rank == 12
    weight, bias = least_squares(x[data.train], data.error[data.train])
    torch.testing.assert_close(
        fitted.fit("error").predict(wide[~data.train]),
        predicted(x[~data.train], weight, bias).float(),
        rtol=1e-4,
        atol=1e-5,
    )
    assert torch.isfinite(fitted.fit("error").weight).all()


def test_fewer_tokens_than_dimensions_is_rank_deficient_not_a_crash() -> None:
    data = toy(n=9)
    fitted = factorised(data.x, error=data.error)
    assert fitted.effective_rank == 8
    torch.testing.assert_close(fitted.fit("error").predict(data.x), data.error, rtol=1e-7, atol=1e-7)


def test_one_token_and_constant_x_predict_the_mean() -> None:
    x = torch.full((4, 3), 2.5)
    y = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
    fitted = factorised(x, y=y)
    assert fitted.effective_rank == 0
    torch.testing.assert_close(fitted.fit("y").predict(x), torch.full((4, 1), 3.0))
    with pytest.raises(ValueError, match="no tokens"):
        Factorisation(Moments(3))


def test_s03_residuals_are_orthogonal_to_x_on_the_training_tokens_only() -> None:
    """S-03, and that it is false on held-out tokens."""
    data = toy()
    linear_map = factorised(data.x[data.train], error=data.error[data.train]).fit("error")
    rest = data.error - linear_map.predict(data.x)
    size = float((data.x[data.train].T.abs() @ rest[data.train].abs()).max())
    assert float((data.x[data.train].T @ rest[data.train]).abs().max()) < 1e-10 * size
    assert float(rest[data.train].sum(dim=0).abs().max()) < 1e-10 * size
    assert float((data.x[~data.train].T @ rest[~data.train]).abs().max()) > 1e-4 * size


@pytest.mark.parametrize("intercept", [True, False])
def test_s04_squares_add_up_on_the_training_tokens(intercept: bool) -> None:
    data = toy()
    linear_map = factorised(data.x, error=data.error).fit("error", intercept=intercept)
    linear = linear_map.predict(data.x)
    total, part, rest = (float(v.square().sum()) for v in (data.error, linear, data.error - linear))
    assert part + rest == pytest.approx(total, rel=1e-10)


def test_s05_a_regressor_or_an_intercept_never_raises_the_training_residual() -> None:
    data = toy()
    rests = []
    for width in (6, 12):
        fitted = factorised(data.x[:, :width], error=data.error)
        for intercept in (False, True):
            linear_map = fitted.fit("error", intercept=intercept)
            rests.append(float(residual_squares(fitted.moments.target("error"), linear_map).sum()))
    narrow_without, narrow, wide_without, wide = rests
    assert narrow <= narrow_without and wide <= wide_without
    assert wide <= narrow and wide_without <= narrow_without


def test_s06_shuffled_targets_are_predicted_worse_than_by_their_mean() -> None:
    """S-06: over 40 shuffles the mean held-out R2 is -(p + 1) / n_train within three standard errors."""
    data = toy(n=1500)
    generator = torch.Generator().manual_seed(1)
    scores = []
    for _ in range(40):
        y = data.error[torch.randperm(1500, generator=generator)]
        linear_map = factorised(data.x[data.train], y=y[data.train]).fit("y")
        scores.append(r2_pooled(y[~data.train], linear_map.predict(data.x[~data.train])))
    values = np.array(scores, dtype=float)
    expected = -13 / 1000
    assert abs(values.mean() - expected) < 3 * values.std() / np.sqrt(40) + 0.1 * abs(expected)
    assert values.mean() < 0


def test_s09_the_map_of_the_error_is_identity_minus_the_map_of_the_reconstruction() -> None:
    data = toy()
    fitted = factorised(data.x, error=data.error, x_hat=data.x_hat)
    error_map, sae_map = fitted.fit("error"), fitted.fit("x_hat")
    torch.testing.assert_close(error_map.weight, torch.eye(12).double() - sae_map.weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(error_map.bias, -sae_map.bias, rtol=1e-10, atol=1e-10)


def test_s12_the_error_is_affine_in_x_and_x_hat() -> None:
    data = toy()
    both = torch.cat([data.x, data.x_hat], dim=1)
    linear_map = factorised(both[data.train], error=data.error[data.train]).fit("error")
    r2 = r2_pooled(data.error[~data.train], linear_map.predict(both[~data.train]))
    assert r2 == pytest.approx(1.0, abs=1e-10)


def test_residual_squares_are_those_of_the_tokens_for_any_map() -> None:
    data = toy()
    fitted = factorised(data.x, error=data.error)
    other = LinearMap(
        weight=torch.randn(12, 12).double(),
        bias=torch.randn(12).double(),
        centre=torch.zeros(12).double(),
        effective_rank=12,
        condition_number=1.0,
        n_train=3000,
    )
    for linear_map in (other, fitted.fit("error"), fitted.fit("error", intercept=False)):
        direct = (data.error - data.x @ linear_map.weight.T - linear_map.bias).square().sum(dim=0)
        torch.testing.assert_close(
            residual_squares(fitted.moments.target("error"), linear_map), direct, rtol=1e-10, atol=1e-8
        )


def test_share_of_the_constant_is_what_x_expresses_without_an_intercept() -> None:
    """q = mu' (Sigma + mu mu')^-1 mu of spec 1.4, against its own formula; 1 when the constant is in the span of x."""
    data = toy()
    x = data.x.numpy()
    mean = x.mean(axis=0)
    expected = mean @ np.linalg.solve(x.T @ x / len(x), mean)
    assert 0.05 < expected < 0.95
    fitted = factorised(data.x, error=data.error)
    assert fitted.constant_share == pytest.approx(expected, rel=1e-10)
    one = torch.ones(3000, 1).double()
    assert factorised(torch.cat([data.x, 5 * one], dim=1)).constant_share == pytest.approx(1.0, abs=1e-9)
    summed = torch.cat([data.x, one - data.x.sum(dim=1, keepdim=True)], dim=1)
    hidden = factorised(summed, error=data.error)
    assert hidden.constant_share == pytest.approx(1.0, abs=1e-7)  # the cutoff stands in for a variance of zero
    with_it, without = (hidden.fit("error", intercept=choice).predict(summed) for choice in (True, False))
    torch.testing.assert_close(with_it, without, rtol=1e-5, atol=1e-5)


def test_a_huge_mean_is_predicted_in_float32_without_loss() -> None:
    """x = 1e5 +- 1: around the mean float32 keeps the prediction; weight x + bias would be off by 1e-2."""
    data = toy()
    x = (data.x + 1e5).float()
    y = data.error.float()
    linear_map = factorised(x, y=y).fit("y")
    exact = x.double() @ linear_map.weight.T + linear_map.bias
    assert float((linear_map.predict(x) - exact).abs().max()) < 1e-5
    naive = x @ linear_map.weight.float().T + linear_map.bias.float()
    assert float((naive - exact).abs().max()) > 1e-3


def test_s28_a_merged_fit_is_the_same_fit() -> None:
    data = toy()
    whole = factorised(data.x, error=data.error).fit("error")
    shards = [Moments(12), Moments(12)]
    for i, rows in enumerate(torch.arange(3000).split(211)):
        shards[i % 2].update(data.x[rows], {"error": data.error[rows]})
    shards[1].merge(shards[0])
    merged = Factorisation(shards[1]).fit("error")
    torch.testing.assert_close(merged.weight, whole.weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(merged.bias, whole.bias, rtol=1e-9, atol=1e-9)
