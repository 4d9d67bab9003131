"""C9 answers all three ways on made-up comparisons."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.claims import CANNOT_TELL, CONSISTENT, CONTRADICTS
from tests.claims.test_claims import made, verdict


def comparison(
    value: float | None,
    ends: list[float] | None,
    *,
    latents: int = 200,
    unparsable: float = 0.0,
    nonlinear: tuple[float, float] = (0.7, 0.8),
    linear: tuple[float, float] = (0.75, 0.85),
) -> dict[str, Any]:
    difference = {f"Q{i}": {"value": 0.05 if i > 2 else -0.01, "interval": None} for i in range(1, 11)}
    difference |= {"Not": {"value": 0.0, "interval": None}, "balanced": {"value": value, "interval": ends}}
    parts = {
        part: {"n_latents": n, "balanced": {"value": sum(score) / 2, "interval": list(score)}}
        for part, n, score in (("linear_error", latents, linear), ("nonlinear_error", latents + 5, nonlinear))
    }
    rows = [{"sae": "linear_error/seed_0", "unparsable_share": unparsable}, {"sae": "b", "unparsable_share": None}]
    return made("interp-error-saes", rows, result={"parts": parts, "difference": difference})


@pytest.mark.parametrize(
    ("ends", "answer", "why"),
    [
        ([0.01, 0.09], CONSISTENT, "lies above 0"),
        ([-0.01, 0.09], CANNOT_TELL, "covers 0"),
        ([-0.09, -0.01], CONTRADICTS, "lies below 0"),
    ],
)
def test_c9_goes_by_the_interval_over_latents(ends: list[float], answer: str, why: str) -> None:
    found = verdict("C9", comparison(0.04, ends))
    assert (found.verdict, found.value, found.interval) == (answer, 0.04, tuple(ends))
    assert why in found.why
    assert found.number == "linear - nonlinear +4.0 points; above 0 in 8 of 10 deciles"


def test_c9_says_when_it_cannot_tell() -> None:
    few = verdict("C9", comparison(0.04, [0.01, 0.09], latents=29))
    assert (few.verdict, few.why) == (CANNOT_TELL, "Only 29 latents of one part were scored; 30 are needed.")
    mute = verdict("C9", comparison(0.04, [0.01, 0.09], unparsable=0.5))
    assert (mute.verdict, mute.why) == (CANNOT_TELL, "50% of the judge's answers could not be read.")
    assert verdict("C9", comparison(None, None)).verdict == CANNOT_TELL


def test_c9_is_not_judged_by_a_coin() -> None:
    coin = verdict("C9", comparison(0.0, [-0.02, 0.02], linear=(0.48, 0.52), nonlinear=(0.49, 0.53)))
    assert (coin.verdict, coin.why) == (
        CANNOT_TELL, "The judge does no better than chance on either part (balanced accuracy 0.500 and 0.510).",
    )  # fmt: skip
    blind_to_one = verdict("C9", comparison(0.2, [0.1, 0.3], nonlinear=(0.48, 0.52)))
    assert blind_to_one.verdict == CONSISTENT
