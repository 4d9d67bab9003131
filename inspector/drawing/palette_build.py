"""Builds a `TokenPalette` from a theme's endpoints for each colour depth.

24-bit: 8 sizes times 5 shares. 256 colours: fewer, each the nearest of the 240 fixed colours that keeps the order of
lightness and a distance from those taken. 16 colours: two hues that no colour blindness confuses, cyan and yellow, five
sizes made of hue, bold and reversed cells. None: the mark carries the size, underline and bold carry the share.

Colours are mixed in OKLab (Ottosson 2020, written from the published coefficients) because equal distances in it look
about equally large, which is what levels need; contrast is that of WCAG 2.
"""

from __future__ import annotations

import re
from functools import cache
from math import dist, hypot

from inspector.drawing.palette import (
    MIN_CONTRAST,
    WIDTHS_ANSI,
    WIDTHS_DARK,
    WIDTHS_LIGHT,
    CellStyle,
    Depth,
    Endpoints,
    FigurePalette,
    TokenPalette,
    figure_palette,
)

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


SIZES, SHARES = 8, 5
SIZES_256, SHARES_256 = 6, 3
FAR_APART = (2, 7)
"""Two colours of the widths' run that every eye keeps apart, also as fills of two strengths and in 256 colours."""
QUIET_SIZES = 2
"""Up to this size 24-bit palettes show three shares instead of five."""
N_SHARE_LEVELS = 5
"""Levels of the mode that shows share alone: the middle one is plain, two on either side are filled."""
SHARE_STRENGTHS = (0.45, 0.85)
"""How far the two go towards the endpoint's lightness."""
CHROMA_EXPONENT = 0.6
"""Colourfulness rises faster than lightness, so that the hue can be told at small sizes too."""


def build_palette(endpoints: Endpoints, depth: Depth) -> TokenPalette:
    """The palette of a theme at one colour depth."""
    match depth:
        case "truecolor":
            return _rgb_palette(endpoints, depth, SIZES, SHARES, fixed=False)
        case "256":
            return _rgb_palette(endpoints, depth, SIZES_256, SHARES_256, fixed=True)
        case "16":
            return _sixteen_palette()
        case "none":
            return _colourless_palette(endpoints)


def _rgb_palette(endpoints: Endpoints, depth: Depth, sizes: int, shares: int, *, fixed: bool) -> TokenPalette:
    ground = parse_hex(endpoints.background)
    names = (endpoints.linear, endpoints.middle, endpoints.nonlinear)
    linear, middle, nonlinear = (to_oklab(parse_hex(name)) for name in names)
    loss = to_oklab(parse_hex(endpoints.loss))
    top = (linear[0] + middle[0] + nonlinear[0]) / 3

    def hue(share: float) -> Lab:
        return mix(linear, middle, 2 * share) if share < 0.5 else mix(middle, nonlinear, 2 * share - 1)

    def cells(targets: list[list[Lab]]) -> list[list[CellStyle]]:
        colours = [[from_oklab(lab) for lab in row] for row in targets]
        if fixed:
            colours = _nearest_fixed(targets, ground)
        return [[_filled(endpoints, colour) for colour in row] for row in colours]

    def level(end: Lab, size: int) -> Lab:
        return _towards(to_oklab(ground), end, top, size / (sizes - 1))

    plain = CellStyle(foreground=endpoints.foreground, background=endpoints.background)
    rows = cells([[level(hue(share), size) for share in _share_steps(size, shares)] for size in range(1, sizes)])
    mixed = ((plain,) * shares, *(tuple(row) for row in rows))
    ramps = {
        name: (plain, *(row[0] for row in cells([[level(end, size)] for size in range(1, sizes)])))
        for name, end in (
            ("total", middle),
            ("linear", linear),
            ("nonlinear", nonlinear),
            ("loss", loss),
            ("value", (top, 0.0, 0.0)),
        )
    }
    weak, strong = cells(
        [[_towards(to_oklab(ground), end, top, part) for end in (linear, nonlinear)] for part in SHARE_STRENGTHS]
    )
    sides = [
        to_oklab(parse_hex(name)) for name in (endpoints.widths[2], endpoints.widths[7])
    ]  # as far apart as any two
    some, much = cells([[_towards(to_oklab(ground), end, top, part) for end in sides] for part in SHARE_STRENGTHS])
    return TokenPalette(
        depth=depth,
        mixed=mixed,
        ramps=ramps,
        shares=(strong[0], weak[0], plain, weak[1], strong[1]),
        differences=(much[0], some[0], plain, some[1], much[1]),
        widths=tuple(CellStyle(foreground=name, background=endpoints.background) for name in endpoints.widths),
        plain=plain,
        excluded=CellStyle(foreground=endpoints.muted, background=endpoints.background),
        cursor=CellStyle(foreground=endpoints.background, background=endpoints.foreground, bold=True),
        hit_underline=True,
        marks_by_default=False,
    )


def _share_steps(size: int, shares: int) -> list[float]:
    """Shares from 0 to 1 that a row of the palette tells apart: fewer where the size is small, the share noise."""
    if shares == SHARES_256 and size == 1:  # The cube of 256 colours has no dark blue and no brown.
        return [0.5] * shares
    if shares == SHARES and size <= QUIET_SIZES:
        return [0.0, 0.0, 0.5, 1.0, 1.0]
    return [step / (shares - 1) for step in range(shares)]


def _towards(ground: Lab, end: Lab, top: float, part: float) -> Lab:
    """A colour `part` of the way from the background to an endpoint: lightness evenly, colourfulness sooner."""
    keep = part**CHROMA_EXPONENT
    return (ground[0] + (top - ground[0]) * part, end[1] * keep, end[2] * keep)


def _filled(endpoints: Endpoints, background: RGB) -> CellStyle:
    """Text on a filled cell: the theme's own text colours if they can be read there, else black or white."""
    candidates = [endpoints.foreground, endpoints.background]
    best = max(candidates, key=lambda name: contrast(parse_hex(name), background))
    if contrast(parse_hex(best), background) < MIN_CONTRAST:
        best = max(("#000000", "#ffffff"), key=lambda name: contrast(parse_hex(name), background))
    return CellStyle(foreground=best, background=to_hex(background))


def _nearest_fixed(targets: list[list[Lab]], ground: RGB) -> list[list[RGB]]:
    """For each target one of the fixed colours: in order of lightness down each column, apart from all taken."""
    down = to_oklab(ground)[0] > targets[-1][0][0]
    taken: list[RGB] = [ground]
    rows: list[list[RGB]] = []
    for row in targets:
        chosen: list[RGB] = []
        for column, target in enumerate(row):
            if column and target == row[column - 1]:
                chosen.append(chosen[-1])
                continue
            before = to_oklab(rows[-1][column] if rows else ground)[0]

            def cost(colour: RGB, wish: Lab = target, before: float = before) -> float:
                lightness = to_oklab(colour)[0]
                rise = before - lightness if down else lightness - before
                crowding = max(0.0, 0.06 - min(distance(colour, other) for other in taken))
                return _strangeness(colour, wish) + 20 * max(0.0, 0.03 - rise) + 5 * crowding

            best = min(FIXED_256, key=cost)
            taken.append(best)
            chosen.append(best)
        rows.append(chosen)
    return rows


def _strangeness(colour: RGB, wish: Lab) -> float:
    """Distance that forgives lightness (the order is kept apart from this) before hue: olive is no dark orange."""
    lightness, a, b = to_oklab(colour)
    return hypot(0.7 * (lightness - wish[0]), 1.5 * (a - wish[1]), 1.5 * (b - wish[2]))


def _sixteen_palette() -> TokenPalette:
    black, white = "ansi_black", "ansi_white"
    plain = CellStyle(foreground=white, background=black)

    def ramp(colour: str) -> tuple[CellStyle, ...]:
        normal, bright = f"ansi_{colour}", f"ansi_bright_{colour}"
        first = bright if colour == "white" else normal
        return (
            plain,
            CellStyle(foreground=first, background=black),
            CellStyle(foreground=bright, background=black, bold=True),
            CellStyle(foreground=black, background=normal),
            CellStyle(foreground=black, background=bright),
        )

    linear, nonlinear, first, second = ramp("cyan"), ramp("yellow"), ramp("green"), ramp("magenta")
    return TokenPalette(
        depth="16",
        mixed=tuple(zip(linear, nonlinear, strict=True)),
        ramps={
            "total": ramp("white"),
            "linear": linear,
            "nonlinear": nonlinear,
            "loss": ramp("magenta"),
            "value": ramp("white"),
        },
        shares=(linear[4], linear[1], plain, nonlinear[1], nonlinear[4]),
        differences=(first[4], first[1], plain, second[1], second[4]),
        widths=tuple(CellStyle(foreground=name, background=black) for name in WIDTHS_ANSI),
        plain=plain,
        excluded=CellStyle(foreground="ansi_bright_black", background=black),
        cursor=CellStyle(foreground=black, background="ansi_bright_white", bold=True, underline=True),
        hit_underline=True,
        marks_by_default=True,
    )


def _colourless_palette(endpoints: Endpoints) -> TokenPalette:
    """Bold is large, underlined is nonlinear: both can be told with the marks off, too."""
    plain = CellStyle(foreground=endpoints.foreground, background=endpoints.background)

    def emphasised(*, underline: bool, bold: bool) -> CellStyle:
        return CellStyle(foreground=plain.foreground, background=plain.background, underline=underline, bold=bold)

    quiet, loud = emphasised(underline=False, bold=False), emphasised(underline=False, bold=True)
    ramp = tuple(loud if size >= SIZES // 2 else quiet for size in range(SIZES))
    lined = tuple(emphasised(underline=size > 0, bold=size >= SIZES // 2) for size in range(SIZES))
    return TokenPalette(
        depth="none",
        mixed=tuple((size, size, under) for size, under in zip(ramp, lined, strict=True)),
        ramps={"total": ramp, "linear": ramp, "nonlinear": lined, "loss": ramp, "value": ramp},
        shares=(plain, plain, plain, lined[1], lined[-1]),
        differences=(plain, plain, plain, lined[1], lined[-1]),
        widths=(plain,),
        plain=plain,
        excluded=CellStyle(foreground=endpoints.muted, background=endpoints.background, dim=True),
        cursor=CellStyle(foreground=plain.foreground, background=plain.background, bold=True, reverse=True),
        hit_underline=False,
        marks_by_default=True,
    )


DEFAULT_ENDPOINTS = Endpoints(
    background="#12161c",
    foreground="#d7dde4",
    muted="#66707c",
    linear="#5eb2fb",
    middle="#c89eaa",
    nonlinear="#f98d1a",
    loss="#7fc9a8",
    widths=WIDTHS_DARK,
)
"""Those of the default theme, for widgets and tests that have no theme at hand."""

PAPER_ENDPOINTS = Endpoints(
    background="#fbfaf7",
    foreground="#1f2328",
    muted="#7d7b74",
    linear="#3b86da",
    middle="#9c7d8b",
    nonlinear="#d26812",
    loss="#2f8f74",
    widths=WIDTHS_LIGHT,
)
"""Those of the light theme, for figures in files: a colour means there what it means on the screen."""


@cache
def _paper_palette() -> FigurePalette:
    return figure_palette(build_palette(PAPER_ENDPOINTS, "truecolor"))


def paper_colour(index: int, name: str, n: int) -> str:
    """'#rrggbb' of the series with this number among `n` in a figure in a file; see `FigurePalette.of_series`."""
    return _paper_palette().of_series(index, name, n).foreground
