"""C9 answers all three ways on made-up comparisons."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.claims import CANNOT_TELL, CONSISTENT, CONTRADICTS
from tests.claims.test_claims import made, verdict


def comparison(
    value: float | None, ends: list[float] | None, *, latents: int = 200, unparsable: float = 0.0
) -> dict[str, Any]:
    difference = {f"Q{i}": {"value": 0.05 if i > 2 else -0.01, "interval": None} for i in range(1, 11)}
    difference |= {"Not": {"value": 0.0, "interval": None}, "balanced": {"value": value, "interval": ends}}
    parts = {"linear_error": {"n_latents": latents}, "nonlinear_error": {"n_latents": latents + 5}}
    rows = [{"sae": "linear_error/seed_0", "unparsable_share": unparsable}, {"sae": "b", "unparsable_share": None}]
    return made("interp-error-saes", rows, result={"parts": parts, "difference": difference})


@pytest.mark.parametrize(
    ("ends", "answer", "why"),
    [
        ([0.01, 0.09], CONSISTENT, "lies above 0"),
        ([-0.01, 0.09], CONTRADICTS, "covers 0"),
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
