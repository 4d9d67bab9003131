"""Claims about what the parts of the error are: what an SAE on them learns and what of it can be explained, C8 and C9,
components, planted noise, random vectors and probes, C12, C16, C17 and C19.
"""

from __future__ import annotations

import math
import statistics

from inspector.claims import verdict
from inspector.claims.verdict import CONSISTENT, CONTRADICTS, Finding, Results, claim
from inspector.drawing.figures import with_interval

NEAR = 0.1
"""Correlations this near to the paper's count as the same: its own two pairs differ from each other by as much."""
COMPONENTS_RANGE = (0.06, 0.10)
"""The paper's R² of the whole error from earlier components."""
SLOPES = (0.5, 2.0)
"""Slopes across latents outside are 'far from 1': a factor of two either way."""
FEWEST_SEEDS = 3
"""Below, a spread over seeds is not known well enough to judge by."""
FEWEST_LATENTS = 30
"""Of each part; an interval over fewer says little about others."""
CHANCE = 0.5
"""Balanced accuracy of a coin, which cannot tell one SAE from another."""
MOST_UNPARSABLE = 0.2
"""Of the answers; beyond, what could be read is a choice of the judge's."""


@claim(
    "C12",
    "Earlier components predict part of the error.",
    "of the nonlinear part: x_hat 50%, others 4 to 14%; of all 6 to 10%",
    "cross-component",
)
def components(results: Results) -> Finding:
    """C12: earlier components predict part of the error, with whole contexts held out."""
    found = results["cross-component"]
    scores = found["result"]["r2_mean_dims"]
    joint = scores.get("joint") or scores.get("previous")
    if not joint:
        return verdict.cannot("The suite has no SAE of an earlier component.")
    if joint.get("sae_error") is None or joint.get("nonlinear_error") is None:
        return verdict.cannot("The errors of the SAE were not among the targets, or their R² is undefined.")
    sae = found["result"]["sae"]
    key = "joint" if "joint" in scores else "previous"
    ends = verdict.interval_of(found, sae, f"{key} sae_error")
    value = float(joint["sae_error"])
    tested = ends or (-math.inf, math.inf)
    low, high = tested
    split = found["provenance"].get("split")
    own = scores.get("own", {}).get("nonlinear_error")
    number = f"all earlier components: {value:.3f} of the error, {joint['nonlinear_error']:.3f} of its nonlinear part"
    if own is not None:
        number += f"; x_hat itself {own:.3f} of the nonlinear part"
    held = "whole contexts" if split == "context" else "single tokens"
    return Finding(
        answer=verdict.decided(
            split == "context" and low > 0.0 and verdict.lies_in((value, value), *COMPONENTS_RANGE), high <= 0.0
        ),
        number=number,
        why=f"R² with {held} held out {'stays above 0' if low > 0.0 else 'is not above 0'}; the paper has 0.06 to 0.10 "
        "of the error and, of the nonlinear part, 0.04 to 0.14, x_hat 0.50.",
        of=(value, ends),
    )


@claim("C16", "The split recovers planted noise.", "0.9842, 0.1417, 0.0988, 0.9036", "synthetic-sae")
def planted_noise(results: Results) -> Finding:
    """C16: the correlations of Table 1 with a map scored on other tokens than it was fitted on."""
    found = results["synthetic-sae"]
    table, paper, sae = found["result"]["correlations"], found["result"]["paper"], found["result"]["sae"]
    values = {name: table.get(name) for name in paper}
    if any(value is None for value in values.values()):
        return verdict.cannot("A correlation of Table 1 is undefined.")
    wrong, unsure = [], []
    for name in values:
        ends = verdict.ends_of(found, sae, name)
        same = name.split()[0] == name.split()[-1]
        # Recovery means high on the diagonal and near 0 off it; less of the wrong noise than the paper is no harm.
        most = abs(paper[name]) + NEAR
        allowed = (paper[name] - NEAR, math.inf) if same else (-most, most)
        if verdict.lies_out(ends, *allowed):
            wrong.append(name)
        elif not verdict.lies_in(ends, *allowed):
            unsure.append(name)
    diagonal = verdict.known(value for name, value in values.items() if name.split()[0] == name.split()[-1])
    return Finding(
        answer=verdict.decided(not wrong and not unsure, bool(wrong)),
        number="; ".join(f"{name}: {value:.3f} ({paper[name]:g})" for name, value in values.items()),
        why="This run (the paper) for each pair, held out. "
        + (
            f"Surely worse by more than {NEAR:g}: {', '.join(wrong)}."
            if wrong
            else f"Perhaps worse by more than {NEAR:g}: {', '.join(unsure)}."
            if unsure
            else f"None is worse by more than {NEAR:g}, by its interval."
        ),
        of=(min(diagonal, default=None), None),
    )


@claim("C17", "Random vectors are a bad test case.", "a parabola", "synthetic-random")
def parabola(results: Results) -> Finding:
    """C17: random directions leave alpha (1 - alpha)."""
    found = results["synthetic-random"]["result"]
    gap = found["largest_gap"]
    return Finding(
        answer=CONSISTENT if found["parabola"] else CONTRADICTS,
        number=f"largest gap to α(1-α) {gap:.4f}",
        why="Over all shares of features ablated, held-out samples.",
        of=(gap, None),
    )


@claim(
    "C19", "The probe is the sum of latents weighted by mean activation.", "'approximately equal'", "probe-vs-latents"
)
def probes(results: Results) -> Finding:
    """C19: the slope of probe times latent on the latent's mean activation is near 1."""
    found = results["probe-vs-latents"]
    slopes = verdict.scored(found, "slope")
    if not slopes:
        return verdict.cannot("No SAE has a defined slope across latents.")
    near, far = verdict.surely((ends for _, ends in slopes), *SLOPES)
    correlations = verdict.known(row.get("correlation") for row in found["saes"] if row.get("slope") is not None)
    n = len(slopes)
    return Finding(
        answer=verdict.decided(near > n / 2, far > n / 2, n),
        number=f"slope {verdict.spread([value for value, _ in slopes])}",
        why=f"The slope of {near} of {n} SAEs is within a factor of two of 1, of {far} surely not; correlation "
        f"across latents {statistics.median(correlations):.2f} (median)."
        if correlations
        else "",
        of=verdict.middle(slopes),
    )


@claim(
    "C8", "An SAE on the nonlinear error is worse than one on the linear error.", "FVU 0.59 against 0.54", "error-saes"
)
def nonlinear_worse(results: Results) -> Finding:
    """C8: the nonlinear error's SAE leaves more of its own part unexplained, by more than the seeds differ."""
    found = results["error-saes"]
    result = found["result"]
    gap, seeds = result["difference"]["fvu"], result["difference"]["by_seed"]
    if gap is None:
        return verdict.cannot("An FVU is undefined.")
    ends = verdict.interval_of(found, result["sae"], "difference")
    linear, nonlinear = (result["parts"][part]["fvu"] for part in ("linear_error", "nonlinear_error"))
    number = f"FVU {nonlinear:.3f} against {linear:.3f}"
    if ends is None or len(seeds) < FEWEST_SEEDS:
        return Finding(
            answer=verdict.decided(False, False),
            number=number,
            why=f"{len(seeds)} seed(s) tell no spread: measure with -p seeds={FEWEST_SEEDS} or more.",
            of=(gap, None),
        )
    structure = result["structure"]
    beyond = ""
    if structure.get("linear_error") is not None and structure.get("nonlinear_error") is not None:
        beyond = (
            f" Below normal noise of the same covariance: linear by {structure['linear_error']:.3f}, nonlinear by "
            f"{structure['nonlinear_error']:.3f}."
        )
    return Finding(
        answer=verdict.decided(ends[0] > 0.0, ends[1] <= 0.0),
        number=number,
        why=f"The difference over {len(seeds)} seeds is {with_interval(gap, ends)}; the paper has 0.05.{beyond}",
        of=(gap, ends),
    )


@claim(
    "C9",
    "Latents of the nonlinear error's SAE are less interpretable.",
    "about 5 points in every decile",
    "interp-error-saes",
)
def less_interpretable(results: Results) -> Finding:
    """C9: latents on the linear error are scored higher, by more than the interval over latents."""
    found = results["interp-error-saes"]
    parts, difference = found["result"]["parts"], found["result"]["difference"]
    value, ends = difference["balanced"]["value"], difference["balanced"]["interval"]
    deciles = [each["value"] for name, each in difference.items() if name.startswith("Q")]
    known = [each for each in deciles if each is not None]
    if value is None or ends is None:
        return verdict.cannot("No difference in balanced accuracy is defined.")
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
        return verdict.cannot(
            f"The judge does no better than chance on either part (balanced accuracy {said}).", number
        )
    if latents < FEWEST_LATENTS:
        return verdict.cannot(f"Only {latents} latents of one part were scored; {FEWEST_LATENTS} are needed.", number)
    if unreadable > MOST_UNPARSABLE:
        return verdict.cannot(f"{unreadable:.0%} of the judge's answers could not be read.", number)
    if low > 0.0:
        why = "The interval over latents of the difference in balanced accuracy lies above 0."
    else:
        why = f"That interval {'covers 0' if high >= 0.0 else 'lies below 0'}."
    return Finding(answer=verdict.decided(low > 0.0, high <= 0.0), number=number, why=why, of=(value, (low, high)))
