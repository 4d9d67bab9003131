from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from inspector.drawing.safe_text import MAX_MARKS, clusters, visible, visible_lines

ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=12)
"""Every code point, lone surrogates included."""
NASTY = st.text(
    st.sampled_from(
        "a é漢\x00\x07\x1b[\x7f\x85\x9b\n\r\t\xad\u0301\u0308\u200b\u200d\u200e\u202e\u2028\u2029\u2066\ufe0f\u20e3"
        "\u1100\u1161\u11a8\ufeff\ufffd\ue000\U0001f469\U0001f3fd\U0001f1e9\U0001f1ea\U000e0041\ud800\udfff❤"
    ),
    max_size=12,
)
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANYTHING | NASTY)
@example("\u0301")
@example("\U0001f469\u200d\U0001f469")
@example("1\ufe0f\u20e3")
def test_nothing_that_a_terminal_interprets_is_left(text: str) -> None:
    shown = visible(text)
    assert not [character for character in shown if unicodedata.category(character) in FORBIDDEN]
    shown.encode("utf-8")  # A lone surrogate would raise.


@given(ANYTHING | NASTY, ANYTHING | NASTY)
def test_the_width_of_tokens_side_by_side_is_the_sum_of_their_characters(left: str, right: str) -> None:
    shown = visible(left) + visible(right)
    assert cell_len(shown) == sum(cell_len(character) for character in shown)


@given(ANYTHING | NASTY)
def test_a_token_takes_at_least_one_cell_and_does_not_join_the_one_before(text: str) -> None:
    shown = visible(text)
    assert cell_len(shown) >= 1
    assert cell_len(shown[0]) >= 1


@given(ANYTHING | NASTY)
def test_no_base_carries_more_marks_than_allowed(text: str) -> None:
    for cluster, width in clusters(visible(text)):
        assert 1 <= width <= 2
        assert len(cluster) <= 1 + MAX_MARKS


@given(ANYTHING | NASTY)
def test_clusters_put_together_are_the_text(text: str) -> None:
    shown = visible(text)
    assert "".join(cluster for cluster, _ in clusters(shown)) == shown
    assert sum(width for _, width in clusters(shown)) == cell_len(shown)


@given(ANYTHING | NASTY)
def test_lines_end_exactly_at_newlines(text: str) -> None:
    lines = visible_lines(text)
    assert sum(ends for _, _, ends in lines) == text.count("\n")
    assert all(cells == cell_len(shown) for shown, cells, _ in lines)
    assert all(shown.endswith("⏎") for shown, _, ends in lines if ends)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "␛[31m"),
        ("\x00\x7f\r\n", "␀␡␍⏎"),
        ("\x9b0m", "␦0m"),
        ("a\tb", "a→b"),
        ("\u202eevil\u202c", "⇄evil⇄"),
        ("a\u200bb\xad", "a·b·"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("e\u0301\u0301\u0301\u0301", "e\u0301\u0301\u0301·"),
        ("\x1b\u0301", "␛◌\u0301"),
        ("\ufffd", "�"),
        ("\ud800", "�"),
        ("\ue000", "▯"),
        ("\u2028", "↵"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469·\U0001f52c"),
        ("\u2764\ufe0f", "\u2764·"),
        ("\U0001f44d\U0001f3fd", "\U0001f44d◪"),
        ("\U0001f1e9\U0001f1ea", "ⒹⒺ"),
        ("\xa0", "␣"),
        ("暗黒", "暗黒"),
        ("", "∅"),
    ],
)
def test_each_kind_of_trouble_has_its_symbol(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_newline_and_tab_can_be_shown_otherwise() -> None:
    assert visible("a\n\tb", newline=" ", tab="    ") == "a     b"


def test_what_is_not_made_visible_would_fail_these_tests() -> None:
    raw = "\x1b[31m"
    assert [character for character in raw if unicodedata.category(character) in FORBIDDEN] == ["\x1b"]
    family = "\U0001f469\u200d\U0001f469"
    assert cell_len(family) != sum(cell_len(character) for character in family)
