"""Turns the pieces of one line into a strip: levels, styles, marks, hits, cursor, selection; and the legend below them.

Textual speaks of a selection in characters of the shown lines. What is copied is the text as shown, so that no escape
sequence reaches a clipboard, with four differences: newlines and tabs are real again, lines that only the width of
the pane broke are joined, marks are left out, and so is what stands for a token without text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from inspector.drawing.levels import LegendData, LevelScale, legend_runs
from inspector.drawing.palette import OUTLIER_MARK, CellStyle, TokenPalette
from inspector.drawing.safe_text import NEWLINE
from inspector.drawing.tokens import OUTLIER, TokenDocument, TokenMode
from inspector.tui.widgets.token_layout import TAB, Piece, TokenLayout


@lru_cache(maxsize=1024)
def rich_style(cell: CellStyle) -> Style:
    """A cell's style in Rich's words; always one, since a segment without style stops Textual's NO_COLOR filter."""
    return Style(
        color=cell.foreground.removeprefix("ansi_"),
        bgcolor=cell.background.removeprefix("ansi_"),
        bold=cell.bold,
        dim=cell.dim,
        underline=cell.underline,
        reverse=cell.reverse,
    )


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """Everything that decides how a token looks, apart from cursor and hits."""

    document: TokenDocument
    sae: int
    mode: TokenMode
    palette: TokenPalette
    size_scale: LevelScale | None
    """None if the mode has no size."""
    share_scale: LevelScale | None

    def look(self, token: int) -> tuple[CellStyle, str]:
        """Style and mark of a token."""
        document, mode = self.document, self.mode
        if document.split[token] == "x":
            return self.palette.excluded, " "
        if document.split[token] == OUTLIER:
            return self.palette.outlier, OUTLIER_MARK
        if not document.saes:
            return self.palette.plain, " "
        scalars = document.scalars(token, self.sae)
        size = self.size_scale.level(mode.size.value(scalars)) if mode.size and self.size_scale else None
        share = self.share_scale.level(mode.share.value(scalars)) if mode.share and self.share_scale else None
        return self.palette.style(mode, size, share), self.palette.mark(mode, size, share)


@lru_cache(maxsize=1024)
def hit_style(cell: CellStyle, underline: bool) -> CellStyle:
    """How a search hit changes a token's style."""
    return replace(cell, bold=True, underline=True) if underline else replace(cell, reverse=True)


def is_hit(token: int, hits: Sequence[range]) -> bool:
    """Whether a token lies in one of the ranges; few ranges touch a line, so this is a plain scan."""
    return any(token in hit for hit in hits)


def line_strip(
    pieces: Iterable[Piece],
    colouring: Colouring,
    width: int,
    *,
    cursor: int | None = None,
    focused: bool = True,
    hits: Sequence[range] = (),
) -> Strip:
    """One line, exactly `width` cells, every segment styled; neighbours of equal style are one segment."""
    palette = colouring.palette
    runs: list[tuple[str, CellStyle]] = []
    used = 0
    for piece in pieces:
        cell, mark = colouring.look(piece.token)
        text = piece.text + mark if piece.marked else piece.text
        used += piece.width
        if piece.token == cursor:
            cell = palette.cursor if focused else replace(cell, underline=True, bold=True)
        elif hits and is_hit(piece.token, hits):
            cell = hit_style(cell, palette.hit_underline)
        elif len(piece.text) > 1 and piece.text.isspace():
            # Indentation: a wide bar would outshout the words, so the last cell alone says the level.
            runs.append((piece.text[:-1], palette.plain))
            text = text[len(piece.text) - 1 :]
        runs.append((text, cell))
    runs.append((" " * (width - used), palette.plain))
    segments = [
        Segment("".join(text for text, _ in group), rich_style(cell)) for cell, group in groupby(runs, itemgetter(1))
    ]
    return Strip([segment for segment in segments if segment.text], max(used, width))


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
    if not raw:  # its character is on an earlier token
        return ""
    if "\t" in raw:
        shown = shown.replace(TAB, "\t")
    if "\n" in raw and shown.endswith(NEWLINE) and whole.endswith(NEWLINE):
        shown = shown[: -len(NEWLINE)] + "\n"
    return shown


class Legend(Widget):
    """Feed it TokenPane.LegendChanged.legend. One line high; blank until then."""

    DEFAULT_CSS = """
    Legend { height: 1; width: 1fr; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        """A blank legend."""
        super().__init__(id=id)
        self.data: LegendData | None = None

    def show(self, data: LegendData) -> None:
        """Explain these colours."""
        if data != self.data:
            self.data = data
            self.tooltip = data.mode.meaning
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The legend's one line."""
        width = self.size.width
        if self.data is None or y > 0:
            return Strip.blank(width, self.rich_style)
        runs = legend_runs(self.data, width)
        segments = [Segment(text, rich_style(cell)) for text, cell in runs]
        used = sum(cell_len(text) for text, _ in runs)
        segments.append(Segment(" " * (width - used), rich_style(self.data.palette.plain)))
        return Strip([segment for segment in segments if segment.text], width)
