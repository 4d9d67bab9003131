"""Claims about whole suites, C1-C5, C7, C10 and C11: how the errors of SAEs behave over width and L0."""

from __future__ import annotations

import math
from collections.abc import Mapping

from inspector.claims.verdict import (
    CANNOT_TELL,
    CONSISTENT,
    CONTRADICTS,
    Finding,
    Result,
    Z,
    cannot,
    decided,
    interval_of,
    known,
    middle,
    spread,
    trend,
)
from inspector.statistics.own.plain import slope_beside

Results = Mapping[str, Result]
UNCHANGED_PERCENT = 2.0
"""Of fvu_nonlinear: a move up to this is called hardly a change; the paper gives no number."""
FAR_OVER_PERCENT = 10.0
"""Of fvu: twice the paper's 3 to 5% is no longer 'a little'."""


def norm_predictable(results: Results) -> Finding:
    """C1: r2_norm of most SAEs above the Gaussian null, and above what |x| alone predicts where that was measured."""
    found = results["norm-prediction"]
    null = found["controls"]["gaussian_null"]["r2_norm"]
    above = below = 0
    for row in found["saes"]:
        ends, level = interval_of(found, row["sae"], "r2_norm"), null.get(row["sae"])
        if row["r2_norm"] is None or level is None:
            continue
        low, high = ends or (row["r2_norm"], row["r2_norm"])
        above += low > level
        below += high <= level
    values = known(row["r2_norm"] for row in found["saes"])
    half = middle(found, "r2_norm")
    if half is None:
        return cannot("No SAE has a defined r2_norm.")
    n = len(values)
    by_x = _x_norm_baseline(results)
    why = f"The interval of {above} of {n} SAEs lies above the Gaussian null of the same moments, of {below} below it."
    if by_x is not None:
        why += f" |x| alone predicts R² {by_x:.3g}."
    beaten = by_x is None or half[0] > by_x
    return Finding(
        answer=decided(above > n / 2 and beaten, below > n / 2 or not beaten),
        number=spread(values),
        why=why,
        value=half[0],
        interval=half[1],
    )


def _x_norm_baseline(results: Results) -> float | None:
    """Median R² of |e|² from |x| over SAEs, if `norm-baselines` was measured."""
    other = results.get("norm-baselines")
    if other is None:
        return None
    # Its headline is the norm under --profile paper-text (D-18); here the squared norm is predicted.
    key = "r2_x_norm" if other["result"].get("headline", "squared") == "squared" else "r2_x_norm_other"
    values = known(row.get(key) for row in other["saes"])
    return sorted(values)[len(values) // 2] if values else None


def vector_predictable(results: Results) -> Finding:
    """C2: pooled R-squared of the error vector inside the paper's range, whole contexts held out."""
    found = results["error-vector"]
    half = middle(found, "r2_pooled")
    if half is None:
        return cannot("No SAE has a defined r2_pooled.")
    value, ends, _ = half
    values = known(row["r2_pooled"] for row in found["saes"])
    inside = sum(0.15 <= each <= 0.72 for each in values)
    low, high = ends or (value, value)
    split = found["provenance"].get("split")
    answer = decided(split == "context" and 0.15 <= value <= 0.72, high < 0.15 or low > 0.72)
    held = "whole contexts held out" if split == "context" else "single tokens held out, which cannot show a collapse"
    return Finding(
        answer=answer,
        number=spread(values),
        why=f"{inside} of {len(values)} SAEs lie in the paper's 0.15 to 0.72; {held}.",
        value=value,
        interval=ends,
    )


def constant_in_width(results: Results) -> Finding:
    """C3: slope of log fvu_nonlinear on log width, log L0 held fixed, over the SAEs of the hook."""
    found = results["fvu-nonlinear"]
    rows = [row for row in found["saes"] if row["fvu_nonlinear"] and row["fvu_nonlinear"] > 0.0 and row["l0"] > 0.0]
    if len({row["d_sae"] for row in rows}) < 3:
        return cannot("A slope on width needs SAEs of at least three widths.")
    logs = [[math.log(row[key]) for row in rows] for key in ("d_sae", "fvu_nonlinear", "l0")]
    fitted = slope_beside(*logs)
    if fitted is None:
        return cannot("Width and L0 of these SAEs cannot be told apart.")
    b, ends = fitted
    covers = ends[0] <= 0.0 <= ends[1]
    return Finding(
        answer=decided(covers, not covers),
        number=f"d log fvu_nonlinear / d log width = {b:+.3f}",
        why=f"The slope over {len(rows)} SAEs with log L0 as a covariate {'covers' if covers else 'excludes'} 0: each "
        f"doubling of the width changes nonlinear FVU by {100 * (2**b - 1):+.1f}%.",
        value=b,
        interval=ends,
    )


def trends(results: Results) -> Finding:
    """C4: vector R-squared falls with width and L0; norm R-squared falls with width, rises with L0."""
    wanted = (
        ("error-vector", "r2_pooled", "d_sae", "nominal_l0", -1, "vector R² with width"),
        ("error-vector", "r2_pooled", "l0", "d_sae", -1, "vector R² with L0"),
        ("norm-prediction", "r2_norm", "d_sae", "nominal_l0", -1, "norm R² with width"),
        ("norm-prediction", "r2_norm", "l0", "d_sae", 1, "norm R² with L0"),
    )
    said, right, wrong = [], 0, []
    for experiment, score, along, fixed, sign, name in wanted:
        found = trend(results[experiment]["saes"], score, along, fixed)
        if found is None:
            said.append(f"{name}: too few SAEs")
            continue
        said.append(f"{name}: τ {found.tau:+.2f}")
        right += sign * found.z > Z
        if sign * found.z < -Z:
            wrong.append(name)
    why = "Kendall's τ with the other held fixed; " + (
        f"against the paper, beyond chance: {', '.join(wrong)}."
        if wrong
        else f"{right} of 4 as the paper says, beyond chance."
    )
    return Finding(answer=decided(right == 4, bool(wrong)), number="; ".join(said), why=why)


def linear_survives(results: Results) -> Finding:
    """C5: the floor of the power law above the mean nonlinear FVU."""
    found = results["dark-matter-breakdown"]["result"]
    value, ends = found["floor_above_nonlinear"], found["floor_above_nonlinear_interval"]
    if value is None or ends is None:
        return cannot(f"The power law was not fitted: {found['floor_not_identified_because']}.")
    low, high = float(ends[0]), float(ends[1])
    number = f"c - mean nonlinear FVU = {value:.3g}"
    if not found["floor_identified"]:
        why = f"The floor c is not identified: {found['floor_not_identified_because']}."
        return Finding(answer=CANNOT_TELL, number=number, why=why, value=value, interval=(low, high))
    return Finding(
        answer=CONSISTENT if low > 0.0 else CONTRADICTS,
        number=number,
        why="The interval lies above 0." if low > 0.0 else "The interval of c reaches down to the mean nonlinear FVU.",
        value=value,
        interval=(low, high),
    )


def splices(results: Results) -> Finding:
    """C10: both components cost cross-entropy in proportion to their size."""
    found = results["ce-splice"]
    inside = [
        row[f"within_marks_{part}"]
        for row in found["saes"]
        for part in ("linear", "nonlinear")
        if row.get(f"within_marks_{part}") is not None
    ]
    if not inside:
        return cannot("No SAE has a defined share of cross-entropy recovered.")
    recovered = known(row.get(f"recovered_{part}") for row in found["saes"] for part in ("linear", "nonlinear"))
    share = sum(inside) / len(inside)
    half = middle(found, "recovered_linear")
    return Finding(
        answer=decided(share > 0.9, share < 0.5),
        number=f"{sum(inside)} of {len(inside)} bars reach between the marks; recovered {spread(recovered)} %",
        why="A bar is outside when its whole interval lies beyond both predictions, the variance recovered and the "
        "norm ratio. More than half outside contradicts, at most a tenth outside agrees.",
        value=None if half is None else half[0],
        interval=None if half is None else half[1],
    )


def pursuit(results: Results) -> Finding:
    """C11: pursued codes cut total FVU a little and nonlinear FVU hardly, on the same tokens."""
    found = results["pursuit"]
    rows = [row for row in found["saes"] if row.get("fvu_decrease_percent") is not None]
    if not rows:
        return cannot("No SAE was pursued.")
    decrease, change = (
        found["result"]["mean_fvu_decrease_percent"],
        found["result"]["mean_fvu_nonlinear_change_percent"],
    )
    moved = 0
    for row in rows:
        ends = interval_of(found, row["sae"], "fvu_nonlinear_change_percent")
        moved += ends is not None and (ends[0] > UNCHANGED_PERCENT or ends[1] < -UNCHANGED_PERCENT)
    half = middle(found, "fvu_nonlinear_change_percent")
    small = decrease is not None and 0.0 < decrease <= FAR_OVER_PERCENT
    return Finding(
        answer=decided(small and moved == 0, moved > len(rows) / 2 or not small),
        number=f"FVU {-decrease:+.1f}%, nonlinear FVU {change:+.1f}% (means)" if change is not None else "undefined",
        why=f"Nonlinear FVU of {moved} of {len(rows)} SAEs moved by more than {UNCHANGED_PERCENT:g}% beyond its "
        f"interval; total FVU {'fell by at most' if small else 'did not fall by up to'} {FAR_OVER_PERCENT:g}%.",
        value=None if half is None else half[0],
        interval=None if half is None else half[1],
    )
