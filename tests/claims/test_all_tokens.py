"""Verdicts that are others when tokens that outweigh all others count too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inspector import claims
from inspector.claims import CLAIMS
from inspector.claims.verdict import CONSISTENT, CONTRADICTS, Claim, Finding

C1 = next(claim for claim in CLAIMS if claim.id == "C1")
C7 = next(claim for claim in CLAIMS if claim.id == "C7")


def result(n_out: int, both: float = 0.99) -> dict[str, Any]:
    return {
        "provenance": {"outlier_tokens": {"left_out": True, "n_train": n_out, "n_test": 0}},
        "saes": [{"sae": "a", "r2_norm": 0.55, "r2_norm_all_tokens": both, "n_eff": 7000.0, "n_eff_all_tokens": 22.0}],
        "result": {"lowest_r2_norm": 0.55, "lowest_r2_norm_all_tokens": both},
        "intervals": {"a": {"r2_norm": [0.5, 0.6], "r2_norm_all_tokens": [0.97, 1.0]}},
        "controls": {"gaussian_null": {"definition": "d", "r2_norm": {"a": 0.1}, "r2_norm_all_tokens": {"a": 0.9}}},
    }


def judge(results: Any) -> Finding:
    """By the number of paper's abstract alone."""
    value = results["norm-prediction"]["saes"][0]["r2_norm"]
    return Finding(answer=CONSISTENT if value > 0.9 else CONTRADICTS, number=f"{value}", why="")


def test_every_number_is_replaced_by_that_of_all_tokens() -> None:
    found = claims.with_all_tokens(result(3))
    assert found["saes"] == [{"sae": "a", "r2_norm": 0.99, "n_eff": 22.0}]
    assert found["result"] == {"lowest_r2_norm": 0.99} and found["intervals"] == {"a": {"r2_norm": [0.97, 1.0]}}
    assert found["controls"] == {"gaussian_null": {"definition": "d", "r2_norm": {"a": 0.9}}}


@pytest.mark.parametrize(
    ("claim", "n_out", "both", "said"),
    [
        (C1, 3, 0.99, f"{CONSISTENT}: 0.99"),
        (C1, 3, 0.6, ""),  # the same verdict
        (C1, 0, 0.99, ""),  # no outlier: the numbers cannot differ
        (C7, 3, 0.99, ""),  # judged by what has no numbers both ways
    ],
)
def test_another_verdict_is_said_and_only_then(claim: Claim, n_out: int, both: float, said: str) -> None:
    results = {"norm-prediction": result(n_out, both), "norm-baselines": {"provenance": {}}, "norm-test": result(n_out)}
    assert claims.otherwise(replace(claim, judge=judge), results) == said
