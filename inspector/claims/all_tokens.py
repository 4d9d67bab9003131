"""Which verdicts change when tokens that outweigh all others count like the rest.

Claims are judged without those tokens. A result that has its numbers with them too can be read the other way; only
experiments whose every number exists both ways are asked, so that no verdict mixes tokens counted and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inspector.claims.verdict import Claim, Finding, Result

BOTH_WAYS = ("norm-prediction", "error-vector", "fvu-nonlinear")
SUFFIX = "_all_tokens"


def otherwise(
    claim: Claim, results: Mapping[str, Result], judged: Callable[[Claim, Mapping[str, Result]], Finding]
) -> str:
    """The verdict and its number with all tokens, if it is another one; empty if not, or if nobody can say.

    Args:
        claim: to be judged.
        results: that it was judged by, by experiment.
        judged: what judges it.
    """
    if not all(experiment in BOTH_WAYS for experiment in claim.needs):
        return ""
    shared = {experiment: result for experiment, result in results.items() if experiment in BOTH_WAYS}
    if not any(_has_outliers(result) for result in shared.values()):
        return ""
    # Both without what has no numbers both ways: otherwise that, and not the tokens, might make the difference.
    without = judged(claim, shared)
    found = judged(claim, {experiment: with_all_tokens(result) for experiment, result in shared.items()})
    return "" if found.answer == without.answer else f"{found.answer}: {found.number}"


def with_all_tokens(result: Result) -> dict[str, Any]:
    """The result with the numbers of all tokens in the place of the others; numbers that are the same stay."""
    return {
        **result,
        "saes": [_swapped(row) for row in result["saes"]],
        "result": _swapped(result["result"]),
        "intervals": {sae: _swapped(own) for sae, own in result["intervals"].items()},
        "controls": {
            name: _swapped(control) if isinstance(control, Mapping) else control
            for name, control in result["controls"].items()
        },
    }


def _swapped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values.get(name + SUFFIX, value) for name, value in values.items() if not str(name).endswith(SUFFIX)}


def _has_outliers(result: Result) -> bool:
    told = result["provenance"].get("outlier_tokens") or {}
    return bool(told.get("left_out")) and told.get("n_train", 0) + told.get("n_test", 0) > 0
