"""The side channel, against numpy from the toy's files, and the identities it must keep."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from inspector.errors import UsageError
from inspector.experiments import find
from tests.experiments.own import LAYER, Toy, decoded, hidden, opened

WIDTHS = (32, 64, 128)
ID = "linear-side-channel"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("channel"))


@pytest.fixture(scope="module")
def result(toy: Toy) -> dict[str, Any]:
    return toy.one(ID, rank="5", dense="0.2")


def test_every_rank_is_numpys_reduced_rank_regression(toy: Toy, result: dict[str, Any]) -> None:
    """To 1e-5: float32 SAEs against float64. The map of rank k is fitted anew from the training tokens for every k."""
    x, d = toy.raw["resid"], toy.raw["resid"].shape[-1]
    assert result["result"]["ranks"] == [0, 1, 2, 4, 5, 8, 16] and d == 16
    for row, width in zip(result["saes"], WIDTHS, strict=True):
        x_hat = decoded(toy.folder(LAYER, "resid", width), hidden(toy.folder(LAYER, "resid", width), x))
        error = x - x_hat
        fitted = LinearRegression().fit(x[toy.train], error[toy.train])
        predicted = fitted.predict(x[toy.train])
        mean = predicted.mean(axis=0)
        shares, right = np.linalg.svd(predicted - mean, full_matrices=False)[1:]
        np.testing.assert_allclose(
            result["result"]["spectrum"][row["sae"]], shares**2 / (shares**2).sum(), rtol=1e-4, atol=1e-6
        )
        variance = ((x[toy.test] - x[toy.test].mean(axis=0)) ** 2).sum()
        for k, found in zip(result["result"]["ranks"], result["result"]["fvu_by_rank"][row["sae"]], strict=True):
            projection = right[:k].T @ right[:k]
            channel = mean + (fitted.predict(x[toy.test]) - mean) @ projection
            assert found == pytest.approx(((error[toy.test] - channel) ** 2).sum() / variance, abs=1e-5)
        assert row["fvu_side_channel"] == result["result"]["fvu_by_rank"][row["sae"]][4]


def test_full_rank_is_the_nonlinear_fvu_and_no_channel_the_fvu(toy: Toy, result: dict[str, Any]) -> None:
    """To 1e-9: both from the same maps and tokens, added up in another order."""
    plain = toy.one("fvu-nonlinear")["saes"]
    for row, other in zip(result["saes"], plain, strict=True):
        assert row["fvu_nonlinear"] == pytest.approx(other["fvu_nonlinear"], abs=1e-9)
        assert row["fvu"] == pytest.approx(other["fvu"], abs=1e-9)


def test_without_an_intercept_rank_nought_adds_nothing(toy: Toy) -> None:
    found = toy.one(ID, intercept="off")
    for row in found["saes"]:
        assert row["fvu_mean_error"] == pytest.approx(row["fvu"], abs=1e-9)
        assert row["fvu_nonlinear"] < row["fvu"]


def test_dense_latents_are_numpys(toy: Toy, result: dict[str, Any]) -> None:
    x = toy.raw["resid"][toy.train]
    for row, width in zip(result["saes"], WIDTHS, strict=True):
        active = hidden(toy.folder(LAYER, "resid", width), x) > 0
        frequency = active.mean(axis=0)
        dense = np.flatnonzero(frequency > 0.2)
        listed = result["result"]["dense_latents"][row["sae"]]
        assert row["n_dense"] == len(dense)
        assert {index for index, _ in listed} == set(dense.tolist())
        assert [share for _, share in listed] == sorted(frequency[dense].tolist(), reverse=True)
        if len(dense):
            assert row["dense_of_l0"] == pytest.approx(active[:, dense].sum() / active.sum())
    assert any(row["n_dense"] for row in result["saes"]), "the toy has none: the test says nothing"
    assert "latents that are active on more than 20% of the tokens" in " ".join(result["warnings"])


def test_ranks_and_control_stand_in_the_right_order(result: dict[str, Any]) -> None:
    for row in result["saes"]:
        assert 0 < row["rank_half"] <= row["rank_most"] <= 16
        low, high = result["intervals"][row["sae"]]["fvu_side_channel"]
        assert low <= row["fvu_side_channel"] <= high
        # Leading directions recover more than as many random ones.
        random = result["controls"]["random_directions"]["fvu"][row["sae"]]
        assert row["fvu_side_channel"] < random < row["fvu_mean_error"]


def test_a_share_that_is_none_is_refused(toy: Toy) -> None:
    with pytest.raises(UsageError, match=r"'dense=2\.0' is outside its bounds"):
        toy.one(ID, dense="2")


def test_it_draws_itself_and_without_resamples_has_no_intervals(toy: Toy, result: dict[str, Any]) -> None:
    assert len(find(ID).draw(json.loads(json.dumps(result, allow_nan=False)))) == 3
    bare = toy.one(ID, resamples="0", l0="4")
    assert all(ends is None for own in bare["intervals"].values() for ends in own.values())
    assert find(ID).draw(json.loads(json.dumps(bare, allow_nan=False)))
