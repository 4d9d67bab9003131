"""Bookmarks and notes: the list of them, and the whole of one. The line that takes one is in `questions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError
from inspector.reports.notes import facts, markdown
from inspector.session.protocol import GetDetail
from inspector.store.notes import Note, Notes, Subject
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.lines import Line, left, wrapped
from inspector.tui.screens.base import GoTo, OpenScreen, SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

    from inspector.tui.session import Link


ACTIONS = actions_of(
    "notes",
    ("note", "*", "note", "Change the words", "change"),
    ("remove", "x", "remove", "Remove this note", "remove"),
    ("undo", "u", "undo", "Bring the removed note back", "undo"),
    ("export", "m", "export", "All notes as one Markdown page", "Markdown"),
    ("copy", "y", "copy", "Copy the command that shows it", "copy command"),
    ("help", "?", "help", "Help for the notes", "help"),
    ("back", "escape q", "back", "Back", "back"),
)
MOVES = (("↑ ↓ k j", "the next note"), ("PgUp PgDn { }", "a page"), ("Enter", "go to what it is about"))
HELP = PaneHelp(
    title="Bookmarks and notes",
    paragraphs=(
        "What * has kept on the Stream, on a latent, a result or a row of the worst tokens; * on the same thing "
        "changes its words. Every note holds what its subject was like when it was taken, so that it can be read "
        "where the model is gone.",
        "Enter goes there: a token of this session's text in the Stream, a latent of its SAEs, a stored result. What "
        "belongs to another target has the command that opens it; y copies it.",
        "m writes all notes as one Markdown page with commands, and the figures of results as text. "
        "`dm-inspect notes export` does the same.",
    ),
    keys=help_rows(MOVES, ACTIONS),
)


class NotesScreen(SessionScreen):
    """The list, and the whole of one."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #notes-list { height: 1fr; }
    #notes-about { height: 1fr; }
    """

    @dataclass
    class Listed(Message):
        """All notes, newest first, or why not."""

        notes: Sequence[Note]
        problem: str = ""

    @dataclass
    class Removed(Message):
        """A note is gone."""

        note: Note

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.notes: Sequence[Note] | None = None
        """None: not read yet."""
        self.problem = ""
        self._gone: list[Note] = []
        """Removed here, the last one last."""

    def compose(self) -> ComposeResult:
        """List above, one note below."""
        yield from super().compose()
        yield RowList(id="notes-list")
        yield TitleBar(id="notes-title")
        yield LinesView(id="notes-about")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.show_all()
        self.rows.focus()
        self.call_after_refresh(self.read)

    def on_screen_resume(self) -> None:
        """A note may have been taken meanwhile."""
        if self.notes is not None:
            self.read()

    @property
    def rows(self) -> RowList:
        """The list."""
        return self.query_one(RowList)

    @property
    def note(self) -> Note | None:
        """The one under the cursor."""
        notes, at = self.notes or (), self.rows.cursor
        return notes[at] if at < len(notes) else None

    def read(self) -> None:
        """In a thread."""
        self.in_thread("notes", lambda: self.post_message(self._listed()))

    def _listed(self) -> Listed:
        try:
            return self.Listed(Notes().all()[::-1])
        except InspectorError as error:
            return self.Listed((), str(error))

    def on_notes_screen_listed(self, message: Listed) -> None:
        """Show them."""
        self.notes, self.problem = message.notes, message.problem
        self.show_all()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def show_all(self) -> None:
        """List and note."""
        notes = self.notes or ()
        count = "reading …" if self.notes is None else f"{len(notes)} kept"
        self.show_head(("  bookmarks and notes", ""), end=count)
        empty: Sequence[Line] = [[], [("  no note yet", "strong")], [], [("  *", "key"), (
            " on the Stream, a latent, a result or a row of the worst tokens takes one.", "muted")]]  # fmt: skip
        if self.problem:
            empty = [[], *wrapped(visible(self.problem), max(self.app.size.width - 6, 20), "error")]
        self.rows.show(len(notes), lambda number, width: _row(notes[number], width), empty=empty)
        keys = (("↑↓", "note"), "note", "remove", *(("undo",) if self._gone else ()), "export", "copy")
        self.show_keys(*(keys if notes else ()), last=("?", "help") if notes else ("Esc", "back"))
        self.show_note()

    def show_note(self) -> None:
        """The one under the cursor."""
        note = self.note
        title = f"note {note.number}" if note is not None else ""
        self.query_one("#notes-title", TitleBar).show(title, note.created[:16].replace("T", " ") if note else "")
        self.query_one(LinesView).show_made(lambda width: note_lines(note, width) if note is not None else [])

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another note."""
        message.stop()
        self.show_note()

    def on_resize(self, _: events.Resize) -> None:
        """Draw for the new room."""
        self.show_all()

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Go there, if this session has it."""
        message.stop()
        note, ready = self.note, self.session.ready
        if note is None:
            return
        about, kind = note.subject.about, note.subject.kind
        here = ready is not None and about.get("model") == ready.model
        if kind == "result":
            self.post_message(OpenScreen("results", (str(about["result"]),)))
        elif kind == "token" and here and ready and (about["source"], about["text"]) == ("context", ready.text):
            self.post_message(GoTo(about["context"], about["position"]))
            self.dismiss()
        elif kind == "latent" and here and ready and (width := _width_of(ready.saes, about["sae"])):
            from inspector.tui.screens.latent import LatentScreen

            at = GetDetail(source="context", context=0, position=0, sae_id=about["sae"])
            self.app.push_screen(LatentScreen(self.link, at, width, (about["index"],)))
        else:
            self.notify("It is of another target; y copies the command that opens it.", timeout=4)

    def note_subject(self) -> Subject | None:
        """The same one again, to change its words."""
        return self.note.subject if self.note is not None else None

    def action_remove(self) -> None:
        """It is gone, until u brings it back."""
        note = self.note
        if note is not None:
            self.in_thread("remove", lambda: self._remove(note))

    def _remove(self, note: Note) -> None:
        try:
            Notes().remove([note.number])
        except InspectorError as error:
            self.post_message(self.Listed((), str(error)))
            return
        self.post_message(self.Removed(note))

    def on_notes_screen_removed(self, message: Removed) -> None:
        """Remember it."""
        self._gone.append(message.note)
        self.read()

    def action_undo(self) -> None:
        """The one removed last, with a number of its own."""
        if self._gone:
            note = self._gone.pop()
            self.in_thread("undo", lambda: self._undo(note))

    def _undo(self, note: Note) -> None:
        try:
            Notes().put(note.subject, note.words)
        except InspectorError as error:
            self.post_message(self.Listed((), str(error)))
            return
        self.post_message(self._listed())

    def action_export(self) -> None:
        """One page of all of them, oldest first."""
        notes = (self.notes or ())[::-1]
        if notes:
            self.in_worker("export", self._export(notes))

    async def _export(self, notes: Sequence[Note]) -> None:
        import asyncio

        text = await asyncio.to_thread(markdown, notes)
        self.copy_out(text, f"{len(notes)} {'note' if len(notes) == 1 else 'notes'} as Markdown", "notes.md")

    def action_copy(self) -> None:
        """What shows it again."""
        if self.note is not None:
            self.copy_command(self.note.subject.command)


def _width_of(saes: Sequence[object], sae_id: str) -> int:
    return next((sae.d_sae for sae in saes if sae.sae_id == sae_id), 0)  # type: ignore[attr-defined]


def _row(note: Note, width: int) -> Line:
    """Number, kind, what it is about, and the words."""
    title = min(40, max(16, width // 3))
    subject = note.subject
    about = left(visible(subject.title), title)
    words = visible(note.words, newline=" ")
    return [(f"{note.number:>4}  ", "muted"), (left(subject.kind, 8), ""), (f"{about}  ", "strong"), (words, "")]


def note_lines(note: Note, width: int) -> list[Line]:
    """Words, facts and command."""
    subject = note.subject
    lines: list[Line] = [[(visible(subject.title), "strong")], []]
    lines += [*wrapped(visible(note.words, newline=" "), width), []] if note.words else []
    for name, value in facts(subject.about):
        told = f"{value:.6g}" if isinstance(value, float) else str(value)
        lines.append([(left(name.replace("_", " "), 14), "muted"), (visible(told), "")])
    return [*lines, [], [("$ ", "muted"), (visible(subject.command), "")]] if subject.command else lines
