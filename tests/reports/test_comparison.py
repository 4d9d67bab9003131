"""Two results side by side: what differs is said, SAEs are matched, differences are right less left."""

from __future__ import annotations

from typing import Any

from inspector.drawing.figures import Table
from inspector.drawing.lines import text_of
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.reports.comparison import Pair, compared, differing, pair_lines, score_table
from inspector.reports.result import Opened
from inspector.store.results import Record, Stored
from tests.tui.stored_results import norm_result

PALETTE = build_palette(DEFAULT_ENDPOINTS, "none")


def opened(made: dict[str, Any]) -> Opened:
    record = Record(id=f"{made['experiment']}-x", experiment=made["experiment"], created="2026-01-02T03:04:05+00:00",
                    command="c", profile="careful", model="m", hook_name="h")  # fmt: skip
    return Opened(record=record, stored=Stored(record=record, result=made))


def table_of(one: dict[str, Any], other: dict[str, Any]) -> Table:
    table = score_table(Pair(one=opened(one), other=opened(other)))
    assert table is not None
    return table


def test_what_differs_is_named_down_to_the_parameter() -> None:
    one = {"profile": "careful", "seed": 1, "params": {"a": 1, "b": 2}, "fingerprint": "x", "weights": "f" * 64}
    other = {"profile": "careful", "seed": 2, "params": {"a": 1, "b": 3}, "fingerprint": "y", "weights": "e" * 64}
    assert list(differing(one, other)) == [
        ("seed", "1", "2"),
        ("params.b", "2", "3"),
        ("weights", "ffffffffffff…", "eeeeeeeeeeee…"),
    ]


def test_the_change_is_right_less_left_and_undefined_where_one_is() -> None:
    one, other = norm_result(), norm_result(shift=0.25)
    table = table_of(one, other)
    assert [column.title for column in table.columns] == [
        "SAE", "l0", "right", "change", "r2_norm", "right", "change", "fvu", "right", "change",
    ]  # fmt: skip
    assert table.rows[0] == ("a", 15.9, 15.9, 0.0, 0.5, 0.75, 0.25, 0.25, 0.25, 0.0)
    assert table.rows[1][4:7] == (None, None, None)


def test_saes_of_two_layers_are_matched_by_width_and_l0() -> None:
    one, other = norm_result(), norm_result(shift=0.25)
    for row in other["saes"]:
        row["sae"] = f"other/{row['sae']}"
    assert table_of(one, other).rows[0][0] == "a | other/a"
    for row in other["saes"]:
        row["nominal_l0"] = 99.0
    other["result"] = one["result"] = {}
    assert score_table(Pair(one=opened(one), other=opened(other))) is None


def test_results_without_saes_are_compared_number_by_number() -> None:
    one = norm_result() | {"saes": [], "result": {"gap": 1.0, "parabola": True, "curve": [1.0], "n": 3}}
    other = norm_result() | {"saes": [], "result": {"gap": 3.0, "parabola": True, "curve": [1.0], "n": None}}
    assert table_of(one, other).rows == (("gap", 1.0, 3.0, 2.0), ("n", 3, None, None))


def test_different_experiments_have_no_difference_of_numbers() -> None:
    pair = Pair(one=opened(norm_result()), other=opened(norm_result() | {"experiment": "error-vector"}))
    assert score_table(pair) is None
    assert "They are of different experiments" in text_of(pair_lines(pair, 0, 120, 12, PALETTE))


def test_in_a_narrow_window_they_stand_one_after_the_other() -> None:
    pair = Pair(one=opened(norm_result()), other=opened(norm_result()))
    wide, narrow = (text_of(pair_lines(pair, 0, width, 12, PALETTE)).splitlines() for width in (120, 78))
    assert wide[0].count("norm-prediction-x") == 2
    assert [line for line in narrow if "norm-prediction-x" in line] == ["norm-prediction-x"] * 2


def test_the_comparison_as_data_has_left_right_and_change() -> None:
    made = compared(Pair(one=opened(norm_result()), other=opened(norm_result(shift=0.25, profile="paper-code"))))
    assert (made["one"], made["other"]) == ("norm-prediction-x", "norm-prediction-x")
    assert made["differs"] == {"profile": ["careful", "paper-code"]}
    assert made["scores"][0] == {
        "sae": "a",
        "l0": [15.9, 15.9, 0.0],
        "r2_norm": [0.5, 0.75, 0.25],
        "fvu": [0.25] * 2 + [0.0],
    }
