"""The yardsticks, each against a simulation or an exact statement."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inspector.engine.moments import Moments
from inspector.engine.nulls import gaussian_norm_r2, gaussian_twin, pca_of_fvu
from inspector.engine.regression import Factorisation
from inspector.engine.scores import fvu, r2_scalar
from tests.engine.toy import toy


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
def test_s20_the_norm_of_a_gaussian_is_predicted_as_theory_says(shift: float) -> None:
    """S-20 for v = x: best probe 2 mu, R2 = 4 mu'S mu / (4 mu'S mu + 2 tr S^2). 200k draws leave about 0.003."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    mean = shift * np.linspace(-1, 1, 6)
    x = torch.from_numpy(rng.normal(size=(200_000, 6)) @ mixing.T + mean)
    moments = Moments(6, full=["x"])
    moments.update(x, {"x": x, "norm": x.square().sum(dim=1)})
    factorisation = Factorisation(moments)
    covariance = mixing @ mixing.T
    signal = 4 * mean @ covariance @ mean
    theory = signal / (signal + 2 * (covariance**2).sum())
    assert gaussian_norm_r2(moments.target("x"), factorisation, "x") == pytest.approx(theory, abs=0.01)
    norm_map = factorisation.fit("norm")
    assert r2_scalar(x.square().sum(dim=1), norm_map.predict(x)[:, 0]) == pytest.approx(theory, abs=0.01)
    np.testing.assert_allclose(norm_map.weight[0], 2 * mean, atol=0.2)  # mixing is near-singular


def test_s20_for_a_vector_jointly_gaussian_with_x() -> None:
    """v = a linear map of x plus independent noise, both with a mean; theory against the regression itself."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200_000, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    v = x @ rng.normal(size=(5, 4)) + rng.normal(size=(200_000, 4)) + 2.0
    moments = Moments(5, full=["v"])
    moments.update(torch.from_numpy(x), {"v": torch.from_numpy(v), "norm": torch.from_numpy((v**2).sum(axis=1))})
    factorisation = Factorisation(moments)
    theory = gaussian_norm_r2(moments.target("v"), factorisation, "v")
    predicted = factorisation.fit("norm").predict(torch.from_numpy(x))[:, 0]
    assert theory is not None and 0.1 < theory < 0.95
    assert r2_scalar(torch.from_numpy((v**2).sum(axis=1)), predicted) == pytest.approx(theory, abs=0.01)


def test_a_real_error_differs_from_the_gaussian_prediction() -> None:
    """The check can fail: a thresholded dictionary is not Gaussian."""
    data = toy()
    moments = Moments(12, full=["error"])
    moments.update(data.x, {"error": data.error, "norm": data.error.square().sum(dim=1)})
    factorisation = Factorisation(moments)
    measured = r2_scalar(data.error.square().sum(dim=1), factorisation.fit("norm").predict(data.x)[:, 0])
    theory = gaussian_norm_r2(moments.target("error"), factorisation, "error")
    assert measured is not None and theory is not None and abs(measured - theory) > 0.02


def test_the_whole_scatter_must_have_been_kept() -> None:
    data = toy()
    moments = Moments(12)
    moments.update(data.x, {"error": data.error})
    with pytest.raises(ValueError, match="ask for it"):
        gaussian_norm_r2(moments.target("error"), Factorisation(moments), "error")


def test_the_twin_has_the_moments_of_x() -> None:
    data = toy()
    wide = torch.cat([data.x, data.x[:, :1]], dim=1)
    moments = Moments(13)
    moments.update(wide)
    twin = gaussian_twin(moments.n, moments.mean_x, moments.s_xx)
    draws = twin.sample(100_000, (0, 1)).double()
    torch.testing.assert_close(draws.mean(dim=0), moments.mean_x, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(draws.T), moments.s_xx / moments.n, rtol=0.05, atol=0.1)
    assert torch.equal(twin.sample(5, (0, 1)), twin.sample(5, (0, 1)))
    assert not torch.equal(twin.sample(5, (0, 1)), twin.sample(5, (0, 2)))


def test_the_pca_map_has_nearly_the_fvu_asked_for() -> None:
    data = toy()
    moments = Moments(12)
    moments.update(data.x)
    steps = [pca_of_fvu(moments.n, moments.mean_x, moments.s_xx, goal / 20) for goal in range(21)]
    measured = [fvu(data.x, step.reconstruct(data.x)) or 0.0 for step in steps]
    for goal, value in enumerate(measured):
        assert abs(value - goal / 20) < 0.15
    assert measured[0] == pytest.approx(0.0, abs=1e-12) and measured[20] == pytest.approx(1.0)
