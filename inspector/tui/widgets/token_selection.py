"""Mouse selection in the token pane: which cells it covers, and what text it copies.

Textual speaks of a selection in characters of the shown lines. What is copied is the text as shown, so that no escape
sequence reaches a clipboard, with three differences: newlines and tabs are real again, lines that only the width of
the pane broke are joined, and marks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.selection import Selection
from textual.strip import Strip

from inspector.drawing.safe_text import NEWLINE
from inspector.tui.widgets.token_layout import TAB, TokenLayout


def with_selection(strip: Strip, span: tuple[int, int] | None, style: Style) -> Strip:
    """A line with the selected characters restyled; span is (start, end), end -1 for the end of the line."""
    if span is None:
        return strip
    text = strip.text
    start, end = span
    left = cell_len(text[:start])
    right = strip.cell_length if end == -1 else min(cell_len(text[:end]), strip.cell_length)
    if right <= left:
        return strip
    before, chosen, after = (strip.crop(0, left), strip.crop(left, right), strip.crop(right, strip.cell_length))
    restyled = Segment.apply_style(list(chosen), None, style)
    return Strip([*before, *restyled, *after], strip.cell_length)


def selected_text(layout: TokenLayout, tokens: Sequence[str], selection: Selection) -> str:
    """What a selection copies."""
    first = selection.start.y if selection.start else 0
    last = selection.end.y if selection.end else layout.n_lines - 1
    copied: list[str] = []
    for line in range(max(first, 0), min(last, layout.n_lines - 1) + 1):
        span = selection.get_span(line)
        if span is None:
            continue
        start, end = span
        at = 0
        for piece in layout.line(line):
            stop = at + len(piece.text)
            shown = piece.text[max(start - at, 0) : len(piece.text) if end == -1 else max(end - at, 0)]
            copied.append(_copyable(shown, tokens[piece.token], whole=piece.text))
            at = stop + piece.marked
    return "".join(copied)


def _copyable(shown: str, raw: str, *, whole: str) -> str:
    if "\t" in raw:
        shown = shown.replace(TAB, "\t")
    if "\n" in raw and shown.endswith(NEWLINE) and whole.endswith(NEWLINE):
        shown = shown[: -len(NEWLINE)] + "\n"
    return shown
