"""Axes: every tick inside, round, told apart; what has no logarithm has no place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.drawing.figures import Axis
from inspector.drawing.scales import Scale, number_text, scale_of, tick_text, tick_texts

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_a_scale_holds_its_values_and_its_ticks(values: list[float]) -> None:
    scale = scale_of(values, Axis(label="x"))
    for value in (*values, *scale.round_values(6)):
        place = scale.place(value)
        assert place is not None and -1e-6 <= place <= 1 + 1e-6
    assert len(scale.round_values(6)) <= 6


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20))
def test_so_does_a_logarithmic_one(values: list[float]) -> None:
    scale = scale_of(values, Axis(label="x", log=True))
    for value in (*values, *scale.round_values(6)):
        place = scale.place(value)
        assert place is not None and -1e-6 <= place <= 1 + 1e-6


def test_what_has_no_logarithm_has_no_place() -> None:
    scale = Scale(low=1.0, high=100.0, log=True)
    assert (scale.place(0.0), scale.place(-1.0), scale.place(math.nan)) == (None, None, None)
    assert scale.place(10.0) == pytest.approx(0.5)


def test_ticks_are_round() -> None:
    assert Scale(low=0.0, high=1.0).round_values(6) == [0.0, 0.2, 0.4, pytest.approx(0.6), 0.8, 1.0]
    assert Scale(low=10.0, high=1000.0, log=True).round_values(7) == [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    assert tick_texts([15.96, 15.97, 15.98]) == ["15.96", "15.97", "15.98"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (16384.0, "16.4k"), (1e6, "1m"), (0.25, "0.25"), (1e-5, "1e-05"), (-2000.0, "-2k")]
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "undefined"), (math.nan, "undefined"), (0.0, "0"), (0.12345, "0.123"), (12.345, "12.3"), (1234.5, "1,234"),
     (1e-5, "1.0e-05"), (-0.5, "-0.500")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number_text(value) == text
