"""The background fit against NumPy's least squares on all tokens at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inspector.errors import DataError
from inspector.runner import run
from inspector.session import fitting
from inspector.session.fitting import Improvement, background_fit
from inspector.session.pairing import ErrorNorms
from inspector.session.protocol import GetPairs
from inspector.spec import RunSpec

if TYPE_CHECKING:
    from inspector.sources.target import Loaded


@pytest.fixture(scope="module")
def fitted(loaded: Loaded) -> tuple[list[Improvement], ErrorNorms]:
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    return [item for item in background_fit(loaded, norms) if item is not None], norms


class Reference:
    """Everything of one SAE in float64: x and error of training and held-out tokens, and the least-squares map."""

    def __init__(self, loaded: Loaded, row: int) -> None:
        x = loaded.model.activations(loaded.contexts.token_ids, loaded.hook_name)
        flat = x.flatten(0, 1)
        x_hat = loaded.saes[row].reconstruct(flat).x_hat
        self.x, self.error = flat.double().numpy(), (flat - x_hat).double().numpy()
        self.train = loaded.plan.train.flatten().numpy()
        self.test = loaded.plan.test.flatten().numpy()
        ones = np.ones((int(self.train.sum()), 1))
        self.map = np.linalg.lstsq(np.hstack([self.x[self.train], ones]), self.error[self.train], rcond=None)[0]

    def linear_error(self, x: np.ndarray) -> np.ndarray:
        return x @ self.map[:-1] + self.map[-1]


def test_each_fit_has_more_tokens_and_the_last_has_all(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    told = [item.message for item in fitted[0]]
    assert [m.epoch for m in told] == sorted(m.epoch for m in told)
    assert [m.n_tokens for m in told] == sorted(m.n_tokens for m in told)
    assert {m.n_tokens_goal for m in told} == {loaded.plan.n_train}
    assert [m.finished for m in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1].n_tokens, told[-1].n_held_out) == (loaded.plan.n_train, loaded.plan.n_test)
    assert len({m.epoch for m in told}) >= 4
    # No map from fewer tokens than would determine it: it would reproduce them and mean nothing.
    assert told[0].n_tokens >= fitting.TOKENS_PER_DIMENSION * loaded.model.d_model


@pytest.mark.parametrize("row", range(4))
def test_the_last_map_and_its_scores_are_those_of_least_squares(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded, row: int
) -> None:
    last = fitted[0][-1]
    reference = Reference(loaded, row)
    linear_map = last.maps[loaded.saes[row].ref.sae_id]
    # Both solve in float64; x is the same float32 numbers. 1e-6 leaves room for the condition of x alone.
    np.testing.assert_allclose(linear_map.weight.numpy().T, reference.map[:-1], atol=1e-6)
    np.testing.assert_allclose(linear_map.bias.numpy(), reference.map[-1], atol=1e-6)
    x, error = reference.x[reference.test], reference.error[reference.test]
    rest = ((error - reference.linear_error(x)) ** 2).sum()
    variance = ((x - x.mean(0)) ** 2).sum()
    quality = last.message.qualities[row]
    # Predictions are made in float32, relative error 1e-7 each, and averaged over a few hundred tokens.
    assert quality.r2 == pytest.approx(1 - rest / ((error - error.mean(0)) ** 2).sum(), abs=1e-6)
    assert quality.fvu == pytest.approx((error**2).sum() / variance, abs=1e-6)
    assert quality.fvu_nonlinear == pytest.approx(rest / variance, abs=1e-6)
    assert quality.r2_low is not None and quality.r2_high is not None
    assert quality.r2_low < quality.r2 < quality.r2_high
    assert quality.l0 == pytest.approx(loaded.saes[row].ref.nominal_l0, rel=0.2)


def test_the_last_numbers_are_those_of_a_headless_run(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    spec = RunSpec(target=loaded.target, experiments=("error-vector", "fvu-nonlinear"), batch_size=3)
    running = run(spec, loaded)
    while True:
        try:
            next(running)
        except StopIteration as done:
            vector, fvu = done.value
            break
    for quality, r2, unexplained in zip(fitted[0][-1].message.qualities, vector["saes"], fvu["saes"], strict=True):
        # 1e-6 is the promise; the sums of both are float64 and over the same float32 numbers.
        assert quality.r2 == pytest.approx(r2["r2_pooled"], abs=1e-6)
        assert [quality.r2_low, quality.r2_high] == pytest.approx(vector["intervals"][r2["sae"]]["r2_pooled"], abs=1e-6)
        assert quality.fvu == pytest.approx(unexplained["fvu"], abs=1e-6)
        assert quality.fvu_nonlinear == pytest.approx(unexplained["fvu_nonlinear"], abs=1e-6)
        assert quality.l0 == pytest.approx(r2["l0"], abs=1e-9)


def test_pairs_are_of_all_held_out_tokens_each_once(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded
) -> None:
    ids = [sae.ref.sae_id for sae in loaded.saes]
    pairs = fitted[1].pairs(GetPairs(sae_ids=[ids[0], ids[3]]))
    assert pairs.n_tokens == loaded.plan.n_test
    one, two = Reference(loaded, 0), Reference(loaded, 3)
    a, b = (one.error**2).sum(1), (two.error**2).sum(1)
    slope = (a * b)[one.train].sum() / (a * a)[one.train].sum()
    a, b = a[one.test], b[one.test]
    assert pairs.r2[0][1] == pytest.approx(1 - ((b - slope * a) ** 2).sum() / ((b - b.mean()) ** 2).sum(), abs=1e-5)


def test_the_first_fits_are_measured_on_held_out_tokens_and_are_worse(
    fitted: tuple[list[Improvement], ErrorNorms],
) -> None:
    first, last = fitted[0][0].message.qualities, fitted[0][-1].message.qualities
    assert all(a.r2 < b.r2 for a, b in zip(first, last, strict=True) if a.r2 is not None and b.r2 is not None)


def test_a_large_hook_is_fitted_in_a_thread_with_the_same_result(
    fitted: tuple[list[Improvement], ErrorNorms], loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "WIDE", 1)
    monkeypatch.setattr(fitting, "EVALUATION_BYTES", 0)  # and with reconstructions made anew each time
    monkeypatch.setattr(fitting, "PART_TOKENS", 10)  # and contexts in several parts
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    last = [item for item in background_fit(loaded, norms) if item is not None][-1]
    # Batches of 10 and of 32 tokens round differently in the SAE: 1e-7 relative.
    expected = fitted[0][-1].message
    assert last.message.n_held_out == expected.n_held_out
    assert norms.n_test == loaded.plan.n_test
    for a, b in zip(last.message.qualities, expected.qualities, strict=True):
        assert a.r2 == pytest.approx(b.r2, abs=1e-6)
        assert a.fvu_nonlinear == pytest.approx(b.fvu_nonlinear, abs=1e-6)


def test_a_number_that_is_none_ends_the_fit_and_says_where(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    activations = type(loaded.model).activations

    def broken(self: object, tokens: torch.Tensor, hook_name: str) -> torch.Tensor:
        x = activations(self, tokens, hook_name).clone()  # type: ignore[arg-type]
        x[:, 20, 3] = torch.nan
        return x

    monkeypatch.setattr(type(loaded.model), "activations", broken)
    norms = ErrorNorms([sae.ref.sae_id for sae in loaded.saes])
    with pytest.raises(DataError, match=r"activation is not finite at context \d+, position 20"):
        list(background_fit(loaded, norms))
