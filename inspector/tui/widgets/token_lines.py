"""Turns the pieces of one line into a strip: levels, styles, marks, hits, cursor. No widget state lives here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from inspector.drawing.levels import LevelScale
from inspector.drawing.palette import OUTLIER_MARK, CellStyle, TokenPalette
from inspector.drawing.tokens import OUTLIER, TokenDocument, TokenMode
from inspector.tui.widgets.token_layout import Piece


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
