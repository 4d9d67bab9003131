"""One line of tokens as a strip: styles, marks, cursor, hits, and what a selection copies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection
from textual.strip import Strip

from inspector.drawing.levels import LevelScale
from inspector.drawing.palette import CellStyle, TokenPalette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import TokenDocument
from inspector.tui.widgets.token_layout import TokenLayout
from inspector.tui.widgets.token_lines import (
    Colouring,
    hit_style,
    line_strip,
    rich_style,
    selected_text,
    with_selection,
)
from tests.drawing.documents import document, mode_named

PALETTE = build_palette(DEFAULT_ENDPOINTS, "truecolor")
SIZES = LevelScale(edges=tuple(float(edge) for edge in range(1, 8)))
SHARES = LevelScale(edges=(0.2, 0.4, 0.6, 0.8))


def colouring(doc: TokenDocument, mode: str = "mixed", palette: TokenPalette = PALETTE) -> Colouring:
    return Colouring(
        document=doc,
        sae=0,
        mode=mode_named(mode),
        palette=palette,
        size_scale=SIZES if mode_named(mode).size else None,
        share_scale=SHARES if mode_named(mode).share else None,
    )


def drawn(doc: TokenDocument, width: int = 12, *, marks: bool = False, **kwargs: object) -> list[tuple[str, object]]:
    layout = TokenLayout(width, marks=marks)
    layout.extend(doc.tokens)
    strip = line_strip(layout.line(0), colouring(doc), width, **kwargs)  # type: ignore[arg-type]
    return [(segment.text, segment.style) for segment in strip]


def style(cell: CellStyle) -> object:
    return rich_style(cell)


def test_exact_cells_of_a_line() -> None:
    doc = document(["<s>", "a", " b", "c"], linear=[0, 5.5, 0, 0.5], nonlinear=[0, 0, 5.5, 0], excluded=1)
    assert drawn(doc) == [
        ("<s>", style(PALETTE.excluded)),
        ("a", style(PALETTE.mixed[5][0])),
        (" b", style(PALETTE.mixed[5][4])),
        ("c" + " " * 5, style(PALETTE.plain)),
    ]


def test_neighbours_of_equal_style_are_one_segment() -> None:
    doc = document(["a", "b", "c"], linear=[5.5] * 3, nonlinear=[0] * 3)
    assert [text for text, _ in drawn(doc)] == ["abc", " " * 9]


def test_marks_follow_their_tokens_and_excluded_ones_have_none() -> None:
    doc = document(["<s>", "a", " b"], linear=[0, 5.5, 0.5], nonlinear=[0] * 3, excluded=1)
    assert "".join(text for text, _ in drawn(doc, marks=True)) == "<s> a⡆ b    "


def test_without_a_map_the_hue_is_that_of_the_total() -> None:
    doc = document(["a"])  # Total 5, nothing else known.
    assert drawn(doc)[0] == ("a", style(PALETTE.ramps["total"][5]))


def test_cursor_focused_and_resting() -> None:
    doc = document(["a", "b"], linear=[5.5] * 2, nonlinear=[0] * 2)
    assert drawn(doc, cursor=1)[1] == ("b", style(PALETTE.cursor))
    resting = drawn(doc, cursor=1, focused=False)[1][1]
    assert (resting.underline, resting.bold) == (True, True)  # type: ignore[attr-defined]
    assert resting.bgcolor == rich_style(PALETTE.mixed[5][0]).bgcolor  # type: ignore[attr-defined]


def test_hits_keep_their_colour_and_are_underlined() -> None:
    doc = document(["a", "b", "c"], linear=[5.5] * 3, nonlinear=[0] * 3)
    hit = drawn(doc, hits=[range(1, 2)])[1]
    assert hit == ("b", style(hit_style(PALETTE.mixed[5][0], True)))
    assert hit_style(PALETTE.plain, False).reverse


def test_indentation_shows_its_level_in_its_last_cell_only() -> None:
    doc = document(["    ", "a"], linear=[5.5] * 2, nonlinear=[0] * 2)
    filled = style(PALETTE.mixed[5][0])
    assert drawn(doc) == [("   ", style(PALETTE.plain)), (" a", filled), (" " * 7, style(PALETTE.plain))]
    assert drawn(doc, cursor=0)[0] == ("    ", style(PALETTE.cursor))
    assert drawn(doc, marks=True)[1] == (" ⡆a⡆", filled)


def test_a_document_without_saes_is_plain() -> None:
    assert drawn(document(["a"], n_saes=0)) == [("a" + " " * 11, style(PALETTE.plain))]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=20), st.integers(4, 40), st.booleans(), st.integers(0, 19))
def test_every_line_is_exactly_as_wide_as_the_pane_and_every_segment_has_a_style(
    tokens: list[str], width: int, marks: bool, cursor: int
) -> None:
    doc = document(tokens, linear=[1.5] * len(tokens), nonlinear=[2.5] * len(tokens))
    layout = TokenLayout(width, marks=marks)
    layout.extend(tokens)
    for line in range(layout.n_lines):
        strip = line_strip(layout.line(line), colouring(doc), width, cursor=cursor)
        assert strip.cell_length == width == sum(cell_len(segment.text) for segment in strip)
        assert all(segment.style is not None and segment.text for segment in strip)


TOKENS = ["def", " f", "(", "x", "):", "\n\t", "return", " x", "\x1b[0m", " 漢字", "\n"]


def copied(selection: Selection, *, width: int = 40, marks: bool = False) -> str:
    layout = TokenLayout(width, marks=marks)
    layout.extend(TOKENS)
    return selected_text(layout, TOKENS, selection)


def test_everything_has_real_newlines_and_tabs_and_no_escape() -> None:
    assert copied(SELECT_ALL) == "def f(x):\n\treturn x␛[0m 漢字\n"


def test_lines_broken_by_the_width_are_joined_and_marks_left_out() -> None:
    for width in (8, 11, 40):
        for marks in (False, True):
            assert copied(SELECT_ALL, width=width, marks=marks) == copied(SELECT_ALL)


def test_a_part_of_a_line_and_over_two_lines() -> None:
    assert copied(Selection(Offset(1, 0), Offset(5, 0))) == "ef f"
    assert copied(Selection(Offset(7, 0), Offset(10, 1))) == "):\n\treturn"
    assert copied(Selection(None, Offset(3, 0))) == "def"
    assert copied(Selection(Offset(12, 1), None)) == "␛[0m 漢字\n"


def test_selected_cells_are_restyled_wide_ones_whole() -> None:
    strip = Strip([Segment("a漢b", Style(bold=True)), Segment("  ", Style())], 6)
    marked = Style(reverse=True)
    result = with_selection(strip, (1, 2), marked)
    assert [segment.text for segment in result] == ["a", "漢", "b", "  "]
    assert [bool(segment.style and segment.style.reverse) for segment in result] == [False, True, False, False]
    assert result.cell_length == 6
    assert with_selection(strip, None, marked) is strip
    assert [bool(s.style and s.style.reverse) for s in with_selection(strip, (0, -1), marked)] == [True, True]


def test_a_character_of_several_tokens_is_copied_once_and_whole() -> None:
    tokens = ["a", " 日", "", "", "本", "", "!"]
    for marks in (False, True):
        layout = TokenLayout(40, marks=marks)
        layout.extend(tokens)
        assert selected_text(layout, tokens, SELECT_ALL) == "a 日本!"
