"""A table that cannot say 'missed' proves nothing."""

from __future__ import annotations

import pytest

from benchmarks.measures import Measure, as_markdown, as_table, percentile, ratio_of, unmeasured


def line(value: float | None, limit: float | None) -> Measure:
    return Measure(group="g", what="w", budget="b", measured="m", value=value, limit=limit)


@pytest.mark.parametrize(
    ("value", "limit", "verdict", "failed"),
    [(1.0, 1.0, "met", False), (1.01, 1.0, "MISSED", True), (5.0, None, "-", False), (None, 1.0, "not measured", True)],
)
def test_verdict(value, limit, verdict, failed):
    assert (line(value, limit).verdict, line(value, limit).failed) == (verdict, failed)


def test_ratio_is_of_the_medians_so_one_slow_run_does_not_decide():
    measure = ratio_of("start", "paint", [1.0, 1.2, 9.0], [1.0, 1.0, 1.0], 1.5, "bare")
    assert measure.value == 1.2
    assert measure.verdict == "met"
    assert measure.measured == "1.20 x (best runs 1.00 x): 1.20 s against 1.00 s, 3 runs each"


def test_percentile_is_a_value_that_occurred():
    values = [float(v) for v in range(1, 101)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 100) == 100.0
    assert percentile([3.0], 99) == 3.0


def test_table_separates_groups_and_aligns():
    measures = [
        Measure(group="a", what="one", budget="1", measured="0.5", value=0.5, limit=1),
        Measure(group="b", what="three", budget="22", measured="30", value=30, limit=22),
    ]
    assert as_table(measures).splitlines() == [
        "what   budget  measured  verdict",
        "-----  ------  --------  -------",
        "one    1       0.5       met",
        "",
        "three  22      30        MISSED",
    ]


def test_markdown_has_one_row_per_measure():
    text = as_markdown([line(1, 2), unmeasured("g", "what", "budget", "no terminal")])
    assert "| w | b | m | met |" in text
    assert "| what | budget | no terminal | not measured |" in text
