"""A plot that plotext draws: what it is told, what comes back, and that threads do not share it."""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inspector.drawing import plot as plots
from inspector.drawing.lines import text_of
from inspector.drawing.palette import figure_palette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.plot import Plot
from inspector.drawing.safe_text import cell_width
from tests.drawing.samples import HOSTILE

STYLES = figure_palette(build_palette(DEFAULT_ENDPOINTS, "truecolor"))
NAMES = ("漢字", "e\u0301a\u0308", "  ", "", HOSTILE, "a\nb")


def drawn(width: int = 60) -> Plot:
    ticks = [((i + 0.5) / len(NAMES), name) for i, name in enumerate(NAMES)]
    return Plot(width, len(NAMES), STYLES, x=[(0.0, "0"), (1.0, "1")], y=ticks, x_label=NAMES[0], beside=ticks)


def test_a_plot_to_the_cell() -> None:
    plot = Plot(
        24, 4, STYLES, x=[(0.0, "0"), (1.0, "10")], y=[(0.0, "0"), (1.0, "1")], x_label="n", above=[(0.5, "up")]
    )
    plot.path([(0.0, 0.0), (0.4, 0.4), None, (0.6, 0.6), (1.0, 1.0)], STYLES.of_series(0))
    plot.strokes([((0.2, 0.5), (0.2, 1.0))], STYLES.of_series(1))
    plot.marks([(1.0, 0.0)], "■", STYLES.of_series(2))
    plot.text((0.5, 0.1), "said", STYLES.strong)
    assert text_of(plot.drawn()).splitlines() == [
        "             up",
        "1 ┤    ⡇           ⣀⠤⠔⠊⠉",
        "  │    ⡇       ⠠⠔⠊⠉",
        "  │    ⠁⣀⡠⠔⠂",
        "0 ┤⣀⡠⠔⠒⠉     said      ■",
        "  └┬───────────────────┬",
        "   0                  10",
        "            n",
    ]


def test_every_run_has_the_style_it_was_drawn_in() -> None:
    plot = Plot(20, 2, STYLES)
    plot.marks([(0.1, 0.75)], "a", STYLES.of_series(0))
    plot.marks([(0.2, 0.75)], "b", STYLES.of_series(1))
    plot.text((0.5, 0.25), "cd", STYLES.strong)
    found = {text: style for line in plot.drawn() for text, style in line if text.strip()}
    assert (found["a"], found["b"], found["cd"]) == (STYLES.of_series(0), STYLES.of_series(1), STYLES.strong)


def test_names_of_any_characters_keep_their_columns() -> None:
    lines = text_of(drawn().drawn()).splitlines()
    assert {cell_width(line[: line.index("┤")]) for line in lines if "┤" in line} == {drawn().left - 1}
    assert all(cell_width(line) <= 60 for line in lines)
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
        plot = Plot(60, 10, STYLES, y=[(0.5, str(number))])
        plot.path([(i / 50, (i * number % 7) / 7) for i in range(50)], STYLES.of_series(number))
        return plot.drawn()

    alone = [picture(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(picture, range(8))) == alone


def test_a_figure_may_be_larger_than_the_terminal() -> None:
    plot = Plot(400, 100, STYLES, x_label="n")
    cells = plot.cells()
    assert (len(cells), {len(row) for row in cells}) == (102 + 1, {400})
    assert plots._plotext().terminal.size() != (400, 103)
