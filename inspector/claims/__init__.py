"""The paper's claims C1-C19, held against stored results: this run's number, its interval, and what follows.

Reads results as plain data, as `--json` prints them; computes nothing that takes time, loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

from inspector.claims.all_tokens import otherwise
from inspector.claims.table import CLAIMS
from inspector.claims.verdict import (
    CANNOT_TELL,
    CONSISTENT,
    CONTRADICTS,
    Answer,
    Claim,
    Finding,
    Result,
    Verdict,
    cannot,
    counted,
)

__all__ = ["CANNOT_TELL", "CLAIMS", "CONSISTENT", "CONTRADICTS", "Answer", "Claim", "Verdict", "counted", "evaluate"]

SAME_TARGET = (
    "weights_hash", "hook_name", "tokens_sha256", "split", "positions", "seed", "train_tokens", "include_special",
    "outliers", "saes",
)  # fmt: skip
"""Entries of the provenance that results judged together must share: of one model, text, split and set of SAEs."""


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
    used = [experiment for experiment in (*claim.needs, *claim.also) if experiment in chosen]
    if missing:
        found = cannot(f"No result: run {' '.join(missing)}.")
        used = []
    else:
        main = chosen[claim.needs[0]][1]
        strange = [each for each in claim.needs if not _same_target(main, chosen[each][1])]
        used = [each for each in used if each in claim.needs or _same_target(main, chosen[each][1])]
        if strange:
            found = cannot("Its results are of different targets: run the experiments together, in one command.")
        else:
            found = _judged(claim, {experiment: chosen[experiment][1] for experiment in used})
    return Verdict(
        id=claim.id,
        claim=claim.claim,
        paper=claim.paper,
        number=found.number,
        value=found.value,
        interval=found.interval,
        verdict=found.answer,
        why=found.why,
        results=tuple(chosen[experiment][0] for experiment in used),
        all_tokens=otherwise(claim, {experiment: chosen[experiment][1] for experiment in used}, _judged)
        if used
        else "",
    )


def _judged(claim: Claim, results: Mapping[str, Result]) -> Finding:
    try:
        found = claim.judge(results)
        for number in (found.value, *(found.interval or ())):
            if not isinstance(number, int | float | None):
                raise TypeError(f"{number!r} is no number")
        return found
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        # A result of another version of the program, or one edited by hand: said, not thrown.
        return cannot(f"The result lacks what the rule looks at ({type(error).__name__}: {error}): measure again.")


def _same_target(one: Result, other: Result) -> bool:
    same = all(one["provenance"].get(key) == other["provenance"].get(key) for key in SAME_TARGET)
    return same and one.get("profile") == other.get("profile")
