"""Palettes of every theme at every depth: order, distance under colour blindness, contrast."""

from __future__ import annotations

import unicodedata
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color, ColorSystem

from inspector.drawing.palette import CONSOLE_MARKS, MIN_CONTRAST, SIDE_MARKS, CellStyle, Depth, TokenPalette
from inspector.drawing.palette_build import (
    DEFAULT_ENDPOINTS,
    FIXED_256,
    RGB,
    build_palette,
    contrast,
    distance,
    from_oklab,
    gamma,
    linear_light,
    parse_hex,
    to_hex,
    to_oklab,
)
from inspector.drawing.safe_text import cell_width
from inspector.drawing.tokens import MODES
from inspector.tui.themes import Theme, find_themes, shipped_folder
from tests.drawing.colour_vision import MACHADO_2009, seen_with
from tests.drawing.documents import mode_named

COLOURS = st.tuples(*(st.integers(0, 255),) * 3)


@given(COLOURS)
def test_oklab_there_and_back_is_the_same_colour(rgb: tuple[int, int, int]) -> None:
    assert from_oklab(to_oklab(rgb)) == rgb


@given(COLOURS)
def test_hex_there_and_back_is_the_same_colour(rgb: tuple[int, int, int]) -> None:
    assert parse_hex(to_hex(rgb)) == rgb


@given(st.floats(0, 1))
def test_gamma_is_the_inverse_of_linear_light(channel: float) -> None:
    # 1e-4: the standard's own rounded constants do not meet exactly where the two branches join.
    assert gamma(linear_light(channel)) == pytest.approx(channel, abs=1e-4)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # Ottosson's own examples through the published matrices: white, and the three primaries.
        ((255, 255, 255), (1.0, 0.0, 0.0)),
        ((255, 0, 0), (0.6280, 0.2249, 0.1258)),
        ((0, 255, 0), (0.8664, -0.2339, 0.1795)),
        ((0, 0, 255), (0.4520, -0.0325, -0.3115)),
    ],
)
def test_oklab_of_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert to_oklab(rgb) == pytest.approx(lab, abs=1e-3)  # Published to four digits.


def test_contrast_of_black_on_white_is_21_and_of_equals_is_1() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21.0)
    assert contrast((9, 99, 199), (9, 99, 199)) == 1.0


def test_a_colour_outside_srgb_keeps_hue_and_lightness() -> None:
    lightness, a, b = to_oklab(from_oklab((0.7, 0.4, 0.0)))
    assert lightness == pytest.approx(0.7, abs=0.01)  # One step of 8 bits.
    assert abs(b) < 0.01 < a


def test_the_fixed_256_are_the_cube_and_the_greys() -> None:
    assert len(FIXED_256) == 240
    assert FIXED_256[196 - 16] == (255, 0, 0)
    assert FIXED_256[232 - 16] == (8, 8, 8)
    assert FIXED_256[255 - 16] == (238, 238, 238)


def test_distance_of_a_colour_to_itself_is_zero() -> None:
    assert distance((1, 2, 3), (1, 2, 3)) == 0.0


@pytest.mark.parametrize("text", ["", "#fff", "red", "#12345g", "#1234567"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="#rrggbb"):
        parse_hex(text)


THEMES = find_themes([shipped_folder()])[0]
RGB_THEMES = [theme for theme in THEMES.values() if not theme.ansi]
DEPTHS: tuple[Depth, ...] = ("truecolor", "256")
SMALLEST = {"truecolor": 0.022, "256": 0.017}
"""Smallest OKLab distance between two levels, under every deficiency. About 0.02 is just seen side by side; the 256
fixed colours are too few to stay above that for every pair, and 0.017 is what they reach."""


CASES = [(theme, depth) for theme in RGB_THEMES for depth in DEPTHS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def built(request: pytest.FixtureRequest) -> tuple[Theme, TokenPalette]:
    theme, depth = request.param
    return theme, theme.palette(depth)


def fill(cell: CellStyle, depth: str) -> RGB:
    """The cell's background as the terminal shows it: Rich's own down-conversion, then the fixed colour it names."""
    if depth == "truecolor":
        return parse_hex(cell.background)
    number = Color.parse(cell.background).downgrade(ColorSystem.EIGHT_BIT).number
    assert number is not None
    triplet = Color.from_ansi(number).get_truecolor()
    return triplet.red, triplet.green, triplet.blue


def filled(palette: TokenPalette) -> list[CellStyle]:
    """Distinct filled styles of the mixed mode."""
    return list(dict.fromkeys(cell for row in palette.mixed[1:] for cell in row))


@pytest.mark.parametrize("deficiency", [None, *MACHADO_2009])
def test_levels_stay_apart_for_every_eye(built: tuple[Theme, TokenPalette], deficiency: str | None) -> None:
    _, palette = built
    colours = [seen_with(deficiency, fill(cell, palette.depth)) for cell in [palette.plain, *filled(palette)]]
    assert min(distance(one, other) for one, other in combinations(colours, 2)) >= SMALLEST[palette.depth]


@pytest.mark.parametrize("deficiency", [None, *MACHADO_2009])
def test_steps_of_each_ramp_stay_apart_for_every_eye(built: tuple[Theme, TokenPalette], deficiency: str | None) -> None:
    _, palette = built
    for ramp in (*palette.ramps.values(), palette.shares, palette.differences):
        colours = [seen_with(deficiency, fill(cell, palette.depth)) for cell in ramp]
        assert min(distance(one, other) for one, other in combinations(colours, 2)) >= SMALLEST[palette.depth]


def test_lightness_walks_away_from_the_background_with_size(built: tuple[Theme, TokenPalette]) -> None:
    theme, palette = built
    sign = 1 if theme.dark else -1
    for ramp in (*zip(*palette.mixed, strict=True), *palette.ramps.values()):
        lightness = [sign * to_oklab(fill(cell, palette.depth))[0] for cell in ramp]
        assert all(after > before for before, after in pairwise(lightness))


def test_sizes_are_equally_light_whatever_the_share_in_24_bit(built: tuple[Theme, TokenPalette]) -> None:
    _, palette = built
    if palette.depth == "truecolor":
        for row in palette.mixed:
            lightness = [to_oklab(parse_hex(cell.background))[0] for cell in row]
            assert max(lightness) - min(lightness) < 0.01  # Rounding to 8 bits.


def test_text_can_be_read_on_every_cell(built: tuple[Theme, TokenPalette]) -> None:
    _, palette = built
    cells = [*filled(palette), *palette.shares, *palette.differences, palette.plain, palette.cursor]
    cells += [cell for ramp in palette.ramps.values() for cell in ramp]
    for cell in cells:
        assert contrast(parse_hex(cell.foreground), parse_hex(cell.background)) >= MIN_CONTRAST, cell


def test_the_cursor_is_no_level(built: tuple[Theme, TokenPalette]) -> None:
    _, palette = built
    cursor = parse_hex(palette.cursor.background)
    assert min(distance(cursor, fill(cell, palette.depth)) for cell in filled(palette)) > 0.05


def test_linear_is_blue_and_nonlinear_orange_never_red_against_green(built: tuple[Theme, TokenPalette]) -> None:
    _, palette = built
    _, _, linear_b = to_oklab(fill(palette.mixed[-1][0], palette.depth))
    _, nonlinear_a, nonlinear_b = to_oklab(fill(palette.mixed[-1][-1], palette.depth))
    assert linear_b < -0.05 < 0.05 < nonlinear_b
    assert nonlinear_b > 0.5 * nonlinear_a  # Orange or yellow; red has more a than b.


def test_red_against_green_would_fail_the_distance_test() -> None:
    red, green = (178, 60, 40), (100, 120, 40)
    assert distance(red, green) > 0.1
    assert distance(seen_with("deuteranopia", red), seen_with("deuteranopia", green)) < distance(red, green) / 2


def test_256_colours_survive_rich_unchanged() -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, "256")
    for cell in filled(palette):
        # Not 0: Rich turns greys of the cube into greys of the ramp.
        assert distance(fill(cell, "256"), parse_hex(cell.background)) < 0.02


def test_sixteen_colours_are_distinct_styles_without_red_and_green() -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, "16")
    cells = [cell for row in palette.mixed[1:] for cell in row]
    assert len(set(cells)) == len(cells) == 8
    names = {name for cell in cells for name in (cell.foreground, cell.background)}
    assert not [name for name in names if "red" in name or "green" in name]
    assert palette.marks_by_default


def test_without_colour_style_and_mark_each_say_size_and_side() -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, "none")
    mode = mode_named("mixed")
    styles = {size: [palette.style(mode, size, share) for share in range(3)] for size in range(8)}
    assert all(styles[size][2].underline and not styles[size][0].underline for size in range(1, 8))
    assert [styles[size][0].bold for size in range(8)] == [False] * 4 + [True] * 4
    colours = {(cell.foreground, cell.background) for row in palette.mixed for cell in row}
    assert len(colours) == 1
    shares = [
        (palette.style(mode_named("share"), None, k), palette.mark(mode_named("share"), None, k)) for k in range(5)
    ]
    assert len(set(shares)) == 5


@pytest.mark.parametrize("depth", ["truecolor", "256", "16", "none"])
def test_the_mark_alone_says_size_and_side_at_every_depth(depth: Depth) -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, depth)
    mode = mode_named("mixed")
    for last, column in ((0, "⡀⡄⡆⡇"), (palette.n_shares - 1, "⢀⢠⢰⢸")):
        marks = [palette.mark(mode, size, last) for size in range(palette.n_sizes)]
        assert marks[0] == " " and marks[-1] == column[-1]
        assert sorted(set(marks[1:])) == sorted(column), "four heights"
        assert marks[1:] == sorted(marks[1:], key=column.index), "that rise with the size"


@pytest.mark.parametrize("marks", [SIDE_MARKS, CONSOLE_MARKS])
def test_no_mark_can_be_read_as_text(marks: tuple[str, ...]) -> None:
    characters = set("".join(marks)) - {" "}
    assert len(characters) == 12
    assert {unicodedata.category(character) for character in characters} == {"So"}
    assert all(cell_width(character) == 1 for character in characters)


@pytest.mark.parametrize("depth", ["truecolor", "256", "16", "none"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.id)
def test_every_mode_has_a_style_for_every_level_and_for_nothing(mode: object, depth: Depth) -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, depth)
    assert isinstance(mode, type(MODES[0]))
    n_shares = len(palette.shares) if mode.size is None else palette.n_shares
    for size in [None, *range(palette.n_sizes)]:
        for share in [None, *range(n_shares)]:
            assert isinstance(palette.style(mode, size, share), CellStyle)
            assert len(palette.mark(mode, size, share)) == 1
    assert palette.style(mode, None, None) == palette.plain
    assert palette.mark(mode, None, None) == " "


def test_a_size_without_a_share_has_the_hue_of_the_total() -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, "truecolor")
    assert palette.style(mode_named("mixed"), 5, None) == palette.ramps["total"][5]


def test_marks_of_one_number_grow_on_the_side_that_it_is_of() -> None:
    palette = build_palette(DEFAULT_ENDPOINTS, "truecolor")

    def row(mode: str, *, by_share: bool = False) -> str:
        marks = (
            palette.mark(mode_named(mode), *((None, k) if by_share else (k, None))) for k in range(5 if by_share else 8)
        )
        return "".join(marks)

    assert row("total") == row("loss") == " ⣀⣀⣤⣤⣶⣶⣿"
    assert row("linear") == " ⡀⡀⡄⡄⡆⡆⡇"
    assert row("nonlinear") == row("fvu") == " ⢀⢀⢠⢠⢰⢰⢸"
    assert row("share", by_share=True) == "⡇⡄⣀⢠⢸"
