"""Worst tokens: which tokens the SAE fails on, as a table to sort, filter and group; Enter goes there.

Shows what the experiment worst-tokens has stored for this session's text, and starts it as a job where it has not: a
table that grew with the linear map would change its order under the reader, and would be gone with the session. It
reads the store itself, in threads. Textual's DataTable was measured on ten thousand rows of eleven columns: 3.7 s of
the processor until they are painted, 0.27 s to sort them. Here the rows stay columns of numbers, of which a sort makes
another order (2 ms), and only those on the screen become text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from inspector.disk.folders import RESULTS
from inspector.drawing.safe_text import visible
from inspector.errors import InspectorError
from inspector.reports.worst_tokens import (
    GROUPS,
    ID,
    VALUES,
    Listing,
    first_column,
    is_of,
    listing,
    said,
)
from inspector.session.protocol import JobTold, StartJob
from inspector.store.notes import of_token
from inspector.store.results import list_results, load
from inspector.tui import job_lines
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.experiment_list import Request
from inspector.tui.lines import Line, wrapped
from inspector.tui.screens.base import GoTo, SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.entry import FilterLine
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.scrolling import RowList
from inspector.tui.worst_list import ABOUT, about_lines, group_name, head_line, row_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult

    from inspector.session.protocol import Ready
    from inspector.store.notes import Subject
    from inspector.store.results import Stored
    from inspector.tui.session import Link, SessionView

ACTIONS = actions_of(
    "worst",
    ("sort-next", "right l ]", "sort(1)", "Sort by the next column", "sort"),
    ("sort-back", "left h [", "sort(-1)", "Sort by the column before"),
    ("reverse", "v", "reverse", "The other way round", "reverse"),
    ("group", "tab", "group(1)", "Places, token ids, classes, positions, outliers", "group"),
    ("group-back", "shift+tab", "group(-1)", "The grouping before"),
    ("filter", "/", "filter", "Only tokens and classes with this in them", "filter"),
    ("measure", "m", "measure", "Measure the SAE of the Stream, as a job", "measure"),
    ("note", "*", "note", "Bookmark or note on this token", "note"),
    ("copy", "c", "copy", "Copy these rows as a table", "copy"),
    ("command", "y", "copy_command", "Copy the command"),
    ("help", "?", "help", "Help for the worst tokens", "help"),
    ("back", "escape q w", "back", "Back to the stream", "back"),
)

MOVES = (
    ("↑ ↓ k j", "the next row"),
    ("PgUp PgDn { }", "a page"),
    ("Home End g G", "the first, the last"),
    ("Enter", "on a token: show it in the Stream; on a class: its places"),
)

HELP = PaneHelp(
    title="Worst tokens",
    paragraphs=(
        "Which tokens the SAE fails on: every token of every context that counts, measured once by the experiment "
        "worst-tokens. Special tokens, early positions and the last of each context count nowhere; the line above the "
        "rows says which positions do. Outliers, whose activation is many times the median, are a group of their own.",
        "Places: the 10,000 tokens with the largest nonlinear error, or all there are. Token ids: all places of one id "
        "together, those seen at least five times first. Classes: word starts, insides of words, numbers, code marks "
        "and so on. Positions: ranges, each twice as long as the one before. Below the rows: the standard deviation "
        "over tokens, and the 95% interval of the mean over documents.",
        "‖nonlinear‖ is the norm of what no affine map of x predicts of the error, share its part of both parts' "
        "squared norms, fvu its squared norm over that of x, damage what the SAE in the place of x adds to the loss.",
        "A large norm may only mean a long x: look at fvu too. A mean of few places is those places.",
    ),
    keys=help_rows(MOVES, ACTIONS),
    numbers=("nonlinear", "linear", "sae-error", "share", "loss"),
)

POLL_SECONDS = 2.0
"""Between two looks at the folder of results."""


class WorstScreen(SessionScreen):
    """Rows, and what is known of the one under the cursor."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = f"""
    #worst-rows {{ height: 1fr; }}
    #worst-about {{ height: {ABOUT}; padding: 0 1; }}
    """

    @dataclass
    class Found(Message):
        """The newest result that fits, with its rows by group; None: there is none."""

        stored: Stored | None
        rows: Mapping[str, Listing]
        problem: str = ""

    def __init__(self, link: Link, sae_id: str) -> None:
        """Nothing is read yet.

        Args:
            link: to the session.
            sae_id: of the SAE that colours the Stream; '': not known yet.
        """
        super().__init__(link)
        self._sae_id = sae_id
        self.stored: Stored | None = None
        """What is shown; None: nothing is."""
        self.problem = ""
        self.group = GROUPS[0]
        self.order: list[int] = []
        """Numbers of the rows, as they are shown."""
        self._rows: Mapping[str, Listing] = {}
        self._sorted: dict[str, tuple[str, bool]] = {}
        """By group: the column, and whether the largest is first."""
        self._changed = -1
        """Time of the folder when it was read last."""
        self._read = False
        self._job: str | None = ""
        """Id of the job that was started here; None: it is being started."""

    def compose(self) -> ComposeResult:
        """Title, what the rows are, rows, what is known of one, keys."""
        yield from super().compose()
        yield TitleBar(id="worst-title")
        yield RowList(id="worst-rows")
        yield LinePane(id="worst-about")

    def on_mount(self) -> None:
        """Paint, then read."""
        super().on_mount()
        self.show_all()
        self.rows.focus()
        self.call_after_refresh(self.look_again)
        self.set_interval(POLL_SECONDS, self.look_again)

    @property
    def rows(self) -> RowList:
        """The rows."""
        return self.query_one(RowList)

    @property
    def shown(self) -> Listing | None:
        """Those of the group; None while there are none."""
        return self._rows.get(self.group)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Read the store if it has changed, or if it is known now whose results are meant."""
        try:
            changed = os.stat(RESULTS.path()).st_mtime_ns
        except OSError:  # nothing was stored yet
            changed = 0
        ready = self.session.ready
        if ready is not None and changed != self._changed:
            self._changed = changed
            sae_id = self._sae_id
            self.in_thread("worst", lambda: self.post_message(self._look(ready, sae_id)))

    def _look(self, ready: Ready, sae_id: str) -> Found:
        """In a thread."""
        try:
            stored = newest(ready, sae_id)
            rows = {} if stored is None else {group: listing(stored.result, group) for group in GROUPS}  # type: ignore[arg-type]
        except InspectorError as error:
            return self.Found(None, {}, str(error))
        return self.Found(stored, rows)

    def on_worst_screen_found(self, message: Found) -> None:
        """Show it, unless it is there already."""
        self._read, self.problem = True, message.problem
        same = self.stored is not None and message.stored is not None and self.stored.record == message.stored.record
        if not same:
            self.stored, self._rows, self._sorted = message.stored, message.rows, {}
            self._arrange()
        self.show_all()

    def session_changed(self, session: SessionView) -> None:
        """The target is there, or a job is further."""
        self.look_again()
        if self.stored is None:
            self.show_all()

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    @property
    def sorting(self) -> tuple[str, bool]:
        """The column that rows are sorted by, and whether the largest is first."""
        shown = self.shown
        by = first_column(self.group, shown.by if shown is not None else "nonlinear")
        return self._sorted.get(self.group, (by, by != "first"))

    def _arrange(self) -> None:
        """Sort and filter anew."""
        shown = self.shown
        if shown is None:
            self.order = []
        elif self.group == "token" and self.group not in self._sorted and not self.typed:
            self.order = list(range(len(shown)))  # as the result has them: those seen often enough first
        else:
            by, descending = self.sorting
            self.order = shown.order(by, descending=descending, words=self.typed)

    def show_all(self, cursor: int | None = None) -> None:
        """Everything."""
        sae = self.stored.result["result"]["sae"] if self.stored is not None else self._sae_id
        self.show_head(
            ("  worst tokens", ""), (f"  SAE {visible(sae)}" if sae else "", "muted"), end=self.target_text()
        )
        shown, (by, descending) = self.shown, self.sorting
        title, told = group_name(self.group), ""
        if self.stored is not None and shown is not None:
            told = said(self.stored.result, shown)  # type: ignore[arg-type]
            if self.typed:
                told = f"{len(self.order):,} with '{visible(self.typed)}' of {told}"
        self.query_one("#worst-title", TitleBar).show(title, told)

        def row(number: int, width: int) -> Line:
            """Reversed, a colour would be a block on the row under the cursor."""
            plain = number == self.rows.cursor
            return row_line(shown, self.order[number], by, width, coloured=not plain) if shown is not None else []

        self.rows.show(
            len(self.order),
            row,
            cursor=cursor,
            head=lambda width: head_line(shown, by, descending, width) if shown is not None else [],
            empty=self._nothing(),
        )
        self.show_about()
        keys = (("↑↓", "row"), "sort-next", "reverse", "group", "filter", "note", "copy", "measure")
        self.show_keys(*(keys if self.stored is not None else ("measure",)), last=("?", "help"))

    def _nothing(self) -> Sequence[Line]:
        """In place of the rows: what is missing, and what brings it."""
        width = max(self.app.size.width - 6, 20)
        job = self.session.job(self._job or "")
        if self.problem:
            return [[], *wrapped(visible(self.problem), width, "error")]
        if self.stored is not None:
            why = f"no token or class has '{visible(self.typed)}' in it" if self.typed else "there are none"
            return [[], [(f"  {why}", "muted")]]
        if job is not None and job.state in ("queued", "running"):
            return [[], job_lines.row(job, width, self.now()), [], [("  it goes on when you leave", "muted")]]
        if self.session.ready is None or not self._read:
            return [[], [("  reading …", "muted")]]
        return [
            [],
            [("  Nothing is measured yet.", "strong")],
            [],
            [("  m", "key"), (" measures every token of this text, as a job; the rows appear here.", "muted")],
            [("  The same from a shell: ", "muted"), (self.command(), "")],
        ]

    def show_about(self) -> None:
        """What is known of the row under the cursor."""
        shown, at = self.shown, self.rows.cursor
        lines: list[Line] = []
        if shown is not None and at < len(self.order):
            tokens = self._rows.get("token")
            lines = about_lines(shown, self.order[at], tokens, max(self.app.size.width - 2, 20))
        self.query_one("#worst-about", LinePane).draw(lambda _width, _height: lines[:ABOUT])

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another row."""
        message.stop()
        self.show_about()

    def on_resize(self) -> None:
        """Another size has room for other columns."""
        self.query_one("#worst-about").display = self.app.size.height >= 18
        self.show_all()

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """To the place in the Stream; of a class, its places."""
        message.stop()
        shown = self.shown
        if shown is None:
            return
        place = shown.place(self.order[message.row])
        if place is not None:
            self.post_message(GoTo(*place))
            self.dismiss()
        elif self.group == "class":
            words = str(shown.columns["class"][self.order[message.row]])
            self.group = "outlier" if words == "outlier" else "place"
            self.query_one(FilterLine).fill("" if words in ("all", "outlier") else words)
            self.filtered()

    def action_sort(self, step: int) -> None:
        """By another column."""
        shown = self.shown
        if shown is not None:
            names = shown.shown
            self.action_sort_by(names[(names.index(self.sorting[0]) + step) % len(names)])

    def action_sort_by(self, name: str) -> None:
        """By this column; by the one it is sorted by, the other way round."""
        if name == self.sorting[0]:
            self.action_reverse()
        elif self.shown is not None and name in self.shown.shown:
            self._sort(name, descending=name in VALUES or name in ("n", "part", "x_norm"))

    def action_reverse(self) -> None:
        """The other way round."""
        by, descending = self.sorting
        self._sort(by, descending=not descending)

    def _sort(self, by: str, *, descending: bool) -> None:
        self._sorted[self.group] = (by, descending)
        self._arrange()
        self.show_all(cursor=0)

    def action_group(self, step: int) -> None:
        """Other rows of the same result."""
        if self._rows:
            self.group = GROUPS[(GROUPS.index(self.group) + step) % len(GROUPS)]
            self._arrange()
            self.show_all(cursor=0)

    def filtered(self) -> None:
        """Other rows."""
        self._arrange()
        self.show_all(cursor=0)

    def request(self) -> Request:
        """What measures it."""
        ids = [sae.sae_id for sae in self.session.ready.saes] if self.session.ready is not None else []
        named = bool(self._sae_id) and ids[len(ids) // 2 :][:1] != [self._sae_id]
        return Request(experiments=(ID,), params=(("sae", self._sae_id),) if named else ())

    def command(self) -> str:
        """The same from a shell."""
        return self.request().command(self.target_words())

    def action_measure(self) -> None:
        """As a job, and only once."""
        job = self.session.job(self._job or "")
        if self._job is None or (job is not None and job.state in ("queued", "running", "done")):
            self.notify("It is being measured; J on the Stream shows how far it is.", timeout=4)
        elif self.stored is not None and self.stored.result["result"]["sae"] == self._sae_id:
            self.notify("This SAE is measured. The Experiments screen measures it again.", timeout=4)
        elif self.session.ready is not None:
            self._job = None
            self.in_worker("measure", self._start(), exclusive=False)

    async def _start(self) -> None:
        asked = self.request()
        answer = await self.tell(StartJob(experiments=list(asked.experiments), params=dict(asked.params)))
        self._job = answer.job.id if isinstance(answer, JobTold) else ""
        self.show_all()
        if self._job and self.stored is not None:
            self.notify("Started as a job; the rows change when it is done.", timeout=4)

    def note_subject(self) -> Subject | None:
        """The place of the row."""
        shown, ready, at = self.shown, self.session.ready, self.rows.cursor
        place = shown.place(self.order[at]) if shown is not None and at < len(self.order) else None
        if shown is None or ready is None or place is None or self.stored is None:
            return None
        row = shown.row(self.order[at])
        numbers = {name: row[name] for name in VALUES if name in row}
        sae = self.stored.result["result"]["sae"]
        return of_token(
            ready.model, ready.text, "context", place[0], place[1], self.target_words(), token=row["token"],
            hook_name=ready.hook_name, sae=sae, token_class=row["class"], seen=row.get("n"),
            **{"means" if self.group == "token" else "numbers": numbers},
        )  # fmt: skip

    def action_copy(self) -> None:
        """The rows as they are sorted and filtered."""
        shown = self.shown
        if shown is not None and self.order:
            from inspector.store.exports import csv_text

            rows = (tuple(values[number] for values in shown.columns.values()) for number in self.order)
            self.copy_out(csv_text(shown.columns, rows), f"{len(self.order):,} rows", f"worst-{self.group}.csv")

    def action_copy_command(self) -> None:
        """What measures this from a shell."""
        self.copy_command(self.stored.record.command if self.stored is not None else self.command())


def newest(ready: Ready, sae_id: str) -> Stored | None:
    """The newest stored result of a session's text, of this SAE if there is one; None: there is none.

    Raises:
        InspectorError: it cannot be read.
    """
    other = None
    for record in list_results().records:
        if record.experiment == ID and not record.null and record.hook_name == ready.hook_name:
            stored = load(record.id)
            if is_of(stored.result, ready.model, ready.text, ready.n_contexts, ready.context_length):
                if not sae_id or stored.result["result"].get("sae") == sae_id:
                    return stored
                other = other or stored
    return other
