"""Styled lines: widths, cutting, fitting, numbers."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.tui.lines import Part, cut, cut_line, fit, left, number, spread, text_of, width_of


def test_widths_count_columns_not_characters() -> None:
    assert width_of([("日本", ""), ("e\u0301", "x")]) == 5


def test_cutting_marks_what_is_missing_and_never_splits_a_wide_character() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 3) == "abc"
    assert cut("abc", 0) == ""
    assert left("日", 4) == "日  "


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20), st.integers(0, 12))
def test_left_is_exactly_as_wide_as_asked(text: str, width: int) -> None:
    assert width_of([(left(text, width), "")]) == width


def test_a_line_is_cut_within_a_piece() -> None:
    assert cut_line([("abc", "a"), ("defgh", "b"), ("i", "c")], 5) == [("abc", "a"), ("d…", "b")]


def test_two_ends_are_spread_or_the_second_goes() -> None:
    assert text_of(spread([("ab", "")], [("cd", "")], 6)) == "ab  cd"
    assert text_of(spread([("ab", "")], [("cd", "")], 4)) == "ab"


def parts() -> list[Part]:
    return [
        Part(variants=([("loooong", "")], [("long", "")], []), weight=1),
        Part(variants=([("kept", "")],), weight=9),
        Part(variants=([("number 12345", "")], [("12345", "")]), weight=5),
    ]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, ["loooong", "kept", "number 12345"]),
        (26, ["long", "kept", "number 12345"]),
        (18, ["kept", "number 12345"]),
        (17, ["kept", "12345"]),
        (3, ["kept", "12345"]),
    ],
)
def test_the_lightest_part_goes_first_and_nothing_is_cut_in_the_middle(width: int, shown: list[str]) -> None:
    assert [text_of(line) for line in fit(parts(), width)] == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (98.13, "98.1"), (8.237, "8.24"), (0.1749, "0.17"), (1204.4, "1,204"), (0.0, "0.00"), (None, "-"), (nan, "-"),
        (inf, "inf"), (-inf, "-inf"), (-3.14159, "-3.14"),
    ],
)  # fmt: skip
def test_numbers_have_about_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
