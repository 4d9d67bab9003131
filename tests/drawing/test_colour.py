from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.drawing.colour import (
    FIXED_256,
    contrast,
    distance,
    from_oklab,
    gamma,
    linear_light,
    parse_hex,
    to_hex,
    to_oklab,
)

RGB = st.tuples(*(st.integers(0, 255),) * 3)


@given(RGB)
def test_oklab_there_and_back_is_the_same_colour(rgb: tuple[int, int, int]) -> None:
    assert from_oklab(to_oklab(rgb)) == rgb


@given(RGB)
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
