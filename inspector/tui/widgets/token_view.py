"""The drawing half of the token pane: a document's tokens wrapped to lines and coloured, without keys or messages.

Lines are laid out once per document and width, and their strips are kept until something changes their colours. Only
visible lines are ever built, so what a repaint costs does not depend on the document. Where the view stands in a long
document is Textual's scroll offset; the height is set without a layout pass, which would repaint the whole screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from inspector.drawing.levels import LegendData, ScaleBook
from inspector.drawing.palette import TokenPalette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import visible
from inspector.drawing.tokens import DEFAULT_MODE, OUTLIER, TokenDocument, TokenMode
from inspector.tui.widgets.state_lines import State, state_line
from inspector.tui.widgets.token_layout import TokenLayout
from inspector.tui.widgets.token_lines import Colouring, line_strip
from inspector.tui.widgets.token_selection import selected_text, with_selection

FLUSH_SECONDS = 1 / 6
"""Growing documents are drawn this often: fast enough to read along, slow enough for a slow line."""
SLICE = 4096
"""Tokens laid out between two looks at the keyboard, about 10 ms."""
MAX_STRIPS = 2048


class TokenView(ScrollView):
    """A document's tokens coloured by level."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "token-view--title",
        "token-view--failed",
        "token-view--detail",
    }
    DEFAULT_CSS = """
    TokenView {
        padding: 0 0 0 1;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-color: $border-blurred;
        scrollbar-color-hover: $border;
        scrollbar-color-active: $border;
        scrollbar-background: $surface;
        scrollbar-background-hover: $surface;
        scrollbar-background-active: $surface;
        background: $surface;
        & .token-view--title { color: $foreground; background: $surface; text-style: bold; }
        & .token-view--failed { color: $error; background: $surface; text-style: bold; }
        & .token-view--detail { color: $text-muted; background: $surface; }
    }
    """

    def __init__(
        self,
        *,
        palette: TokenPalette | None = None,
        scales: ScaleBook | None = None,
        mode: TokenMode = DEFAULT_MODE,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """A view in its empty state.

        Args:
            palette: Styles; the default theme's in 24-bit colour if None. The app sets what its theme makes.
            scales: Share one book between views that must be comparable.
            mode: What colour means at first.
            id: Of the widget.
            classes: Of the widget.
        """
        super().__init__(id=id, classes=classes)
        self.palette = palette if palette is not None else build_palette(DEFAULT_ENDPOINTS, "truecolor")
        self.scales = scales if scales is not None else ScaleBook()
        self.mode = mode
        self.sae = 0
        self.marks = self.palette.marks_by_default
        self.document: TokenDocument | None = None
        self.cursor = 0
        """Position of the token under the cursor."""
        self.state: State | None = "empty"
        """None while tokens are shown."""
        self._state_text = ("No tokens yet", "")
        self._hits: tuple[range, ...] = ()
        self._wrapped = TokenLayout(80)
        self._strips: dict[int, Strip] = {}
        self._colouring: Colouring | None = None
        self._flush_timer: Timer | None = None
        self._slice_timer: Timer | None = None

    # ---- what is shown ----------------------------------------------------------------------------------------

    def show_state(self, state: State, title: str, detail: str = "") -> None:
        """Show a message in place of tokens: nothing there, loading, or failed. Nothing moves while it is shown."""
        self.document, self._hits = None, ()
        self.state, self._state_text = state, (visible(title), visible(detail) if detail else "")
        self._lay_out()
        self._recolour()

    def set_sae(self, sae: int) -> None:
        """Colour by another SAE's scores (an index into the document's `saes`)."""
        self.sae = sae
        self._recolour()

    def set_mode(self, mode: TokenMode) -> None:
        """Let colour mean something else."""
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
        self._hits = tuple(hits)
        self._recolour()

    def document_grew(self) -> None:
        """Say that the document shown was extended; it is drawn within FLUSH_SECONDS."""
        if self._flush_timer is None:
            self._flush_timer = self.set_timer(FLUSH_SECONDS, self._flush)

    @property
    def legend(self) -> LegendData:
        """What the present colours mean."""
        mode, palette, scales = self.mode, self.palette, self.scales
        n_shares = len(palette.shares) if mode.size is None else palette.n_shares
        return LegendData(
            mode=mode,
            palette=palette,
            size_scale=scales.scale(mode.size, palette.n_sizes) if mode.size else None,
            share_scale=scales.scale(mode.share, n_shares) if mode.share else None,
            marks=self.marks,
            outliers=self.document is not None and OUTLIER in self.document.split,
        )

    # ---- laying out -------------------------------------------------------------------------------------------

    def _set_shown(self, document: TokenDocument) -> bool:
        """Take a document; False if it has the tokens already laid out, so that only colours change."""
        before, self.document = self.document, document
        self.state = None if len(document) else "empty"
        self._state_text = ("This document has no tokens", visible(document.name) if document.name else "")
        self.scales.observe(document)
        if before is not None and before.token_ids == document.token_ids and before.tokens == document.tokens:
            return False
        self._hits = ()
        self._lay_out()
        return True

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
        was_empty = self.state is not None
        self.state = None
        top, height = self.scroll_offset.y, self.size.height
        following = wrapped.n_lines <= top + height
        line, column = wrapped.place_of(wrapped.n_tokens - 1) if wrapped.n_tokens else (0, 0)
        first = wrapped.extend(document.tokens[wrapped.n_tokens :])
        self._forget_from(min(first, line))
        self._fit_height()
        last = wrapped.n_lines - 1
        if was_empty:
            self.refresh()
        elif following and last >= top + height:
            self._scroll(last - 2 * height // 3)
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
        size = Size(self._wrapped.width, lines)
        if size != self.virtual_size:
            self.set_reactive(ScrollView.virtual_size, size)
            if self.is_attached:
                self._scroll_update(size)

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap anew if the width changed."""
        if self.scrollable_content_region.width != self._wrapped.width:
            self._lay_out()
            self._recolour()
            self._reveal(self.cursor)

    # ---- scrolling --------------------------------------------------------------------------------------------

    def _scroll(self, line: int) -> None:
        """Scroll so that this line is on top; never animated: each frame would repaint the pane."""
        self.scroll_to(y=max(line, 0), animate=False, force=True, immediate=True)

    def _reveal(self, token: int) -> None:
        """Scroll as little as needed, but then a third of the view further, so that steps at an edge stay cheap."""
        if self.document is None or not len(self.document):
            return
        self._lay_out_until(token)
        line, _ = self._wrapped.place_of(token)
        top, height = self.scroll_offset.y, self.size.height
        if line < top:
            self._scroll(line - 2 * height // 3)
        elif line >= top + height > 0:
            self._scroll(line - height // 3)

    # ---- drawing ----------------------------------------------------------------------------------------------

    def _recolour(self) -> None:
        """Forget every strip and repaint once."""
        self._strips.clear()
        self._colouring = None
        self.refresh()

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
        """One line of the widget: tokens, or the message of a state."""
        width = self.size.width
        if self.state is not None or self.document is None:
            return self._state_strip(y, width)
        line = self.scroll_offset.y + y
        strip = self._line(line, width)
        selection = self.text_selection
        if selection is not None:
            strip = with_selection(strip, selection.get_span(line), self._selection_style)
        return strip.apply_offsets(0, line)

    def _line(self, line: int, width: int) -> Strip:
        assert self.document is not None
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
        strip = self._strips.get(line)
        if strip is not None and strip.cell_length == width and self.cursor not in self._tokens_of(line):
            return strip
        strip = line_strip(
            self._wrapped.line(line),
            self._colouring,
            width,
            cursor=self.cursor,
            focused=self.has_focus,
            hits=self._hits,
        )
        if self.cursor not in self._tokens_of(line):
            if len(self._strips) >= MAX_STRIPS:
                self._strips.clear()
            self._strips[line] = strip
        return strip

    def _tokens_of(self, line: int) -> range:
        return self._wrapped.tokens_of(line, 1)

    def _state_strip(self, y: int, width: int) -> Strip:
        assert self.state is not None
        title = "token-view--failed" if self.state == "failed" else "token-view--title"
        return state_line(
            y,
            Size(width, self.size.height),
            self._state_text,
            title_style=self.get_component_rich_style(title),
            detail_style=self.get_component_rich_style("token-view--detail"),
        )

    # ---- selecting with the mouse -----------------------------------------------------------------------------

    @property
    def _selection_style(self) -> Style:
        return self.screen.get_component_rich_style("screen--selection")

    def selection_updated(self, selection: Selection | None) -> None:
        """Repaint what is selected."""
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Text under the mouse selection, for the clipboard: real newlines and tabs, nothing else a terminal reads."""
        if self.document is None:
            return None
        return selected_text(self._wrapped, self.document.tokens, selection), "\n"
