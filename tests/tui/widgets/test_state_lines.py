from __future__ import annotations

import pytest
from rich.style import Style
from textual.geometry import Size

from inspector.tui.widgets.state_lines import state_line

BOLD, FAINT = Style(bold=True), Style(dim=True)


def lines(width: int, height: int, title: str, detail: str = "") -> list[str]:
    size = Size(width, height)
    strips = [state_line(y, size, (title, detail), title_style=BOLD, detail_style=FAINT) for y in range(height)]
    assert all(strip.cell_length == width for strip in strips)
    return [strip.text.rstrip() for strip in strips]


def test_the_message_stands_in_the_middle() -> None:
    assert lines(20, 5, "No tokens yet", "Press p.") == ["", "   No tokens yet", "", "      Press p.", ""]


def test_long_details_are_wrapped_and_cut_where_there_is_no_room() -> None:
    assert lines(14, 3, "Failed", "one two three four five") == ["    Failed", "", "   one two"]


def test_the_title_is_bold_and_the_rest_faint() -> None:
    size = Size(20, 3)
    styles = [
        [segment.style for segment in state_line(y, size, ("T", "d"), title_style=BOLD, detail_style=FAINT)]
        for y in range(3)
    ]
    assert styles == [[BOLD], [FAINT], [FAINT]]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_even_a_sliver_is_filled(width: int) -> None:
    assert len(lines(width, 2, "Loading", "gemma")) == 2
