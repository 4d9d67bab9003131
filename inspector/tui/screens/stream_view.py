"""The Stream screen, first part: its state, which panes are visible, and what each is told to draw.

State is a handful of frozen values (`SessionView`, `Choice`, `Place`, `Search`); every method here only reads them. The
second part (`stream_talk`) changes them when the session says something, the third (`stream`) when a key is pressed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.signal import Signal

from inspector.drawing.safe_text import visible
from inspector.drawing.tokens import DEFAULT_MODE, TOTAL, TokenMode
from inspector.tui.actions import footer_hints
from inspector.tui.documents import ScoredText, Texts, main_measure
from inspector.tui.session import SessionView
from inspector.tui.stream_state import Choice, Place, Search, match_end
from inspector.tui.widgets.bars import FooterPane, JobBar, TitleBar, TooSmall
from inspector.tui.widgets.command_bar import CommandBar
from inspector.tui.widgets.detail import DetailPane, TokenFacts
from inspector.tui.widgets.header import HeaderPane
from inspector.tui.widgets.load_pane import LoadPane
from inspector.tui.widgets.token_lines import Legend
from inspector.tui.widgets.token_pane import TokenPane
from inspector.tui.widgets.trace import PairsPane, TraceData, TracePane

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from inspector.drawing.palette import TokenPalette
    from inspector.session.protocol import Pairs, TokenDetail

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


def detail_width(width: int) -> int:
    """Columns of the detail pane in a window this wide."""
    return min(76, max(54, width * 2 // 5))


class StreamView(Screen[int]):
    """State and picture."""

    AUTO_FOCUS = ""
    """Nothing while there are no tokens: Textual's choice would be the hidden line to type into, which eats the keys.
    """
    DEFAULT_CSS = """
    StreamView { layers: base; }
    #body { height: 1fr; display: none; }
    #left { width: 1fr; }
    #tokens { height: 1fr; }
    #detail { margin-left: 1; }
    #lower { height: 11; display: none; }
    #trace { width: 1fr; }
    #pairs { margin-left: 1; }
    #detail-low { width: 1fr; display: none; }
    #too-small { display: none; }
    """

    def __init__(self, model: str, palette: TokenPalette, marks: bool | None) -> None:
        super().__init__()
        self._model = model
        self._palette = palette
        self._marks_wanted = marks
        """None: as the palette needs."""
        self._session = SessionView()
        self.session_changed: Signal[SessionView] = Signal(self, "session-changed")
        """For the screens above this one, which show parts of the same conversation."""
        self.choice: Choice | None = None
        self.mode: TokenMode = DEFAULT_MODE
        self.place = Place()
        self.search: Search | None = None
        self.walks_outliers = False
        """Whether the walk over the worst tokens meets outliers."""
        self.texts = Texts()
        self.text: ScoredText | None = None
        """What the token pane shows; None until the first text is there."""
        self._detail: TokenDetail | None = None
        """The latest answer; that of the token before stays until the next comes, which flickers less."""
        self._problem = ""
        self._pairs: Pairs | None = None
        self._started = time.monotonic()
        self._show_detail = True
        self._low: Literal["trace", "detail"] = "trace"
        """What a narrow window shows below the tokens."""

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
        yield JobBar(id="jobs")
        yield TooSmall(SMALLEST, id="too-small")

    @property
    def session(self) -> SessionView:
        """What the session has told so far."""
        return self._session

    @session.setter
    def session(self, session: SessionView) -> None:
        changed, self._session = session != self._session, session
        if changed and self.is_running:
            self.session_changed.publish(session)

    @property
    def tokens(self) -> TokenPane:
        """The token pane."""
        return self.query_one("#tokens", TokenPane)

    @property
    def trace(self) -> TracePane:
        """The plot."""
        return self.query_one("#trace", TracePane)

    @property
    def marks(self) -> bool:
        """Whether tokens carry marks that say the same without colour."""
        return self._palette.marks_by_default if self._marks_wanted is None else self._marks_wanted

    @property
    def row(self) -> int:
        """Row of the SAE that colours the tokens."""
        return self.choice.row if self.choice is not None else 0

    # ---- which panes are visible --------------------------------------------------------------------------------

    def on_resize(self, _: events.Resize) -> None:
        """Another size may have room for other panes."""
        self.arrange_panes()

    def arrange_panes(self) -> None:
        """Decide what is on the screen: by its size, and by whether there is a text yet."""
        width, height = self.app.size
        fits = width >= SMALLEST[0] and height >= SMALLEST[1]
        has_text = self.text is not None
        wide = width >= WIDE
        low = lower_height(width, height)
        show = {
            "too-small": not fits,
            "header": fits,
            "footer": fits,
            "jobs": fits and bool(self.session.unfinished),
            "load": fits and not has_text,
            "body": fits and has_text,
            "lower": fits and has_text and low > 0,
            "detail": wide and self._show_detail,
            "trace": wide or self._low == "trace",
            "pairs": wide,
            "detail-low": not wide and self._low == "detail",
        }
        for name, shown in show.items():
            self.query_one(f"#{name}").display = shown
        if low:
            self.query_one("#lower").styles.height = low
        self.query_one("#detail").styles.width = detail_width(width)
        self.show_token()
        self.show_trace()
        focused = self.focused
        if has_text and (focused is None or not all(node.display for node in focused.ancestors_with_self)):
            self.tokens.focus()

    @property
    def detail_is_visible(self) -> bool:
        """Whether latents and guesses are worth asking for."""
        return any(pane.display and pane.parent is not None for pane in self.query(DetailPane)) and (
            self.app.size.width >= WIDE or lower_height(*self.app.size) > 0
        )

    def focused_pane(self) -> str:
        """Name of the pane whose keys and help are shown."""
        if self.session.stage == "failed":
            return "failed"
        if self.text is None:
            return "load"
        name = self.focused.id if self.focused is not None else None
        return {"detail": "detail", "detail-low": "detail", "trace": "trace"}.get(name or "", "tokens")

    def on_descendant_focus(self) -> None:
        """Another pane has the focus: other keys matter."""
        self.show_footer()
        self.show_title()

    # ---- what each pane draws -------------------------------------------------------------------------------------

    def show_session(self) -> None:
        """Header, loading picture, footer, title."""
        place = self.place if self.text is not None else None
        self.query_one(HeaderPane).show(self.session, self.choice, place, SOURCE_NAMES.get(self.place.source, ""))
        self.show_loading()
        self.show_footer()
        self.show_title()

    def show_jobs(self) -> None:
        """The line of the job that runs; none if none does."""
        bar = self.query_one(JobBar)
        bar.show(self.session.unfinished)
        if bar.display and self.query_one("#too-small").display:
            bar.display = False

    def show_loading(self) -> None:
        """What loads, for how long; or why it failed."""
        if self.text is None:
            self.query_one(LoadPane).show(self.session, time.monotonic(), self._started)

    def show_footer(self) -> None:
        """The keys that matter."""
        n_widths = len(self.choice.rows) if self.choice is not None else 0
        self.query_one(FooterPane).show(footer_hints(self.focused_pane(), n_widths))

    def show_title(self) -> None:
        """Above the tokens: what their colour means, and which text they are."""
        if self.choice is None or self.text is None:
            return
        document = self.text.document
        known = self.text.has_map or not main_measure(self.mode).needs_map
        label = f"{self.choice.labels[self.choice.active]} · " if main_measure(self.mode).per_sae else ""
        meaning = f"{label}{self.mode.title}{'' if known else ': no linear map yet'}"
        start, end = f"tokens · {meaning}", document.name
        if self.search is not None:
            start, end = f"find '{self.search.text}' {self.search.summary()}", "n next · N back · Esc ends"
        elif not self.text.finished:
            start, end = f"generating · {len(self.text)} tokens", "Esc stops"
        self.query_one(TitleBar).show([(visible(start), "")], visible(end), self.focused_pane() == "tokens")

    def show_token(self) -> None:
        """The detail panes that are visible."""
        facts = None
        if self.text is not None and self.choice is not None and len(self.text):
            position = min(self.place.position, len(self.text) - 1)
            scale = self.text.top((row for _, row in self.choice.shown), TOTAL)
            ready = self.session.ready
            facts = TokenFacts(
                text=self.text,
                position=position,
                choice=self.choice,
                scale=scale,
                median_norm=None if ready is None else ready.median_norm,
            )
        for pane in self.query(DetailPane):
            if pane.display:
                pane.show(facts, self._detail, self._problem)

    def show_trace(self) -> None:
        """The plot, if it is visible."""
        if self.text is not None and self.choice is not None and self.trace.display:
            position = min(self.place.position, len(self.text) - 1)
            self.trace.show(TraceData(text=self.text, choice=self.choice, mode=self.mode, position=position))

    def show_pairs(self) -> None:
        """The table beside the plot."""
        self.query_one(PairsPane).show(self._pairs, self.choice)

    def show_hits(self) -> None:
        """Mark what was found in this text."""
        hits: list[range] = []
        if self.search is not None and self.text is not None and self.place.source == "context":
            tokens = self.text.document.tokens
            hits = [
                range(hit.position, match_end(tokens, hit.position, self.search.text))
                for hit in self.search.hits
                if hit.context == self.place.context
            ]
        self.tokens.set_hits(hits)

    def show_all(self) -> None:
        """Everything that depends on the choice or the mode."""
        self.show_session()
        self.show_token()
        self.show_trace()
        self.show_pairs()
