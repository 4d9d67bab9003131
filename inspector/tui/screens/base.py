"""What screens have in common: actions from a table, help, copying, workers; and what they ask of the app by messages.

Side screens are opened over the Stream and left with Escape; the session goes on talking to the Stream below.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from inspector.drawing.safe_text import visible
from inspector.errors import ResourceError
from inspector.session.protocol import CancelJob, Failed, JobTold
from inspector.tui.actions import Action, shown_keys
from inspector.tui.lines import cut
from inspector.tui.saved_state import write_export
from inspector.tui.themes import palette_of
from inspector.tui.widgets.bars import FooterPane, Hint, TitleBar
from inspector.tui.widgets.entry import FilterLine
from inspector.tui.widgets.scrolling import RowList
from inspector.tui.widgets.session_panes import short_name, site_name

if TYPE_CHECKING:
    from textual.app import ComposeResult, SystemCommand

    from inspector.drawing.palette import TokenPalette
    from inspector.events import JobInfo
    from inspector.session.protocol import SessionMessage, ViewMessage
    from inspector.spec import TargetSpec
    from inspector.store.notes import Subject
    from inspector.tui.lines import Piece
    from inspector.tui.screens.help import PaneHelp
    from inspector.tui.session import Link, SessionView

COPIED = 80
"""Columns of what was copied that a notice says."""
MAX_CLIPBOARD = 60_000
"""Bytes. Terminals drop longer OSC 52 sequences (74,994 in the oldest limit, after base64: 56 kB), silently."""
ScreenName = Literal["experiments", "jobs", "notes", "results", "suites", "worst"]


@dataclass
class OpenScreen(Message):
    """Show a screen beside the Stream."""

    name: ScreenName
    ids: Sequence[str] = ()
    """Results to go to, the first of them that is stored."""


@dataclass
class OpenTarget(Message):
    """Another session under this view; the one before goes on."""

    target: TargetSpec


@dataclass
class GoTo(Message):
    """Show a token in the Stream."""

    context: int
    position: int


@dataclass
class MarksChosen(Message):
    """The second channel is wanted, or not; worth keeping for the next time."""

    marks: bool


def bindings_of(actions: Sequence[Action]) -> list[Binding]:
    """Textual's bindings of a table of actions. The comma separates keys, so it goes by name."""
    return [
        Binding(",".join("comma" if key == "," else key for key in action.keys), action.call, action.title, show=False,
                id=action.id)
        for action in actions if action.keys
    ]  # fmt: skip


class ActionScreen(Screen[bool]):
    """A screen with a table of actions, which the command palette offers as well."""

    ACTIONS: ClassVar[tuple[Action, ...]] = ()
    AUTO_FOCUS = ""
    """Nothing: Textual's choice may be a hidden line to type into, which eats the keys."""

    HELP_TEXT: ClassVar[PaneHelp]
    """What `?` says here."""

    def __init_subclass__(cls) -> None:
        """The keys are those of the actions."""
        cls.BINDINGS = [*bindings_of(cls.ACTIONS)]
        super().__init_subclass__()

    @property
    def help_text(self) -> PaneHelp:
        """What `?` says now."""
        return self.HELP_TEXT

    def commands(self) -> Iterator[SystemCommand]:
        """What the command palette offers of this screen."""
        from textual.app import SystemCommand

        for action in self.ACTIONS:
            if action.call != "app.command_palette":
                keys = shown_keys(action)
                told = f"key {keys}" if keys else "no key"
                yield SystemCommand(action.title, told, partial(self.run_action, action.call))

    def action_help(self) -> None:
        """What this screen shows, and its keys."""
        from inspector.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.help_text))

    def note_subject(self) -> Subject | None:
        """What a note taken now would be on; None: there is nothing."""
        return None

    def action_note(self) -> None:
        """A bookmark, or a note of a line, on what is under the cursor."""
        subject = self.note_subject()
        if subject is None:
            self.notify("There is nothing here to take a note on.", timeout=3)
            return
        from inspector.tui.screens.questions import NoteEntry

        def say(said: str | None) -> None:
            if said:
                self.notify(said, timeout=4, markup=False)

        self.app.push_screen(NoteEntry(subject), say)

    def copy_command(self, command: str) -> None:
        """What does the same from a shell, to the clipboard."""
        self.app.copy_to_clipboard(command)
        self.notify(f"Copied: {cut(visible(command, newline=' '), COPIED)}", markup=False)

    def copy_out(self, text: str, what: str, name: str) -> None:
        """To the clipboard through the terminal, which may not support it and never says so; so to a file as well.

        Args:
            text: what is copied; the file alone takes what is too long for a clipboard.
            what: its name in the notice.
            name: of the file.
        """
        fits = len(text) <= MAX_CLIPBOARD
        if fits:
            self.app.copy_to_clipboard(text)
        try:
            path = write_export(name, text if text.endswith("\n") else f"{text}\n")
        except (OSError, ResourceError) as error:
            if fits:
                self.notify(f"Copied {what}, but into no file: {error}", markup=False)
            else:
                self.notify(f"{what} is too long for the clipboard, and {error}", severity="error", markup=False)
        else:
            self.notify(f"Copied {what}.\nAlso in {path}" if fits else f"Saved {what}:\n{path}", markup=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug: it ends the program as any other would, with one line and a log."""
        end_if_broken(event)


def leave_saying(screen: Screen[Any], text: str) -> None:
    """Leave a screen with a word that stays when the one below it has come up."""
    below = screen.app.screen_stack[-2]
    screen.dismiss()
    below.call_later(partial(below.notify, text, markup=False))


def end_if_broken(event: Worker.StateChanged) -> None:
    """End the program in order when a worker raised what it should not have."""
    error = event.worker.error
    if event.state == WorkerState.ERROR and isinstance(error, Exception):
        event.worker.node.app._handle_exception(error)


def toggle(marks: list[str], each: str) -> None:
    """Mark it, or take its mark away; in the order in which they were marked."""
    if each in marks:
        marks.remove(each)
    else:
        marks.append(each)


class SideScreen(ActionScreen):
    """A screen over the Stream: a line at the top, the keys at the bottom, panes between them."""

    DEFAULT_CSS = """
    SideScreen { layers: base; }
    """

    typed = ""
    """Into the filter."""

    def compose(self) -> ComposeResult:
        """Title, keys and, hidden, the filter; subclasses add their panes."""
        yield TitleBar()
        yield FooterPane()
        yield FilterLine()

    # ---- a list that is narrowed as words are typed -----------------------------------------------------------------

    def action_filter(self) -> None:
        """Type words."""
        self.query_one(FilterLine).open()

    def matches(self, text: str) -> bool:
        """Whether an entry of the list has all words of the filter, capitals or not."""
        folded = text.casefold()
        return all(word in folded for word in self.typed.casefold().split())

    def filtered(self) -> None:
        """Draw the list again: the words are others."""

    def unfilter(self) -> bool:
        """Let the filter go; False if there is none."""
        line = self.query_one(FilterLine)
        if not line.value:
            return False
        line.action_leave(keep=False)
        return True

    def on_filter_line_filtered(self, message: FilterLine.Filtered) -> None:
        """Other words."""
        message.stop()
        self.typed = message.text
        self.filtered()

    def on_filter_line_left(self, message: FilterLine.Left) -> None:
        """The keys are the list's again."""
        message.stop()
        self.query_one(RowList).focus()

    @property
    def palette(self) -> TokenPalette:
        """Of the theme in use."""
        return palette_of(self.app)

    def on_mount(self) -> None:
        """Draw again when the theme changes."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self.restyle())

    def restyle(self) -> None:
        """The theme changed."""

    def show_keys(self, *hints: str | Hint, last: Hint = ("?", "help")) -> None:
        """The keys that matter, in the footer.

        Args:
            hints: of an action the last word of its id; or keys and what they do.
            last: always shown.
        """
        known = {action.id.partition(".")[2]: action for action in self.ACTIONS}
        told = [
            (shown_keys(known[each]).partition(" ")[0], known[each].hint) if isinstance(each, str) else each
            for each in hints
        ]
        self.query_one(FooterPane).show(told, last)

    def in_thread(self, group: str, work: Callable[[], object]) -> None:
        """Read or draw beside the loop; `work` posts what it found. A newer one of the group replaces it."""
        self.run_worker(work, thread=True, exclusive=True, group=group, exit_on_error=False)

    def in_worker(self, group: str, work: Awaitable[object], *, exclusive: bool = True) -> None:
        """Ask the session; a newer question of the group replaces it."""
        self.run_worker(work, group=group, exclusive=exclusive, exit_on_error=False)

    def show_head(self, *title: Piece, end: str = "") -> None:
        """The line at the top: which screen, and whose numbers."""
        self.query_one(TitleBar).show([("dm-inspect", "accent"), *title], end)

    def focused_id(self) -> str:
        """Of the pane with the focus; '' if none has it."""
        return (self.focused.id if self.focused is not None else "") or ""

    def action_back(self) -> None:
        """All of the list again; from there to the screen below."""
        if not self.unfilter():
            self.dismiss()


class SessionScreen(SideScreen):
    """Shows parts of the Stream's conversation with the session; draws again when the session says something."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link

    @property
    def session(self) -> SessionView:
        """What the session has told so far."""
        return self.link.session

    def on_mount(self) -> None:
        """Listen."""
        super().on_mount()
        self.link.session_changed.subscribe(self, self.session_changed)

    def session_changed(self, session: SessionView) -> None:
        """Something is different."""

    async def tell(self, message: ViewMessage) -> SessionMessage:
        """Ask the session, and say aloud if it refused; from a worker, never from a handler."""
        answer = await self.link.call(message)
        if isinstance(answer, Failed):
            self.notify(answer.message, severity="error", markup=False)
        return answer

    def target_text(self) -> str:
        """Whose numbers these are: 'demo · layer 3 · resid_post · cpu'."""
        ready = self.session.ready
        if ready is None:
            return {"failed": "no session", "lost": "the session has ended"}.get(self.session.stage, "loading …")
        layer = f" · layer {ready.layer}" if ready.layer is not None else ""
        ended = " · the session has ended" if self.session.stage == "lost" else ""
        return f"{short_name(ready.model)}{layer} · {site_name(ready.hook_name)} · {ready.device}{ended}"

    def target_words(self) -> list[str]:
        """Options of the command line that load the same target; none while it is not known."""
        return self.session.ready.target if self.session.ready is not None else []

    def cancel_job(self, job: JobInfo | None) -> None:
        """Stop a job after its present step."""
        if job is None or job.state not in ("queued", "running"):
            self.notify("There is no job to cancel here.", timeout=3)
            return
        self.in_worker("cancel", self._cancel(job.id), exclusive=False)

    async def _cancel(self, job_id: str) -> None:
        answer = await self.tell(CancelJob(job=job_id))
        if isinstance(answer, JobTold) and answer.job.state == "running":
            self.notify("It stops after the present step; what is finished is kept.", timeout=4)

    def now(self) -> float:
        """Clock time, seconds since the epoch."""
        return time.time()
