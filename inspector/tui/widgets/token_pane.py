"""The token pane: a document's tokens, each coloured by its errors, with a cursor.

It takes data and posts messages; it knows no session and no other widget. What a screen does with it:

    pane = TokenPane(id="tokens")                  # shows the "empty" state
    pane.show_state("loading", "Loading the model", "gemma-2-9b")      # or "failed", "empty"
    pane.set_document(document)                    # a TokenDocument; also with better scores of the same tokens:
                                                   # cursor and scroll position stay, the colours sharpen
    pane.set_sae(3); pane.set_mode(mode); pane.set_palette(palette); pane.set_marks(True); pane.set_hits([range(5, 7)])
    pane.move_to(416)                              # the cursor; scrolls if needed, posts CursorMoved
    document.extend(...); pane.document_grew()     # generation: drawn a few times a second, whatever the rate

    pane.document, pane.cursor, pane.sae, pane.mode, pane.palette, pane.marks, pane.scales, pane.legend     # to read

    TokenPane.CursorMoved(position)                # the cursor is on another token
    TokenPane.EdgeReached(step)                    # the user walked past the last (+1) or before the first token (-1)
    TokenPane.LegendChanged(legend)                # feed it to Legend.show: mode, edges, palette, marks

What things cost at 120x40 in 24-bit colour: a cursor step two small regions (under 400 bytes), a page or a recolouring
one repaint of the pane. Levels are computed for visible lines only, so a width switch does not depend on the length of
the document; the edges come from the ScaleBook (`scales`), which learns when a document is set.

Styles of tokens come from a `TokenPalette` (`inspector.tui.themes.Theme.palette(depth_of(app))`), not from CSS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from inspector.drawing.levels import LegendData
from inspector.drawing.tokens import TokenDocument
from inspector.tui.widgets.token_view import SLICE, TokenView


class TokenPane(TokenView, can_focus=True):
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
    HELP = """
    The background of each token says how large its SAE error is and which part of it an affine map of the activation
    predicts. The legend gives the numbers at which the shades change. Dimmed tokens are excluded from fits and scales.
    """

    @dataclass
    class CursorMoved(Message):
        """The cursor stands on another token."""

        pane: TokenPane
        position: int

        @property
        def control(self) -> TokenPane:
            """The pane, so that handlers can select by id."""
            return self.pane

    @dataclass
    class EdgeReached(Message):
        """The user walked past an end of the document."""

        pane: TokenPane
        step: int
        """+1 past the last token, -1 before the first."""

        @property
        def control(self) -> TokenPane:
            """The pane, so that handlers can select by id."""
            return self.pane

    @dataclass
    class LegendChanged(Message):
        """Mode, edges, palette or marks changed."""

        pane: TokenPane
        legend: LegendData

        @property
        def control(self) -> TokenPane:
            """The pane, so that handlers can select by id."""
            return self.pane

    _goal_column: int | None = None
    """Column that up and down try to keep."""
    _told_legend: LegendData | None = None

    def set_document(self, document: TokenDocument, *, cursor: int | None = None) -> None:
        """Show a document.

        Args:
            document: If it has the very tokens that are shown, only the colours change: cursor and scroll stay.
            cursor: Where to put the cursor; if None, on the first included token of a new document.
        """
        is_new = self._set_shown(document)
        if is_new:
            self.cursor = min(next(document.included(), 0), max(len(document) - 1, 0))
            self._goal_column = None
            self._scroll(0)
        self._recolour()
        if cursor is not None and len(document):
            self.cursor = min(max(cursor, 0), len(document) - 1)
        if len(document) and (is_new or cursor is not None):
            self._reveal(self.cursor)
            self.post_message(self.CursorMoved(self, self.cursor))

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
            self.post_message(self.EdgeReached(self, step))
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
            self._scroll(min(self.scroll_offset.y + step * height, max(self._wrapped.n_lines - height, 0)))
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
            self.post_message(self.EdgeReached(self, 1 if step > 0 else -1))
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

    # ---- telling others -------------------------------------------------------------------------------------

    def _flush(self) -> None:
        was_empty = self.state is not None
        super()._flush()
        if was_empty and self.state is None:
            self.post_message(self.CursorMoved(self, self.cursor))

    def _recolour(self) -> None:
        super()._recolour()
        legend = self.legend
        if legend != self._told_legend and self.is_attached:
            self._told_legend = legend
            self.post_message(self.LegendChanged(self, legend))
