"""The panes of the Stream screen: which of them are visible in a window, and what each is told of the state.

Reads the state and draws it; changes nothing and asks nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical

from inspector.drawing.glossary import does
from inspector.drawing.safe_text import visible
from inspector.drawing.tokens import TOTAL
from inspector.tui.actions import footer_hints
from inspector.tui.lines import wrapped
from inspector.tui.widgets.bars import FooterPane, JobBar, TitleBar
from inspector.tui.widgets.detail import DetailPane, TokenFacts
from inspector.tui.widgets.entry import CommandBar
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.session_panes import HeaderPane, LoadPane
from inspector.tui.widgets.token_lines import Legend
from inspector.tui.widgets.token_pane import TokenPane
from inspector.tui.widgets.trace import PairsPane, TraceData, TracePane

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.geometry import Size

    from inspector.drawing.palette import TokenPalette
    from inspector.tui.lines import Line
    from inspector.tui.stream_state import StreamState

WIDE = 100
"""Columns from which the detail pane stands beside the tokens."""
SMALLEST = (60, 16)
"""Columns and lines below which nothing useful fits."""
SOURCE_NAMES = {"prompt": "your text", "generated": "generated text"}


def lower_height(width: int, height: int) -> int:
    """Lines of the lower pane in a window of this size; 0: there is no room for it."""
    if height < 22 or width < 70:
        return 0
    return 8 if height < 30 else 11 if height < 50 else 16


def too_small_lines(window: Size, width: int) -> list[Line]:
    """Which size is needed, and which there is."""
    sentence = f"This window is {window.width}x{window.height}. dm-inspect needs {SMALLEST[0]}x{SMALLEST[1]}. q quits."
    return wrapped(sentence, width, "strong")


class StreamPanes(Vertical):
    """All panes; hidden ones cost nothing."""

    DEFAULT_CSS = """
    StreamPanes {
        height: 1fr;
        layers: base over;
        & #detail-over { layer: over; margin: 2 0 1 0; width: 1fr; height: 1fr; display: none; }
        & #body { height: 1fr; display: none; }
        & #left { width: 1fr; }
        & #tokens { height: 1fr; }
        & #detail { margin-left: 1; }
        & #lower { height: 11; display: none; }
        & #trace { width: 1fr; }
        & #pairs { margin-left: 1; }
        & #detail-low { width: 1fr; display: none; }
        & #too-small { display: none; }
    }
    """

    def __init__(self, model: str, palette: TokenPalette, state: StreamState) -> None:
        """Panes that show nothing yet.

        Args:
            model: what was asked for.
            palette: of the theme.
            state: what is drawn.
        """
        super().__init__()
        self.state = state
        self.connecting_since = time.monotonic()
        self._model = model
        self._palette = palette
        self._show_detail = True
        self._low_is_detail = True
        """Whether a narrow window shows the detail below the tokens, in the plot's place."""
        self._over = False
        """Whether a window without room for either shows the detail over the tokens."""

    def compose(self) -> ComposeResult:
        """Everything at once; what is not needed yet is hidden."""
        yield HeaderPane(self._model, id="header")
        yield FooterPane(id="footer")
        yield CommandBar(id="bar")
        yield LoadPane(self._model, id="load")
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield TitleBar(id="tokens-title")
                yield TokenPane(palette=self._palette, id="tokens")
                yield Legend(id="legend")
            yield DetailPane(id="detail")
        with Horizontal(id="lower"):
            yield TracePane(id="trace")
            yield PairsPane(id="pairs")
            yield DetailPane(id="detail-low")
        yield DetailPane(id="detail-over")
        yield JobBar(id="jobs")
        yield LinePane(id="too-small")

    @property
    def tokens(self) -> TokenPane:
        """The token pane."""
        return self.query_one("#tokens", TokenPane)

    @property
    def trace(self) -> TracePane:
        """The plot."""
        return self.query_one("#trace", TracePane)

    # ---- which are visible ----------------------------------------------------------------------------------------

    def arrange_panes(self) -> None:
        """Decide what is on the screen: by its size, and by whether there is a text yet."""
        width, height = self.app.size
        fits = width >= SMALLEST[0] and height >= SMALLEST[1]
        has_text = self.state.text is not None
        wide, low = width >= WIDE, lower_height(width, height)
        show = {
            "too-small": not fits,
            "header": fits,
            "footer": fits,
            "jobs": fits and bool(self.state.session.unfinished),
            "load": fits and not has_text,
            "body": fits and has_text,
            "lower": fits and has_text and low > 0,
            "detail": wide and self._show_detail,
            "trace": wide or not self._low_is_detail,
            "pairs": wide,
            "detail-low": not wide and self._low_is_detail,
            "detail-over": fits and has_text and self._over and not (wide or low),
        }
        for name, shown in show.items():
            self.query_one(f"#{name}").display = shown
        if low:
            self.query_one("#lower").styles.height = low
        self.query_one("#too-small", LinePane).draw(lambda width, _: too_small_lines(self.app.size, width))
        self.query_one("#detail").styles.width = min(76, max(54, width * 2 // 5))
        focused = self.screen.focused
        if has_text and (focused is None or not all(node.display for node in focused.ancestors_with_self)):
            self.tokens.focus()

    @property
    def detail_is_visible(self) -> bool:
        """Whether latents and guesses are worth asking for."""
        beside, low, over = (pane.display for pane in self._details())
        return beside or over or (low and lower_height(*self.app.size) > 0)

    def _details(self) -> tuple[DetailPane, ...]:
        """Beside the tokens, below them, and over them; by id, since every key asks."""
        return tuple(self.query_one(f"#{name}", DetailPane) for name in ("detail", "detail-low", "detail-over"))

    def focused_pane(self) -> str:
        """Name of the pane whose keys and help are shown."""
        if self.state.session.stage == "failed":
            return "failed"
        if self.state.text is None:
            return "load"
        name = (self.screen.focused.id if self.screen.focused is not None else "") or ""
        return "trace" if name == "trace" else "detail" if name.startswith("detail") else "tokens"

    def toggle_detail(self) -> None:
        """Show or hide the detail pane; in a narrow window it takes turns with the plot, in a low one with the tokens,
        whose keys go on working.
        """
        if self.app.size.width >= WIDE:
            self._show_detail = not self._show_detail
        elif lower_height(*self.app.size):
            self._low_is_detail = not self._low_is_detail
        else:
            self._over = not self._over
        self.arrange_panes()

    def leave_detail(self) -> bool:
        """Take the detail off the tokens; whether it was there."""
        shown, self._over = self.query_one("#detail-over").display, False
        self.arrange_panes()
        return shown

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Draw the state, but for what hangs on the cursor. Each pane repaints only the lines that differ."""
        state, session = self.state, self.state.session
        has_text, too_small = state.text is not None, self.query_one("#too-small").display
        if has_text and not too_small and self.query_one("#load").display:
            self.arrange_panes()
        place = state.place if has_text else None
        own = f"{SOURCE_NAMES.get(state.place.source, '')} {state.own.place(state.place.source, state.place.context)}"
        self.query_one(HeaderPane).show(session, state.choice, place, own)
        n_widths = len(state.choice.rows) if state.choice is not None else 0
        hints = footer_hints(self.focused_pane(), n_widths)
        over = self.query_one("#detail-over").display
        self.query_one(FooterPane).show([("d", "tokens"), *hints] if over else hints)
        self.query_one(JobBar).show(session.unfinished if not too_small else ())
        self.query_one(PairsPane).show(state.pairs, state.choice)
        if has_text:
            self._show_tokens()
        else:
            self.query_one(LoadPane).show(session, time.monotonic(), self.connecting_since)

    def _show_tokens(self) -> None:
        """The tokens and their title. The pane walks by itself: its cursor is left alone unless the state sent it."""
        state, pane, text = self.state, self.tokens, self.state.text
        if text is None:
            return
        start, end = state.title()
        mode = does("screen.do('step_mode', 1)", "The next colour mode")
        self.query_one(TitleBar).show([(visible(start), mode)], visible(end), self.focused_pane() == "tokens")
        quality = state.session.quality(state.row)
        pane.set_sae(state.row, quality.ranges if quality is not None else {}, relative=state.relative)
        pane.set_mode(state.mode)
        if state.grew:
            pane.document_grew()
        if pane.document is not text.document:
            pane.set_document(text.document, cursor=state.place.position if state.jumped else None)
        elif state.jumped:
            pane.move_to(state.place.position)
        pane.set_hits(state.hits())
        state.grew = state.jumped = False

    def show_at_cursor(self) -> None:
        """Detail and plot."""
        state, text, choice = self.state, self.state.text, self.state.choice
        if text is None or choice is None or not len(text):
            return
        position = min(state.place.position, len(text) - 1)
        scale = text.top((row for _, row in choice.shown), TOTAL)
        median_norm = None if state.session.ready is None else state.session.ready.median_norm
        facts = TokenFacts(text=text, position=position, choice=choice, scale=scale, median_norm=median_norm)
        for pane in self._details():
            if pane.display:
                pane.show(facts, state.detail, state.problem)
        if self.trace.display and (data := self.trace_data()) is not None:
            self.trace.show(data)

    def trace_data(self) -> TraceData | None:
        """What the plot shows, or would show where a small window has no room for it; None: there is no text."""
        state, text, choice = self.state, self.state.text, self.state.choice
        if text is None or choice is None or not len(text):
            return None
        position = min(state.place.position, len(text) - 1)
        return TraceData(text=text, choice=choice, mode=state.mode, position=position)
