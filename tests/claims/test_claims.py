"""The paper's claims: every rule answers all three ways on made-up results, and says what is missing."""

from __future__ import annotations

import copy
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from inspector.claims import CANNOT_TELL, CLAIMS, CONSISTENT, CONTRADICTS, Verdict, evaluate
from inspector.claims.drawing import claims_lines
from inspector.claims.verdict import trend
from inspector.cli.main import dm_inspect
from inspector.drawing.lines import text_of
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import cell_width
from tests.cli.test_help import parse
from tests.store.objects import HOSTILE

Object = dict[str, Any]
WIDTHS, L0S = (256, 512, 1024, 4096), (8.0, 16.0, 32.0)


def made(experiment: str, saes: list[Object], **changes: Any) -> Object:
    return {
        "experiment": experiment,
        "profile": "careful",
        "definition": "d",
        "provenance": {"fingerprint": "f" * 64, "weights_hash": "w", "hook_name": "h", "tokens_sha256": "t",
                       "split": "context", "null": None},
        "saes": saes,
        "result": {},
        "intervals": {},
        "controls": {},
        "warnings": [],
        **changes,
    }  # fmt: skip


def suite(score: str, of: Callable[[int, float], float], half: float = 0.01) -> tuple[list[Object], Object]:
    """Rows over widths and L0s with a score, and intervals of a given half width."""
    rows = [
        {"sae": f"{d}/{l0:g}", "d_sae": d, "nominal_l0": l0, "l0": l0, score: of(d, l0)} for d in WIDTHS for l0 in L0S
    ]
    return rows, {row["sae"]: {score: [row[score] - half, row[score] + half]} for row in rows}


def thrice(result: Object) -> Object:
    """The same with three SAEs like its only one: fewer decide nothing."""
    (row,) = result["saes"]
    return result | {
        "saes": [row | {"sae": name} for name in "abc"],
        "intervals": {name: result["intervals"][row["sae"]] for name in "abc"},
    }


def verdict(claim: str, *results: Object) -> Verdict:
    found = evaluate({f"{result['experiment']}-id{i}": result for i, result in enumerate(results)})
    return next(each for each in found if each.id == claim)


def norm_prediction(level: float, null: float, of: Callable[[int, float], float] | None = None) -> Object:
    rows, intervals = suite("r2_norm", of or (lambda d, l0: level))
    nulls = {"gaussian_null": {"r2_norm": {row["sae"]: null for row in rows}}}
    return made("norm-prediction", rows, intervals=intervals, controls=nulls)


def error_vector(of: Callable[[int, float], float], split: str = "context") -> Object:
    rows, intervals = suite("r2_mean_dims", of)
    result = made("error-vector", rows, intervals=intervals)
    result["provenance"]["split"] = split
    return result


def test_there_are_nineteen_and_each_names_an_experiment() -> None:
    assert [claim.id for claim in CLAIMS] == [f"C{number}" for number in range(1, 20)]
    assert all(claim.needs for claim in CLAIMS)


def test_without_results_every_claim_says_what_to_run() -> None:
    for found, claim in zip(evaluate({}), CLAIMS, strict=True):
        assert found.verdict == CANNOT_TELL
        elsewhere = {"interp-error-saes": "dm-inspect interp --error-saes DIR"}
        command = elsewhere.get(claim.needs[0], f"dm-inspect run {' '.join(claim.needs)}")
        assert found.why == f"No result of {', '.join(claim.needs)}: `{command}`."
        assert found.results == ()


def test_what_a_claim_says_to_run_is_a_command() -> None:
    """C9 named one that there was not."""
    for found in evaluate({}):
        command = found.why.partition("`")[2].partition("`")[0]
        parse(dm_inspect, shlex.split(command)[1:])


def test_c1_is_judged_against_the_null() -> None:
    assert verdict("C1", norm_prediction(0.8, 0.3)).verdict == CONSISTENT
    assert verdict("C1", norm_prediction(0.3, 0.8)).verdict == CONTRADICTS
    assert verdict("C1", norm_prediction(0.5, 0.505)).verdict == CANNOT_TELL
    assert verdict("C1", norm_prediction(0.6, 0.3)).verdict == CANNOT_TELL  # above the null, outside the paper's range
    found = verdict("C1", norm_prediction(0.8, 0.3))
    assert (found.value, found.number, found.results) == (0.8, "0.8 to 0.8, median 0.8", ("norm-prediction-id0",))
    assert found.interval == pytest.approx((0.79, 0.81))


def test_c2_is_the_range_and_the_split() -> None:
    assert verdict("C2", error_vector(lambda d, l0: 0.4)).verdict == CONSISTENT
    assert verdict("C2", error_vector(lambda d, l0: 0.05)).verdict == CONTRADICTS
    assert verdict("C2", error_vector(lambda d, l0: 0.9)).verdict == CONTRADICTS
    assert verdict("C2", error_vector(lambda d, l0: 0.145)).verdict == CANNOT_TELL
    assert verdict("C2", error_vector(lambda d, l0: 0.4, split="token")).verdict == CANNOT_TELL


def test_c3_is_the_slope_with_l0_held_fixed() -> None:
    rng = np.random.default_rng(0)
    rows, _ = suite("fvu_nonlinear", lambda d, l0: float(0.2 * l0**-0.3 * np.exp(0.01 * rng.standard_normal())))
    assert verdict("C3", made("fvu-nonlinear", rows)).verdict == CONSISTENT
    rows, _ = suite("fvu_nonlinear", lambda d, l0: float(d**-0.1 * l0**-0.3 * np.exp(0.01 * rng.standard_normal())))
    found = verdict("C3", made("fvu-nonlinear", rows))
    assert found.verdict == CONTRADICTS
    assert found.value == pytest.approx(-0.1, abs=0.02)
    assert verdict("C3", made("fvu-nonlinear", rows[:6])).verdict == CANNOT_TELL  # two widths
    rows, _ = suite("fvu_nonlinear", lambda d, l0: float(0.2 * np.exp(0.3 * rng.standard_normal())))
    assert verdict("C3", made("fvu-nonlinear", rows)).verdict == CANNOT_TELL  # 0 is covered, and so is much else


def test_c4_needs_both_experiments_of_one_target() -> None:
    falls = error_vector(lambda d, l0: 1 / d / l0)
    rises = norm_prediction(0.0, 0.0, lambda d, l0: l0 / d)
    assert verdict("C4", falls, rises).verdict == CONSISTENT
    assert verdict("C4", falls, norm_prediction(0.0, 0.0, lambda d, l0: 1 / l0 / d)).verdict == CONTRADICTS
    assert verdict("C4", falls).why == "No result of norm-prediction: `dm-inspect run norm-prediction`."
    other = copy.deepcopy(rises)
    other["provenance"]["weights_hash"] = "another model"
    assert verdict("C4", falls, other).why.startswith("Its results are of different targets")
    for changed in ({"profile": "paper-code"}, {"provenance": rises["provenance"] | {"saes": {"other": "hash"}}}):
        assert verdict("C4", falls, rises | changed).why.startswith("Its results are of different targets")


@pytest.mark.parametrize(
    ("ends", "identified", "answer"),
    [([0.01, 0.05], True, CONSISTENT), ([-0.01, 0.05], True, CANNOT_TELL), ([-0.05, -0.01], True, CONTRADICTS),
     ([0.01, 0.05], False, CANNOT_TELL), ([-0.05, -0.01], False, CONTRADICTS)],
)  # fmt: skip
def test_c5_is_the_interval_of_the_floor(ends: list[float], identified: bool, answer: str) -> None:
    found = {
        "floor_above_nonlinear": 0.03, "floor_above_nonlinear_interval": ends, "floor_identified": identified,
        "floor_not_identified_because": "" if identified else "two widths are not enough",
    }  # fmt: skip
    assert verdict("C5", made("dark-matter-breakdown", [], result=found)).verdict == answer


@pytest.mark.parametrize(
    ("inside", "half", "answer"),
    [(20, 1.0, CONSISTENT), (12, 1.0, CANNOT_TELL), (4, 1.0, CONTRADICTS), (20, 30.0, CANNOT_TELL)],
)
def test_c10_counts_bars_that_are_surely_between_the_marks(inside: int, half: float, answer: str) -> None:
    rows, intervals = [], {}
    for i in range(10):
        row: Object = {"sae": str(i)}
        for part in ("linear", "nonlinear"):
            recovered = 50.0 if i < inside / 2 else 90.0
            row |= {f"recovered_{part}": recovered, f"variance_recovered_{part}": 45.0, f"norm_ratio_{part}": 60.0}
            intervals.setdefault(str(i), {})[f"recovered_{part}"] = [recovered - half, recovered + half]
        rows.append(row)
    assert verdict("C10", made("ce-splice", rows, intervals=intervals)).verdict == answer


@pytest.mark.parametrize(
    ("decrease", "change", "half", "answer"),
    [(4.0, -0.5, 0.5, CONSISTENT), (4.0, -9.0, 0.5, CONTRADICTS), (60.0, 0.0, 0.5, CONTRADICTS),
     (8.0, -0.5, 0.5, CANNOT_TELL), (4.0, -0.5, 4.0, CANNOT_TELL)],
)  # fmt: skip
def test_c11_is_little_in_total_and_nothing_in_the_nonlinear(
    decrease: float, change: float, half: float, answer: str
) -> None:
    rows = [{"sae": "a", "fvu_decrease_percent": decrease, "fvu_nonlinear_change_percent": change}]
    result = {"mean_fvu_decrease_percent": decrease, "mean_fvu_nonlinear_change_percent": change}
    values = {"fvu_nonlinear_change_percent": change, "fvu_decrease_percent": decrease}
    intervals = {"a": {key: [value - half, value + half] for key, value in values.items()}}
    few = made("pursuit", rows, result=result, intervals=intervals)
    assert verdict("C11", thrice(few)).verdict == answer
    assert verdict("C11", few).verdict == CANNOT_TELL


@pytest.mark.parametrize(
    ("value", "answer"), [(0.08, CONSISTENT), (0.3, CANNOT_TELL), (0.005, CANNOT_TELL), (-0.1, CONTRADICTS)]
)
def test_c12_is_what_whole_contexts_leave(value: float, answer: str) -> None:
    scores = {"own": {"sae_error": 0.0, "nonlinear_error": 0.5}, "joint": {"sae_error": value, "nonlinear_error": 0.1}}
    result = {"r2_mean_dims": scores, "sae": "a"}
    intervals = {"a": {"joint sae_error": [value - 0.01, value + 0.01]}}
    found = verdict("C12", made("cross-component", [], result=result, intervals=intervals))
    assert found.verdict == answer
    assert verdict("C12", made("cross-component", [], result={"r2_mean_dims": {}, "sae": None})).verdict == CANNOT_TELL


PAPER = {
    "dense noise, estimated dense": 0.9842, "dense noise, estimated introduced": 0.1417,
    "introduced noise, estimated dense": 0.0988, "introduced noise, estimated introduced": 0.9036,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, CONSISTENT),
        ({"introduced noise, estimated dense": -0.02}, CONSISTENT),
        ({"introduced noise, estimated dense": 0.5}, CONTRADICTS),
        ({"dense noise, estimated dense": 0.5}, CONTRADICTS),
        ({"dense noise, estimated dense": None}, CANNOT_TELL),
    ],
)
def test_c16_is_table_1(changes: Mapping[str, float | None], answer: str) -> None:
    table = PAPER | dict(changes)
    result = {"correlations": table, "paper": PAPER, "sae": "a"}
    for half, expected in ((0.01, answer), (0.7, CANNOT_TELL), (None, CANNOT_TELL)):
        ends = {} if half is None else {k: [v - half, v + half] for k, v in table.items() if v is not None}
        made_up = made("synthetic-sae", [], result=result, intervals={"a": ends})
        assert verdict("C16", made_up).verdict == expected


@pytest.mark.parametrize(("parabola", "answer"), [(True, CONSISTENT), (False, CONTRADICTS)])
def test_c17_is_the_parabola(parabola: bool, answer: str) -> None:
    found = verdict("C17", made("synthetic-random", [], result={"largest_gap": 0.01, "parabola": parabola}))
    assert (found.verdict, found.value) == (answer, 0.01)


@pytest.mark.parametrize(
    ("value", "half", "answer"), [(1.1, 0.2, CONSISTENT), (3.0, 0.5, CONTRADICTS), (1.0, 0.8, CANNOT_TELL)]
)
def test_c19_is_a_slope_within_a_factor_of_two(value: float, half: float, answer: str) -> None:
    rows = [{"sae": "a", "slope": value, "correlation": 0.5}]
    intervals = {"a": {"slope": [value - half, value + half]}}
    few = made("probe-vs-latents", rows, intervals=intervals)
    assert verdict("C19", thrice(few)).verdict == answer
    assert verdict("C19", few).verdict == CANNOT_TELL


@pytest.mark.parametrize(("gain", "answer"), [(0.2, CONSISTENT), (-0.1, CONTRADICTS)])
def test_c6_is_the_gain_over_both_baselines(gain: float, answer: str) -> None:
    pair = {"small": "a", "large": "b", "r2": 0.5 + gain, "r2_x_norm": 0.3, "r2_activation": 0.5}
    ends = {"a -> b": {"gain": [gain - 0.05, gain + 0.05]}}
    found = {"pairs": [pair] * 6}
    assert verdict("C6", made("per-token-scaling", [], result=found, intervals=ends)).verdict == answer
    assert verdict("C6", made("per-token-scaling", [], result=found)).verdict == CANNOT_TELL


@pytest.mark.parametrize(("half", "answer"), [(0.1, CONSISTENT), (0.3, CANNOT_TELL)])
def test_c6_c13_c18_ask_the_interval_where_there_is_one(half: float, answer: str) -> None:
    pair = {"small": "a", "large": "b", "r2": 0.7, "r2_x_norm": 0.3, "r2_activation": 0.5, "decrease_percent": 3.0,
            "decrease_percent_linear": 2.8}  # fmt: skip
    around = {"gain": [0.2 - half, 0.2 + half], "beyond_linear": [0.2 - half, 0.2 + half], "r2": [0.6, 0.8]}
    for claim, experiment in (("C6", "per-token-scaling"), ("C18", "scaling-with-nonlinear")):
        found = verdict(claim, made(experiment, [], result={"pairs": [pair] * 3}, intervals={"a -> b": around}))
        assert found.verdict == answer
        two = verdict(claim, made(experiment, [], result={"pairs": [pair] * 2}, intervals={"a -> b": around}))
        assert two.verdict == CANNOT_TELL and "3 pairs are needed" in two.why
    row = {"sae": "a", "r2_scalar": 0.1, "r2_full": 0.4}
    share = {"a": {"scalar_share": [0.25 - half, 0.25 + half]}}
    found = verdict("C13", thrice(made("shrinkage", [row], intervals=share)))
    assert (found.verdict, found.interval) == (answer, tuple(share["a"]["scalar_share"]))


def test_c1_compares_squared_norms_with_squared_norms() -> None:
    """Under --profile paper-text the headline of the baselines is the norm (D-18)."""
    rows = [{"sae": "a", "r2_x_norm": 0.9, "r2_x_norm_other": 0.1}]
    for headline, answer in (("squared", CONTRADICTS), ("unsquared", CONSISTENT)):
        baselines = made("norm-baselines", rows, result={"headline": headline})
        assert verdict("C1", norm_prediction(0.8, 0.3), baselines).verdict == answer


@pytest.mark.parametrize(
    ("changes", "answer"),
    [({}, CONSISTENT), ({"r2_nonlinear_error": 0.9}, CONTRADICTS), ({"r2_x": 0.89, "r2_x_hat": 0.7}, CANNOT_TELL),
     ({"r2_x": 0.5}, CONTRADICTS), ({"r2_x": None}, CANNOT_TELL)],
)  # fmt: skip
def test_c7_is_the_order_of_five(changes: Object, answer: str) -> None:
    row = {"sae": "a", "r2_x": 0.99, "r2_x_hat": 0.9, "r2_linear_error": 0.8, "r2_sae_error": 0.7,
           "r2_nonlinear_error": 0.4}  # fmt: skip
    changed = row | changes
    for half, expected in ((0.02, answer), (0.4, CANNOT_TELL), (None, CANNOT_TELL)):
        ends = {k: [v - half, v + half] for k, v in changed.items() if isinstance(v, float) and half is not None}
        few = made("norm-test", [changed], intervals={"a": ends})
        assert verdict("C7", few).verdict == CANNOT_TELL
        found = verdict("C7", thrice(few))
        assert found.verdict == expected
    if not changes:
        assert found.number == "x 0.990 > x_hat 0.900 > linear 0.800 > error 0.700 > nonlinear 0.400"
        assert "; 3 values of at most 0.5 count in" in found.why


@pytest.mark.parametrize(("scalar", "answer"), [(0.05, CONSISTENT), (0.35, CONTRADICTS)])
def test_c13_is_the_scalars_part(scalar: float, answer: str) -> None:
    rows, share = [{"sae": "a", "r2_scalar": scalar, "r2_full": 0.4}], scalar / 0.4
    ends = {"a": {"scalar_share": [share - 0.1, share + 0.1]}}
    few = made("shrinkage", rows, intervals=ends)
    assert verdict("C13", thrice(few)).verdict == answer
    assert verdict("C13", few).verdict == CANNOT_TELL
    assert verdict("C13", made("shrinkage", rows)).verdict == CANNOT_TELL


@pytest.mark.parametrize(("token", "answer"), [(0.3, CONSISTENT), (0.6, CANNOT_TELL), (0.9, CONTRADICTS)])
def test_c14_is_x_against_its_best_rival(token: float, answer: str) -> None:
    rows = [{"sae": "a", "r2_x": 0.6, "r2_token": token, "r2_loss": 0.1, "r2_l0": 0.1, "r2_x_norm": 0.2}]
    intervals = {"a": {"r2_x": [0.1, 0.99], "r2_x_gain": [0.6 - token - 0.05, 0.6 - token + 0.05]}}
    few = made("norm-baselines", rows, intervals=intervals)
    assert verdict("C14", thrice(few)).verdict == answer
    assert verdict("C14", few).verdict == CANNOT_TELL


@pytest.mark.parametrize(
    ("linear", "nonlinear", "answer"),
    [(-2.0, -0.1, CONSISTENT), (1.0, 0.0, CONTRADICTS), (-2.0, -1.5, CONTRADICTS), (-2.0, -1.0, CANNOT_TELL)],
)
def test_c15_is_two_slopes(linear: float, nonlinear: float, answer: str) -> None:
    slopes: Object = {"linear_slope": linear, "nonlinear_slope": nonlinear}
    intervals = {"slopes": {name: [value - 0.05, value + 0.05] for name, value in slopes.items()}}
    slopes["series"] = ["a", "b", "c", "d", "e"]
    assert verdict("C15", made("per-token-split", [], result=slopes, intervals=intervals)).verdict == answer
    four = slopes | {"series": ["a", "b", "c", "d"]}
    assert verdict("C15", made("per-token-split", [], result=four, intervals=intervals)).verdict == CANNOT_TELL
    assert verdict("C15", made("per-token-split", [], result=slopes)).verdict == CANNOT_TELL


@pytest.mark.parametrize(("control", "answer"), [(0.5, CONSISTENT), (4.0, CONTRADICTS)])
def test_c18_is_the_gain_over_the_linear_norms(control: float, answer: str) -> None:
    pairs = [{"small": "a", "large": "b", "decrease_percent": 3.0, "decrease_percent_linear": control}] * 4
    beyond = 3.0 - control
    ends = {"a -> b": {"beyond_linear": [beyond - 0.1, beyond + 0.1], "decrease_percent": [2.9, 3.1]}}
    found = made("scaling-with-nonlinear", [], result={"pairs": pairs}, intervals=ends)
    assert verdict("C18", found).verdict == answer
    assert verdict("C18", made("scaling-with-nonlinear", [], result={"pairs": pairs})).verdict == CANNOT_TELL


def test_a_measured_control_is_no_evidence() -> None:
    result = norm_prediction(0.8, 0.3)
    result["provenance"]["null"] = "shuffle"
    assert verdict("C1", result).verdict == CANNOT_TELL


def test_a_result_that_lacks_a_key_is_said_not_thrown() -> None:
    broken = norm_prediction(0.8, 0.3)
    del broken["controls"]["gaussian_null"]
    found = verdict("C1", broken)
    assert found.verdict == CANNOT_TELL
    assert found.why == "The result lacks what the rule looks at (KeyError: 'gaussian_null'): measure again."


def test_the_trend_is_kendalls() -> None:
    rng = np.random.default_rng(1)
    rows = [{"x": float(i), "g": 0, "y": float(i + 4 * rng.standard_normal())} for i in range(12)]
    found = trend(rows, "y", "x", "g")
    assert found is not None
    # scipy computes tau-b, which is tau-a where nothing is tied.
    reference = scipy.stats.kendalltau([row["x"] for row in rows], [row["y"] for row in rows])
    assert found.tau == pytest.approx(reference.statistic, abs=1e-12)


def test_the_table_in_a_terminal_holds_every_word_and_obeys_nobody() -> None:
    hostile = norm_prediction(0.8, 0.3)
    found = evaluate({HOSTILE: hostile})
    palette = build_palette(DEFAULT_ENDPOINTS, "none")
    for width in (60, 80, 160):
        lines = claims_lines(found, width, palette)
        assert all(sum(cell_width(text) for text, _ in line) <= width for line in lines)
        assert "\x1b" not in text_of(lines)
    text = text_of(claims_lines(found, 80, palette))
    assert text.startswith(
        "✓ C1   The size of the error is linearly predictable. Consistent with the paper.\n"
        "       paper: R² 0.70 to 0.95; '> 90%'\n"
        "       here: 0.8 to 0.8, median 0.8; of 0.800 [0.790, 0.810]\n"
    )
    assert text.endswith("\n\n1 consistent with the paper, 0 contradict it, 18 cannot tell\n")


def test_an_interval_is_said_once() -> None:
    """With the digits that it supports; 'of' which number only where the number itself does not say it."""
    told = evaluate({"a": norm_prediction(0.8, 0.3)})[0]
    assert told.said_of == "; of 0.800 [0.790, 0.810]"
    assert replace(told, number="slope +0.800 [+0.790, +0.810], and more").said_of == ""
    assert replace(told, interval=None).said_of == "" == replace(told, value=None).said_of


def test_judging_loads_nothing_heavy() -> None:
    code = (
        "import sys; import inspector.claims, inspector.claims.drawing, inspector.store.results;"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'textual', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_c3_asks_for_more_saes_than_its_line_has_numbers() -> None:
    """Four SAEs that happen to lie on a line are surely flat by their interval, whatever a fifth would say."""
    rows = [
        {"sae": f"{d}", "d_sae": d, "l0": l0, "fvu_nonlinear": 0.1}
        for d, l0 in zip((256, 512, 1024, 4096, 2048, 8192), (8.0, 9.0, 7.0, 8.5, 7.5, 9.5), strict=True)
    ]
    assert verdict("C3", made("fvu-nonlinear", rows)).verdict == CONSISTENT
    few = verdict("C3", made("fvu-nonlinear", rows[:5]))
    assert few.verdict == CANNOT_TELL and "at least 6 SAEs, and 5 are there" in few.why


def test_c1_and_c2_do_not_agree_where_one_sae_surely_lies_outside_the_papers_range() -> None:
    def with_one(level: float, stray: float) -> Callable[[int, float], float]:
        return lambda d, l0: stray if (d, l0) == (4096, 8.0) else level

    for stray, answer in ((0.155, CONSISTENT), (0.1, CANNOT_TELL)):
        assert verdict("C2", error_vector(with_one(0.4, stray))).verdict == answer
    for stray, answer in ((0.705, CONSISTENT), (0.6, CANNOT_TELL)):
        assert verdict("C1", norm_prediction(0.8, 0.3, with_one(0.8, stray))).verdict == answer
