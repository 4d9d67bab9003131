"""Claims about whole suites, C1-C5, C7, C10 and C11: how the errors of SAEs behave over width and L0."""

from __future__ import annotations

import math

from inspector.claims import verdict
from inspector.claims.verdict import Finding, Results, claim
from inspector.drawing.figures import with_interval
from inspector.statistics.measured import slope_beside

NORM_RANGE, VECTOR_RANGE, PURSUIT_RANGE = (0.70, 0.95), (0.15, 0.72), (3.0, 5.0)
"""The paper's own numbers of C1, C2 and C11 (in percent)."""
FLAT = math.log2(1.05)
"""Of a slope on log width: 5% for a doubling."""
FEWEST_OF_SLOPE = 6
"""SAEs: three more than the line has numbers. Of 1,365 choices of four from a suite whose slope surely is not 0, one
lay so well on a line that it seemed to be surely flat."""
NEAR_MARKS = 5.0
"""Points of cross-entropy recovered; the paper calls bars that miss their marks by a few of them in proportion."""
UNCHANGED_PERCENT = 2.0
"""Of fvu_nonlinear: a move up to this is called hardly a change; the paper gives no number."""
FAR_OVER_PERCENT = 10.0
"""Of fvu: twice the paper's 3 to 5% is no longer 'a little'."""


@claim(
    "C1",
    "The size of the error is linearly predictable.",
    "R² 0.70 to 0.95; '> 90%'",
    "norm-prediction",
    also=("norm-baselines",),
)
def norm_predictable(results: Results) -> Finding:
    """C1: r2_norm in the paper's range, and for most SAEs above the Gaussian null and what ‖x‖ alone predicts.

    At or below the null or the baseline for most SAEs: contradicted. Above both, but outside 0.70 to 0.95, or with an
    interval that reaches one of them: cannot tell.
    """
    found = results["norm-prediction"]
    null = found["controls"]["gaussian_null"]["r2_norm"]
    by_x = _x_norm_baseline(results)
    above = below = 0
    for row in found["saes"]:
        level = null.get(row["sae"])
        if row["r2_norm"] is None or level is None:
            continue
        low, high = verdict.ends_of(found, row["sae"], "r2_norm")
        level = max(level, -math.inf if by_x is None else by_x)
        above += low > level
        below += high <= level
    numbers = verdict.scored(found, "r2_norm")
    if not numbers:
        return verdict.cannot("No SAE has a defined r2_norm.")
    n, half = len(numbers), verdict.middle(numbers)
    inside, _ = verdict.surely([half[1]], *NORM_RANGE)
    _, outside = verdict.surely((ends for _, ends in numbers), *NORM_RANGE)
    why = f"The interval of {above} of {n} SAEs lies above the Gaussian null of the same moments"
    why += "" if by_x is None else f" and the R² {by_x:.3g} from ‖x‖ alone"
    why += f", of {below} below; the middle one {'lies' if inside else 'does not surely lie'} in the paper's range, "
    return Finding(
        answer=verdict.decided(above > n / 2 and inside == 1 and not outside, below > n / 2, n),
        number=verdict.spread([value for value, _ in numbers]),
        why=f"{why}and {outside} surely lie outside.{verdict.too_few(n)}",
        of=half,
    )


def _x_norm_baseline(results: Results) -> float | None:
    """Median R² of ‖e‖² from ‖x‖ over SAEs, if `norm-baselines` was measured."""
    other = results.get("norm-baselines")
    if other is None:
        return None
    # Its headline is the norm under --profile paper-text (D-18); here the squared norm is predicted.
    key = "r2_x_norm" if other["result"].get("headline", "squared") == "squared" else "r2_x_norm_other"
    values = verdict.known(row.get(key) for row in other["saes"])
    return sorted(values)[len(values) // 2] if values else None


@claim("C2", "About half of the error vector is linearly predictable.", "R² 0.15 to 0.72", "error-vector")
def vector_predictable(results: Results) -> Finding:
    """C2: R² of the error vector, mean over dimensions as in the paper, in its range with whole contexts held out."""
    found = results["error-vector"]
    numbers = verdict.scored(found, "r2_mean_dims")
    if not numbers:
        return verdict.cannot("No SAE has a defined r2_mean_dims.")
    n, half = len(numbers), verdict.middle(numbers)
    inside, wrong = verdict.surely([half[1]], *VECTOR_RANGE)
    _, outside = verdict.surely((ends for _, ends in numbers), *VECTOR_RANGE)
    whole = found["provenance"].get("split") == "context"
    held = "whole contexts held out" if whole else "single tokens held out, which cannot show a collapse"
    return Finding(
        answer=verdict.decided(whole and inside == 1 and not outside, wrong == 1, n),
        number=verdict.spread([value for value, _ in numbers]),
        why=f"Unweighted mean over dimensions, as in the paper: {outside} of {n} SAEs surely lie outside its 0.15 to "
        f"0.72; {held}.{verdict.too_few(n)}",
        of=half,
    )


@claim("C3", "Nonlinear FVU is constant in width at fixed L0 (middle layers).", "no number", "fvu-nonlinear")
def constant_in_width(results: Results) -> Finding:
    """C3: slope of log fvu_nonlinear on log width, log L0 held fixed, over the SAEs of the hook.

    Constant is a slope whose whole interval is within `FLAT` either way; an interval that excludes 0 contradicts, and
    one that covers 0 and more than that tells nothing.
    """
    found = results["fvu-nonlinear"]
    rows = [row for row in found["saes"] if row["fvu_nonlinear"] and row["fvu_nonlinear"] > 0.0 and row["l0"] > 0.0]
    if len({row["d_sae"] for row in rows}) < 3:
        return verdict.cannot("A slope on width needs SAEs of at least three widths.")
    if len(rows) < FEWEST_OF_SLOPE:
        return verdict.cannot(f"A slope beside L0 needs at least {FEWEST_OF_SLOPE} SAEs, and {len(rows)} are there.")
    logs = [[math.log(row[key]) for row in rows] for key in ("d_sae", "fvu_nonlinear", "l0")]
    fitted = slope_beside(*logs)
    if fitted is None:
        return verdict.cannot("Width and L0 of these SAEs cannot be told apart.")
    b, ends = fitted
    covers = ends[0] <= 0.0 <= ends[1]
    return Finding(
        answer=verdict.decided(covers and verdict.lies_in(ends, -FLAT, FLAT), not covers),
        number=f"d log fvu_nonlinear / d log width = {with_interval(b, ends, '+')}",
        why=f"The slope over {len(rows)} SAEs with log L0 as a covariate {'covers' if covers else 'excludes'} 0: each "
        f"doubling of the width changes nonlinear FVU by {100 * (2 ** ends[0] - 1):+.1f} to "
        f"{100 * (2 ** ends[1] - 1):+.1f}%; constant is within 5% either way.",
        of=(b, ends),
    )


@claim(
    "C4",
    "Vector R² falls with width and L0; norm R² falls with width and rises with L0.",
    "trends",
    "error-vector",
    "norm-prediction",
)
def trends(results: Results) -> Finding:
    """C4: vector R-squared falls with width and L0; norm R-squared falls with width, rises with L0."""
    wanted = (
        ("error-vector", "r2_mean_dims", "d_sae", "nominal_l0", -1, "vector R² with width"),
        ("error-vector", "r2_mean_dims", "l0", "d_sae", -1, "vector R² with L0"),
        ("norm-prediction", "r2_norm", "d_sae", "nominal_l0", -1, "norm R² with width"),
        ("norm-prediction", "r2_norm", "l0", "d_sae", 1, "norm R² with L0"),
    )
    said, right, wrong = [], 0, []
    for experiment, score, along, fixed, sign, name in wanted:
        found = verdict.trend(results[experiment]["saes"], score, along, fixed)
        if found is None:
            said.append(f"{name}: too few SAEs")
            continue
        said.append(f"{name}: τ {found.tau:+.2f}")
        right += sign * found.z > verdict.Z
        if sign * found.z < -verdict.Z:
            wrong.append(name)
    why = "Kendall's τ with the other held fixed; " + (
        f"against the paper, beyond chance: {', '.join(wrong)}."
        if wrong
        else f"{right} of 4 as the paper says, beyond chance."
    )
    return Finding(answer=verdict.decided(right == 4, bool(wrong)), number="; ".join(said), why=why)


@claim("C5", "Some linear error survives infinite width.", "c above the mean nonlinear FVU", "dark-matter-breakdown")
def linear_survives(results: Results) -> Finding:
    """C5: the floor of the power law above the mean nonlinear FVU."""
    found = results["dark-matter-breakdown"]["result"]
    value, ends = found["floor_above_nonlinear"], found["floor_above_nonlinear_interval"]
    if value is None or ends is None:
        return verdict.cannot(f"The power law was not fitted: {found['floor_not_identified_because']}.")
    low, high = float(ends[0]), float(ends[1])
    why = "The interval lies above 0." if low > 0.0 else "The interval covers 0." if high > 0.0 else "It lies below 0."
    if not found["floor_identified"]:
        # An upper end holds all the same: a floor that may be nothing can still be too low.
        why = f"The floor c is not identified: {found['floor_not_identified_because']}. {why}"
    return Finding(
        answer=verdict.decided(bool(found["floor_identified"]) and low > 0.0, high <= 0.0),
        number=f"c - mean nonlinear FVU = {with_interval(value, ends)}",
        why=why,
        of=(value, (low, high)),
    )


@claim(
    "C10",
    "Both components raise the cross-entropy in proportion to their size.",
    "no number; variance and norm marks",
    "ce-splice",
)
def splices(results: Results) -> Finding:
    """C10: both components cost cross-entropy in proportion to their size.

    A bar is in proportion when its whole interval lies between the two predictions, the variance recovered and the norm
    ratio, or within `NEAR_MARKS` of them; out of it when its whole interval lies beyond that.
    """
    found = results["ce-splice"]
    inside = outside = n = 0
    for row in found["saes"]:
        for part in ("linear", "nonlinear"):
            marks = verdict.known((row.get(f"variance_recovered_{part}"), row.get(f"norm_ratio_{part}")))
            if row.get(f"recovered_{part}") is None or len(marks) < 2:
                continue
            ends = verdict.ends_of(found, row["sae"], f"recovered_{part}")
            bounds = min(marks) - NEAR_MARKS, max(marks) + NEAR_MARKS
            n, inside, outside = (
                n + 1,
                inside + verdict.lies_in(ends, *bounds),
                outside + verdict.lies_out(ends, *bounds),
            )
    if not n:
        return verdict.cannot("No SAE has a defined share of cross-entropy recovered.")
    recovered = verdict.known(row.get(f"recovered_{part}") for row in found["saes"] for part in ("linear", "nonlinear"))
    numbers = verdict.scored(found, "recovered_linear")
    half = verdict.middle(numbers) if numbers else (None, None)
    return Finding(
        answer=verdict.decided(inside > 0.9 * n, outside > 0.5 * n, n),
        number=f"{inside} of {n} bars surely between the marks, {outside} surely not; recovered "
        f"{verdict.spread(recovered)} %",
        why="The marks are the variance recovered and the norm ratio, with 5 points either way; more than nine tenths "
        "surely between them agrees, more than half surely not contradicts." + verdict.too_few(n, "bars"),
        of=half,
    )


@claim("C11", "A better encoder cuts total FVU a little and nonlinear FVU hardly.", "3 to 5%; about 0", "pursuit")
def pursuit(results: Results) -> Finding:
    """C11: pursued codes cut total FVU a little and nonlinear FVU hardly, on the same tokens."""
    found = results["pursuit"]
    falls = verdict.scored(found, "fvu_decrease_percent")
    if not falls:
        return verdict.cannot("No SAE was pursued.")
    decrease = found["result"]["mean_fvu_decrease_percent"]
    change = found["result"]["mean_fvu_nonlinear_change_percent"]
    changes = verdict.scored(found, "fvu_nonlinear_change_percent")
    still, moved = verdict.surely((ends for _, ends in changes), -UNCHANGED_PERCENT, UNCHANGED_PERCENT)
    little, not_little = verdict.surely((ends for _, ends in falls), 0.0, FAR_OVER_PERCENT)
    in_range = decrease is not None and PURSUIT_RANGE[0] <= decrease <= PURSUIT_RANGE[1]
    n, half = len(falls), verdict.middle(changes) if changes else (None, None)
    return Finding(
        answer=verdict.decided(in_range and little > n / 2 and still > n / 2, moved > n / 2 or not_little > n / 2, n),
        number=f"FVU {-decrease:+.1f}%, nonlinear FVU {change:+.1f}% (means)" if change is not None else "undefined",
        why=f"Nonlinear FVU of {moved} of {n} SAEs surely moved by more than {UNCHANGED_PERCENT:g}%, of "
        f"{still} surely did not; total FVU {'fell' if in_range else 'did not fall'} by the paper's 3 to 5%, and for "
        f"{not_little} surely not by up to {FAR_OVER_PERCENT:g}%.{verdict.too_few(n)}",
        of=half,
    )
