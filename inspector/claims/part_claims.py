"""Claims about what the parts of the error are, C12, C16, C17 and C19: components, planted noise, probes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from inspector.claims.verdict import (
    CONSISTENT,
    CONTRADICTS,
    Finding,
    Result,
    cannot,
    decided,
    ends_of,
    interval_of,
    known,
    lies_in,
    lies_out,
    spread,
)

Results = Mapping[str, Result]
NEAR = 0.1
"""Correlations this near to the paper's count as the same: its own two pairs differ from each other by as much."""
COMPONENTS_RANGE = (0.06, 0.10)
"""The paper's R² of the whole error from earlier components."""
SLOPES = (0.5, 2.0)
"""Slopes across latents outside are 'far from 1': a factor of two either way."""


def components(results: Results) -> Finding:
    """C12: earlier components predict part of the error, with whole contexts held out."""
    found = results["cross-component"]
    scores = found["result"]["r2_mean_dims"]
    joint = scores.get("joint") or scores.get("previous")
    if not joint:
        return cannot("The suite has no SAE of an earlier component.")
    if joint.get("sae_error") is None or joint.get("nonlinear_error") is None:
        return cannot("The errors of the SAE were not among the targets, or their R² is undefined.")
    sae = found["result"]["sae"]
    key = "joint" if "joint" in scores else "previous"
    ends = interval_of(found, sae, f"{key} sae_error")
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
        answer=decided(split == "context" and low > 0.0 and lies_in((value, value), *COMPONENTS_RANGE), high <= 0.0),
        number=number,
        why=f"R² with {held} held out {'stays above 0' if low > 0.0 else 'is not above 0'}; the paper has 0.06 to 0.10 "
        "of the error and, of the nonlinear part, 0.04 to 0.14, x_hat 0.50.",
        value=value,
        interval=ends,
    )


def planted_noise(results: Results) -> Finding:
    """C16: the correlations of Table 1 with a map scored on other tokens than it was fitted on."""
    found = results["synthetic-sae"]
    table, paper, sae = found["result"]["correlations"], found["result"]["paper"], found["result"]["sae"]
    values = {name: table.get(name) for name in paper}
    if any(value is None for value in values.values()):
        return cannot("A correlation of Table 1 is undefined.")
    wrong, unsure = [], []
    for name in values:
        ends = ends_of(found, sae, name)
        same = name.split()[0] == name.split()[-1]
        # Recovery means high on the diagonal and near 0 off it; less of the wrong noise than the paper is no harm.
        most = abs(paper[name]) + NEAR
        allowed = (paper[name] - NEAR, math.inf) if same else (-most, most)
        if lies_out(ends, *allowed):
            wrong.append(name)
        elif not lies_in(ends, *allowed):
            unsure.append(name)
    diagonal = known(value for name, value in values.items() if name.split()[0] == name.split()[-1])
    return Finding(
        answer=decided(not wrong and not unsure, bool(wrong)),
        number="; ".join(f"{name}: {value:.3f} ({paper[name]:g})" for name, value in values.items()),
        why="This run (the paper) for each pair, held out. "
        + (
            f"Surely worse by more than {NEAR:g}: {', '.join(wrong)}."
            if wrong
            else f"Perhaps worse by more than {NEAR:g}: {', '.join(unsure)}."
            if unsure
            else f"None is worse by more than {NEAR:g}, by its interval."
        ),
        value=min(diagonal, default=None),
        interval=None,
    )


def parabola(results: Results) -> Finding:
    """C17: random directions leave alpha (1 - alpha)."""
    found = results["synthetic-random"]["result"]
    gap = found["largest_gap"]
    return Finding(
        answer=CONSISTENT if found["parabola"] else CONTRADICTS,
        number=f"largest gap to α(1-α) {gap:.4f}",
        why="Over all shares of features ablated, held-out samples.",
        value=gap,
    )


def probes(results: Results) -> Finding:
    """C19: the slope of probe times latent on the latent's mean activation is near 1."""
    found = results["probe-vs-latents"]
    rows = [row for row in found["saes"] if row.get("slope") is not None]
    if not rows:
        return cannot("No SAE has a defined slope across latents.")
    near = far = 0
    for row in rows:
        ends = ends_of(found, row["sae"], "slope")
        near += lies_in(ends, *SLOPES)
        far += lies_out(ends, *SLOPES)
    slopes = [row["slope"] for row in rows]
    correlations = known(row.get("correlation") for row in rows)
    half = sorted(rows, key=lambda row: float(row["slope"]))[(len(rows) - 1) // 2]
    return Finding(
        answer=decided(near > len(rows) / 2, far > len(rows) / 2, len(rows)),
        number=f"slope {spread(slopes)}",
        why=f"The slope of {near} of {len(rows)} SAEs is within a factor of two of 1, of {far} surely not; correlation "
        f"across latents {statistics.median(correlations):.2f} (median)."
        if correlations
        else "",
        value=half["slope"],
        interval=interval_of(found, half["sae"], "slope"),
    )
