"""Identities S-05, S-06, S-10, S-13, S-14, S-20, S-22 and S-27 of single tokens, on data where they can break."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from inspector.engine.plan import Plan
from inspector.engine.regression import Factorisation
from inspector.experiments import find
from inspector.statistics import token_fits
from inspector.statistics import token_norms as scores
from inspector.statistics.first_pass import FirstPass
from inspector.statistics.token_norms import ONE, Column, Products, place_of
from tests.experiments.own import Array, Toy, opened

ALL = (
    "norm-baselines", "norm-test", "per-token-scaling", "per-token-split", "per-token-trace", "scaling-with-nonlinear",
    "shrinkage",
)  # fmt: skip
UNDEFINED = (
    "r2_sae_error", "r2_linear_error", "r2_nonlinear_error", "r2_scalar", "r2_full", "r2_token", "r2_x_within_token",
    "cosine", "scalar_share", "variation", "nonlinear_correlation",
)  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("identities"))


class Stand:
    """Something in an SAE's place: what it makes of x replaces the reconstruction."""

    def __init__(self, sae: Any, make: Callable[[Tensor], Tensor], **ref: Any) -> None:
        self._sae, self._make = sae, make
        self.ref = dataclasses.replace(sae.ref, **ref)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sae, name)

    def reconstruct(self, x: Tensor) -> Any:
        return SimpleNamespace(x_hat=self._make(x), l0=torch.ones(len(x), dtype=torch.int32))


def with_saes(toy: Toy, *saes: Any) -> Toy:
    return Toy(toy.root, dataclasses.replace(toy.loaded, saes=saes))


def products(columns: dict[str, Array], test: dict[str, Array] | None = None) -> Products:
    """One group of held-out tokens; the training tokens again where none are given."""
    tables = [
        np.stack([np.ones(len(next(iter(each.values())))), *each.values()], axis=1)
        for each in (columns, test or columns)
    ]
    return Products(
        columns=(ONE, *map(Column, columns)), train=tables[0].T @ tables[0], test=(tables[1].T @ tables[1])[None]
    )


COUNTS = np.ones((1, 1))


# ---- predictions of one norm from another --------------------------------------------------------------------------


def test_s14_slope_and_r2_of_one_number_from_another() -> None:
    rng = np.random.default_rng(0)
    one = rng.gamma(3.0, size=500)
    other = 2.0 * one + rng.gamma(2.0, size=500)
    table = products({"one_norm": one, "other": other})
    origin = scores.regress(table, "other", ["one_norm"], COUNTS, intercept=False)
    assert origin.weights[0] == pytest.approx((one * other).sum() / (one**2).sum(), rel=1e-12)
    fitted = scores.regress(table, "other", ["one_norm"], COUNTS)
    assert fitted.r2[0] == pytest.approx(np.corrcoef(one, other)[0, 1] ** 2, rel=1e-10)
    assert fitted.train_r2 == pytest.approx(fitted.r2[0], rel=1e-12)
    itself = scores.regress(table, "one_norm", ["one_norm"], COUNTS, intercept=False)
    assert (itself.weights[0], itself.r2[0]) == pytest.approx((1.0, 1.0), rel=1e-12)


def test_s14_an_sae_against_itself(toy: Toy) -> None:
    sae = toy.loaded.saes[0]
    twin = copy.copy(sae)
    twin.ref = dataclasses.replace(sae.ref, sae_id="twin", d_sae=64)
    found = with_saes(toy, sae, twin).run("per-token-scaling", "scaling-with-nonlinear")
    (pair,) = found[0]["result"]["pairs"]
    for key in ("factor", "r2_squared_origin", "r2_unsquared_intercept"):
        assert pair[key] == pytest.approx(1.0, abs=1e-12)
    (pair,) = found[1]["result"]["pairs"]  # nothing is left, so that no part of it can be taken away
    assert pair["r2"] == 1.0 and pair["decrease_percent"] is None and pair["decrease_percent_train"] is None


def test_s05_s27_a_predictor_more_never_raises_what_is_left_of_the_training_tokens(toy: Toy) -> None:
    """On held-out tokens it may, and then stays as it is."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        train, test = ({name: rng.normal(size=30) for name in ("a", "b", "y")} for _ in range(2))
        table = products(train, test)
        for intercept in (True, False):
            old, new = (scores.regress(table, "y", names, COUNTS, intercept=intercept) for names in (["a"], ["a", "b"]))
            assert new.train_rest <= old.train_rest * (1 + 1e-12)
        without, with_it = (scores.regress(table, "y", ["a"], COUNTS, intercept=each) for each in (False, True))
        assert with_it.train_rest <= without.train_rest * (1 + 1e-12)
    gains = [pair["decrease_percent_train"] for pair in toy.one("scaling-with-nonlinear")["result"]["pairs"]]
    assert len(gains) == 3 and min(gains) >= 0.0


def test_two_predictors_that_say_the_same_count_as_one() -> None:
    rng = np.random.default_rng(2)
    a, y = rng.normal(size=200) + 5.0, rng.normal(size=200)
    table = products({"a": a, "same": 3.0 * a - 1.0, "constant": np.full(200, 7.0), "y": a + y})
    alone = scores.regress(table, "y", ["a"], COUNTS)
    for other in ("same", "constant"):
        assert scores.regress(table, "y", ["a", other], COUNTS).r2[0] == pytest.approx(alone.r2[0], abs=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
def test_s06_what_is_expected_of_permuted_targets_is_what_permuted_targets_get(intercept: bool) -> None:
    """400 permutations of 800 and of 400 tokens; the mean to three of its standard errors."""
    rng = np.random.default_rng(3)
    a, b = (rng.gamma(3.0, size=(2, 1200)) for _ in range(2))
    y = a[0] + 0.2 * b[0]
    cut = 800
    table = products({"a": a[0][:cut], "y": y[:cut]}, {"a": a[0][cut:], "y": y[cut:]})
    expected = scores.shuffled_r2(table, "y", "a", intercept=intercept)
    found = []
    for _ in range(400):
        train, test = rng.permutation(y[:cut]), rng.permutation(y[cut:])
        mixed = products({"a": a[0][:cut], "y": train}, {"a": a[0][cut:], "y": test})
        found.append(float(scores.regress(mixed, "y", ["a"], COUNTS, intercept=intercept).r2[0]))
    assert expected is not None
    error = float(np.std(found) / 20)
    assert expected == pytest.approx(np.mean(found), abs=3 * error + 2 / cut)
    assert expected < 0.001 and (intercept or expected < -0.3)
    real = scores.regress(table, "y", ["a"], COUNTS, intercept=intercept).r2[0]
    assert real > 0.9  # the same numbers, not permuted: the check can fail


# ---- SAEs that are not SAEs ----------------------------------------------------------------------------------------


def test_s13_a_perfect_sae_has_no_scores_and_breaks_nothing(toy: Toy) -> None:
    perfect = [Stand(toy.loaded.saes[i], lambda x: x.clone()) for i in range(2)]
    for found in with_saes(toy, *perfect).run(*ALL, length="10"):
        json.dumps(found, allow_nan=False)
        assert find(found["experiment"]).draw(found)  # type: ignore[arg-type]
        for row in found["saes"]:
            for key in UNDEFINED:
                assert row.get(key) is None
            assert row.get("norm_ratio") in (None, 1.0)
        for sae, mean in found["result"].get("mean_error_norm", {}).items():
            assert mean == 0.0 and found["result"]["variation"][sae] is None
        for pair in found["result"].get("pairs", ()):
            assert pair.get("r2") is None and pair.get("decrease_percent") is None


def test_s10_pure_shrinkage_is_seen_as_nothing_but_shrinkage(toy: Toy) -> None:
    """0.75 x in the SAE's place: exact in binary, so that its error is x / 4 to the last bit."""
    short = [Stand(toy.loaded.saes[i], lambda x: 0.75 * x) for i in range(2)]
    shrinkage, split, norms, scaling = with_saes(toy, *short).run(
        "shrinkage", "per-token-split", "norm-test", "per-token-scaling", length="0", intercept="off"
    )
    for row in shrinkage["saes"]:
        assert row["norm_ratio"] == pytest.approx(0.75, abs=1e-9) and row["scalar"] == pytest.approx(0.25, abs=1e-9)
        for key in ("cosine", "cosine_centred", "r2_scalar", "r2_diagonal", "r2_full", "scalar_share"):
            assert row[key] == pytest.approx(1.0, abs=1e-6)
    assert any("scalar" in each for each in shrinkage["warnings"])
    for row in split["saes"]:
        assert row["mean_nonlinear_norm"] < 1e-4 * row["mean_linear_norm"]
    for row in norms["saes"]:  # the size of a quarter of x is as predictable as that of x
        for name in ("x_hat", "sae_error", "linear_error"):
            assert row[f"r2_{name}"] == pytest.approx(row["r2_x"], abs=1e-5)
    (pair,) = scaling["result"]["pairs"]
    assert pair["r2_x_norm"] == pytest.approx(1.0, abs=1e-6) and pair["r2"] == pytest.approx(1.0, abs=1e-6)
    assert any("do not gain" in each for each in scaling["warnings"])  # |x| alone says it all (C6)


def test_s22_scaled_errors_have_the_same_scores(toy: Toy) -> None:
    """x_hat moved away from x by a factor of two: sizes four times as large, nothing else."""
    sae = toy.loaded.saes[0]
    far = Stand(sae, lambda x: x - 2.0 * (x - sae.reconstruct(x).x_hat), d_sae=64, sae_id="far")
    found = {each["experiment"]: each for each in with_saes(toy, sae, far).run(*ALL, length="0")}
    for name in ("norm-test", "norm-baselines"):
        near, away = found[name]["saes"]
        for key in ("r2_sae_error", "r2_nonlinear_error", "r2_x", "r2_token", "r2_loss", "r2_token_and_x"):
            if key in near:
                assert away[key] == pytest.approx(near[key], abs=1e-5)
    (pair,) = found["per-token-scaling"]["result"]["pairs"]
    assert pair["factor"] == pytest.approx(4.0, rel=1e-5) and pair["r2"] == pytest.approx(1.0, abs=1e-9)


# ---- Gaussians -----------------------------------------------------------------------------------------------------


def test_s20_nulls_of_all_five_vectors_are_those_of_gaussians() -> None:
    """200,000 draws; the closed form and a regression of the squared norms on x agree to 0.01."""
    rng = np.random.default_rng(4)
    n, d = 200_000, 4
    spread, kept = rng.normal(size=(2, d, d))
    x = rng.normal(size=(n, d)) @ spread + np.array([1.0, -2.0, 1.5, 0.5])
    x_hat = x @ (0.4 * kept) + rng.normal(size=(n, d)) + 1.0
    vectors = {"x": x, "x_hat": x_hat, "sae_error": x - x_hat}
    first = FirstPass(d, ["made"], covariance=True)
    error = torch.from_numpy(x - x_hat)
    first.moments.update(torch.from_numpy(x), {"error made": error, "norm made": error.square().sum(dim=1)})
    factorisation = Factorisation(first.moments)
    for intercept in (True, False):
        maps = first.fit(intercept=intercept)["made"]
        linear = maps.error_map.predict(torch.from_numpy(x)).numpy()
        vectors |= {"linear_error": linear, "nonlinear_error": x - x_hat - linear}
        found = {
            "x": token_fits.gaussian_r2_of_x(first),
            **token_fits.gaussian_r2_of_parts(first, factorisation, "made", maps.error_map),
        }
        for name, vector in vectors.items():
            y = (vector**2).sum(axis=1)
            assert found[name] == pytest.approx(LinearRegression().fit(x, y).score(x, y), abs=0.01)
        if intercept:
            assert found["nonlinear_error"] == 0.0 and (found["x"] or 0.0) > 0.1
    without = FirstPass(d, ["made"])
    without.moments.update(torch.from_numpy(x), {"error made": error, "norm made": error.square().sum(dim=1)})
    assert token_fits.gaussian_r2_of_parts(without, factorisation, "made", maps.error_map) == {}


# ---- which tokens are shown ----------------------------------------------------------------------------------------


def planned(included: list[list[int]], train: list[list[int]]) -> Plan:
    both = (torch.tensor(each, dtype=torch.bool) for each in (included, train))
    kept, fitted = both
    return Plan(included=kept, train=fitted, n_train=int(fitted.sum()), n_test=int((kept & ~fitted).sum()))


def test_a_trace_stays_in_one_held_out_context() -> None:
    included = [[0, 1, 1, 1, 1, 0]] * 3
    plan = planned(included, [[0] * 6, [0, 1, 1, 1, 1, 0], [0] * 6])
    assert place_of(plan, 0, 3) == (0, [1, 2, 3])
    assert place_of(plan, 2, 3) == (0, [2, 3, 4])  # moved back: only two tokens are left from there
    assert place_of(plan, 5, 3) == (2, [2, 3, 4])  # the second context is a training one
    assert place_of(plan, 12 + 1, 2) == (0, [2, 3])  # round
    assert place_of(plan, 0, 5) is None
    assert place_of(planned([[0, 0]], [[0, 0]]), 0, 1) is None
    tokens = planned(included, [[0, 1, 0, 1, 0, 0]] * 3)  # single tokens are held out: any context will do
    assert place_of(tokens, 5, 3) == (1, [2, 3, 4])
