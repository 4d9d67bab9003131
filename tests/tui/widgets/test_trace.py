"""The plot: its window, its scale, its dots and its axis."""

from __future__ import annotations

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.drawing.plot import Canvas
from inspector.tui.lines import text_of, width_of
from inspector.tui.widgets.trace import (
    TraceData,
    TracePane,
    axis_line,
    crossed,
    follow,
    legend_pieces,
    merge_cells,
    points,
    round_up,
    scale_of,
    tick,
    ticks,
)
from tests.drawing.documents import mode_named
from tests.tui.texts import scored_text, two_widths


def data(position: int = 2, mode: str = "total", n: int = 6) -> TraceData:
    return TraceData(text=scored_text(n), choice=two_widths(), mode=mode_named(mode), position=position)


@given(st.integers(-5, 400), st.integers(0, 299), st.integers(1, 350))
def test_the_window_always_holds_the_cursor_and_stays_inside(start: int, position: int, shown: int) -> None:
    first = follow(start, position, shown, 300)
    assert first <= position < first + shown
    assert first == 0 or 0 < first <= 300 - shown


def test_the_window_stays_while_the_cursor_is_in_it_and_then_jumps() -> None:
    assert follow(100, 199, 100, 300) == 100
    assert follow(100, 200, 100, 300) == 175, "a quarter before the cursor, three quarters ahead of it"
    assert follow(100, 99, 100, 300) == 24


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.17, 0.2), (1.0, 1.0), (11.0, 12.0), (13, 15), (81, 100), (0.0, 1.0), (nan, 1.0)]
)
def test_rounding_up(value: float, rounded: float) -> None:
    assert round_up(value) == pytest.approx(rounded)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (0.1, 12.0, (0.0, 12.0)),
        (11.0, 31.0, (10.0, 35.0)),
        (7.0, 7.0, (6.0, 8.0)),
        (0.0, 0.0, (0.0, 1.0)),
        (nan, nan, (0.0, 1.0)),
    ],
)
def test_the_scale_starts_at_zero_unless_that_wastes_room(low: float, high: float, scale: tuple[float, float]) -> None:
    assert scale_of(low, high) == pytest.approx(scale)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_scale_holds_its_values(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    bottom, top = scale_of(low, high)
    assert bottom <= low + 1e-9 * high
    assert high <= top * (1 + 1e-9)
    assert bottom < top


def test_each_token_is_a_column_and_excluded_or_unknown_ones_are_gaps() -> None:
    canvas = Canvas(5, 1)
    values = [9.0, 0.0, 4.0, nan, 2.0]
    assert points(values, "xhhhh", 0, 1, canvas, (0.0, 4.0)) == [None, (2, 3), (4, 0), None, (8, 2)]
    assert points(values, "xhhhh", 3, 1, canvas, (0.0, 4.0)) == [None, (2, 2), None, None, None]


def test_zoomed_out_a_dot_is_the_largest_of_its_tokens_and_what_is_off_the_scale_is_at_its_edge() -> None:
    canvas = Canvas(2, 1)
    assert points([1.0, 9.0, 4.0, 0.0], "hhhh", 0, 2, canvas, (0.0, 4.0)) == [(0, 2), (1, 0), (2, 0), (3, 3)]
    assert points([1.0, 2.0, 4.0, 0.0], "hhhh", 0, 4, canvas, (0.0, 4.0)) == [(0, 2), (1, 0), None, None]


def test_cells_of_one_colour_are_one_piece() -> None:
    cells = [(" ", None), ("⠁", 1), (" ", None), ("⠂", 1), ("⠄", 2)]
    assert merge_cells(cells) == [(" ", ""), ("⠁ ⠂", "series-1"), ("⠄", "series-2")]


def test_the_axis_has_a_mark_under_the_token_and_hides_the_label_it_would_touch() -> None:
    line = axis_line(28, 4, 30, 1, data(position=32))
    assert text_of(line) == "      └    ▲32     ╵40               "
    assert width_of(line) == 37
    assert line[2] == ("▲32", "marker")
    assert text_of(axis_line(0, 29, 30, 1, data(position=29))) == "      └╵0                  ╵20      ▲"
    assert text_of(axis_line(0, 0, 30, 1, data(position=0))) == "      └▲0                  ╵20       "


def test_the_whole_plot_cell_by_cell() -> None:
    """Norms 5, 10, ..., 60 of the narrow width as marks, half of that of the active one as a line; the first is out."""
    lines = TracePane()._body(data(n=12), 12, 4)
    assert [text_of(line) for line in lines] == [
        "    60┤         ⠤⠒⠉",
        "      │      ⠤⠒⠉   ",
        "      │  ⣀⠤⠒⣉⣀⠤⠒⠒⠉⠁",
        "     0┤ ⠭⠒⠉⠉       ",
    ]
    assert lines[2][2:] == [("  ", ""), ("⣀⠤⠒⣉", "series-0"), ("⣀⠤⠒⠒⠉⠁", "series-8")]


def test_before_the_first_map_the_plot_of_a_part_says_what_is_known() -> None:
    text = scored_text(has_map=False)
    lines = TracePane()._body(TraceData(text=text, choice=two_widths(), mode=mode_named("linear"), position=2), 60, 5)
    assert text_of(lines[2]) == "      │  no linear map yet: total and loss are known, press m"


def test_the_legend_names_each_width_with_its_line() -> None:
    assert text_of(legend_pieces(data())) == "⠒ ⠒ 256 15.0  ⠒⠒⠒ 1k 7.50  "
    assert text_of(legend_pieces(data(position=0))) == "⠒ ⠒ 256 5.00  ⠒⠒⠒ 1k 2.50  ", "the values at the cursor"
    assert legend_pieces(data(mode="loss")) == [], "the loss is the same for every width"


@pytest.mark.parametrize(
    ("value", "text"), [(40.0, "40"), (22.5, "22.5"), (0.15, "0.15"), (1200.0, "1,200"), (0.0, "0")]
)
def test_numbers_at_the_axis(value: float, text: str) -> None:
    assert tick(value) == text


@pytest.mark.parametrize(
    ("ends", "lines", "values"),
    [
        ((0.0, 12.0), 38, [0, 1.5, 3, 4.5, 6, 7.5, 9, 10.5, 12]),
        ((0.0, 12.0), 8, [0, 6, 12]),
        ((10.0, 35.0), 11, [10, 25, 35]),
        ((0.0, 1.0), 3, [0, 1]),
    ],
)
def test_the_axis_has_round_ticks_in_about_every_fourth_line(
    ends: tuple[float, float], lines: int, values: list[float]
) -> None:
    found = ticks(*ends, lines)
    assert [found[line] for line in sorted(found, reverse=True)] == pytest.approx(values)
    assert {0, lines - 1} <= set(found)
    for line, value in found.items():
        at = ends[1] - line * (ends[1] - ends[0]) / (lines - 1)
        assert abs(at - value) <= 0.5 * (ends[1] - ends[0]) / (lines - 1) + 1e-9, "in the nearest line"


def test_each_width_has_a_plot_of_its_own_on_one_scale_and_the_cursor_crosses_all() -> None:
    pane = TracePane()
    pane.apart = True
    lines = [text_of(line) for line in pane._body(data(n=12), 12, 8)]
    assert [line[:11] for line in lines] == [
        "    60┤ 256",
        "      │    ",
        "      │  ⣀⠤",
        "     0┤⠤⠒⠉ ",
        "    60┤ 1k ",
        "      │    ",
        "      │   ⢀",
        "     0┤⣀⠤⠔⠊",
    ] or [line[:10] for line in lines][0::4] == ["    60┤ 25", "    60┤ 1k"]
    assert text_of(crossed([("    60", "muted"), ("┤", "muted"), (" a b", "")], 7)) == "    60┤│a b"
    assert text_of(crossed([("    60", "muted"), ("┤", "muted"), (" a b", "")], 8)) == "    60┤ a b", "data stays"
    assert text_of(crossed([("a", "")], 4)) == "a   │"
