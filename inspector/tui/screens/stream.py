"""Stream, the home screen: tokens coloured by linear and nonlinear SAE error, and all that hangs on the cursor.

What is shown and what each key changes is decided by `StreamState`; this screen takes keys and messages to it, then
sends what it asks, says what it has to say, and draws. Messages of the session arrive in one worker, which only posts
them; everything else happens in handlers, one at a time.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual.message import Message
from textual.signal import Signal

from inspector.drawing.tokens import MEASURES
from inspector.errors import InspectorError
from inspector.tui.actions import ACTIONS
from inspector.tui.documents import number_on_screen, table
from inspector.tui.screens.base import ActionScreen, MarksChosen, OpenScreen
from inspector.tui.session import Connect, Conversation, Purpose, Question, SessionView
from inspector.tui.stream_state import StreamState
from inspector.tui.widgets.entry import CommandBar
from inspector.tui.widgets.stream_panes import StreamPanes
from inspector.tui.widgets.token_lines import Legend
from inspector.tui.widgets.token_pane import TokenPane
from inspector.tui.widgets.trace import TracePane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from textual import events
    from textual.app import ComposeResult, SystemCommand
    from textual.timer import Timer

    from inspector.drawing.palette import TokenPalette
    from inspector.session.protocol import SessionMessage, ViewMessage
    from inspector.store.notes import Subject
    from inspector.tui.documents import ScoredText
    from inspector.tui.screens.help import PaneHelp

DELAYS: dict[Purpose, float] = {"detail": 0.12, "pairs": 0.25}
"""Seconds between two questions of a kind: the first key is answered at once, a held one at its end."""
FLUSH_DELAY = 1 / 6
"""Seconds between two drawings of a text that is being generated."""
FOLLOW_DELAY = 0.5
"""Seconds between two drawings of detail pane and plot while their token is the one just generated."""
LOAD_TICK = 0.5
"""Seconds between two drawings of the elapsed time while something loads."""


class StreamScreen(ActionScreen):
    """The home screen; also the `Link` through which the screens above it talk to the session."""

    ACTIONS = ACTIONS
    DEFAULT_CSS = """
    StreamScreen { layers: base; }
    """

    @dataclass
    class Told(Message):
        """The session said something."""

        told: SessionMessage

    @dataclass
    class Lost(Message):
        """There is no session, or not any more."""

        why: str
        exit_code: int

    def __init__(
        self, model: str, connect: Connect, palette: TokenPalette, marks: bool | None, state: StreamState
    ) -> None:
        """A screen that is not connected yet.

        Args:
            model: what was asked for.
            connect: makes a connection to the session.
            palette: of the theme.
            marks: whether tokens carry marks; None: as the palette needs.
            state: what to begin with.
        """
        super().__init__()
        self.state = state
        self.session_changed: Signal[SessionView] = Signal(self, "session-changed")
        self.text_changed: Signal[ScoredText] = Signal(self, "text-changed")
        """Another text, or better scores of the same, for a screen above this one."""
        self._connect = connect
        self._palette = palette
        self._marks_wanted = marks
        self._talk = Conversation()
        self._told_session, self._told_text = state.session, state.text
        self._delays: dict[str, Timer] = {}  # one of each name at most
        self._latest: dict[Purpose, tuple[Question | None, float]] = {}
        """Of each kind the question that came up last, and when, by the clock that timers go by."""
        self.panes = StreamPanes(model, palette, state)

    def compose(self) -> ComposeResult:
        """The panes; what is not needed yet is hidden."""
        yield self.panes

    def on_mount(self) -> None:
        """Paint first; connect when that is done."""
        self.tokens.set_marks(self.marks)
        self.panes.arrange_panes()
        self._draw()
        self.call_after_refresh(self.start)

    @property
    def session(self) -> SessionView:
        """What the session has told so far."""
        return self.state.session

    @property
    def tokens(self) -> TokenPane:
        """The token pane."""
        return self.panes.tokens

    @property
    def marks(self) -> bool:
        """Whether tokens carry marks that say the same without colour."""
        return self._palette.marks_by_default if self._marks_wanted is None else self._marks_wanted

    # ---- the session ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and show for how long."""
        self.panes.connecting_since = time.monotonic()
        self.state.session = self.session.again()
        self.run_worker(self._converse(), name="session", group="session", exclusive=True, exit_on_error=False)
        await self.settle()

    async def _converse(self) -> None:
        """Connect, then pass on what the session says until it ends. Changes nothing itself."""
        try:
            client = await self._connect()
        except InspectorError as error:
            self.post_message(self.Lost(str(error), error.exit_code))
            return
        self._talk.attach(client)
        async for message in client.messages():
            self.post_message(self.Told(message))
        self.post_message(self.Lost(client.lost or "The session closed the connection.", 1))

    async def on_unmount(self) -> None:
        """Leave the session; it ends itself when no view comes back."""
        if self._talk.client is not None:
            await self._talk.client.close()

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Ask the session and wait for its one answer; for the screens above this one, and their workers."""
        return await self._talk.call(message)

    async def on_stream_screen_told(self, message: Told) -> None:
        """One message."""
        purpose = self.state.requests.answered(message.told)
        if purpose is None:
            self._talk.deliver(message.told)
        self.state.told(message.told, purpose, time.monotonic())
        if self.state.arriving:
            self._after("flush", FLUSH_DELAY, self._flush)
        await self.settle()

    async def _flush(self) -> None:
        self.state.flush()
        await self.settle()

    async def on_stream_screen_lost(self, message: Lost) -> None:
        """No session, or not any more: why, with the end of its log, over whatever is on the screen."""
        self._talk.attach(None)
        self.state.lost(message.why, message.exit_code)
        await self.settle()
        if self.session.stage == "lost":
            self.run_worker(self._tell_the_end(), name="end", group="end", exclusive=True, exit_on_error=False)

    async def _tell_the_end(self) -> None:
        from inspector.tui.screens.questions import EndedScreen, log_tail

        path = self.session.log_path
        tail = await asyncio.to_thread(log_tail, path)
        if self.session.stage == "lost":
            self.app.push_screen(EndedScreen(self.session.error, path, tail), self._ended_left)

    async def _ended_left(self, again: bool | None) -> None:
        if again and self.session.stage == "lost":
            await self.start()

    async def settle(self) -> None:
        """After every change of the state: send what it asks, say what it has to say, draw it."""
        state = self.state
        # Asked before drawing: an answer that comes quickly is painted together with the rest.
        for purpose, question in state.questions(with_detail=self.panes.detail_is_visible).items():
            if state.requests.is_new(purpose, question):
                self._ask_soon(purpose, question)
        while state.requests.waiting:
            asked_for, message = state.requests.waiting.pop(0)
            state.requests.sent(asked_for, await self._talk.send(message))
        notices, state.notices = state.notices, []
        for each in notices:
            self.notify(each.text, title=each.title, severity=each.severity, timeout=each.seconds, markup=False)
        self._draw()
        if self._told_session is not self.session:
            self._told_session = self.session
            self.session_changed.publish(self.session)
        if self._told_text is not state.text and state.text is not None:
            self._told_text = state.text
            self.text_changed.publish(state.text)

    def _ask_soon(self, purpose: Purpose, question: Question) -> None:
        """At once, or, while questions of its kind follow each other quickly, when they have come to rest."""
        now, delay = asyncio.get_running_loop().time(), DELAYS[purpose]
        before, since = self._latest.get(purpose, (None, -delay))
        if question == before and purpose in self._delays:
            return
        self._latest[purpose] = question, now
        self._stop(purpose)
        if now - since < delay and question != before:  # the same one has waited
            self._after(purpose, delay, self.settle)
        else:
            self.state.requests.add_question(purpose, question)

    def _after(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Call once after a while, unless that is under way already."""
        if name not in self._delays:
            self._delays[name] = self.set_timer(seconds, partial(self._due, name, call))

    def _due(self, name: str, call: Callable[[], object]) -> None:
        if self._delays.pop(name, None) is None:
            return  # stopped when its call was already under way
        self.call_later(call)  # in its turn among the other messages; a timer calls from a task of its own

    def _stop(self, name: str) -> None:
        timer = self._delays.pop(name, None)
        if timer is not None:
            timer.stop()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self.panes.show()
        if self.state.text is None and not self.state.can_reconnect:
            self._after("load", LOAD_TICK, self._draw)
        if self.state.following:
            self._after("at cursor", FOLLOW_DELAY, self.panes.show_at_cursor)
        else:
            self._stop("at cursor")
            self.panes.show_at_cursor()

    async def on_resize(self, _: events.Resize) -> None:
        """Another size may have room for other panes."""
        self.panes.arrange_panes()
        await self.settle()

    def on_descendant_focus(self) -> None:
        """Another pane has the focus: other keys matter."""
        self.panes.show()

    def show_palette(self, palette: TokenPalette) -> None:
        """The theme changed; marks stay as the user set them."""
        self._palette = palette
        self.tokens.set_palette(palette)
        self.tokens.set_marks(self.marks)
        self._draw()

    # ---- widgets tell -----------------------------------------------------------------------------------------------

    async def on_token_pane_cursor_moved(self, message: TokenPane.CursorMoved) -> None:
        """The cursor is on another token. The pane is asked where: it may have moved on since."""
        message.stop()
        self.state.move(message.pane.cursor)
        await self.settle()

    async def on_token_pane_edge_reached(self, message: TokenPane.EdgeReached) -> None:
        """Past an end of a context is its neighbour."""
        message.stop()
        self.state.step_over_edge(message.step)
        await self.settle()

    def on_token_pane_legend_changed(self, message: TokenPane.LegendChanged) -> None:
        """The colours mean something else."""
        message.stop()
        self.query_one(Legend).show(message.legend)

    async def on_trace_pane_chosen(self, message: TracePane.Chosen) -> None:
        """A token was clicked in the plot."""
        message.stop()
        await self._jump(message.position)

    async def on_command_bar_entered(self, message: CommandBar.Entered) -> None:
        """Something was typed."""
        message.stop()
        self.tokens.focus()
        self.state.find(message.text)
        await self.settle()

    def on_command_bar_closed(self, message: CommandBar.Closed) -> None:
        """Nothing was typed."""
        message.stop()
        self.tokens.focus()

    # ---- keys -------------------------------------------------------------------------------------------------------

    async def action_do(self, what: str, *arguments: int) -> None:
        """A key whose whole effect is on the state: a method of it, by name."""
        getattr(self.state, what)(*arguments)
        await self.settle()

    async def choose_sae(self, row: int) -> None:
        """Colour by this SAE."""
        self.state.choose_sae(row)
        await self.settle()

    async def go(self, context: int, position: int) -> None:
        """Show a token."""
        self.state.go("context", context, position)
        await self.settle()

    async def _jump(self, position: int | None) -> None:
        if position is not None:
            self.state.jump(position)
            await self.settle()

    def action_page(self, step: int) -> None:
        """A page of tokens, whichever pane has the focus."""
        self.tokens.action_page(step)

    def action_find(self) -> None:
        """Open the line for a text to find."""
        if self.state.text is not None:
            self.query_one(CommandBar).open("find")

    async def action_over(self, module: str, opens: str) -> None:
        """A screen over this one, which `opens` of a module shows.

        Args:
            module: of `tui.screens`; imported only now, in a thread, during which the loop still answers.
            opens: a function of it that takes this screen.
        """
        if self.state.text is not None and self.state.choice is not None:
            found = await asyncio.to_thread(importlib.import_module, f"inspector.tui.screens.{module}")
            getattr(found, opens)(self)

    def action_marks(self) -> None:
        """The second channel."""
        self._marks_wanted = not self.marks
        self.tokens.set_marks(self.marks)
        self.post_message(MarksChosen(self.marks))

    async def action_escape(self) -> None:
        """Off with what covers the tokens, else one step back."""
        if not self.panes.leave_detail():
            self.state.leave()
        await self.settle()

    async def action_detail(self) -> None:
        """Show or hide the detail pane."""
        self.panes.toggle_detail()
        await self.settle()

    def action_zoom(self, step: int) -> None:
        """More or fewer tokens in the plot."""
        self.panes.trace.zoom(step)

    def action_enlarge(self) -> None:
        """The plot on the whole screen."""
        if (data := self.panes.trace_data()) is not None:
            from inspector.tui.screens.enlarged import EnlargedTrace

            self.app.push_screen(EnlargedTrace(data), self._jump)

    async def action_results(self) -> None:
        """What was measured before; while there is no session, the key tries to connect again."""
        if self.state.can_reconnect:
            await self.start()
        else:
            self.post_message(OpenScreen("results"))

    def action_latent(self, place: int = 0) -> None:
        """The strongest latent of the active SAE at the cursor, or another by its place among those."""
        at, choice, latents = self.state.detail_request(), self.state.choice, self.state.active_latents()
        if at is not None and choice is not None:
            from inspector.tui.screens.latent import LatentScreen

            self.app.push_screen(LatentScreen(self, at, choice.sae.d_sae, latents[place:] + latents[:place]))

    def action_anatomy(self) -> None:
        """Why the active SAE fails on the token under the cursor."""
        if (at := self.state.detail_request()) is not None:
            from inspector.tui.screens.anatomy import AnatomyScreen

            self.app.push_screen(AnatomyScreen(self, at))

    def note_subject(self) -> Subject | None:
        """The token under the cursor, with its numbers and some of the text around it."""
        ready, text, choice, place = self.session.ready, self.state.text, self.state.choice, self.state.place
        if ready is None or text is None or choice is None or not len(text):
            return None
        from inspector.store.notes import of_token

        tokens, at = text.document.tokens, place.position
        around = {"before": "".join(tokens[max(0, at - 16) : at]), "after": "".join(tokens[at + 1 : at + 9])}
        numbers = {each.id: each.of(text.document, choice.row, at) for each in MEASURES}
        return of_token(
            ready.model, ready.text, place.source, place.context, at, ready.target, token=tokens[at],
            hook_name=ready.hook_name, sae=choice.sae.sae_id, numbers=numbers, **around,
        )  # fmt: skip

    def action_copy_token(self) -> None:
        """The numbers of the token under the cursor, for each enabled SAE."""
        if self.state.text is not None and len(self.state.text):
            position = self.state.place.position
            self._copy([position], f"the token at position {position}", "token.tsv")

    def action_copy_context(self) -> None:
        """The numbers of every token of this text, for each enabled SAE."""
        text, choice = self.state.text, self.state.choice
        if text is not None and choice is not None:
            what = f"{len(text)} tokens of {len(choice.shown)} SAEs"
            self._copy(range(len(text)), what, f"{text.document.source}-{number_on_screen(text.document)}.tsv")

    def _copy(self, positions: Iterable[int], what: str, name: str) -> None:
        text, choice = self.state.text, self.state.choice
        if text is not None and choice is not None:
            self.copy_out(table(text, positions, [row for _, row in choice.shown], choice.saes), what, name)

    # ---- help and palette -------------------------------------------------------------------------------------------

    @property
    def help_text(self) -> PaneHelp:
        """What the focused pane shows, and its keys."""
        from inspector.tui.screens.help import HELP

        return HELP[self.panes.focused_pane()]

    def commands(self) -> Iterator[SystemCommand]:
        """The actions that do something now, then the SAEs."""
        from textual.app import SystemCommand

        choice = self.state.choice
        absent = {f"Width {number}:" for number in range(len(choice.rows) + 1 if choice is not None else 1, 10)}
        yield from (each for each in super().commands() if not each.title.startswith(tuple(absent)))
        for row, sae in enumerate(choice.saes if choice is not None else ()):
            told = f"{sae.d_sae:,} latents, colour by it"
            yield SystemCommand(f"SAE: {sae.sae_id}", told, partial(self.choose_sae, row))
