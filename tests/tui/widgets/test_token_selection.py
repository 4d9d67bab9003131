from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection
from textual.strip import Strip

from inspector.tui.widgets.token_layout import TokenLayout
from inspector.tui.widgets.token_lines import selected_text, with_selection

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
