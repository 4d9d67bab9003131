"""A plot that plotext draws: what it is told, what comes back, and that threads do not share it."""

from __future__ import annotations

import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inspector.drawing import plot as plots
from inspector.drawing.lines import text_of
from inspector.drawing.palette import figure_palette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.plot import Canvas, Plot
from inspector.drawing.safe_text import cell_width
from inspector.drawing.scales import Scale
from inspector.errors import UsageError
from tests.drawing.samples import HOSTILE

STYLES = figure_palette(build_palette(DEFAULT_ENDPOINTS, "truecolor"))
UNIT = Scale(low=0.0, high=1.0)
NAMES = ("漢字", "e\u0301a\u0308", "  ", "", HOSTILE, "a\nb")


def drawn(width: int = 100) -> Plot:
    ticks = [((i + 0.5) / len(NAMES), name) for i, name in enumerate(NAMES)]
    return Plot(width, len(NAMES), STYLES, UNIT, UNIT, y_ticks=ticks, x_label=NAMES[0], beside=ticks)


def test_a_plot_to_the_cell() -> None:
    plot = Plot(
        24, 4, STYLES, UNIT, Scale(low=1.0, high=100.0, log=True), x_ticks=[(0.0, "0"), (1.0, "10")],
        y_ticks=[(1.0, "1"), (10.0, "10"), (100.0, "100")], x_label="n", above=[(0.5, "up")],
    )  # fmt: skip
    plot.path([(0.0, 1.0), (0.4, 6.0), (0.5, None), (0.6, 15.0), (1.0, 100.0)], STYLES.of_series(0))
    plot.strokes([((0.2, 10.0), (0.2, 100.0)), ((0.3, None), (0.3, 100.0))], STYLES.of_series(1))
    plot.marks([(1.0, 1.0), (0.9, 0.0)], "■", STYLES.of_series(2))  # 0 has no logarithm, and so no place
    plot.text((8, 3), "said", STYLES.strong)
    assert text_of(plot.drawn()).splitlines() == [
        "              up",
        "100 ┤   ⢸          ⣀⡠⠔⠊⠉",
        "    │   ⢸       ⠤⠒⠉",
        " 10 ┤   ⠈ ⣀⡠⠔",
        "  1 ┤⣀⡠⠔⠒⠉   said      ■",
        "    └┬─────────────────┬",
        "     0                10",
        "            n",
    ]


def test_every_run_has_the_style_it_was_drawn_in() -> None:
    plot = Plot(20, 2, STYLES, UNIT, UNIT)
    plot.marks([(0.1, 0.75)], "a", STYLES.of_series(0))
    plot.marks([(0.2, 0.75)], "b", STYLES.of_series(1))
    plot.text((10, 1), "cd", STYLES.strong)
    found = {text: style for line in plot.drawn() for text, style in line if text.strip()}
    assert (found["a"], found["b"], found["cd"]) == (STYLES.of_series(0), STYLES.of_series(1), STYLES.strong)
    assert [text for text, _ in plot.cells()[1]][plot.left + 10] == "c"


def test_names_of_any_characters_keep_their_columns() -> None:
    lines = text_of(drawn().drawn()).splitlines()
    assert {cell_width(line[: line.index("┤")]) for line in lines if "┤" in line} == {drawn().left - 1}
    assert all(cell_width(line) <= 100 for line in lines)
    assert lines[-1].strip() == "漢字"
    assert "e\u0301a\u0308" in "".join(lines)


def test_plotext_is_told_no_character_that_a_terminal_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    hidden = Plot._hidden

    def listening(self: Plot, text: str) -> str:
        told.append(hidden(self, text))
        return told[-1]

    monkeypatch.setattr(Plot, "_hidden", listening)
    drawn().drawn()
    assert len(told) >= 2 * len(NAMES)
    assert {unicodedata.category(character) for text in told for character in text} <= {
        "Lu", "Ll", "Lo", "Nd", "Po", "Ps", "Pe", "Sm", "Sc", "So", "Pc", "Zs", "Co"
    }  # fmt: skip
    assert not any(text.isspace() or not text for text in told)


def test_threads_draw_as_one_does() -> None:
    def picture(number: int) -> Any:
        plot = Plot(60, 10, STYLES, UNIT, UNIT, y_ticks=[(0.5, str(number))])
        plot.path([(i / 50, (i * number % 7) / 7) for i in range(50)], STYLES.of_series(number))
        return plot.drawn()

    alone = [picture(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(picture, range(8))) == alone


def test_a_plotext_that_is_not_there_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plots._plotext.cache_clear()
    monkeypatch.setitem(sys.modules, "plotext", None)
    with pytest.raises(UsageError, match=r"plotext, which cannot be imported: .* Install it again with"):
        Plot(40, 5, STYLES, UNIT, UNIT)


def test_a_figure_may_be_larger_than_the_terminal() -> None:
    plot = Plot(400, 100, STYLES, UNIT, UNIT, x_label="n")
    cells = plot.cells()
    assert (len(cells), {len(row) for row in cells}) == (100 + 2, {400})
    assert plots._plotext().terminal.size() != (400, 102)


def text(canvas: Canvas) -> list[str]:
    return ["".join(character for character, _ in canvas.cells(line)) for line in range(canvas.lines)]


def test_each_of_the_eight_dots_of_a_cell() -> None:
    """The bits of Unicode's Braille Patterns block, dot by dot."""
    expected = {(0, 0): "⠁", (0, 1): "⠂", (0, 2): "⠄", (0, 3): "⡀", (1, 0): "⠈", (1, 1): "⠐", (1, 2): "⠠", (1, 3): "⢀"}
    for (x, y), character in expected.items():
        canvas = Canvas(1, 1)
        canvas.dot(x, y, 0)
        assert text(canvas) == [character]


def test_dots_in_one_cell_add_up_and_the_last_series_names_the_cell() -> None:
    canvas = Canvas(2, 1)
    canvas.dot(0, 0, 3)
    canvas.dot(1, 3, 5)
    assert canvas.cells(0) == [("⢁", 5), (" ", None)]


def test_what_is_outside_is_not_drawn() -> None:
    canvas = Canvas(1, 1)
    for x, y in ((-1, 0), (2, 0), (0, -1), (0, 4)):
        canvas.dot(x, y, 0)
    assert text(canvas) == [" "]


def test_a_path_has_no_gaps_in_either_direction() -> None:
    canvas = Canvas(2, 2)
    canvas.path([(0, 7), (3, 0)], 0)
    dots = {(x, y) for y in range(8) for x in range(4) if ord(canvas.cells(y // 4)[x // 2][0]) - 0x2800 & _bit(x, y)}
    assert {y for _, y in dots} == set(range(8))
    assert {x for x, _ in dots} == set(range(4))


def _bit(x: int, y: int) -> int:
    return ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))[y % 4][x % 2]


def test_marks_stand_alone_and_are_as_wide_as_asked() -> None:
    drawn = []
    for width in (1, 2):
        canvas = Canvas(3, 1)
        canvas.marks([(0, 3), None, (4, 0)], 0, width)
        drawn.append(text(canvas)[0])
    assert drawn == ["⡀ ⠁", "⣀ ⠉"]


def test_none_is_a_gap() -> None:
    canvas = Canvas(3, 1)
    canvas.path([(0, 0), (1, 0), None, (4, 0), (5, 0)], 0)
    assert text(canvas) == ["⠉ ⠉"]
