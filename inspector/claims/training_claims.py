"""The claim about SAEs trained on the parts of an error, C8: which of the two is explained worse."""

from __future__ import annotations

from collections.abc import Mapping

from inspector.claims.verdict import Finding, Result, cannot, decided, interval_of, interval_text

FEWEST_SEEDS = 3
"""Below, a spread over seeds is not known well enough to judge by."""


def nonlinear_worse(results: Mapping[str, Result]) -> Finding:
    """C8: the nonlinear error's SAE leaves more of its own part unexplained, by more than the seeds differ."""
    found = results["error-saes"]
    result = found["result"]
    gap, seeds = result["difference"]["fvu"], result["difference"]["by_seed"]
    if gap is None:
        return cannot("An FVU is undefined.")
    ends = interval_of(found, result["sae"], "difference")
    linear, nonlinear = (result["parts"][part]["fvu"] for part in ("linear_error", "nonlinear_error"))
    number = f"FVU {nonlinear:.3f} against {linear:.3f}"
    if ends is None or len(seeds) < FEWEST_SEEDS:
        return Finding(
            answer=decided(False, False),
            number=number,
            why=f"{len(seeds)} seed(s) tell no spread: measure with -p seeds={FEWEST_SEEDS} or more.",
            value=gap,
        )
    structure = result["structure"]
    beyond = ""
    if structure.get("linear_error") is not None and structure.get("nonlinear_error") is not None:
        beyond = (
            f" Below normal noise of the same covariance: linear by {structure['linear_error']:.3f}, nonlinear by "
            f"{structure['nonlinear_error']:.3f}."
        )
    return Finding(
        answer=decided(ends[0] > 0.0, ends[1] <= 0.0),
        number=number,
        why=f"The difference over {len(seeds)} seeds is {gap:.4f}{interval_text(ends)}; the paper has 0.05.{beyond}",
        value=gap,
        interval=ends,
    )
