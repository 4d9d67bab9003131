"""Styled lines: put together from cells, cut and filled to a width, and as text with escape codes for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from inspector.drawing.palette import CellStyle, Depth, Line, Run
from inspector.drawing.palette_build import FIXED_256, parse_hex
from inspector.drawing.safe_text import cell_width, clusters, visible

ELLIPSIS = "…"
RESET = "\x1b[0m"
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
SHORTEST_START = 6
"""Columns of a start of all names below which it stays in every name."""


def joined(row: Sequence[Run], plain: CellStyle) -> Line:
    """Cells as a line: neighbours of one style together, without spaces at the end that only show the background."""
    line: Line = []
    for text, style in row:
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + text, style)
        else:
            line.append((text, style))
    while line and line[-1][1].background == plain.background:
        text = line[-1][0].rstrip(" ")
        if text:
            line[-1] = (text, line[-1][1])
            break
        line.pop()
    return line


def cut(text: str, width: int, *, keep_end: bool = False) -> str:
    """At most so many columns of safe text; what was cut off is marked by an ellipsis.

    `keep_end`: for names, as SAEs of one hook differ in the last part of theirs.
    """
    if cell_width(text) <= width:
        return text
    if width <= 0:
        return ""
    kept, room = "", width - 1
    for cluster, size in reversed(list(clusters(text))) if keep_end else clusters(text):
        if size > room:
            break
        kept, room = cluster + kept if keep_end else kept + cluster, room - size
    return ELLIPSIS + kept.lstrip() if keep_end else kept.rstrip() + ELLIPSIS


def shared_start(names: Sequence[str]) -> str:
    """The folders that all names begin with, if that is worth saying once: 'layer_3/resid/'; '' if not."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    n_same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    folders = first[: first.rfind("/", 0, n_same) + 1]
    return folders if cell_width(folders) >= SHORTEST_START else ""


def clipped(line: Sequence[Run], width: int) -> Line:
    """What fits: only where there is less room than for what has to be said."""
    kept: Line = []
    for text, style in line:
        kept.append((cut(text, width), style))
        width -= cell_width(kept[-1][0])
        if kept[-1][0] != text:
            break
    return kept


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Cut or filled up to exactly so many columns; `right`: the text stands at the right."""
    text = cut(text, width)
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def prose(text: str, width: int, style: CellStyle) -> list[Line]:
    """A note, broken into lines; anything a terminal would obey is made visible first."""
    lines: list[Line] = []
    for paragraph in text.splitlines():
        broken = textwrap.wrap(visible(paragraph), max(width, 20), break_on_hyphens=False) if paragraph.strip() else []
        lines += [[(line, style)] for line in broken]
    return lines


def text_of(lines: Sequence[Line]) -> str:
    """The characters alone."""
    return "".join("".join(text for text, _ in line) + "\n" for line in lines)


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
