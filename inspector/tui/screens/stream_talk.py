"""The Stream screen, second part: what it asks the session, and what changes when the session answers.

Messages arrive in one worker, which only posts them; everything else happens in handlers, one at a time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from textual.message import Message
from textual.worker import Worker, WorkerState

from inspector.drawing.tokens import MODES
from inspector.errors import InspectorError
from inspector.events import JobInfo
from inspector.session.protocol import (
    ContextScores,
    Failed,
    Found,
    Generated,
    GetContext,
    GetDetail,
    GetJobs,
    GetPairs,
    Jobs,
    JobTold,
    MapImproved,
    Pairs,
    PolicySet,
    Ready,
    SessionMessage,
    SetPolicy,
    TokenDetail,
    ViewMessage,
)
from inspector.tui.documents import ScoredText
from inspector.tui.job_lines import name_of
from inspector.tui.saved_state import SavedView
from inspector.tui.screens.stream_view import StreamView
from inspector.tui.session import Connect, Conversation, SessionView
from inspector.tui.stream_state import Choice, Place, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.timer import Timer

    from inspector.drawing.palette import TokenPalette

DETAIL_DELAY = 0.12
"""Seconds between two questions for latents and guesses: the first key is answered at once, a held one at its end."""
FLUSH_DELAY = 1 / 6
"""Seconds between two drawings of a text that is being generated."""
FOLLOW_DELAY = 0.5
"""Seconds between two drawings of detail pane and plot while their token is the one just generated."""
PAIRS_DELAY = 0.25
"""Seconds between two questions for the pairs of widths."""
AT_ONCE = 0.001
"""Seconds: as soon as the present message is dealt with."""
LOAD_TICK = 0.5
"""Seconds between two drawings of the elapsed time while something loads."""

MODE_BY_ID = {mode.id: mode for mode in MODES}

Where = int | Literal["first", "last", "worst", "last-worst"]
"""Which token of a text the cursor goes to when the text is there."""


def target_name(ready: Ready) -> str:
    """What tells one target from another, so that a saved place means the same text."""
    return f"{ready.model} {ready.hook_name} {ready.text} {ready.n_contexts}x{ready.context_length}"


class StreamTalk(StreamView):
    """State, picture and conversation."""

    class Told(Message):
        """The session said something."""

        def __init__(self, told: SessionMessage) -> None:
            super().__init__()
            self.told = told

    class Lost(Message):
        """There is no session, or not any more."""

        def __init__(self, why: str, exit_code: int) -> None:
            super().__init__()
            self.why = why
            self.exit_code = exit_code

    def __init__(self, model: str, connect: Connect, palette: TokenPalette, marks: bool | None) -> None:
        super().__init__(model, palette, marks)
        self._connect = connect
        self._talk = Conversation()
        self._wanted: tuple[Source, int, Where] | None = None
        """Where to go as soon as that text is there."""
        self._home = Place()
        """Where in the contexts to come back to from a prompt or a generation."""
        self._generated: list[Generated] = []
        """Came since the last drawing."""
        self._following = False
        """The cursor stays on the last token of what is being generated."""
        self._n_generations = 0
        """Each has its own seed."""
        self.recall: Callable[[str], SavedView | None] = lambda _: None
        """What is remembered of a target from an earlier run, by its name; the app knows."""
        self._delays: dict[str, Timer] = {}
        self._asked: dict[str, float] = {}
        """When detail and pairs were last asked for; `time.monotonic`."""

    # ---- connection -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and show for how long."""
        self._started = time.monotonic()
        known = self.session
        self.session = SessionView(
            ready=known.ready, improved=known.improved, policy=known.policy, beside=known.beside, jobs=known.jobs
        )
        self._every("load", LOAD_TICK)
        self.show_session()
        self.run_worker(self._converse(), name="session", group="session", exclusive=True, exit_on_error=False)

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

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug: it ends the program as any other would, with one line and a log."""
        error = event.worker.error
        if event.state == WorkerState.ERROR and isinstance(error, Exception):
            self.app._handle_exception(error)

    async def on_unmount(self) -> None:
        """Leave the session; it ends itself when nobody comes back."""
        if self._talk.client is not None:
            await self._talk.client.close()

    def on_stream_talk_lost(self, message: Lost) -> None:
        """No session, or not any more."""
        self._talk.attach(None)
        self._stop("load")
        self.session = self.session.lost(message.why, message.exit_code)
        self.show_session()
        if self.session.stage == "lost":
            self.run_worker(self._tell_the_end(), name="end", group="end", exclusive=True, exit_on_error=False)

    async def _tell_the_end(self) -> None:
        """Show why the session ended, with the end of its log, over whatever is on the screen."""
        from inspector.tui.screens.questions import EndedScreen, log_tail

        path = self.session.log_path
        tail = await asyncio.to_thread(log_tail, path)
        if self.session.stage == "lost":
            self.app.push_screen(EndedScreen(self.session.error, path, tail), self._ended_left)

    def _ended_left(self, again: bool | None) -> None:
        if again and self.session.stage == "lost":
            self.start()

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Ask the session and wait for its one answer; for the screens above this one, and their workers."""
        return await self._talk.call(message)

    # ---- what the session says --------------------------------------------------------------------------------------

    async def on_stream_talk_told(self, message: Told) -> None:
        """One message."""
        told = message.told
        before = self.session
        self.session = before.told(told, time.monotonic())
        if self._talk.deliver(told) and not isinstance(told, JobTold):
            return
        match told:
            case Ready():
                await self._take_ready(told)
            case MapImproved():
                self._ask_pairs_soon()
                self._ask_detail_soon()
                self.show_session()
            case ContextScores():
                self._talk.done(told.request)
                self._take_text(ScoredText.of(told))
            case Generated():
                if self._talk.is_latest("generate", told.request):
                    self._take_generated(told)
            case TokenDetail():
                if self._talk.done(told.request) == "detail":
                    self._detail, self._problem = told, ""
                    self.show_token()
            case Pairs():
                if self._talk.done(told.request) == "pairs":
                    self._pairs = told
                    self.show_pairs()
            case JobTold():
                self.show_jobs()
                self._tell_job(before.job(told.job.id), told.job)
            case Jobs():
                self._talk.done(told.request)
                self.show_jobs()
            case PolicySet():
                self._talk.done(told.request)
                await self._take_policy(before, told)
            case Found():
                if self._talk.done(told.request) == "find":
                    await self._take_found(told)
            case Failed():
                self._take_failed(told)
            case _:
                self.show_session()

    async def _take_ready(self, ready: Ready) -> None:
        saved = self.recall(target_name(ready)) if self.choice is None else None
        if self.choice is None or list(self.choice.saes) != ready.saes:
            self.choice = Choice.of(ready.saes)
            if saved is not None:
                self.choice = self.choice.restored(saved.sae_ids, saved.enabled, saved.active)
            self.tokens.set_sae(self.choice.row)
        if saved is not None and saved.mode in MODE_BY_ID:
            self.mode = MODE_BY_ID[saved.mode]
            self.tokens.set_mode(self.mode)
        for warning in ready.warnings:
            self.notify(warning, severity="warning", markup=False)
        self.show_session()
        if self.session.policy != "excluded":  # a new session knows nothing of what this view chose
            await self._talk.ask("policy", SetPolicy(policy=self.session.policy))
        if self.text is None:
            if saved is not None and saved.context < ready.n_contexts:
                await self.go("context", saved.context, saved.position)
            else:
                await self.go("context", 0, "first")
        else:
            self._stop("load")
            await self._talk.ask("context", GetContext(context=self._shown_context))
        await self._talk.ask("jobs", GetJobs())
        self._ask_pairs_soon()

    def saved_view(self) -> tuple[str, SavedView] | None:
        """Target and place to come back to; None while there is nothing to come back to."""
        ready, choice = self.session.ready, self.choice
        if ready is None or choice is None or self.text is None:
            return None
        place = self.place if self.place.source == "context" else self._home
        return target_name(ready), SavedView(
            context=place.context,
            position=place.position,
            sae_ids=tuple(choice.saes[row].sae_id for row in choice.picked),
            enabled=tuple(choice.widths[index] for index in sorted(choice.enabled)),
            active=choice.widths[choice.active],
            mode=self.mode.id,
        )

    async def _take_policy(self, before: SessionView, told: PolicySet) -> None:
        """Other tokens count now: every number of before is of the other policy."""
        if told.policy == before.policy:
            return
        self.texts.clear()
        self.show_all()
        if self.session.ready is not None:
            await self._talk.ask("context", GetContext(context=self._shown_context))
        self._ask_pairs_soon()
        self._ask_detail_soon()
        moved = f"{told.n_special:,} special tokens and {told.n_before:,} early positions"
        self.notify(f"{moved} are {'counted' if told.policy == 'included' else 'left out'} now.", timeout=4)

    @property
    def _shown_context(self) -> int:
        """The context on the screen, or the one to come back to."""
        return self.place.context if self.place.source == "context" else self._home.context

    def _tell_job(self, before: JobInfo | None, job: JobInfo) -> None:
        """A job that ended says so, on whichever screen the user is."""
        if before is None or before.state == job.state or before.state not in ("queued", "running"):
            return
        match job.state:
            case "done":
                self.notify(f"{name_of(job)} is done. J, then Enter shows the results.", markup=False)
            case "failed":
                self.notify(job.error, title=f"{name_of(job)} failed", severity="error", markup=False)
            case "cancelled":
                self.notify(f"{name_of(job)} was cancelled; what was finished is kept.", markup=False)
            case _:
                return

    def _take_failed(self, failed: Failed) -> None:
        purpose = self._talk.done(failed.request)
        if failed.request == 0:
            self._stop("load")
            self.show_session()
            if self.session.stopped:  # the header has no room for the whole sentence
                self.notify(failed.message, title="The fit stopped", severity="error", markup=False)
        elif purpose == "detail":
            self._problem = failed.message
            self.show_token()
        else:
            if purpose == "generate":
                self._flush()
                self._end_generation()
            if purpose is not None and failed.exit_code != 6:
                self.notify(failed.message, severity="error", markup=False)

    # ---- texts ------------------------------------------------------------------------------------------------------

    async def go(self, source: Source, context: int, where: Where) -> None:
        """Show a text: now if it is at hand, else when it comes."""
        self._wanted = (source, context, where)
        text = self.texts.get(source, context)
        known = 0 if self.session.improved is None else self.session.improved.epoch
        if text is not None:
            self._arrive(text)
        stale = text is None or text.document.epoch < known or text.policy != self.session.policy
        if source == "context" and stale:
            await self._talk.ask("context", GetContext(context=context))

    def _take_text(self, text: ScoredText) -> None:
        """A text came: the one waited for, or better scores of the one shown, or one for later."""
        self.texts.put(text)
        if self._wanted is not None and self._wanted[:2] == text.key:
            self._arrive(text)
        elif self.text is not None and self.text.key == text.key:
            self.text = text
            self.tokens.set_document(text.document)
            self.show_title()
            self.show_token()
            self.show_trace()

    def _arrive(self, text: ScoredText) -> None:
        """Show this text, which was waited for."""
        assert self._wanted is not None, "only a text that was asked for is arrived at"
        source, context, where = self._wanted
        self._wanted = None
        if self.place.source == "context" and self.text is not None:
            self._home = self.place
        is_first = self.text is None
        self.text = text
        position = self._position(text, where)
        self.place = Place(source=source, context=context, position=position)
        self._detail, self._problem = None, ""
        self._stop("load")
        self.show_hits()
        self.tokens.set_document(text.document, cursor=position)
        if is_first:
            self.arrange_panes()
        self.show_all()
        self._ask_detail_soon()

    def _position(self, text: ScoredText, where: Where) -> int:
        last = max(0, len(text) - 1)
        if isinstance(where, int):
            return min(max(where, 0), last)
        if where == "last":
            return last
        if where == "first":
            return next(text.document.included(), 0)
        ranked = text.ranked(self.row, self.mode, outliers=self.walks_outliers)
        if not ranked:
            return 0
        return ranked[0] if where == "worst" else ranked[-1]

    def _take_generated(self, message: Generated) -> None:
        """Keep it for the next drawing: tokens come faster than a slow line can show them one by one."""
        self._generated.append(message)
        if message.start == 0 or message.finished:
            self._flush()
        elif "flush" not in self._delays:
            self._after("flush", FLUSH_DELAY)
        if message.finished:
            self._talk.done(message.request)
            self._end_generation()

    def _flush(self) -> None:
        """Draw the tokens that came since the last time."""
        self._stop("flush")
        waiting, self._generated = self._generated, []
        for message in waiting:
            if message.start == 0:
                self.texts.put(ScoredText.generated(message, "generated text"))
                self._wanted = ("generated", 0, "last")
                self._following = True
            elif (grown := self.texts.get("generated", 0)) is not None:
                grown.extend(message)
        text = self.texts.get("generated", 0)
        if not waiting or text is None:
            return
        if self._wanted is not None and self._wanted[:2] == text.key:
            self._arrive(text)
        elif self.text is text:
            self.tokens.document_grew()
            if self._following:
                self.tokens.move_to(len(text) - 1)
            self.show_title()
            self._show_panes_soon()

    def _end_generation(self) -> None:
        """The last token is there, or nobody wants more."""
        text = self.texts.get("generated", 0)
        if text is not None:
            text.finished = True
        self._following = False
        self.show_title()
        self._show_panes()
        self._ask_detail_soon()

    async def _take_found(self, found: Found) -> None:
        if self.search is None:
            return
        self.search = replace(self.search, hits=tuple(found.hits), truncated=found.truncated)
        if found.hits:
            await self.walk_hits(1)
            return
        self.notify(f"'{self.search.text}' is in none of the contexts.", severity="warning", markup=False)
        self.search = None
        self.show_title()

    async def walk_hits(self, step: int) -> None:
        """To the next or previous place found."""
        assert self.search is not None, "there are hits to walk only during a search"
        self.search = self.search.walk(step, self.place)
        hit = self.search.hit
        if hit is not None:
            await self.go("context", hit.context, hit.position)

    # ---- asking when things have settled ----------------------------------------------------------------------------

    def cursor_moved(self, position: int) -> None:
        """The cursor is on another token of the same text."""
        if self.text is None or position == self.place.position:
            return
        self.place = replace(self.place, position=position)
        self._following = not self.text.finished and position == len(self.text) - 1
        if self._following:
            self._show_panes_soon()
        else:
            self._show_panes()
        self._ask_detail_soon()

    def _ask_detail_soon(self) -> None:
        """Ask for latents and guesses, when the cursor has rested if it moves; not while it runs along with a text."""
        self._stop("detail")
        if self.detail_is_visible and not self._following:
            self._after("detail", DETAIL_DELAY if self._asked_within("detail", DETAIL_DELAY) else AT_ONCE)

    def _show_panes_soon(self) -> None:
        """While the cursor runs along with a generation, what hangs on it follows more slowly."""
        if "panes" not in self._delays:
            self._after("panes", FOLLOW_DELAY)

    def _show_panes(self) -> None:
        self._stop("panes")
        self.show_token()
        self.show_trace()

    def _ask_pairs_soon(self) -> None:
        if "pairs" not in self._delays:
            self._after("pairs", PAIRS_DELAY if self._asked_within("pairs", PAIRS_DELAY) else AT_ONCE)

    def _asked_within(self, name: str, seconds: float) -> bool:
        """Whether the last question of this name is no older, and counts this one as asked."""
        now, before = time.monotonic(), self._asked.get(name, -seconds)
        self._asked[name] = now
        return now - before < seconds

    async def _ask_detail(self) -> None:
        self._stop("detail")
        if self.text is not None and self.choice is not None:
            place, sae_id = self.place, self.choice.sae.sae_id
            wanted = GetDetail(source=place.source, context=place.context, position=place.position, sae_id=sae_id)
            await self._talk.ask("detail", wanted)

    async def _ask_pairs(self) -> None:
        self._stop("pairs")
        if self.choice is not None and len(self.choice.enabled) > 1:
            await self._talk.ask(
                "pairs", GetPairs(sae_ids=[self.choice.saes[row].sae_id for _, row in self.choice.shown])
            )

    # ---- timers: one of each name at most ---------------------------------------------------------------------------

    def _after(self, name: Literal["detail", "pairs", "flush", "panes"], seconds: float) -> None:
        match name:
            case "detail":
                self._delays[name] = self.set_timer(seconds, self._ask_detail)
            case "pairs":
                self._delays[name] = self.set_timer(seconds, self._ask_pairs)
            case "flush":
                self._delays[name] = self.set_timer(seconds, self._flush)
            case "panes":
                self._delays[name] = self.set_timer(seconds, self._show_panes)

    def _every(self, name: Literal["load"], seconds: float) -> None:
        if name not in self._delays:
            self._delays[name] = self.set_interval(seconds, self.show_loading)

    def _stop(self, name: str) -> None:
        timer = self._delays.pop(name, None)
        if timer is not None:
            timer.stop()
