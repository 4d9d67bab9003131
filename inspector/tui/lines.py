"""Lines of styled text as plain data: what a pane draws, before any terminal is involved.

A `Line` is a list of (text, style name) pieces; the names are component classes of `LinePane`. Widths are terminal
columns, not characters. Nothing here knows Textual, so every line can be tested as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

Piece = tuple[str, str]
Line = list[Piece]

ELLIPSIS = "…"


def width_of(line: Sequence[Piece]) -> int:
    """Columns a line takes."""
    return sum(cell_len(text) for text, _ in line)


def text_of(line: Sequence[Piece]) -> str:
    """The characters alone."""
    return "".join(text for text, _ in line)


def cut(text: str, width: int) -> str:
    """At most `width` columns; what was cut off is marked by an ellipsis. For words, never for numbers."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + ELLIPSIS


def left(text: str, width: int) -> str:
    """Cut or padded on the right to exactly `width` columns."""
    text = cut(text, width)
    return text + " " * (width - cell_len(text))


def wrapped(text: str, width: int, look: str = "", *, least: int = 1) -> list[Line]:
    """A text broken between words.

    Args:
        text: safe to show.
        width: columns.
        look: of every line.
        least: columns below which it is not broken; what does not fit is cut by the pane.
    """
    from textwrap import wrap

    return [[(line, look)] for line in wrap(text, max(width, least))]


def wrapped_line(line: Line, width: int) -> list[Line]:
    """A line broken between words, each with its look. What follows stands under the first word, or beside a key."""
    if width_of(line) <= width:
        return [line]
    hang = len(line[0][0]) - len(line[0][0].lstrip())
    if len(line) > 1 and (line[0][1] == "key" or line[0][0] == "● "):
        hang = cell_len(line[0][0]) + len(line[1][0]) - len(line[1][0].lstrip())
    lines: list[Line] = [[]]
    for word, look in ((word, look) for text, look in line for word in re.findall(r"\s*\S+|\s+$", text)):
        if lines[-1] and width_of(lines[-1]) + cell_len(word) > width:
            lines.append([(" " * hang, ""), (word.lstrip(), look)])
        else:
            lines[-1].append((word, look))
    return lines


def cut_line(line: Sequence[Piece], width: int) -> Line:
    """The pieces that fit; the first that does not is cut and the rest left out."""
    out: Line = []
    for text, style in line:
        size = cell_len(text)
        if size > width:
            if width > 0:
                out.append((cut(text, width), style))
            break
        out.append((text, style))
        width -= size
    return out


def spread(start: Sequence[Piece], end: Sequence[Piece], width: int) -> Line:
    """Two groups at the two ends of a line; if there is no room for both, the second is left out."""
    room = width - width_of(start) - width_of(end)
    if room < 1:
        return cut_line(start, width)
    return [*start, (" " * room, ""), *end]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something a crowded line may say at length, in short, or not at all."""

    variants: tuple[Line, ...]
    """From long to short; an empty last one means that it can be left out."""
    weight: int
    """The lightest part shrinks first."""


def part(weight: int, *variants: Line) -> Part:
    """`Part`, from its weight and what it may say."""
    return Part(variants=variants, weight=weight)


def fit(parts: Sequence[Part], width: int, separator: str = "  ") -> list[Line]:
    """Choose a variant of every part so that all fit side by side: the lightest parts go short, then go.

    The result keeps the order of the parts and leaves out the empty ones. Nothing is ever cut in the middle; if even
    the shortest variants are too long, the result is too, and the caller decides.
    """
    return [line for line in _variants(parts, width, separator) if line]


def _variants(parts: Sequence[Part], width: int, separator: str) -> list[Line]:
    level = [0] * len(parts)

    def chosen() -> list[Line]:
        return [each.variants[n] for each, n in zip(parts, level, strict=True)]

    def size() -> int:
        sizes = [width_of(line) for line in chosen() if line]
        return sum(sizes) + len(separator) * max(0, len(sizes) - 1)

    while size() > width:
        able = [i for i, each in enumerate(parts) if level[i] + 1 < len(each.variants)]
        if not able:
            break
        level[min(able, key=lambda i: (parts[i].weight, -i))] += 1
    return chosen()


def joined(lines: Sequence[Line], separator: str = "  ") -> Line:
    """Side by side; empty ones are left out."""
    out: Line = []
    for line in lines:
        if line:
            out += [(separator, "muted"), *line] if out else line
    return out


def fit_ends(start: Sequence[Part], end: Sequence[Part], width: int, separator: str = "  ") -> Line:
    """As `fit`, in one line, the second group at its right end."""
    chosen = _variants([*start, *end], width, separator)
    first, last = joined(chosen[: len(start)], separator), joined(chosen[len(start) :], separator)
    room = width - width_of(first) - width_of(last)
    return [*first, (" " * max(room, 1), ""), *last] if last else first


def number(value: float | None, digits: int = 3) -> str:
    """About `digits` significant digits, no exponent: 98.1, 8.24, 0.17, 1,204; '-' if missing or not a number."""
    if value is None or value != value:
        return "-"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    before = len(str(int(size)))
    places = max(0, digits - (before if size >= 1 else 1))
    return f"{value:,.{places}f}"
