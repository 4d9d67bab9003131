"""Every kind of figure in a terminal: it fits, it obeys nobody, it says what is missing; small ones to the cell."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest

from inspector.drawing.figures import (
    Axis,
    Band,
    Bands,
    Bars,
    BarSeries,
    Column,
    Curve,
    Dot,
    DotGrid,
    Figure,
    GroupedBars,
    Heatmap,
    Mark,
    Series,
    Table,
    TokenStrip,
    TokenTrace,
    TraceSeries,
    Violin,
)
from inspector.drawing.lines import text_of, to_ansi
from inspector.drawing.palette import Depth, Line
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import cell_width
from inspector.drawing.scales import format_cell
from inspector.drawing.terminal_figures import render_figure, render_table
from tests.drawing.samples import EMPTY, SAMPLES

DEPTHS: tuple[Depth, ...] = ("truecolor", "256", "16", "none")


def lines_of(figure: Figure, width: int = 80, height: int = 14, depth: Depth = "none") -> list[Line]:
    return render_figure(figure, width, height, build_palette(DEFAULT_ENDPOINTS, depth))


def shown(figure: Figure, width: int = 80, height: int = 14) -> list[str]:
    return text_of(lines_of(figure, width, height)).splitlines()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
@pytest.mark.parametrize("kind", SAMPLES)
def test_it_fits_and_holds_nothing_a_terminal_obeys(kind: str, width: int, depth: Depth) -> None:
    for line in lines_of(SAMPLES[kind], width, 20, depth):
        text = "".join(piece for piece, _ in line)
        assert cell_width(text) <= width, text
        assert all(unicodedata.category(character)[0] != "C" for character in text)


@pytest.mark.parametrize("kind", SAMPLES)
def test_what_is_undefined_is_said(kind: str) -> None:
    text = "\n".join(shown(SAMPLES[kind]))
    assert "undefined" in text or "×" in text or "no defined number" in text


@pytest.mark.parametrize("kind", SAMPLES)
def test_colours_change_no_character_of_a_plot(kind: str) -> None:
    if kind in ("strip", "grid", "heatmap"):  # there the colours replace blocks in text and in the ramp
        return
    plain, coloured = (text_of(lines_of(SAMPLES[kind], depth=depth)) for depth in ("none", "truecolor"))
    assert plain == coloured


@pytest.mark.parametrize("kind", ["curve", "bands", "grid", "trace"])
def test_a_plot_takes_the_height_it_is_given(kind: str) -> None:
    small, large = (len(lines_of(SAMPLES[kind], height=height)) for height in (16, 30))
    assert large - small == 14


@pytest.mark.parametrize("kind", SAMPLES)
def test_nothing_to_draw_draws_something(kind: str) -> None:
    assert shown(EMPTY[kind])[0] == "t"


def test_a_curve_to_the_cell() -> None:
    figure = Curve(
        title="Rising",
        x=Axis(label="n"),
        y=Axis(label="R²"),
        series=(
            Series(name="a", x=(0.0, 10.0), y=(0.0, 1.0)),
            Series(name="b", x=(0.0, 5.0, 10.0), y=(1.0, None, 0.5), style="points"),
        ),
        note="Said below.",
    )
    assert shown(figure, 40, 12) == [
        "Rising",
        "R²",
        "⠒●⠒ a   ■ b   × undefined",
        "  1 ┤■                            ⢀⣀⠤⠔⠒●",
        "    │                       ⢀⣀⠤⠔⠒⠉⠁",
        "    │                 ⢀⣀⠤⠔⠒⠉⠁",
        "0.5 ┤           ⢀⣀⠤⠔⠒⠉⠁                ■",
        "    │     ⢀⣀⠤⠔⠒⠉⠁",
        "  0 ┤●⠤⠔⠒⠉⠁           ×",
        "    └┬────────────────┬────────────────┬",
        "     0                5               10",
        "                    n",
        "",
        "Said below.",
    ]


def test_bars_to_the_cell() -> None:
    figure = Bars(
        title="Parts", value=Axis(label="share", unit="%"), labels=("one", "two", "none"), values=(50.0, 25.0, None),
        low=(40.0, None, None), high=(60.0, None, None),
    )  # fmt: skip
    assert shown(figure, 50) == [
        "Parts",
        "one  ┤████████████████├────┼───┤ 50.0 [40.0, 60.0]",
        "two  ┤██████████▌                25.0",
        "none ┤                           undefined",
        "     └┬─────────┬──────────┬────",
        "      0         25         50",
        "                     share (%)",
    ]


def test_grouped_bars_to_the_cell() -> None:
    figure = GroupedBars(
        title="Recovered",
        value=Axis(label="recovered", unit="%"),
        groups=("16k",),
        bars=(
            BarSeries(name="linear", values=(50.0,), marks=(Mark(name="variance", values=(80.0,)),)),
            BarSeries(name="nonlinear", values=(25.0,)),
        ),
    )
    assert shown(figure, 50) == [
        "Recovered",
        "██ linear   ▓▓ nonlinear   ◆ variance",
        "16k",
        "  linear    ┤███████████████████▌           ◆ 50.0",
        "  nonlinear ┤▓▓▓▓▓▓▓▓▓                        25.0",
        "            └┬────────┬─────────┬─────────┬──",
        "             0        25        50        75",
        "                   recovered (%)",
    ]


def test_a_heat_map_leaves_its_triangle_blank_and_names_what_is_missing() -> None:
    figure = Heatmap(
        title="Pairs", x=Axis(label="to"), y=Axis(label="from"), value=Axis(label="R²"), x_ticks=("16k", "1m"),
        y_ticks=("16k", "1m"), values=((1.0, 0.5), (0.25, None)), triangle=True,
    )  # fmt: skip
    assert shown(figure, 40) == [
        "Pairs",
        "from",
        "16k ┤    1.00    0.500",
        " 1m ┤                ×",
        "    └────┬────────┬────",
        "        16k       1m",
        "     to",
        "× undefined",
        "R²  0.500 ▁▂▃▄▅▆▇█ 1.00",
    ]


def test_a_dot_stands_only_where_something_was_measured() -> None:
    figure = DotGrid(
        title="Grid",
        x=Axis(label="width", log=True),
        y=Axis(label="L0", log=True),
        value=Axis(label="FVU"),
        dots=(Dot(x=100.0, y=10.0, value=0.25), Dot(x=1000.0, y=100.0, value=None)),
    )
    text = "\n".join(shown(figure, 60))
    assert (text.count("●0.250"), text.count("●"), text.count("×")) == (1, 1, 2)  # the second × is the legend's


def test_numbers_that_find_no_room_are_counted() -> None:
    dots = tuple(Dot(x=100.0 + i / 100, y=10.0 + i / 100, value=0.1 + i) for i in range(12))
    figure = DotGrid(title="t", x=Axis(label="w"), y=Axis(label="l"), value=Axis(label="v"),
                     dots=(*dots, Dot(x=1e4, y=1e4, value=1.0)))  # fmt: skip
    (said,) = [line for line in shown(figure, 40) if line.startswith("no room for ")]
    assert said.endswith(" of 13 numbers")


def test_bands_beyond_what_was_measured_are_half_empty() -> None:
    figure = Bands(
        title="t", x=Axis(label="w"), y=Axis(label="F"), at=(0.0, 1.0, 2.0),
        bands=(Band(name="all", values=(1.0, 1.0, 1.0)),), extrapolated=(False, False, True),
    )  # fmt: skip
    rows = [line.split("┤")[-1].split("│")[-1] for line in shown(figure, 44, 14) if "█" in line and "all" not in line]
    for row in rows:
        half = len(row) // 2
        assert row[: half - 1] == "█" * (half - 1)
        assert 0.4 < row[half + 1 :].count("█") / len(row[half + 1 :]) < 0.65


def test_a_negative_band_is_named() -> None:
    figure = Bands(title="t", x=Axis(label="w"), y=Axis(label="F"), at=(0.0, 1.0),
                   bands=(Band(name="a", values=(1.0, 1.0)), Band(name="b", values=(0.5, -0.25))))  # fmt: skip
    assert any("b (hatched: negative at 1 of 2)" in line for line in shown(figure))


def test_below_the_hatch_of_a_negative_band_the_band_it_takes_from_is_seen() -> None:
    figure = Bands(title="t", x=Axis(label="w"), y=Axis(label="F"), at=(0.0, 1.0),
                   bands=(Band(name="a", values=(1.0, 1.0)), Band(name="b", values=(-0.5, -0.5)),
                          Band(name="c", values=(1.0, 1.0))))  # fmt: skip
    rows = [line.split("┤")[-1].split("│")[-1] for line in shown(figure, 44, 18)[4:15]]
    assert set("".join(rows[:4])) == {"▒"}  # from 1 to 1.5: c alone
    assert rows[4:6] == ["█▓█" * 13, "██▓" * 13]  # from 0.5 to 1: a, and what b takes from it
    assert set("".join(rows[7:])) == {"█"}


def test_an_axis_names_the_few_places_that_were_measured() -> None:
    dots = tuple(Dot(x=width, y=l0, value=0.5) for width in (1024.0, 16384.0, 131072.0) for l0 in (15.98, 16.0, 60.0))
    figure = DotGrid(title="t", x=Axis(label="width", unit="latents", log=True), y=Axis(label="L0", log=True),
                     value=Axis(label="v"), dots=dots)  # fmt: skip
    text = shown(figure, 60, 16)
    assert [line.split("┤")[0].strip() for line in text if "┤" in line] == ["60", "16"]
    assert ["1k", "16k", "131k"] in [line.split() for line in text]


def test_many_measured_places_are_round_ticks() -> None:
    dots = tuple(Dot(x=float(10 + i), y=float(i), value=0.5) for i in range(12))
    text = shown(DotGrid(title="t", x=Axis(label="x"), y=Axis(label="y"), value=Axis(label="v"), dots=dots), 60, 16)
    assert ["10", "12", "14", "16", "18", "20"] in [line.split() for line in text]


def test_a_crowd_of_points_is_a_cloud_and_a_line_of_many_runs_through_its_medians() -> None:
    x = tuple(float(i) for i in range(3000))
    figure = Curve(title="t", x=Axis(label="x"), y=Axis(label="y"),
                   series=(Series(name="crowd", x=x, y=tuple(i % 7 for i in x), style="points"),
                           Series(name="line", x=x, y=tuple(-4.0 + 100.0 * (i % 50 == 0) for i in x))))  # fmt: skip
    text = shown(figure, 80, 20)
    assert text[2] == "⠂⠄⠂ crowd   ⠒■⠒ line   lines of many points: medians by column"
    assert "●" not in "".join(text)
    assert [line.count("■") > 0 for line in text[3:]].count(True) == 1  # a straight line, however far single points go


def test_what_all_names_begin_with_is_said_once_where_it_saves_a_block() -> None:
    figure = Table(title="t", columns=(Column(title="SAE"), *(Column(title=f"a long title {i}") for i in range(3))),
                   rows=(("layer_3/resid/a", 1.0, 1.0, 1.0), ("layer_3/resid/b", 1.0, 1.0, 1.0)))  # fmt: skip
    text = shown(figure, 60)
    assert text[1] == "SAE: layer_3/resid/…"
    assert [line.split()[0] for line in text[4:6]] == ["…a", "…b"]
    assert shown(figure, 100)[1].startswith("SAE ")
    assert [line.split()[0] for line in shown(figure, 100)[3:]] == ["layer_3/resid/a", "layer_3/resid/b"]


def test_a_wide_table_is_cut_into_blocks_that_begin_with_the_first_column() -> None:
    columns = ("SAE", *(f"a long title {i}" for i in range(6)))
    figure = Table(
        title="t", columns=tuple(Column(title=title) for title in columns), rows=(("x", *(float(i) for i in range(6))),)
    )
    text = shown(figure, 60)
    assert [line for line in text if line.startswith("SAE")] == [
        "SAE  a long title 0  a long title 1  a long title 2",
        "SAE  a long title 3  a long title 4  a long title 5",
    ]
    assert [line for line in text if line.startswith("x ")] == [
        "x             0.000           1.000           2.000",
        "x             3.000           4.000           5.000",
    ]


def test_an_interval_stays_beside_its_score() -> None:
    titles = ("SAE", "latents", "FVU", "95% low", "high", "nonlinear FVU", "95% low", "high")
    figure = Table(title="t", columns=tuple(Column(title=title) for title in titles),
                   rows=(("x", 1, *(0.25,) * 6),))  # fmt: skip
    assert [line for line in shown(figure, 48) if line.startswith("SAE")] == [
        "SAE  latents    FVU  95% low   high",
        "SAE  nonlinear FVU  95% low   high",
    ]


def test_ends_of_an_interval_by_other_names_stay_too() -> None:
    titles = ("SAE", "score of the first", "low", "high", "score of the second", "low, contexts", "high")
    figure = Table(title="t", columns=tuple(Column(title=title) for title in titles), rows=(("x", *(0.25,) * 6),))
    assert [" ".join(line.split()[1:]) for line in shown(figure, 50) if line.startswith("SAE")] == [
        "score of the first low high",
        "score of the second low, contexts high",
    ]


def test_a_strip_says_sizes_without_colours() -> None:
    figure = TokenStrip(
        title="t", value=Axis(label="norm"), tokens=("a", " b", "\n", "c"), values=(0.0, 8.0, 4.0, None)
    )
    assert shown(figure)[1:] == ["a▁ b█⏎▅", "c×", "norm  0 ▁▂▃▄▅▆▇█ 8.00"]


def test_without_colours_no_escape_code_is_written_and_with_them_every_one_is_closed() -> None:
    for depth in DEPTHS:
        palette = build_palette(DEFAULT_ENDPOINTS, depth)
        text = to_ansi(render_figure(SAMPLES["bands"], 80, 20, palette), depth, palette.plain)
        assert (text.count("\x1b[") == 0) == (depth == "none")
        assert text.count("\x1b[0m") * 2 == text.count("\x1b[")


def test_drawing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from inspector.drawing import terminal_figures, lines, vector_figures;"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'plotext', 'textual'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_table_cell_by_cell() -> None:
    table = Table(
        title="Errors",
        columns=(
            Column(title="SAE"),
            Column(title="latents"),
            Column(title="R²", digits=2),
            Column(title="size", unit="MB"),
        ),
        rows=(("a/b", 16384, 0.5, 1.25), ("longer", 8, None, -2.0)),
        note="A note.",
    )
    assert render_table(table) == (
        "Errors\n"
        "\n"
        "SAE     latents         R²  size (MB)\n"
        "──────  ───────  ─────────  ─────────\n"
        "a/b      16,384       0.50      1.250\n"
        "longer        8  undefined     -2.000\n"
        "\n"
        "A note.\n"
    )


def test_a_table_without_rows_title_and_note_is_its_header() -> None:
    assert (
        render_table(Table(title="", columns=(Column(title="SAE"), Column(title="L0")), rows=()))
        == "SAE  L0\n───  ──\n"
    )


def test_cells() -> None:
    assert format_cell(None, 3) == "undefined"
    assert format_cell(0.0, 3) == "0.000"
    assert format_cell(4e-14, 3) == "4.0e-14"
    assert format_cell(-0.0004, 3) == "-4.0e-04"
    assert format_cell(1234567, 3) == "1,234,567"
    assert format_cell(1234.5678, 1) == "1,234.6"
    assert format_cell("", 3) == ""


def test_hostile_text_stays_in_its_cell() -> None:
    table = Table(title="", columns=(Column(title="SAE"), Column(title="n")), rows=(("\x1b[31mred\n", 1), ("日本", 2)))
    text = render_table(table)
    assert "\x1b" not in text
    assert text.count("\n") == 4
    assert text.splitlines()[3] == "日本       2"


def test_what_has_no_logarithm_is_undefined_in_a_violin() -> None:
    figure = Violin(title="t", value=Axis(label="v", log=True), labels=("a", "b"), samples=((1.0, 10.0, -1.0), (0.0,)))
    text = "\n".join(shown(figure))
    assert "n 2, 1 undefined" in text
    assert "no defined number" in text


def test_numbers_that_leave_no_room_leave_the_bars_ten_columns() -> None:
    figure = Bars(
        title="t", value=Axis(label="v"), labels=("a long name of something",), values=(123456789012345678.0,)
    )
    lines = shown(figure, 40)
    assert lines[1].count("█") in (9, 10)
    assert max(map(cell_width, lines)) <= 40


def test_many_lines_along_a_text_have_a_plot_each_on_one_scale() -> None:
    tokens = tuple(f" t{index}" for index in range(40))
    series = tuple(
        TraceSeries(name=name, values=tuple(float(height + index % 5) for index in range(40)))
        for name, height in (("256", 20), ("1k", 10), ("4k", 0))
    )
    figure = TokenTrace(title="t", value=Axis(label="norm"), tokens=tokens, series=series, first_position=0)
    lines = shown(figure, height=42)
    heads = [index for index, line in enumerate(lines) if line.split()[-1:] in (["256"], ["1k"], ["4k"])]
    assert len(heads) == 3
    parts = [lines[start:stop] for start, stop in zip(heads, [*heads[1:], len(lines)], strict=True)]
    numbers = [[word for line in part for word in line.split()[:1] if word.isdigit()] for part in parts]
    assert numbers[0] == numbers[1] == numbers[2] and numbers[0], "one scale"
    for part in parts:
        assert any(0x2800 < ord(character) < 0x2900 for line in part for character in line)
    two = shown(replace(figure, series=series[:2]), height=42)
    assert sum(line.split()[-1:] == ["1k"] for line in two) == 1 and "256" in next(line for line in two if "1k" in line)
