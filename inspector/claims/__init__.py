"""The paper's claims C1-C19, held against stored results: this run's number, its interval, and what follows.

Reads results as plain data, as `--json` prints them; computes nothing that takes time, loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from inspector.claims import part_claims, suite_claims, token_claims
from inspector.claims.verdict import (
    CANNOT_TELL,
    CONSISTENT,
    CONTRADICTS,
    Answer,
    Claim,
    Finding,
    Result,
    Results,
    Verdict,
    cannot,
    counted,
)
from inspector.experiment import ALL_TOKENS
from inspector.experiments import ELSEWHERE

__all__ = ["CANNOT_TELL", "CLAIMS", "CONSISTENT", "CONTRADICTS", "Answer", "Claim", "Verdict", "counted", "evaluate"]

_DECLARED = [each for module in (part_claims, suite_claims, token_claims) for each in vars(module).values()]
CLAIMS: tuple[Claim, ...] = tuple(
    sorted((each for each in _DECLARED if isinstance(each, Claim)), key=lambda claim: int(claim.id[1:]))
)
"""In the paper's order."""
SAME_TARGET = (
    "weights_hash", "hook_name", "tokens_sha256", "split", "positions", "seed", "train_tokens", "include_special",
    "outliers", "saes",
)  # fmt: skip
"""Entries of the provenance that results judged together must share: of one model, text, split and set of SAEs."""
BOTH_WAYS = ("norm-prediction", "error-vector", "fvu-nonlinear")
"""Experiments whose every number exists with and without the tokens that outweigh all others. Claims are judged without
those tokens; only these can be read the other way, so that no verdict mixes tokens counted and left out."""


def evaluate(results: Mapping[str, Result]) -> tuple[Verdict, ...]:
    """Every claim's verdict, in the paper's order.

    Args:
        results: objects by id. Of several of one experiment the first counts; measured controls (`null`) do not.
    """
    chosen: dict[str, tuple[str, Result]] = {}
    for result_id, result in results.items():
        if not result["provenance"].get("null"):
            chosen.setdefault(result["experiment"], (result_id, result))
    return tuple(_verdict(claim, chosen) for claim in CLAIMS)


def _verdict(claim: Claim, chosen: Mapping[str, tuple[str, Result]]) -> Verdict:
    missing = [experiment for experiment in claim.needs if experiment not in chosen]
    main = None if missing else chosen[claim.needs[0]][1]
    fitting = [each for each in chosen if main is not None and _same_target(main, chosen[each][1])]
    used = [each for each in (*claim.needs, *claim.also) if each in (*claim.needs, *fitting)] if not missing else []
    by_experiment = {experiment: chosen[experiment][1] for experiment in used}
    if missing:
        found = cannot(f"No result of {', '.join(missing)}: {' and '.join(f'`{each}`' for each in commands(missing))}.")
    elif not set(claim.needs) <= set(fitting):
        found = cannot("Its results are of different targets: run the experiments together, in one command.")
    else:
        found = _judged(claim, by_experiment)
    return Verdict(
        id=claim.id,
        claim=claim.claim,
        paper=claim.paper,
        number=found.number,
        value=found.of[0],
        interval=found.of[1],
        verdict=found.answer,
        why=found.why,
        results=tuple(chosen[experiment][0] for experiment in used),
        all_tokens=otherwise(claim, by_experiment) if used else "",
    )


def missing_for(verdict: Verdict, experiments: Iterable[str]) -> tuple[str, ...]:
    """Experiments that a claim needs and that are not among these."""
    known = set(experiments)
    return next(tuple(each for each in claim.needs if each not in known) for claim in CLAIMS if claim.id == verdict.id)


def commands(experiments: Sequence[str]) -> list[str]:
    """What measures them on the demo; a TARGET is added by whoever has one."""
    run = [each for each in experiments if each not in ELSEWHERE]
    own = [ELSEWHERE[each] for each in experiments if each in ELSEWHERE]
    return [*([f"dm-inspect run {' '.join(run)}"] if run else []), *own]


def _judged(claim: Claim, results: Results) -> Finding:
    try:
        found = claim.judge(results)
        for number in (found.of[0], *(found.of[1] or ())):
            if not isinstance(number, int | float | None):
                raise TypeError(f"{number!r} is no number")
        return found
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        # A result of another version of the program, or one edited by hand: said, not thrown.
        return cannot(f"The result lacks what the rule looks at ({type(error).__name__}: {error}): measure again.")


def _same_target(one: Result, other: Result) -> bool:
    same = all(one["provenance"].get(key) == other["provenance"].get(key) for key in SAME_TARGET)
    return same and one.get("profile") == other.get("profile")


def otherwise(claim: Claim, results: Results) -> str:
    """The verdict and its number with all tokens, if it is another one; empty if not, or if that cannot be told."""
    if not all(experiment in BOTH_WAYS for experiment in claim.needs):
        return ""
    shared = {experiment: result for experiment, result in results.items() if experiment in BOTH_WAYS}
    if not any(_has_outliers(result) for result in shared.values()):
        return ""
    # Both without what has no numbers both ways: otherwise that, and not the tokens, might make the difference.
    without = _judged(claim, shared)
    found = _judged(claim, {experiment: with_all_tokens(result) for experiment, result in shared.items()})
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
    return {
        name: values.get(name + ALL_TOKENS, value)
        for name, value in values.items()
        if not str(name).endswith(ALL_TOKENS)
    }


def _has_outliers(result: Result) -> bool:
    told = result["provenance"].get("outlier_tokens") or {}
    return bool(told.get("left_out")) and told.get("n_train", 0) + told.get("n_test", 0) > 0
