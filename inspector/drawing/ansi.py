"""Styled lines as text with escape codes, for commands that print to a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.drawing.colour import FIXED_256, parse_hex
from inspector.drawing.figure_palette import Line
from inspector.drawing.palette import CellStyle, Depth
from inspector.drawing.safe_text import visible

RESET = "\x1b[0m"
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def to_ansi(lines: Sequence[Line], depth: Depth, plain: CellStyle) -> str:
    """The lines, each ended; the plain style and its background leave the terminal's own colours alone.

    Args:
        lines: any text; what a terminal would obey in it is shown instead.
        depth: 'none' writes no escape code at all.
        plain: of text without any emphasis.
    """
    return "".join("".join(_run(text, style, depth, plain) for text, style in line) + "\n" for line in lines)


def _run(text: str, style: CellStyle, depth: Depth, plain: CellStyle) -> str:
    text = visible(text) if text else ""
    if depth == "none":
        return text
    codes = [
        code for on, code in ((style.bold, "1"), (style.dim, "2"), (style.underline, "4"), (style.reverse, "7")) if on
    ]
    if style.foreground != plain.foreground:
        codes.append(_colour(style.foreground, depth, ground=False))
    if style.background != plain.background:
        codes.append(_colour(style.background, depth, ground=True))
        if style.foreground == plain.foreground:
            codes.append(_colour(style.foreground, depth, ground=False))
    return f"\x1b[{';'.join(codes)}m{text}{RESET}" if codes else text


def _colour(name: str, depth: Depth, *, ground: bool) -> str:
    if name.startswith("ansi_"):
        bright = name.startswith("ansi_bright_")
        index = _NAMES.index(name.removeprefix("ansi_").removeprefix("bright_"))
        return str((90 if bright else 30) + index + (10 if ground else 0))
    rgb = parse_hex(name)
    lead = "48" if ground else "38"
    if depth == "256" and rgb in FIXED_256:
        return f"{lead};5;{16 + FIXED_256.index(rgb)}"
    return f"{lead};2;{rgb[0]};{rgb[1]};{rgb[2]}"
