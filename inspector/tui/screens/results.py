"""Results: what was measured before, as figures, tables, claims and commands.

Reads the store itself, in threads, so it needs no session and works while one is loading. Looks at the folder every two
seconds: a result that a job or a command stores appears by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget

from inspector.disk.folders import RESULTS
from inspector.drawing.safe_text import cell_width, visible
from inspector.errors import DataError, InspectorError
from inspector.reports.result import (
    Opened,
    Shelf,
    all_verdicts,
    fact_lines,
    figure_lines,
    kind,
    open_result,
    read_newest,
    reading,
    when,
)
from inspector.store.results import Record, list_results, load
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.lines import Line, left, spread
from inspector.tui.screens.base import SideScreen, bindings_of
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import FooterPane, TitleBar
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.drawing.palette import TokenPalette
    from inspector.store.results import Record, Stored

ACTIONS = actions_of(
    "results",
    ("figure-next", "] right l", "figure(1)", "Next figure", "figure"),
    ("figure-back", "[ left h", "figure(-1)", "Previous figure"),
    ("mark", "space", "mark", "Mark this result, or not any more", "mark"),
    ("compare", "c", "compare", "Compare the two marked results", "compare"),
    ("export", "x", "export", "Export this or the marked", "export"),
    ("copy", "y", "copy", "Copy the command that repeats it", "copy command"),
    ("claims", "p", "claims", "The paper's claims, or back", "claims"),
    ("large", "f", "large", "Hide or show the list", "large"),
    ("pane", "tab", "pane(1)", "Next pane", "pane"),
    ("pane-back", "shift+tab", "pane(-1)", "Previous pane"),
    ("help", "?", "help", "Help for the results", "help"),
    ("back", "escape q r", "back", "Back to the stream", "back"),
)  # fmt: skip

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
    actions=(),
    keys=help_rows(MOVES, ACTIONS),
)

CLAIMS_HELP = PaneHelp(
    title="The paper's claims",
    paragraphs=(
        "The paper's claims C1 to C19, judged by code from the newest result of each experiment, or from the marked "
        "ones: ✓ consistent with the paper, ✗ contradicts it, ? cannot tell. Under each: the paper's number, this "
        "run's number with its interval, why, and the results it rests on.",
        "The rules are strict about ignorance: a missing experiment, results of different targets, an interval that "
        "reaches both sides, or a fit that is not identified all mean 'cannot tell'.",
        "A small model is not the paper's: a claim that is contradicted on the demo is contradicted there.",
    ),
    actions=(),
    keys=(("↑ ↓ k j", "a line"), ("p Esc", "back to the results"), ("y", "copy the command that prints them")),
)


WIDE = 100
"""Columns from which the figure and what is said about it stand beside each other."""
POLL_SECONDS = 2.0
"""Between two looks at the folder's time; nothing is read while it is the same."""
MOST_KEPT = 32
"""Results kept in memory; some hold tens of thousands of numbers."""
PANES = ("list", "figure", "facts")
MARK = "●"


def list_height(count: int, height: int) -> int:
    """Lines of the list, its heading included, in a window this high."""
    return min(count + 1, max(5, height // 4 if height >= 30 else height // 3 - 1))


class ResultsScreen(SideScreen):
    """List, figure, facts; and, as another page, the paper's claims."""

    ACTIONS = ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(ACTIONS)]
    DEFAULT_CSS = """
    ResultsScreen { layers: base; }
    #results-head { dock: top; }
    #results-list { height: 8; }
    #results-panes { height: 1fr; }
    #results-left { width: 3fr; }
    #results-right { width: 2fr; margin-left: 1; }
    #results-claims-page { display: none; height: 1fr; }
    """

    class Listed(Message):
        """What is stored."""

        def __init__(self, shelf: Shelf, changed: int) -> None:
            super().__init__()
            self.shelf = shelf
            self.changed = changed

    class Prepared(Message):
        """A result is drawn."""

        def __init__(self, turn: int, opened: Opened, figure: Sequence[DrawnLine], said: Sequence[DrawnLine]) -> None:
            super().__init__()
            self.turn = turn
            self.opened = opened
            self.figure = figure
            self.said = said

    class Judged(Message):
        """The table of claims is drawn."""

        def __init__(self, lines: Sequence[DrawnLine]) -> None:
            super().__init__()
            self.lines = lines

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
        self.page = "results"
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
        """Everything at once; one page of the two is hidden."""
        yield TitleBar(id="results-head")
        yield FooterPane(id="results-footer")
        yield RowList(id="results-list")
        with Horizontal(id="results-panes"):
            with Vertical(id="results-left"):
                yield TitleBar(id="figure-title")
                yield LinesView(id="figure")
            with Vertical(id="results-right"):
                yield TitleBar(id="facts-title")
                yield LinesView(id="facts")
        yield LinesView(id="results-claims-page")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.arrange_panes()
        self.show_list()
        self.query_one("#results-list", RowList).focus()
        self.call_after_refresh(self.look_again)
        self.set_interval(POLL_SECONDS, self.look_again)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Read the list if the folder has changed since."""
        changed = _changed(RESULTS.path())
        if changed != self._changed or self.shelf is None:
            self._changed = changed
            self.run_worker(partial(self._list, changed), thread=True, exclusive=True, group="list",
                            exit_on_error=False)  # fmt: skip

    def _list(self, changed: int) -> None:
        """In a thread."""
        shelf = read_newest(list_results())
        self.post_message(self.Listed(shelf, changed))

    def on_results_screen_listed(self, message: Listed) -> None:
        """The list is there, or has changed; the cursor stays on its result."""
        before = self.record
        first = self.shelf is None
        known = {record.id for record in self.records}
        self.shelf = message.shelf
        now = {record.id: number for number, record in enumerate(self.records)}
        self.marks = [each for each in self.marks if each in now]
        cursor = now.get(before.id) if before is not None else None
        wanted = [each for each in self.wanted_ids if each in now]
        if wanted:
            cursor = now[wanted[0]]
            self.wanted_ids = ()
        for problem in self.shelf.listing.problems if first else ():
            self.notify(problem, severity="warning", markup=False)
        fresh = [each for each in now if each not in known]
        if not first and fresh:
            self.notify(f"New: {', '.join(fresh[:3])}{' …' if len(fresh) > 3 else ''}", timeout=4, markup=False)
        self.arrange_panes()
        self.show_list(cursor)
        self.show_result()
        if self.page == "claims":
            self.show_claims()

    def go_to(self, ids: Sequence[str]) -> None:
        """Show the first of these that is stored, as soon as it is listed."""
        self.wanted_ids = tuple(ids)
        self.page = "results"
        found = [number for number, record in enumerate(self.records) if record.id in ids]
        if found:
            self.wanted_ids = ()
            self.query_one("#results-list", RowList).move_to(found[0])
        self._changed = -1
        self.look_again()

    @property
    def records(self) -> tuple[Record, ...]:
        """What is listed, newest first."""
        return self.shelf.listing.records if self.shelf is not None else ()

    @property
    def record(self) -> Record | None:
        """The one under the cursor."""
        cursor = self.query_one("#results-list", RowList).cursor
        return self.records[cursor] if cursor < len(self.records) else None

    @property
    def chosen(self) -> list[Record]:
        """The marked ones, else the one under the cursor."""
        marked = [record for each in self.marks for record in self.records if record.id == each]
        return marked or ([self.record] if self.record is not None else [])

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    def arrange_panes(self) -> None:
        """Which panes are visible."""
        width, height = self.app.size
        wide = width >= WIDE
        count = len(self.records)
        claims = self.page == "claims"
        show = {
            "results-list": not claims and not (self._large and count),
            "results-panes": not claims and count > 0,
            "results-left": wide or self._beside == "figure",
            "results-right": wide or self._beside == "facts",
            "results-claims-page": claims,
        }
        for name, shown in show.items():
            self.query_one(f"#{name}").display = shown
        self.query_one("#results-list").styles.height = list_height(count, height) if count else "1fr"
        self.query_one("#results-right").styles.margin = (0, 0, 0, 1 if wide else 0)
        self.show_titles()

    def show_titles(self) -> None:
        """Headings and footer."""
        head: Line = [("dm-inspect", "accent"), ("  results", "")]
        count = f"{len(self.records)} stored" if self.shelf is not None else "reading …"
        end = f"{len(self.marks)} marked · {count}" if self.marks else count
        if self.page == "claims":
            head[1] = ("  the paper's claims", "")
            end = f"judged by {'the marked' if self.marks else 'the newest of each experiment'}"
        self.query_one("#results-head", TitleBar).show(head, end, False)
        focused = self.focused.id if self.focused is not None else ""
        title, place = "figure", ""
        if self.opened is not None and self.opened.figures:
            number = self._index(self.opened)
            title = visible(type(self.opened.figures[number]).__name__.lower())
            title = {"dotgrid": "grid", "groupedbars": "bars", "tokentrace": "token trace"}.get(title, title)
            place = f"{number + 1} of {len(self.opened.figures)}"
        self.query_one("#figure-title", TitleBar).show([(title, "")], place, focused == "figure")
        name = self.opened.record.id if self.opened is not None else ""
        self.query_one("#facts-title", TitleBar).show([("about it", "")], visible(name or " "), focused == "facts")
        self.show_footer()

    def show_footer(self) -> None:
        """The keys that matter."""
        footer = self.query_one("#results-footer", FooterPane)
        if self.page == "claims":
            footer.show([*self.hints("results.claims", "results.copy"), ("↑↓", "scroll")], ("Esc", "back"))
        elif not self.records:
            footer.show([], ("Esc", "back"))
        else:
            ids = ["results.figure-next", "results.mark", "results.compare", "results.export", "results.copy",
                   "results.claims", "results.large", "results.pane"]  # fmt: skip
            footer.show([("↑↓", "result"), *self.hints(*ids)], ("?", "help"))

    def show_list(self, cursor: int | None = None) -> None:
        """The list."""
        records = self.records
        empty: list[Line] = []
        if self.shelf is None:
            empty = [[], [("  reading the results …", "muted")]]
        elif not records:
            empty = _nothing_stored()
        short = self.app.size.width < WIDE

        def row(number: int, width: int) -> Line:
            record = records[number]
            mark = MARK if record.id in self.marks else " "
            return _row(record, mark, columns(records, width - 2 - (13 if short else 18)), short, width)

        def head(width: int) -> Line:
            sizes = columns(records, width - 4 - (13 if short else 18))
            texts = ("experiment", "model", "hook", "profile")
            line: Line = [("    ", "")]
            line += [(left(text, size) + "  ", "muted") for text, size in zip(texts, sizes, strict=True) if size]
            return [*line, ("measured, UTC", "muted")]

        self.query_one("#results-list", RowList).show(len(records), row, cursor=cursor, head=head, empty=empty)

    def show_result(self) -> None:
        """Draw the result under the cursor, in a thread."""
        record = self.record
        if record is None or self.shelf is None:
            return
        self._turn += 1
        rooms = self._room("figure"), self._room("facts")
        opened = self._cache.get((record.id, record.created))
        work = partial(self._prepare, self._turn, record, opened, self.shelf, self._figures.get(record.id, 0), rooms,
                       self.palette)  # fmt: skip
        self.run_worker(work, thread=True, exclusive=True, group="show", exit_on_error=False)

    def _prepare(
        self,
        turn: int,
        record: Record,
        opened: Opened | None,
        shelf: Shelf,
        index: int,
        rooms: tuple[tuple[int, int], tuple[int, int]],
        palette: TokenPalette,
    ) -> None:
        """In a thread: read and draw."""
        opened = opened if opened is not None else open_result(record, shelf)
        (width, height), (side, _) = rooms
        try:
            with reading(opened.stored.result if opened.stored is not None else {"provenance": {}}):
                figure = figure_lines(opened, index, width, height, palette) if width and height else []
                said = fact_lines(opened, side, palette) if side else []
        except DataError as error:
            opened = replace(opened, stored=None, problem=str(error))
            figure = figure_lines(opened, index, width, height, palette) if width and height else []
            said = fact_lines(opened, side, palette) if side else []
        self.post_message(self.Prepared(turn, opened, figure, said))

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

    def show_claims(self) -> None:
        """The other page, in a thread."""
        if self.shelf is None:
            return
        width, _ = self._room("results-claims-page")
        work = partial(self._judge, list(self.marks), self.shelf, width, self.palette)
        self.run_worker(work, thread=True, exclusive=True, group="claims", exit_on_error=False)

    def _judge(self, ids: list[str], shelf: Shelf, width: int, palette: TokenPalette) -> None:
        """In a thread."""
        from inspector.claims import counted
        from inspector.claims.drawing import claims_lines
        from inspector.drawing.lines import prose
        from inspector.drawing.palette import figure_palette

        chosen: list[Stored] = []
        for each in ids:
            try:
                chosen.append(shelf.stored.get(each) or load(each))
            except InspectorError:  # removed or damaged meanwhile: the list says so
                continue
        verdicts = all_verdicts(chosen if ids else shelf.stored.values())
        *lines, _, _ = claims_lines(verdicts, width, palette)
        # The count stands first here, where it is seen.
        head: list[DrawnLine] = [*prose(counted(verdicts), width, figure_palette(palette).strong), []]
        self.post_message(self.Judged([*head, *lines] if width else []))

    def on_results_screen_judged(self, message: Judged) -> None:
        """Show them."""
        if message.lines:
            self.query_one("#results-claims-page", LinesView).show(message.lines, self.palette, keep_place=True)

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
        if message.pane.id == "results-claims-page":
            self.show_claims()
        else:
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
        if self.page == "claims":
            self.show_claims()

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
        if self.page == "claims" or not self.records:
            return
        names = [name for name in PANES if not (name == "list" and self._large)]
        focused = (self.focused.id if self.focused is not None else "") or ""
        at = names.index(focused.removeprefix("results-")) if focused.removeprefix("results-") in names else 0
        name = names[(at + step) % len(names)]
        if name != "list":
            self._beside = name
            self.arrange_panes()
        self.query_one("#results-list" if name == "list" else f"#{name}").focus()

    def action_large(self) -> None:
        """Hide the list, or show it again."""
        if self.page == "results" and self.records:
            self._large = not self._large
            self.arrange_panes()
            self.query_one(f"#{self._beside}" if self._large else "#results-list").focus()

    def action_mark(self) -> None:
        """Mark this result, or not any more; the cursor goes on."""
        record = self.record
        if record is None or self.page != "results":
            return
        if record.id in self.marks:
            self.marks.remove(record.id)
        else:
            self.marks.append(record.id)
        self.show_list()
        rows = self.query_one("#results-list", RowList)
        if rows.has_focus:
            rows.move_to(rows.cursor + 1)
        self.show_titles()

    def action_compare(self) -> None:
        """Two results side by side: the two marked ones, or the marked one and this."""
        ids = list(self.marks[-2:])
        if len(ids) == 1 and self.record is not None and self.record.id != ids[0]:
            ids.append(self.record.id)
        found = [record for each in ids for record in self.records if record.id == each]
        if len(found) != 2 or self.shelf is None:
            self.notify("Mark two results with Space, then press c.", timeout=4)
            return
        from inspector.tui.screens.results_compare import CompareScreen

        self.app.push_screen(CompareScreen(found[0], found[1], self.shelf))

    def action_export(self) -> None:
        """Write the marked results, or this one, into a folder."""
        if self.chosen:
            from inspector.tui.screens.export import ExportScreen

            self.app.push_screen(ExportScreen(self.chosen))

    def action_claims(self) -> None:
        """The paper's claims, or back to the results."""
        self.page = "results" if self.page == "claims" else "claims"
        self.arrange_panes()
        if self.page == "claims":
            self.query_one("#results-claims-page").focus()
            self.show_claims()
        else:
            self.query_one("#results-list").focus()

    def action_copy(self) -> None:
        """The command that measures this again, or prints the claims."""
        if self.page == "claims":
            command = " ".join(["dm-inspect results claims", *self.marks])
        elif self.record is not None:
            command = self.record.command
        else:
            return
        self.app.copy_to_clipboard(command)
        self.notify(f"Copied:\n{visible(command)}", markup=False)

    def action_back(self) -> None:
        """One step back: from the claims, from the large figure, from the screen."""
        if self.page == "claims":
            self.action_claims()
        elif self._large and self.records:
            self.action_large()
        else:
            self.dismiss()

    @property
    def help_text(self) -> PaneHelp:
        """What `?` says here."""
        return CLAIMS_HELP if self.page == "claims" else HELP


def _changed(folder: os.PathLike[str]) -> int:
    """Time of a folder; 0 if there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _row(record: Record, mark: str, sizes: tuple[int, int, int, int], short: bool, width: int) -> Line:
    """One entry of the list; `sizes` are the columns of experiment, model, hook and profile."""
    texts = (record.experiment, record.model or "-", record.hook_name or "-", kind(record))
    looks = ("strong", "", "", "muted")
    line: Line = [(f"{mark} ", "accent")]
    line += [
        (left(visible(text), size) + "  ", look) for text, size, look in zip(texts, sizes, looks, strict=True) if size
    ]
    return spread([*line, (when(record, short=short), "muted")], [], width)


def _nothing_stored() -> list[Line]:
    return [
        [],
        [("  Nothing is measured yet.", "strong")],
        [],
        [("  e", "key"), (" on the Stream screen opens the experiments; what they measure appears here.", "muted")],
        [("  The same from a shell: ", "muted"), ("dm-inspect run norm-prediction", "")],
        [("  Results are kept in ", "muted"), (visible(str(RESULTS.path())), "")],
    ]


def columns(records: Sequence[Record], width: int) -> tuple[int, int, int, int]:
    """Columns for experiment, model, hook and profile with its null, so that a line of the list fits; 0: no room."""

    def widest(title: str, texts: Iterator[str], most: int) -> int:
        return min(max(len(title), *(cell_width(visible(text)) for text in texts if text), 1), most)

    experiment = widest("experiment", (each.experiment for each in records), 24)
    profile = widest("profile", (kind(each) for each in records), 22)
    model = widest("model", (each.model for each in records), 24)
    hook = widest("hook", (each.hook_name for each in records), 32)
    over = experiment + model + hook + profile + 4 * 2 - width
    if over > 0:
        cut = min(over, max(hook - 10, 0))
        hook, over = hook - cut, over - cut
    if over > 0:
        cut = min(over, max(model - 6, 0))
        model, over = model - cut, over - cut
    return experiment, model, 0 if over > 0 else max(hook, 0), profile
