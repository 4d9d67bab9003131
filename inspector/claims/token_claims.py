"""Claims about single tokens, C6, C7, C13, C14, C15 and C18: sizes of errors, and what predicts them."""

from __future__ import annotations

from collections.abc import Mapping

from inspector.claims.verdict import Finding, Result, cannot

Results = Mapping[str, Result]


def later(results: Results) -> Finding:
    """The rule is written when the experiment is."""
    return cannot("This program has no rule for the experiment yet.")
