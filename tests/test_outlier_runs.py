"""Whole runs on a toy model, some of whose tokens are made to outweigh all others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.events import Warned
from inspector.runner import run, token_table
from inspector.sources.model import LanguageModel
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from tests.test_runner import files, finish, target_of

__all__ = ["files"]
EXPERIMENTS = ("norm-prediction", "fvu-nonlinear")


def heavy(tokens: torch.Tensor) -> torch.Tensor:
    """Which tokens [c, t] are made so: a few of ids and places that a batch does not change."""
    place = torch.arange(tokens.shape[1])
    return (tokens * 31 + place * 17) % 61 == 0


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The model's activations, those of heavy tokens 50 times as long."""
    plain_values, plain_score = LanguageModel.values, LanguageModel.score  # what every other reading goes through

    def longer(tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        factor = torch.where(heavy(tokens), 50.0, 1.0)
        return x * factor.view(*factor.shape, *[1] * (x.ndim - 2))

    def values(self: LanguageModel, tokens: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
        return {name: longer(tokens, x) for name, x in plain_values(self, tokens, names).items()}

    def score(self: LanguageModel, tokens: torch.Tensor, hook_names: list[str]) -> Any:
        found = plain_score(self, tokens, hook_names)
        return replace(found, activations={name: longer(tokens, x) for name, x in found.activations.items()})

    monkeypatch.setattr(LanguageModel, "values", values)
    monkeypatch.setattr(LanguageModel, "score", score)
    yield


@pytest.fixture
def loaded(files: Path, scaled: None) -> Loaded:
    return finish(open_target(target_of(files, accept_gate=True)))


def objects(loaded: Loaded, **changes: Any) -> list[dict[str, Any]]:
    spec = RunSpec(target=loaded.target, experiments=EXPERIMENTS, params={"resamples": "100"}, **changes)
    return finish(run(spec, loaded))


def numbers(found: list[dict[str, Any]]) -> list[float]:
    return [v for each in found for row in each["saes"] for k, v in row.items() if isinstance(v, float)]


def test_careful_counts_them_apart_and_gives_both_numbers_whatever_the_batches(files: Path, loaded: Loaded) -> None:
    found = objects(loaded)
    norm, fvu = found
    told = norm["provenance"]["outlier_tokens"]
    out = heavy(loaded.contexts.token_ids) & loaded.plan.included
    assert 5 < told["n_train"] == int((out & loaded.plan.train).sum()) and told["left_out"]
    assert told["n_test"] == int((out & loaded.plan.test).sum()) > 0
    assert norm["provenance"]["n_test"] == loaded.plan.n_test - told["n_test"] == norm["saes"][0]["n_test"]
    for row in norm["saes"]:
        assert row["n_eff_all_tokens"] < 30 < 100 < row["n_eff"]
        assert row["r2_norm"] != row["r2_norm_all_tokens"] and row["top_share_all_tokens"] > row["top_share"]
        assert norm["intervals"][row["sae"]]["r2_norm_all_tokens"] is not None
    assert {"fvu_all_tokens", "fvu_nonlinear_all_tokens"} <= set(fvu["saes"][0])
    (warning,) = [text for text in norm["warnings"] if "times the median norm" in text]
    assert f"{told['n_train']} of" in warning and "_all_tokens count them" in warning and "position" in warning
    assert "..._all_tokens counts them too" in norm["definition"]
    json.dumps(found, allow_nan=False)
    for way in ({"batch_size": 3}, {"shards": 3}):
        assert numbers(objects(loaded, **way)) == pytest.approx(numbers(found), rel=1e-6), way


def test_all_tokens_are_what_a_run_without_the_rule_measures(files: Path, loaded: Loaded) -> None:
    norm, fvu = objects(loaded)
    off = finish(open_target(target_of(files, accept_gate=True, outliers=None)))
    assert off.outliers is None
    plain_norm, plain_fvu = objects(off)
    for apart, among, keys in ((norm, plain_norm, ("r2_norm", "fvu")), (fvu, plain_fvu, ("fvu_nonlinear",))):
        for one, other in zip(apart["saes"], among["saes"], strict=True):
            for key in keys:
                assert one[f"{key}_all_tokens"] == pytest.approx(other[key], rel=1e-9), (
                    key
                )  # sums merged in another order
            assert not any(name.endswith("_all_tokens") for name in other)
    assert norm["provenance"]["fingerprint"] != plain_norm["provenance"]["fingerprint"]
    few = [text for text in plain_norm["warnings"] if "few tokens decide" in text]
    assert len(few) == len(plain_norm["saes"]) and "position" in few[0]


def test_the_papers_profiles_count_them_and_warn(loaded: Loaded) -> None:
    (norm, _) = objects(loaded, profile="paper-text")
    assert not norm["provenance"]["outlier_tokens"]["left_out"]
    assert norm["provenance"]["n_test"] + norm["provenance"]["n_train"] == loaded.plan.n_train + loaded.plan.n_test
    assert any("They are counted, as the paper does" in text for text in norm["warnings"])
    assert any("few tokens decide these numbers" in text for text in norm["warnings"])
    assert not any(name.endswith("_all_tokens") for name in norm["saes"][0])


def test_without_any_both_numbers_are_the_same(files: Path) -> None:
    plain = finish(open_target(target_of(files)))
    spec = RunSpec(target=plain.target, experiments=EXPERIMENTS, params={"resamples": "0"})
    for found in finish(run(spec, plain)):
        assert found["provenance"]["outlier_tokens"]["n_train"] == 0
        for row in found["saes"]:
            pairs = [(row[name], row[name + "_all_tokens"]) for name in row if name + "_all_tokens" in row]
            assert len(pairs) >= 3 and all(one == other for one, other in pairs)


def test_an_experiment_that_measures_for_itself_leaves_them_out_too(loaded: Loaded) -> None:
    spec = RunSpec(target=loaded.target, experiments=("norm-test",), params={"resamples": "0"})
    work, warned = run(spec, loaded), []
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            (found,) = end.value
            break
        warned += [event.message] if isinstance(event, Warned) else []
    assert found["provenance"]["outlier_tokens"]["n_test"] > 0
    assert found["provenance"]["n_test"] < loaded.plan.n_test
    assert any("left out of fit and scores" in text for text in found["warnings"])


def test_their_rows_in_the_token_table_are_excluded(loaded: Loaded) -> None:
    table = finish(token_table(loaded)).to_pylist()
    out = heavy(loaded.contexts.token_ids) & loaded.plan.included
    rows = [row for row in table if out[row["context"], row["position"]]]
    assert rows and {row["split"] for row in rows} == {"excluded"}
    assert {row["split"] for row in table} == {"train", "test", "excluded"}


def test_the_target_says_what_counts_as_one(loaded: Loaded, files: Path) -> None:
    assert loaded.outliers is not None and loaded.gate is not None
    assert loaded.outliers.median_norm == loaded.gate.median_norm and loaded.outliers.factor == 4.0
    assert TargetSpec().outliers == 4.0
