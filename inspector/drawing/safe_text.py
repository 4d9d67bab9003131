"""Token text as a terminal may safely show it.

A token may hold any character at all: escape sequences, bidirectional overrides, half of a UTF-8 sequence, a lone
accent. `visible` turns every character that a terminal would interpret, hide or join to its neighbour into a symbol
that stands for it. What comes out has three properties the token pane relies on, and the tests generate text for:

- no character of the Unicode categories Cc, Cf, Cs, Co, Cn, Zl or Zp;
- its width is the sum of the widths of its characters as Rich and Textual count them, in any company: no zero-width
  joiner, no variation selector, and no mark without a base of its own token;
- it is never empty, so that every token occupies at least one cell.

Not handled: terminals that reorder right-to-left letters by themselves. Those letters are ordinary text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rich.cells import cell_len

NEWLINE = "⏎"
TAB = "→"
EMPTY = "∅"
"""Stands for a token whose text is the empty string."""
CONTINUED = "⋯"
"""Stands for a token that goes on with the character of an earlier one, which is shown there as a whole."""
HALF = "�"
"""Stands for a lone surrogate; byte-level tokenizers already write it for half a character."""
INVISIBLE = "·"
"""Stands for a character that is there but takes no room: joiners, variation selectors, soft hyphens, tags."""
DIRECTION = "⇄"
"""Stands for a character that turns the reading direction."""
UNKNOWN = "▯"
"""Stands for private-use and unassigned code points, whose width terminals do not agree on."""
SKIN_TONE = "◪"
"""Stands for an emoji skin tone, which some terminals merge with the emoji before it."""
DOTTED_CIRCLE = "◌"
"""Carries a combining mark that has no base in its own token."""
MAX_MARKS = 3
"""Combining marks kept per base; the rest of a pile becomes `INVISIBLE`. Vietnamese and polytonic Greek need three."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_VARIATION_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_REGIONAL_A, _REGIONAL_Z, _CIRCLED_A = 0x1F1E6, 0x1F1FF, 0x24B6
_LINE_OR_PARAGRAPH = "↵"
_C1 = "␦"


def cell_width(text: str) -> int:
    """Cells that text takes, counted as Rich and Textual count them."""
    return cell_len(text)


@lru_cache(maxsize=65536)
def visible(text: str, *, newline: str = NEWLINE, tab: str = TAB) -> str:
    """Show text so that nothing in it is interpreted by a terminal and nothing is invisible.

    Args:
        text: Any string, lone surrogates included.
        newline: What a line feed becomes.
        tab: What a tab becomes; may be longer than one cell to keep indentation.
    """
    if text.isascii() and text.isprintable() and text:
        return text
    if not text:
        return EMPTY
    shown: list[str] = []
    marks = MAX_MARKS  # A mark at the start has no base: as if the pile were already full of someone else's marks.
    has_base = False
    for character in text:
        symbol = _symbol(character, newline, tab)
        if symbol is not None:
            shown.append(symbol)
            has_base, marks = False, 0
        elif cell_len(character) > 0:
            shown.append(character)
            has_base, marks = True, 0
        elif not has_base:
            shown.append(DOTTED_CIRCLE + character)
            has_base, marks = True, 1
        elif marks < MAX_MARKS:
            shown.append(character)
            marks += 1
        else:
            shown.append(INVISIBLE)
            has_base = False
    return "".join(shown)


def continues(tokens: Sequence[str], position: int) -> int | None:
    """Position of the token that shows the character which the one at `position` goes on with; None if it does not."""
    first = position
    while first > 0 and not tokens[first]:
        first -= 1
    return first if first < position and tokens[first][-1:] and not tokens[first][-1].isascii() else None


def visible_block(text: str) -> str:
    """Several lines, each as `visible` shows it; line feeds stay what they are, and empty lines empty."""
    return "\n".join(visible(line) if line else "" for line in text.split("\n"))


def _symbol(character: str, newline: str, tab: str) -> str | None:
    """What stands for a character that may not be shown; None if it may (perhaps as a mark on a base)."""
    code = ord(character)
    if code < 0x20:
        return newline if character == "\n" else tab if character == "\t" else chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if character.isprintable():
        if _REGIONAL_A <= code <= _REGIONAL_Z:  # Two of them would join to a flag, even across tokens.
            return chr(_CIRCLED_A + code - _REGIONAL_A)
        if 0x1F3FB <= code <= 0x1F3FF:
            return SKIN_TONE
        if character in _VARIATION_SELECTORS or unicodedata.category(character) == "Me":
            return INVISIBLE
        return None
    if character in _BIDI:
        return DIRECTION
    match unicodedata.category(character):
        case "Cc":
            return _C1
        case "Cf":
            return INVISIBLE
        case "Cs":
            return HALF
        case "Zl" | "Zp":
            return _LINE_OR_PARAGRAPH
        case "Zs":
            return "␣" if cell_len(character) == 1 else None
        case _:
            return UNKNOWN


def clusters(shown: str) -> Iterator[tuple[str, int]]:
    """Split the result of `visible` into what must stay together: (a base with its marks, its cells)."""
    start = 0
    for index in range(1, len(shown) + 1):
        if index == len(shown) or cell_len(shown[index]) > 0:
            cluster = shown[start:index]
            yield cluster, cell_len(cluster)
            start = index


@lru_cache(maxsize=65536)
def visible_lines(text: str, *, tab: str = TAB) -> tuple[tuple[str, int, bool], ...]:
    """A token cut after each newline: (shown text, its cells, whether the line ends after it) for each part.

    A token without a newline is one part. The parts of a token that ends in a newline all end their lines; nothing
    empty follows.
    """
    if "\n" not in text:
        shown = visible(text, tab=tab)
        return ((shown, cell_len(shown), False),)
    raw = text.split("\n")
    parts = [visible(part + "\n", tab=tab) for part in raw[:-1]]
    lines = [(part, cell_len(part), True) for part in parts]
    if raw[-1]:
        rest = visible(raw[-1], tab=tab)
        lines.append((rest, cell_len(rest), False))
    return tuple(lines)
