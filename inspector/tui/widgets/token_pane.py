"""The token pane: a document's tokens, each coloured by its errors, with a cursor.

It takes data and posts messages; it knows no session and no other widget. What a screen does with it:

    pane = TokenPane(id="tokens")
    pane.set_document(document)                    # a TokenDocument; also with better scores of the same tokens:
                                                   # cursor and scroll position stay, the colours sharpen
    pane.set_sae(3, ranges); pane.set_mode(mode); pane.set_palette(palette)
    pane.set_marks(True); pane.set_hits([range(5, 7)])
    pane.move_to(416)                              # the cursor; scrolls if needed, posts CursorMoved
    document.extend(...); pane.document_grew()     # generation: drawn a few times a second, whatever the rate

    pane.document, pane.cursor, pane.sae, pane.mode, pane.palette, pane.marks, pane.legend     # to read

    TokenPane.CursorMoved(position)                # the cursor is on another token
    TokenPane.EdgeReached(step)                    # the user walked past the last (+1) or before the first token (-1)
    TokenPane.LegendChanged(legend)                # feed it to Legend.show: mode, edges, palette, marks

What things cost at 120x40 in 24-bit colour: a cursor step two small regions (under 400 bytes), a page or a recolouring
one repaint of the pane. Levels are computed for visible lines only, so a width switch does not depend on the length of
the document; the edges come from ranges that were measured on the whole text.

Styles of tokens come from a `TokenPalette` (`inspector.tui.themes.palette_of(app)`), not from CSS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from inspector.drawing.levels import LegendData, Ranges, legend_of
from inspector.drawing.palette import TokenPalette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.tokens import DEFAULT_MODE, TokenDocument, TokenMode
from inspector.tui.widgets.line_pane import LineScroll
from inspector.tui.widgets.token_layout import TokenLayout
from inspector.tui.widgets.token_lines import Colouring, line_strip, rich_style, selected_text, with_selection

FLUSH_SECONDS = 1 / 6
"""Growing documents are drawn this often: fast enough to read along, slow enough for a slow line."""
SLICE = 4096
"""Tokens laid out between two looks at the keyboard, about 10 ms."""
MAX_STRIPS = 2048


class TokenPane(LineScroll, can_focus=True):
    """A document's tokens coloured by level, with a cursor. See the module's docstring for how to use it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "previous token", show=False, id="token-pane.previous"),
        Binding("right,l", "step(1)", "next token", show=False, id="token-pane.next"),
        Binding("up,k", "line(-1)", "line up", show=False, id="token-pane.up"),
        Binding("down,j", "line(1)", "line down", show=False, id="token-pane.down"),
        Binding("pageup", "page(-1)", "page up", show=False, id="token-pane.page-up"),
        Binding("pagedown", "page(1)", "page down", show=False, id="token-pane.page-down"),
        Binding("home", "end(-1)", "first token", show=False, id="token-pane.first"),
        Binding("end", "end(1)", "last token", show=False, id="token-pane.last"),
    ]

    @dataclass
    class CursorMoved(Message):
        """The cursor stands on another token."""

        pane: TokenPane
        position: int

    @dataclass
    class EdgeReached(Message):
        """The user walked past an end of the document."""

        step: int
        """+1 past the last token, -1 before the first."""

    @dataclass
    class LegendChanged(Message):
        """Mode, edges, palette or marks changed."""

        legend: LegendData

    def __init__(self, *, palette: TokenPalette | None = None, id: str | None = None) -> None:
        """A pane without a document.

        Args:
            palette: Styles; the default theme's in 24-bit colour if None. The app sets what its theme makes.
            id: Of the widget.
        """
        super().__init__(id=id)
        self.palette = palette if palette is not None else build_palette(DEFAULT_ENDPOINTS, "truecolor")
        self.ranges: Ranges = {}
        """Measured on the whole text, of the SAE that is shown."""
        self.relative = False
        """Whether the colours' edges are those of this document alone."""
        self.mode = DEFAULT_MODE
        self.sae = 0
        self.marks = self.palette.marks_by_default
        self.document: TokenDocument | None = None
        self.cursor = 0
        """Position of the token under the cursor."""
        self._goal_column: int | None = None
        """Column that up and down try to keep."""
        self._told_legend: LegendData | None = None
        self._hits: tuple[range, ...] = ()
        self._wrapped = TokenLayout(80)
        self._strips: dict[int, Strip] = {}
        self._colouring: Colouring | None = None
        self._flush_timer: Timer | None = None
        self._slice_timer: Timer | None = None

    # ---- what is shown ----------------------------------------------------------------------------------------

    def set_document(self, document: TokenDocument, *, cursor: int | None = None) -> None:
        """Show a document.

        Args:
            document: If it has the very tokens that are shown, only the colours change: cursor and scroll stay.
            cursor: Where to put the cursor; if None, on the first included token of a new document.
        """
        before, self.document = self.document, document
        is_new = before is None or before.token_ids != document.token_ids or before.tokens != document.tokens
        if is_new:
            self._hits = ()
            self._lay_out()
            self.cursor = min(next(document.included(), 0), max(len(document) - 1, 0))
            self._goal_column = None
            self.scroll_to_line(0)
        self._recolour()
        if cursor is not None and len(document):
            self.cursor = min(max(cursor, 0), len(document) - 1)
        if len(document) and (is_new or cursor is not None):
            self._reveal(self.cursor)
            self.post_message(self.CursorMoved(self, self.cursor))

    def set_sae(self, sae: int, ranges: Ranges, *, relative: bool = False) -> None:
        """Colour by another SAE's scores.

        Args:
            sae: an index into the document's `saes`.
            ranges: of its measures over the whole text.
            relative: whether the edges are those of this document instead.
        """
        if (sae, ranges, relative) != (self.sae, self.ranges, self.relative):
            self.sae, self.ranges, self.relative = sae, ranges, relative
            self._recolour()

    def set_mode(self, mode: TokenMode) -> None:
        """Let colour mean something else."""
        if mode is not self.mode:
            self.mode = mode
            self._recolour()

    def set_palette(self, palette: TokenPalette) -> None:
        """Take the styles of a theme at a colour depth; marks are switched as that palette wishes."""
        self.palette = palette
        self._recolour()
        self.set_marks(palette.marks_by_default)

    def set_marks(self, marks: bool) -> None:
        """Draw a mark after each token that says its level without colour, or stop doing so."""
        if marks != self.marks:
            self.marks = marks
            self._lay_out()
            self._recolour()
            self._reveal(self.cursor)

    def set_hits(self, hits: Sequence[range]) -> None:
        """Mark ranges of tokens, such as what a search found."""
        if tuple(hits) != self._hits:
            self._hits = tuple(hits)
            self._recolour()

    def document_grew(self) -> None:
        """Say that the document shown was extended; it is drawn within FLUSH_SECONDS."""
        if self._flush_timer is None:
            self._flush_timer = self.set_timer(FLUSH_SECONDS, self._flush)

    @property
    def legend(self) -> LegendData:
        """What the present colours mean."""
        return legend_of(
            self.mode, self.palette, self.ranges, self.document, self.sae, marks=self.marks, relative=self.relative
        )

    # ---- laying out -------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Wrap from the beginning; what is longer than a slice continues while keys are answered."""
        self._wrapped = TokenLayout(self.scrollable_content_region.width or 80, marks=self.marks)
        self._strips.clear()
        if self._slice_timer is not None:
            self._slice_timer.stop()
            self._slice_timer = None
        if self.document is not None:
            self._wrapped.extend(self.document.tokens[:SLICE])
            if self._wrapped.n_tokens < len(self.document):
                self._slice_timer = self.set_interval(0.02, self._lay_out_slice)
        self._fit_height()

    def _lay_out_slice(self) -> None:
        if self.document is None or self._slice_timer is None:
            return
        start = self._wrapped.n_tokens
        first = self._wrapped.extend(self.document.tokens[start : start + SLICE])
        self._forget_from(first)
        if self._wrapped.n_tokens >= len(self.document):
            self._slice_timer.stop()
            self._slice_timer = None
            self._fit_height()
            self.refresh()

    def _lay_out_until(self, token: int) -> None:
        """Wrap at once what is needed to know where a token stands, and a slice beyond."""
        start = self._wrapped.n_tokens
        if self.document is not None and start <= token < len(self.document):
            self._forget_from(self._wrapped.extend(self.document.tokens[start : token + SLICE]))
            self._fit_height()
            self.refresh()

    def _forget_from(self, line: int) -> None:
        for known in [known for known in self._strips if known >= line]:
            del self._strips[known]

    def _flush(self) -> None:
        """Draw what was appended: only its cells, and in jumps of a third of the view if the end is followed."""
        self._flush_timer = None
        document, wrapped = self.document, self._wrapped
        if document is None or self._slice_timer is not None or wrapped.n_tokens >= len(document):
            return
        was_empty = not wrapped.n_tokens
        top, height = self.scroll_offset.y, self.size.height
        following = wrapped.n_lines <= top + height
        line, column = wrapped.place_of(wrapped.n_tokens - 1) if wrapped.n_tokens else (0, 0)
        first = wrapped.extend(document.tokens[wrapped.n_tokens :])
        self._forget_from(min(first, line))
        self._fit_height()
        last = wrapped.n_lines - 1
        if was_empty:
            self.refresh()
            self.post_message(self.CursorMoved(self, self.cursor))
        elif following and last >= top + height:
            self.scroll_to_line(last - 2 * height // 3)
        else:
            column = min(column, wrapped.line_width(line))  # A word that moved down left a gap.
            changed = [(line, column), *((row, 0) for row in range(line + 1, last + 1))]
            regions = [
                Region(left, row - top, self.size.width - left, 1) for row, left in changed if 0 <= row - top < height
            ]
            if regions:
                self.refresh(*regions)

    def _fit_height(self) -> None:
        """Tell the scroll bar how many lines there are; a third of the view stays free below a growing document."""
        height = self.size.height
        lines = self._wrapped.n_lines if self.document is not None else 0
        if self.document is not None and self.document.source == "generated" and lines > height > 0:
            third = max(height // 3, 1)
            lines = -(-lines // third) * third + third
        self.set_lines(lines)

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap anew if the width changed."""
        if self.scrollable_content_region.width != self._wrapped.width:
            self._lay_out()
            self._recolour()
            self._reveal(self.cursor)

    def _reveal(self, token: int) -> None:
        """Scroll as little as needed, but then a third of the view further, so that steps at an edge stay cheap."""
        if self.document is None or not len(self.document):
            return
        self._lay_out_until(token)
        line, _ = self._wrapped.place_of(token)
        top, height = self.scroll_offset.y, self.size.height
        if line < top:
            self.scroll_to_line(line - 2 * height // 3)
        elif line >= top + height > 0:
            self.scroll_to_line(line - height // 3)

    # ---- drawing ----------------------------------------------------------------------------------------------

    def _recolour(self) -> None:
        """Forget every strip, repaint once, and tell what the colours mean now."""
        self._strips.clear()
        self._colouring = None
        self.refresh()
        legend = self.legend
        if legend != self._told_legend and self.is_attached:
            self._told_legend = legend
            self.post_message(self.LegendChanged(legend))

    def _refresh_token(self, token: int) -> None:
        """Repaint the cells of one token."""
        top = self.scroll_offset.y
        regions = [
            Region(piece.column, line - top, piece.width, 1)
            for line, piece in self._wrapped.pieces_of(token)
            if 0 <= line - top < self.size.height
        ]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        width = self.size.width
        if self.document is None or not len(self.document):
            text = "No tokens yet" if self.document is None else "This document has no tokens"
            shown = text[:width].center(width) if y == self.size.height // 2 else " " * width
            return Strip([Segment(shown, rich_style(self.palette.plain))], width)
        line = self.scroll_offset.y + y
        strip = self._line(line, width)
        selection = self.text_selection
        if selection is not None:
            strip = with_selection(strip, selection.get_span(line), rich_style(self.palette.selected))
        return strip.apply_offsets(0, line)

    def _line(self, line: int, width: int) -> Strip:
        assert self.document is not None, "only a document has lines"
        if self._colouring is None:
            legend = self.legend
            self._colouring = Colouring(
                document=self.document,
                sae=self.sae,
                mode=self.mode,
                palette=self.palette,
                size_scale=legend.size_scale,
                share_scale=legend.share_scale,
            )
        has_cursor = self.cursor in self._wrapped.tokens_of(line)
        strip = self._strips.get(line)
        if strip is not None and strip.cell_length == width and not has_cursor:
            return strip
        pieces = self._wrapped.line(line)
        strip = line_strip(pieces, self._colouring, width, cursor=self.cursor, focused=self.has_focus, hits=self._hits)
        if not has_cursor:
            if len(self._strips) >= MAX_STRIPS:
                self._strips.clear()
            self._strips[line] = strip
        return strip

    def move_to(self, position: int, *, keep_column: bool = False) -> None:
        """Put the cursor on a token, clamped to the document; scrolls if needed and posts CursorMoved if it moved."""
        if self.document is None or not len(self.document):
            return
        position = min(max(position, 0), len(self.document) - 1)
        if not keep_column:
            self._goal_column = None
        if position != self.cursor:
            before, self.cursor = self.cursor, position
            self._lay_out_until(position)
            self._refresh_token(before)
            self._refresh_token(position)
            self.post_message(self.CursorMoved(self, position))
        self._reveal(position)

    # ---- keys and mouse ---------------------------------------------------------------------------------------

    def action_step(self, step: int) -> None:
        """To the next or previous token."""
        if self.document is not None and not 0 <= self.cursor + step < len(self.document):
            self.post_message(self.EdgeReached(step))
            return
        self.move_to(self.cursor + step)

    def action_line(self, step: int) -> None:
        """To the token nearest in the next or previous line."""
        self._move_lines(step)

    def action_page(self, step: int) -> None:
        """One view further or back; the cursor keeps its place in the view."""
        height = max(self.size.height, 1)
        if self.document is not None and len(self.document):
            self._lay_out_until(min(self.cursor + SLICE, len(self.document) - 1))
            self.scroll_to_line(min(self.scroll_offset.y + step * height, max(self._wrapped.n_lines - height, 0)))
        self._move_lines(step * height)

    def action_end(self, step: int) -> None:
        """To the first or last token."""
        if self.document is not None:
            self.move_to(0 if step < 0 else len(self.document) - 1)

    def _move_lines(self, step: int) -> None:
        if self.document is None or not len(self.document):
            return
        self._lay_out_until(self.cursor)
        line, column = self._wrapped.place_of(self.cursor)
        if self._goal_column is None:
            self._goal_column = column
        if step > 0:
            self._lay_out_until(min(self.cursor + SLICE, len(self.document) - 1))
        last, _ = self._wrapped.place_of(self._wrapped.n_tokens - 1)
        if (step > 0 and line >= last) or (step < 0 and line <= 0):
            self.post_message(self.EdgeReached(1 if step > 0 else -1))
            return
        token = self._wrapped.token_at(min(max(line + step, 0), last), self._goal_column)
        if token is not None:
            if token == self.cursor:  # A token that fills whole lines: walk past it.
                token += 1 if step > 0 else -1
            self.move_to(token, keep_column=True)

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the token that was clicked."""
        offset = event.get_content_offset(self)
        if offset is None or self.document is None:
            return
        token = self._wrapped.token_at(self.scroll_offset.y + offset.y, offset.x)
        if token is not None:
            self.move_to(token)

    def on_mount(self) -> None:
        """Tell the legend what colours mean from the start."""
        self._recolour()

    def on_focus(self) -> None:
        """Show the cursor as active."""
        self._refresh_token(self.cursor)

    def on_blur(self) -> None:
        """Show the cursor as resting."""
        self._refresh_token(self.cursor)

    # ---- selecting with the mouse -----------------------------------------------------------------------------

    def selection_updated(self, selection: Selection | None) -> None:
        """Repaint what is selected."""
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Text under the mouse selection, for the clipboard: real newlines and tabs, nothing else a terminal reads."""
        if self.document is None:
            return None
        return selected_text(self._wrapped, self.document.tokens, selection), "\n"
