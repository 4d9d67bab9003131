"""The claim that a language model judges, C9: which latents can be explained."""

from __future__ import annotations

from collections.abc import Mapping

from inspector.claims.verdict import Finding, Result, cannot, decided

Results = Mapping[str, Result]
FEWEST_LATENTS = 30
"""Of each part; an interval over fewer says little about others."""
CHANCE = 0.5
"""Balanced accuracy of a coin, which cannot tell one SAE from another."""
MOST_UNPARSABLE = 0.2
"""Of the answers; beyond, what could be read is a choice of the judge's."""


def less_interpretable(results: Results) -> Finding:
    """C9: latents on the linear error are scored higher, by more than the interval over latents."""
    found = results["interp-error-saes"]
    parts, difference = found["result"]["parts"], found["result"]["difference"]
    value, ends = difference["balanced"]["value"], difference["balanced"]["interval"]
    deciles = [each["value"] for name, each in difference.items() if name.startswith("Q")]
    known = [each for each in deciles if each is not None]
    if value is None or ends is None:
        return cannot("No difference in balanced accuracy is defined.")
    number = (
        f"linear - nonlinear {100 * value:+.1f} points; above 0 in {sum(each > 0 for each in known)} of {len(known)} "
        "deciles"
    )
    latents = min(part["n_latents"] for part in parts.values())
    unreadable = max(row["unparsable_share"] or 0.0 for row in found["saes"])
    low, high = float(ends[0]), float(ends[1])
    scores = [part["balanced"] for part in parts.values()]
    if all(each["interval"] is None or each["interval"][0] <= CHANCE for each in scores):
        said = " and ".join(f"{each['value']:.3f}" for each in scores if each["value"] is not None)
        return cannot(f"The judge does no better than chance on either part (balanced accuracy {said}).", number)
    if latents < FEWEST_LATENTS:
        return cannot(f"Only {latents} latents of one part were scored; {FEWEST_LATENTS} are needed.", number)
    if unreadable > MOST_UNPARSABLE:
        return cannot(f"{unreadable:.0%} of the judge's answers could not be read.", number)
    if low > 0.0:
        why = "The interval over latents of the difference in balanced accuracy lies above 0."
    else:
        why = f"That interval {'covers 0' if high >= 0.0 else 'lies below 0'}."
    return Finding(answer=decided(low > 0.0, high <= 0.0), number=number, why=why, value=value, interval=(low, high))
