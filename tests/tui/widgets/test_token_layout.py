from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from inspector.drawing.safe_text import visible_lines
from inspector.tui.widgets.token_layout import TAB, TokenLayout

TOKENS = st.lists(
    st.text(st.sampled_from("ab  \n\t漢\u0301\u200d\x1b\U0001f469"), max_size=8) | st.text(max_size=6), max_size=40
)


def laid_out(tokens: list[str], width: int = 20, *, marks: bool = False) -> TokenLayout:
    layout = TokenLayout(width, marks=marks)
    layout.extend(tokens)
    return layout


def shown(layout: TokenLayout) -> list[str]:
    return ["".join(piece.text for piece in layout.line(line)) for line in range(layout.n_lines)]


@given(TOKENS, st.integers(4, 30), st.booleans())
def test_lines_fit_and_pieces_stand_side_by_side(tokens: list[str], width: int, marks: bool) -> None:
    layout = laid_out(tokens, width, marks=marks)
    for line in range(layout.n_lines):
        column = 0
        for piece in layout.line(line):
            assert piece.column == column
            assert piece.width == cell_len(piece.text) + piece.marked
            column += piece.width
        assert column == layout.line_width(line) <= width


@given(TOKENS, st.integers(4, 30), st.booleans())
def test_every_token_is_there_once_in_order_with_one_mark(tokens: list[str], width: int, marks: bool) -> None:
    layout = laid_out(tokens, width, marks=marks)
    pieces = [piece for line in range(layout.n_lines) for piece in layout.line(line)]
    for token, text in enumerate(tokens):
        mine = [piece for piece in pieces if piece.token == token]
        expected = ["".join(part for part, _, _ in visible_lines(text, tab=TAB)), "⋯" if not text else ""]
        assert "".join(piece.text for piece in mine) in expected[: 2 if not text else 1]
        assert [piece.marked for piece in mine] == [False] * (len(mine) - 1) + [marks]
        assert mine == [piece for _, piece in layout.pieces_of(token)]
    assert [piece.token for piece in pieces] == sorted(piece.token for piece in pieces)


@given(TOKENS, st.integers(4, 30), st.integers(0, 40), st.booleans())
def test_growing_gives_the_same_lines_and_names_the_first_that_changed(
    tokens: list[str], width: int, cut: int, marks: bool
) -> None:
    grown = laid_out(tokens[:cut], width, marks=marks)
    before = shown(grown)
    first = grown.extend(tokens[cut:])
    after = shown(grown)
    assert after == shown(laid_out(tokens, width, marks=marks))
    assert after[:first] == before[:first]


@given(TOKENS, st.integers(4, 30))
def test_a_tokens_place_and_the_token_at_that_place_agree(tokens: list[str], width: int) -> None:
    layout = laid_out(tokens, width)
    for token in range(len(tokens)):
        line, column = layout.place_of(token)
        assert layout.token_at(line, column) == token
        assert token in layout.tokens_of(line)


def test_lines_break_before_words_not_inside() -> None:
    assert shown(laid_out(["The", " rot", "ation", " cur", "ves", " imply"], 14)) == ["The rotation", " curves imply"]


def test_a_long_word_is_broken_at_a_token() -> None:
    assert shown(laid_out(["a", " abcdefgh", "ijklmnop", "qrst"], 20)) == ["a abcdefghijklmnop", "qrst"]


def test_a_token_wider_than_a_line_is_cut_between_clusters() -> None:
    assert shown(laid_out(["e\u0301" * 6 + "漢字"], 4)) == ["e\u0301" * 4, "e\u0301e\u0301漢", "字"]


def test_a_newline_shows_its_mark_and_ends_the_line() -> None:
    assert shown(laid_out(["a", "\n\n", "b\n    ", "c", "\n"])) == ["a⏎", "⏎", "b⏎", "    c⏎", ""]


def test_a_character_of_several_tokens_is_whole_and_the_others_are_continuation_marks() -> None:
    assert shown(laid_out(["a", " 日", "", "", "本", "", "b", ""])) == ["a 日⋯⋯本⋯b∅"]
    grown = TokenLayout(20)
    for part in (["日"], [""], ["", "a"]):
        grown.extend(part)
    assert shown(grown) == ["日⋯⋯a"], "wherever it is cut"


def test_marks_take_a_cell_each() -> None:
    layout = laid_out(["ab", " c", "\n"], marks=True)
    assert [(piece.column, piece.width) for piece in layout.line(0)] == [(0, 3), (3, 3), (6, 2)]


def test_beyond_the_ends_there_is_nothing_or_the_nearest() -> None:
    empty = TokenLayout(20)
    assert empty.token_at(0, 0) is None
    assert list(empty.line(0)) == list(empty.line(7)) == list(empty.pieces_of(0)) == []
    assert empty.tokens_of(0) == range(0)
    layout = laid_out(["a", "b", "\n", "c", "\n"])
    assert layout.token_at(0, 99) == 2
    assert layout.token_at(99, 0) == 3  # The last line is empty: the one above.
    assert layout.token_at(-5, 0) == 0
    assert layout.tokens_of(99) == range(0)
