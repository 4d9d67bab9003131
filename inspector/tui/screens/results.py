"""Results: what was measured before, as figures, tables, claims and commands.

Reads the store itself, in threads, so it needs no session and works while one is loading. Looks at the folder every two
seconds: a result that a job or a command stores appears by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget

from inspector.disk.folders import RESULTS
from inspector.drawing.safe_text import visible
from inspector.errors import DataError
from inspector.reports.result import Opened, Shelf, fact_lines, figure_lines, open_result, read_newest, reading
from inspector.store.notes import of_result
from inspector.store.results import Record, list_results
from inspector.tui import result_list
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.screens.base import SideScreen, toggle
from inspector.tui.screens.help import PaneHelp
from inspector.tui.screens.result_pages import ClaimsScreen, CompareScreen
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.store.notes import Subject

ACTIONS = actions_of(
    "results",
    ("figure-next", "] right l", "figure(1)", "Next figure", "figure"),
    ("figure-back", "[ left h", "figure(-1)", "Previous figure"),
    ("filter", "/", "filter", "Only those with these words", "filter"),
    ("mark", "space", "mark", "Mark this result, or not any more", "mark"),
    ("compare", "c", "compare", "Compare the two marked results", "compare"),
    ("export", "x", "export", "Export this or the marked", "export"),
    ("copy", "y", "copy", "Copy the command that repeats it", "copy command"),
    ("note", "*", "note", "Bookmark or note on this result", "note"),
    ("claims", "p", "claims", "The paper's claims", "claims"),
    ("large", "f", "large", "Hide or show the list", "large"),
    ("pane", "tab", "pane(1)", "Next pane", "pane"),
    ("pane-back", "shift+tab", "pane(-1)", "Previous pane"),
    ("help", "?", "help", "Help for the results", "help"),
    ("back", "escape q r", "back", "Back to the stream", "back"),
)  # fmt: skip

KEYS = (("↑↓", "result"), "figure-next", "filter", "mark", "compare", "export", "copy", "claims", "large", "pane")
MOVES = (
    ("↑ ↓ k j", "the next result; in a figure or text, a line"),
    ("PgUp PgDn { }", "a page"),
    ("Home End g G", "the first, the last"),
    ("Enter", "on a result: hide the list and give its figure the window"),
)

HELP = PaneHelp(
    title="Results",
    paragraphs=(
        "Every result that `dm-inspect run`, the Experiments screen or a job has stored, newest first. The same "
        "measurement again replaces the older result. The screen reads the files themselves: it needs no session, and "
        "a result that is stored while you look appears by itself.",
        "On the left the figures, then the tables, one at a time; [ and ] step through them. × stands for a number "
        "that is not defined; it is never drawn as zero and never left out.",
        "On the right: the question; the paper's claims that rest on this result, with the paper's number, ours, its "
        "interval and why it is consistent with the paper, contradicts it, or cannot tell; the table; the definition; "
        "how many tokens stand behind it; controls; what would contradict the paper; and the command that repeats it.",
        "A measured control (null) is never evidence for or against a claim.",
        "Space marks results for comparing (c), exporting (x), and judging the claims (p).",
    ),
    keys=help_rows(MOVES, ACTIONS),
    numbers=("r2", "fvu", "fvu-nonlinear"),
)


WIDE = 100
"""Columns from which the figure and what is said about it stand beside each other."""
POLL_SECONDS = 2.0
"""Between two looks at the folder's time; nothing is read while it is the same."""
MOST_KEPT = 32
"""Results kept in memory; some hold tens of thousands of numbers."""
PANES = ("list", "figure", "facts")


class ResultsScreen(SideScreen):
    """List, figure, facts."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #results-list { height: 8; }
    #results-panes { height: 1fr; }
    #results-left { width: 3fr; }
    #results-right { width: 2fr; margin-left: 1; }
    """

    @dataclass
    class Listed(Message):
        """What is stored."""

        shelf: Shelf

    @dataclass
    class Prepared(Message):
        """A result is drawn."""

        turn: int
        opened: Opened
        figure: Sequence[DrawnLine]
        said: Sequence[DrawnLine]

    def __init__(self, ids: Sequence[str] = ()) -> None:
        """A screen that has read nothing yet.

        Args:
            ids: results to go to, the first of them that is stored.
        """
        super().__init__()
        self.wanted_ids = tuple(ids)
        self.shelf: Shelf | None = None
        """None: not read yet."""
        self.marks: list[str] = []
        """Ids, in the order in which they were marked."""
        self.opened: Opened | None = None
        """What is shown; None until something is."""
        self._figures: dict[str, int] = {}
        """Number of the figure last looked at, by id."""
        self._cache: dict[tuple[str, str], Opened] = {}
        """By id and time: a result measured again is another."""
        self._turn = 0
        self._changed = -1
        """Time of the folder when it was last listed."""
        self._large = False
        """The list is hidden, the panes take all the height."""
        self._beside = "figure"
        """Which pane a narrow window shows."""

    def compose(self) -> ComposeResult:
        """Everything at once."""
        yield from super().compose()
        yield RowList(id="results-list")
        with Horizontal(id="results-panes"):
            with Vertical(id="results-left"):
                yield TitleBar(id="figure-title")
                yield LinesView(id="figure")
            with Vertical(id="results-right"):
                yield TitleBar(id="facts-title")
                yield LinesView(id="facts")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.arrange_panes()
        self.show_list()
        self.rows.focus()
        self.call_after_refresh(self.look_again)
        self.set_interval(POLL_SECONDS, self.look_again)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Read the list if the folder has changed since."""
        try:
            changed = os.stat(RESULTS.path()).st_mtime_ns
        except OSError:  # nothing was stored yet
            changed = 0
        if changed != self._changed or self.shelf is None:
            self._changed = changed
            self.in_thread("list", lambda: self.post_message(self.Listed(read_newest(list_results()))))

    def on_results_screen_listed(self, message: Listed) -> None:
        """The list is there, or has changed; the cursor stays on its result."""
        before = self.record
        first = self.shelf is None
        known = {record.id for record in self.stored}
        self.shelf = message.shelf
        stored = [record.id for record in message.shelf.listing.records]
        now = {record.id: number for number, record in enumerate(self.records)}
        self.marks = [each for each in self.marks if each in stored]
        cursor = now.get(before.id) if before is not None else None
        wanted = [each for each in self.wanted_ids if each in now]
        if wanted:
            cursor = now[wanted[0]]
            self.wanted_ids = ()
        for problem in self.shelf.listing.problems if first else ():
            self.notify(problem, severity="warning", markup=False)
        fresh = [each for each in stored if each not in known]
        if not first and fresh:
            self.notify(f"New: {', '.join(fresh[:3])}{' …' if len(fresh) > 3 else ''}", timeout=4, markup=False)
        self.arrange_panes()
        self.show_list(cursor)
        self.show_result()
        if isinstance(self.app.screen, ClaimsScreen):
            self.app.screen.judge(self.shelf)

    def go_to(self, ids: Sequence[str]) -> None:
        """Show the first of these that is stored, as soon as it is listed."""
        self.wanted_ids = tuple(ids)
        self._changed = -1
        self.look_again()

    @property
    def rows(self) -> RowList:
        """The list."""
        return self.query_one(RowList)

    @property
    def stored(self) -> tuple[Record, ...]:
        """All that are stored, newest first."""
        return self.shelf.listing.records if self.shelf is not None else ()

    @property
    def records(self) -> tuple[Record, ...]:
        """Those with the words of the filter."""
        return tuple(each for each in self.stored if self.matches(result_list.text_of(each)))

    @property
    def record(self) -> Record | None:
        """The one under the cursor."""
        cursor = self.rows.cursor
        return self.records[cursor] if cursor < len(self.records) else None

    @property
    def chosen(self) -> list[Record]:
        """The marked ones, else the one under the cursor."""
        return self._named(self.marks) or ([self.record] if self.record is not None else [])

    def _named(self, ids: Sequence[str]) -> list[Record]:
        return [record for each in ids for record in self.stored if record.id == each]

    def filtered(self) -> None:
        """Other results."""
        self.arrange_panes()
        self.show_list(0)
        self.show_result()

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    def arrange_panes(self) -> None:
        """Which panes are visible."""
        width, height = self.app.size
        wide = width >= WIDE
        count = len(self.records)
        self.rows.display = not (self._large and count)
        self.query_one("#results-panes").display = count > 0
        for name, beside in (("left", "figure"), ("right", "facts")):
            self.query_one(f"#results-{name}").display = wide or self._beside == beside
        self.rows.styles.height = result_list.list_height(count, height) if count else "1fr"
        self.query_one("#results-right").styles.margin = (0, 0, 0, 1 if wide else 0)
        self.show_titles()

    def show_titles(self) -> None:
        """Headings and footer."""
        count = f"{len(self.records)} stored" if self.shelf is not None else "reading …"
        self.show_head(("  results", ""), end=f"{len(self.marks)} marked · {count}" if self.marks else count)
        focused = self.focused_id()
        title, place = "figure", ""
        if self.opened is not None and self.opened.figures:
            number = self._index(self.opened)
            title = result_list.name_of(self.opened.figures[number])
            place = f"{number + 1} of {len(self.opened.figures)}"
        self.query_one("#figure-title", TitleBar).show(title, place, focused == "figure")
        name = self.opened.record.id if self.opened is not None else ""
        self.query_one("#facts-title", TitleBar).show("about it", visible(name or " "), focused == "facts")
        self.show_keys(*(KEYS if self.records else ()), last=("?", "help") if self.records else ("Esc", "back"))

    def show_list(self, cursor: int | None = None) -> None:
        """The list."""
        records = self.records
        short = self.app.size.width < WIDE
        self.rows.show(
            len(records),
            lambda number, width: result_list.row(records, number, records[number].id in self.marks, short, width),
            cursor=cursor,
            head=lambda width: result_list.head(records, short, width),
            empty=result_list.nothing(read=self.shelf is not None, filtered=bool(self.typed)),
        )

    def show_result(self) -> None:
        """Draw the result under the cursor, in a thread."""
        record = self.record
        if record is None or self.shelf is None:
            return
        self._turn += 1
        turn, index, palette, shelf = self._turn, self._figures.get(record.id, 0), self.palette, self.shelf
        (width, height), (side, _) = self._room("figure"), self._room("facts")
        known = self._cache.get((record.id, record.created))

        def draw(opened: Opened) -> tuple[Sequence[DrawnLine], Sequence[DrawnLine]]:
            figure = figure_lines(opened, index, width, height, palette) if width and height else []
            return figure, fact_lines(opened, side, palette) if side else []

        def prepare() -> None:
            opened = known if known is not None else open_result(record, shelf)
            try:
                with reading(opened.stored.result if opened.stored is not None else {"provenance": {}}):
                    drawn = draw(opened)
            except DataError as error:
                opened = replace(opened, stored=None, problem=str(error))
                drawn = draw(opened)
            self.post_message(self.Prepared(turn, opened, *drawn))

        self.in_thread("show", prepare)

    def on_results_screen_prepared(self, message: Prepared) -> None:
        """Show it, unless something else was asked for since."""
        record = message.opened.record
        self._cache[record.id, record.created] = message.opened
        while len(self._cache) > MOST_KEPT:
            del self._cache[next(iter(self._cache))]
        if message.turn != self._turn:
            return
        same = self.opened is not None and self.opened.record == record
        self.opened = message.opened
        palette = self.palette
        if message.figure:
            self.query_one("#figure", LinesView).show(message.figure, palette)
        if message.said:
            self.query_one("#facts", LinesView).show(message.said, palette, keep_place=same)
        self.show_titles()

    def _room(self, name: str) -> tuple[int, int]:
        pane = self.query_one(f"#{name}", LinesView)
        shown = all(node.display for node in pane.ancestors_with_self if isinstance(node, Widget))
        return pane.room if shown else (0, 0)

    def _index(self, opened: Opened) -> int:
        return self._figures.get(opened.record.id, 0) % max(len(opened.figures), 1)

    # ---- widgets tell -----------------------------------------------------------------------------------------------

    def on_resize(self, _: events.Resize) -> None:
        """Another size may have room for other panes."""
        self.arrange_panes()
        self.show_list()

    def on_lines_view_resized(self, message: LinesView.Resized) -> None:
        """Draw for the new room."""
        message.stop()
        self.show_result()

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another result."""
        message.stop()
        self.show_result()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter on a result."""
        message.stop()
        self.action_large()

    def on_descendant_focus(self) -> None:
        """Titles say which pane has the keys."""
        self.show_titles()

    def restyle(self) -> None:
        """Colours of another theme."""
        self.show_result()

    # ---- keys -------------------------------------------------------------------------------------------------------

    def action_figure(self, step: int) -> None:
        """The next or previous figure of this result."""
        if self.opened is not None and self.opened.figures:
            self._figures[self.opened.record.id] = (self._index(self.opened) + step) % len(self.opened.figures)
            self._beside = "figure"
            self.arrange_panes()
            self.show_result()

    def action_pane(self, step: int) -> None:
        """The next pane; in a narrow window it comes into view."""
        if not self.records:
            return
        names = [name for name in PANES if not (name == "list" and self._large)]
        focused = self.focused_id().removeprefix("results-")
        at = names.index(focused) if focused in names else 0
        name = names[(at + step) % len(names)]
        if name != "list":
            self._beside = name
            self.arrange_panes()
        (self.rows if name == "list" else self.query_one(f"#{name}")).focus()

    def action_large(self) -> None:
        """Hide the list, or show it again."""
        if self.records:
            self._large = not self._large
            self.arrange_panes()
            self.query_one(f"#{self._beside}" if self._large else "#results-list").focus()

    def action_mark(self) -> None:
        """Mark this result, or not any more; the cursor goes on."""
        record = self.record
        if record is None:
            return
        toggle(self.marks, record.id)
        self.show_list()
        if self.rows.has_focus:
            self.rows.move_to(self.rows.cursor + 1)
        self.show_titles()

    def action_compare(self) -> None:
        """Two results side by side: the two marked ones, or the marked one and this."""
        ids = list(self.marks[-2:])
        if len(ids) == 1 and self.record is not None and self.record.id != ids[0]:
            ids.append(self.record.id)
        found = self._named(ids)
        if len(found) != 2 or self.shelf is None:
            self.notify("Mark two results with Space, then press c.", timeout=4)
            return
        self.app.push_screen(CompareScreen(found[0], found[1], self.shelf))

    def action_export(self) -> None:
        """Write the marked results, or this one, into a folder."""
        if self.chosen:
            from inspector.tui.screens.export import ExportScreen

            self.app.push_screen(ExportScreen(self.chosen))

    def action_claims(self) -> None:
        """The paper's claims."""
        if self.shelf is not None:
            self.app.push_screen(ClaimsScreen(self.shelf, self.marks))

    def note_subject(self) -> Subject | None:
        """The result under the cursor."""
        return of_result(self.record) if self.record is not None else None

    def action_copy(self) -> None:
        """The command that measures this again."""
        if self.record is not None:
            self.copy_command(self.record.command)

    def action_back(self) -> None:
        """One step back: from the large figure, from the screen."""
        if self._large and self.records:
            self.action_large()
        elif not self.unfilter():
            self.dismiss()
