"""Questions over whatever is on the screen: the session has ended, leaving while a job runs, a job started twice."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Input

from inspector.drawing.glossary import TOUR
from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError
from inspector.session.protocol import CancelJob
from inspector.spec import DEFAULT_TARGET, command_words
from inspector.store.notes import Notes
from inspector.tui.job_lines import duration, name_of
from inspector.tui.lines import Line, cut, fit, joined, part, wrapped, wrapped_line
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.app import ComposeResult

    from inspector.events import JobInfo
    from inspector.store.notes import Subject
    from inspector.tui.session import Link, SessionView

TAIL_BYTES = 16 * 1024
TAIL_LINES = 8


def log_tail(path: str) -> list[str]:
    """The last lines of a log; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]


def view_log(error: BaseException | None) -> str:
    """Write down what broke the view; where that is, in a sentence."""
    from inspector.session.discovery import log_dir  # beside the sessions' own; `dm-inspect info` names the folder

    path = log_dir() / "view.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)) if error else "no exception\n")
    except OSError as problem:
        return f"The log could not be written: {problem}."
    return f"The log is {path}; please report it."


def ended_lines(why: str, log_path: str, tail: Sequence[str], width: int) -> list[Line]:
    """The panel: what happened, the log's end, the keys."""
    lines: list[Line] = [[("the session has ended", "error")]]
    lines += wrapped(visible(why), width, "strong", least=20)
    if tail:
        lines += [[], [("the end of its log  ", "muted"), (cut(visible(log_path), max(0, width - 20)), "muted")]]
        lines += [[("│ ", "muted"), (cut(visible(line), max(0, width - 2)), "")] for line in tail]
    elif log_path:
        lines += [[], [(cut(f"its log {visible(log_path)} cannot be read", width), "muted")]]
    keys = [
        part(3, [("r", "key"), (" starts it again, here and as it was", "muted")],
             [("r", "key"), (" starts it again", "muted")]),
        part(2, [("Esc", "key"), (" look at what is there", "muted")], [("Esc", "key"), (" look", "muted")]),
        part(1, [("q", "key"), (" quit", "muted")]),
    ]  # fmt: skip
    return [*lines, [], joined(fit(keys, width, "   "), "   ")]


def fitting_lines(why: str, log_path: str, tail: Sequence[str], width: int, height: int) -> list[Line]:
    """As many as there is room for: in a low window the oldest lines of the log go first."""
    while tail and len(ended_lines(why, log_path, tail, width)) > height:
        tail = tail[1:]
    return ended_lines(why, log_path, tail, width)


class EndedScreen(ModalScreen[bool]):
    """True: start it again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r,enter", "answer(True)", "start again", show=False, id="ended.restart"),
        Binding("escape", "answer(False)", "look at what is there", show=False, id="ended.look"),
        Binding("q", "app.quit", "quit", show=False, id="ended.quit"),
    ]
    DEFAULT_CSS = """
    EndedScreen { align: center bottom; background: transparent; }
    EndedScreen > LinePane {
        width: 100%; max-height: 100%; padding: 0 2; background: $surface;
        border-top: heavy $error;
    }
    """

    def __init__(self, why: str, log_path: str, tail: Sequence[str]) -> None:
        super().__init__()
        self._told = (why, log_path, tail)

    def compose(self) -> ComposeResult:
        """The panel at the bottom."""
        panel = LinePane()
        panel.draw(lambda width, height: fitting_lines(*self._told, width, height))
        panel.styles.height = len(ended_lines(*self._told, max(20, self.app.size.width - 4))) + 1  # the border
        yield panel

    def action_answer(self, again: bool) -> None:
        """A key was pressed."""
        self.dismiss(again)


Asked = TypeVar("Asked")
Answer = Literal["leave", "cancel", "stay"]
"""Go and let the jobs run; cancel them and go; do not go."""


def question_lines(jobs: Sequence[JobInfo], *, survives: bool) -> list[Line]:
    """What runs, what becomes of it, and the keys.

    Args:
        jobs: that run or wait, not empty.
        survives: whether the session goes on without this view.
    """
    first = jobs[0]
    left = f", about {duration(first.seconds_left)} left" if first.seconds_left else ""
    more = f", and {len(jobs) - 1} more wait{'s' if len(jobs) == 2 else ''}" if len(jobs) > 1 else ""
    what = "is running" if first.state == "running" else "is waiting to run"
    lines: list[Line] = [[(name_of(first), "strong"), (f" {what}{left}{more}.", "")], []]
    if survives:
        lines += [
            [("It goes on in the session when you leave; `dm-inspect` comes back to it,", "muted")],
            [("`dm-inspect jobs list` tells how far it is.", "muted")],
            [],
            [("Enter", "key"), ("  leave, the job goes on", "")],
            [("c", "key"), ("      cancel the job and leave; what is finished is kept", "")],
        ]
    else:
        lines += [
            [("The session runs inside this program (--in-process): the job ends with it.", "warning")],
            [("What is finished is kept, and `dm-inspect jobs resume` goes on from there.", "muted")],
            [],
            [("Enter", "key"), ("  leave, the job stops", "")],
        ]
    return [*lines, [("Esc", "key"), ("    stay", "")]]


async def cancel_all(link: Link) -> None:
    """Cancel every job that is not done: those that wait first, or each would begin in its turn."""
    for job in reversed(link.session.unfinished):
        await link.call(CancelJob(job=job.id))


def farewell(session: SessionView, *, survives: bool) -> str:
    """Two lines for the terminal when the view is left: the session and how to come back, its jobs and results.

    Args:
        session: as it was known last.
        survives: whether it goes on without this view.

    Returns:
        '' if nothing was ever loaded.
    """
    if session.ready is None:
        return ""
    target = session.ready.target
    # Said even where it is the default: without a target the app takes SmolLM2 where that is installed.
    words = command_words(target if "--model" in target else ["--model", DEFAULT_TARGET.model, *target])
    if not survives or session.stage == "lost":
        first = f"The session has ended; `{words}` starts it again."
    else:
        first = f"The session stays for a while: `{words}` comes back, `dm-inspect sessions list` shows it."
    n_results = len({result for job in session.jobs for result in job.results})
    alive = f", {len(session.unfinished)} unfinished" if session.unfinished else ""
    counted = f"jobs: {len(session.jobs)}{alive} (`dm-inspect jobs list`)"
    return f"{first}\n{counted}; results: {n_results} (`dm-inspect results list`)"


def twin_lines(job: JobInfo) -> list[Line]:
    """That there is such a job already, and the keys."""
    told = {"running": "is running", "queued": "is waiting to run"}.get(job.state, "is done: its results are stored")
    return [
        [(name_of(job), "strong"), (f" {told}, with these very parameters.", "")],
        [],
        [("The same on the same tokens gives the same numbers.", "muted")],
        [],
        [("Enter", "key"), ("  start it once more", "")],
        [("Esc", "key"), ("    do not", "")],
    ]


BOX = 78
"""Columns of a question where there is room."""


class Question(ModalScreen[Asked]):
    """A few lines in the middle of the screen, and keys that answer."""

    DEFAULT_CSS = f"""
    Question {{ align: center middle; background: transparent; }}
    Question > LinePane {{ width: {BOX}; max-width: 100%; padding: 0 2; background: $surface; border: heavy $accent; }}
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        """The question alone."""
        question = LinePane()
        room = min(BOX, self.app.size.width) - 6  # the border, and a space of two
        lines = [part for line in self._lines for part in wrapped_line(line, room)]
        if len(lines) + 2 > self.app.size.height:
            lines = [line for line in lines if line]
        question.draw(lambda _width, _height: lines)
        question.styles.height = len(lines) + 2  # the border
        yield question

    def action_answer(self, answer: Asked) -> None:
        """A key was pressed."""
        self.dismiss(answer)


class TwinScreen(Question[bool]):
    """True: start the job all the same."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "answer(True)", "start it once more", show=False, id="twin.start"),
        Binding("escape,q", "answer(False)", "do not", show=False, id="twin.leave"),
    ]

    def __init__(self, job: JobInfo) -> None:
        super().__init__(twin_lines(job))


class LeavingScreen(Question[Answer]):
    """Returns what the user wants."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q,ctrl+q", "answer('leave')", "leave", show=False, priority=True, id="leaving.leave"),
        Binding("c", "answer('cancel')", "cancel the job and leave", show=False, id="leaving.cancel"),
        Binding("escape", "answer('stay')", "stay", show=False, id="leaving.stay"),
    ]

    def __init__(self, jobs: Sequence[JobInfo], *, survives: bool = True) -> None:
        super().__init__(question_lines(jobs, survives=survives))
        self._survives = survives

    def action_answer(self, answer: Answer) -> None:
        """A key was pressed."""
        if answer != "cancel" or self._survives:
            self.dismiss(answer)


class NoteEntry(ModalScreen[str]):
    """One line for the words of a note, over whatever is on the screen; returns what to say of it, '' if nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "close", show=False, id="note.close")]
    DEFAULT_CSS = """
    NoteEntry { align: center bottom; background: transparent; }
    NoteEntry > Vertical { height: 4; background: $surface; border-top: heavy $accent; padding: 0 1; }
    NoteEntry LinePane { height: 1; background: $surface; }
    NoteEntry Input { height: 1; border: none; padding: 0; background: $surface; }
    """

    @dataclass
    class Known(Message):
        """There is a note on it already, or the notes cannot be read."""

        words: str
        problem: str = ""

    @dataclass
    class Kept(Message):
        """It is kept, or could not be."""

        said: str

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject = subject

    def compose(self) -> ComposeResult:
        """What it is about, the words, the keys."""
        about, keys = LinePane(), LinePane()
        about.draw(lambda width, _: [[("note on ", "muted"), (cut(visible(self._subject.title), width - 9), "strong")]])
        enter: Line = [("Enter", "key"), (" keeps it", "muted")]
        bare: Line = [*enter, ("; nothing typed is a bookmark", "muted")]
        escape = part(2, [("Esc", "key"), (" leaves it", "muted")])
        keys.draw(lambda width, _: [joined(fit([part(1, bare, enter), escape], width, "   "), "   ")])
        with Vertical():
            yield about
            yield Input(compact=True, placeholder="what is worth remembering", select_on_focus=False)
            yield keys

    def on_mount(self) -> None:
        """Look for the note that is there."""
        self.query_one(Input).focus()
        self._in_thread(self._find)

    def _in_thread(self, work: Callable[[], object]) -> None:
        self.run_worker(work, thread=True, group="note")

    def _find(self) -> None:
        try:
            note = Notes().find(self._subject)
        except InspectorError as error:
            self.post_message(self.Known("", str(error)))
            return
        if note is not None:
            self.post_message(self.Known(note.words))

    def on_note_entry_known(self, message: Known) -> None:
        """Change that note, unless something was typed meanwhile."""
        field = self.query_one(Input)
        if message.problem:
            self.dismiss(message.problem)
        elif not field.value:
            field.value = message.words
            field.action_end()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep it."""
        event.stop()
        words = event.value.strip()
        self._in_thread(lambda: self._keep(words))

    def _keep(self, words: str) -> None:
        try:
            note = Notes().put(self._subject, words)
        except InspectorError as error:
            self.post_message(self.Kept(str(error)))
            return
        self.post_message(self.Kept(f"{'Note' if words else 'Bookmark'} {note.number} kept. B lists them."))

    def on_note_entry_kept(self, message: Kept) -> None:
        """Say so on the screen below."""
        self.dismiss(message.said)

    def action_close(self) -> None:
        """As it was."""
        self.dismiss("")


class TourScreen(Question[str]):
    """The three sentences. Esc ends them; any other key does so too, and then what it does in the Stream."""

    def __init__(self) -> None:
        keys: Line = [("Esc", "key"), (" ends this   ", "muted"), ("i", "key"), (" brings it back   ", "muted"),
                      ("?", "key"), (" says what each number is", "muted")]  # fmt: skip
        lines: list[Line] = [[("linear and nonlinear error", "strong")], []]
        for sentence, look in zip(TOUR, ("", "linear", "nonlinear"), strict=True):
            lines += [[("● ", look), (sentence, "")], []]
        super().__init__([*lines, keys])

    def on_key(self, event: events.Key) -> None:
        """Out of the way."""
        event.stop()
        self.dismiss("" if event.key in ("escape", "enter", "i") else event.key)


def tour(stream: Screen[Any]) -> None:
    """Over the Stream, where a key that ended it goes on."""

    def go_on(key: str | None) -> None:
        if key:
            stream.app.simulate_key(key)

    stream.app.push_screen(TourScreen(), go_on)
