"""Three named protocols: what the paper says, what its code does, and what we think is right.

Only what the experiments here can differ in; differences are cited by their ids in the specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inspector.spec import Profile, Split


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How tokens are split, fitted and scored."""

    split: Split | None
    """None: as the target says."""
    intercept: bool
    fvu_on: Literal["test", "all"]
    """Tokens on which fvu and fvu_nonlinear are measured: held out, or training tokens too (D-04)."""
    outliers: Literal["apart", "among"]
    """Tokens that outweigh all others (`engine.outliers`): left out of fit and scores and told apart, or counted."""
    summary: str
    """One sentence for the result."""


PROTOCOLS: dict[Profile, Protocol] = {
    "careful": Protocol(
        split=None,
        intercept=True,
        fvu_on="test",
        outliers="apart",
        summary="Affine maps with intercept; every score on held-out tokens.",
    ),
    "paper-text": Protocol(
        split="token",
        intercept=True,
        fvu_on="test",
        outliers="among",
        summary="As the paper's text: a random split of tokens (D-25), affine maps with intercept, held-out tokens.",
    ),
    "paper-code": Protocol(
        split="token",
        intercept=False,
        fvu_on="all",
        outliers="among",
        summary=(
            "As the paper's code: a random split of tokens (D-25), no intercept (D-05), "
            "FVU on all tokens, training tokens included (D-04)."
        ),
    ),
}
