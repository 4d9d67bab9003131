"""Colours as numbers: sRGB, OKLab, contrast, and the fixed part of the 256-colour table.

OKLab (Ottosson 2020) because equal distances in it look about equally large, which is what levels need. Written from
the published coefficients; contrast is that of WCAG 2.
"""

from __future__ import annotations

import re
from functools import cache
from math import dist

RGB = tuple[int, int, int]
"""Red, green, blue of sRGB, 0 to 255."""
Lab = tuple[float, float, float]
"""OKLab: lightness 0 to 1, a (green to red), b (blue to yellow)."""

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def parse_hex(text: str) -> RGB:
    """#rrggbb as three numbers; ValueError otherwise."""
    if not _HEX.fullmatch(text):
        raise ValueError(f"'{text}' is not a colour of the form #rrggbb.")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def to_hex(rgb: RGB) -> str:
    """Three numbers as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def linear_light(channel: float) -> float:
    """A channel of sRGB, 0 to 1, as linear light."""
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def gamma(light: float) -> float:
    """Linear light as an sRGB channel, 0 to 1; inverse of `linear_light`."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


@cache
def to_oklab(rgb: RGB) -> Lab:
    """From sRGB to OKLab."""
    red, green, blue = (linear_light(channel / 255) for channel in rgb)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    medium = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def from_oklab(lab: Lab) -> RGB:
    """OKLab to the nearest sRGB of the same hue: chroma is reduced until the colour exists."""
    lightness, a, b = lab
    for step in range(41):
        keep = 1 - step / 40
        channels = _linear_channels((lightness, a * keep, b * keep))
        if all(-1e-4 <= channel <= 1.0001 for channel in channels):
            break
    red, green, blue = (round(255 * gamma(min(max(channel, 0.0), 1.0))) for channel in channels)
    return red, green, blue


def _linear_channels(lab: Lab) -> tuple[float, float, float]:
    lightness, a, b = lab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def distance(one: RGB, other: RGB) -> float:
    """Distance in OKLab; 0.02 is about the smallest that is noticed side by side."""
    return dist(to_oklab(one), to_oklab(other))


def mix(one: Lab, other: Lab, share: float) -> Lab:
    """The colour `share` of the way from one to the other."""
    return (
        one[0] + share * (other[0] - one[0]),
        one[1] + share * (other[1] - one[1]),
        one[2] + share * (other[2] - one[2]),
    )


def luminance(rgb: RGB) -> float:
    """Relative luminance as WCAG 2 defines it, 0 to 1."""
    red, green, blue = (linear_light(channel / 255) for channel in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: RGB, other: RGB) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _table_256() -> tuple[RGB, ...]:
    """Colours 16 to 255, the part that terminals do not let users repaint: a 6x6x6 cube and 24 greys."""
    steps = (0, 95, 135, 175, 215, 255)
    cube = [(red, green, blue) for red in steps for green in steps for blue in steps]
    greys = [(8 + 10 * index,) * 3 for index in range(24)]
    return (*cube, *((red, green, blue) for red, green, blue in greys))


FIXED_256: tuple[RGB, ...] = _table_256()
"""FIXED_256[i] is terminal colour 16 + i."""
