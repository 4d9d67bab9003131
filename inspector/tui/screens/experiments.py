"""Experiments: the paper's measurements in its order, what each costs here, and what runs.

Paints first; the experiments are imported in a thread after that (no torch among them), and the session is asked what
they would cost.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Horizontal, Vertical

from inspector.errors import InspectorError
from inspector.session.protocol import Costs, Failed, GetCosts
from inspector.tui import experiment_list, job_lines
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.experiment_list import Request
from inspector.tui.lines import Line
from inspector.tui.screens.base import SessionScreen, toggle
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.timer import Timer

    from inspector.events import Cost, JobInfo
    from inspector.experiment import Experiment
    from inspector.tui.session import Link, SessionView

ACTIONS = actions_of(
    "experiments",
    ("mark", "space", "mark", "Mark it, to run several together", "mark"),
    ("mark-all", "a", "mark_all", "Mark all, or none", "all"),
    ("filter", "/", "filter", "Only those with these words", "filter"),
    ("open", "enter", "open", "Parameters, then start", "parameters"),
    ("start", "s", "start", "Start with the defaults", "start"),
    ("cancel", "x", "cancel", "Cancel the running job", "cancel job"),
    ("jobs", "J", "app.open_screen('jobs')", "Jobs and their logs", "jobs"),
    ("results", "r", "app.open_screen('results')", "Results", "results"),
    ("copy", "y", "copy", "Copy the command", "copy command"),
    ("pane", "tab shift+tab", "pane", "Between list and text", "pane"),
    ("help", "?", "help", "Help for the experiments", "help"),
    ("back", "escape q e", "back", "Back to the stream", "back"),
)

MOVES = (("↑ ↓ k j", "the next experiment; in the text, a line"), ("PgUp PgDn { }", "a page"), ("Home End", "the ends"))

HELP = PaneHelp(
    title="Experiments",
    paragraphs=(
        "The paper's measurements, in its order. The cost is the session's estimate for this model, these SAEs and "
        "these tokens, over all passes that an experiment makes when it runs alone. Some of them are shared by all, so "
        "several marked experiments run together in little more time than the most expensive one.",
        "On the right: what is asked, what is measured, what it needs, and what would contradict the paper's claim.",
        "A job runs in the session, one at a time, between what you do on the screen. It goes on when you leave. Each "
        "result is stored as soon as it is there, and shown by r.",
        "The line with $ is the same as a command; y copies it.",
    ),
    keys=help_rows(MOVES, ACTIONS),
    numbers=("cost",),
)

WIDE = 100
"""Columns from which list and text stand beside each other."""
COST_DELAY = 0.2
"""Seconds the cursor rests before the session is asked what exactly this would cost."""
QUEUE = 5
"""Jobs shown below the list in a high window."""


class ExperimentsScreen(SessionScreen):
    """List, text, queue, command."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #experiments-body { height: 1fr; }
    #experiments-list { width: 1fr; height: 1fr; padding: 0 1 0 0; }
    #experiments-queue { height: 5; padding: 0 1; }
    #experiments-command { height: 2; padding: 0 1; }
    """

    remembered: ClassVar[dict[tuple[str, ...], dict[str, str]]] = {}
    """Values of the form by the experiments it was of, for as long as the program runs."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.known: list[Experiment] = []
        """All, in the paper's order."""
        self.experiments: list[Experiment] = []
        """Those with the words of the filter."""
        self.marks: list[str] = []
        """Ids, in the order in which they were marked."""
        self._wanted: tuple[str, ...] = ()
        """Where the cursor goes when there is a list."""
        self._loading = True
        self._problem = ""
        """Why there is no list."""
        self._estimates: Costs | None = None
        self._shared: dict[frozenset[str], Costs] = {}
        """What a set of marked experiments costs, once asked."""
        self._asked = False
        self._cost_timer: Timer | None = None
        self._n_done: int | None = None
        """Jobs that were done when the costs were asked for; None: they were not."""

    def compose(self) -> ComposeResult:
        """Everything at once; the text is beside the list or below it."""
        yield from super().compose()
        with Horizontal(id="experiments-body"):
            yield RowList(id="experiments-list")
            with Vertical(id="experiments-right"):
                yield TitleBar(id="experiments-title")
                yield LinesView(id="experiments-text")
        yield TitleBar(id="experiments-queue-title")
        yield LinesView(id="experiments-queue")
        yield TitleBar(id="experiments-command-title")
        yield LinesView(id="experiments-command")

    def on_mount(self) -> None:
        """Paint, then import."""
        super().on_mount()
        for name in ("queue", "command"):
            self.query_one(f"#experiments-{name}").can_focus = False
        self.arrange_panes()
        self.query_one(RowList).focus()
        self.show_all()
        self.call_after_refresh(self.read)

    @property
    def text(self) -> LinesView:
        """What is said about the experiment under the cursor."""
        return self.query_one("#experiments-text", LinesView)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Import the experiments, then ask what they cost."""
        self.in_worker("read", self._read())

    async def _read(self) -> None:
        try:
            found = await asyncio.to_thread(_discover)
        except InspectorError as error:
            self._loading, self._problem = False, str(error)
            self.show_all()
            return
        self._loading, self._problem = False, ""
        self.known = experiment_list.in_paper_order(found)
        self.filtered()
        self.go_to(self._wanted)
        await self._estimate()

    async def _estimate(self) -> None:
        """Ask for the cost of each; a session that is still loading is asked when it is ready."""
        if self.session.ready is None:
            return
        self._asked = self._estimates is None
        self._n_done = sum(job.state == "done" for job in self.session.jobs)
        self.show_all()
        answer = await self.tell(GetCosts(experiments=[each.id for each in self.known]))
        self._asked = False
        if isinstance(answer, Costs):
            self._estimates = answer
        elif isinstance(answer, Failed):
            self._estimates = None
        self.show_all()
        self._ask_cost_soon()

    async def _estimate_marked(self, ids: list[str]) -> None:
        answer = await self.link.call(GetCosts(experiments=ids))
        if isinstance(answer, Costs):
            self._shared[frozenset(ids)] = answer
            self.show_all()

    def estimate(self, experiment_id: str) -> Cost | None:
        """What the session said of one; None if nothing."""
        if self._estimates is None:
            return None
        return next((each for each in self._estimates.costs if each.experiment == experiment_id), None)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Another size has room for more or less."""
        self.arrange_panes()
        self.show_all()

    def arrange_panes(self) -> None:
        """Text beside the list, or below it; the queue as long as there is room for."""
        width, height = self.app.size
        wide = width >= WIDE
        right = self.query_one("#experiments-right")
        right.display = wide or height >= 20
        self.query_one("#experiments-body").styles.layout = "horizontal" if wide else "vertical"
        right.styles.width = min(80, max(46, width * 9 // 20)) if wide else "100%"
        right.styles.height = "100%" if wide else max(5, height // 4)
        right.styles.margin = (0, 0, 0, 1 if wide else 0)
        queue = QUEUE if height >= 30 else 2 if height >= 20 else 1
        self.query_one("#experiments-queue").styles.height = queue
        self.query_one("#experiments-command").styles.height = 2 if height >= 24 else 1

    def restyle(self) -> None:
        """The theme changed."""
        self.show_all()

    def session_changed(self, session: SessionView) -> None:
        """A job is further, or the target is there now."""
        n_done = sum(job.state == "done" for job in session.jobs)
        if n_done != self._n_done and session.ready is not None and self.experiments:
            self._n_done = n_done  # a measurement that has run here is known better than before
            self._shared.clear()
            self.in_worker("estimate", self._estimate())
        self.show_title()
        self.show_queue()
        self.show_command()

    @property
    def experiment(self) -> Experiment | None:
        """The one under the cursor."""
        at = self.query_one(RowList).cursor
        return self.experiments[at] if at < len(self.experiments) else None

    @property
    def chosen(self) -> list[Experiment]:
        """The marked ones, in the paper's order; with none marked, the one under the cursor."""
        marked = [each for each in self.known if each.id in self.marks]
        return marked or ([self.experiment] if self.experiment is not None else [])

    def show_all(self) -> None:
        """Every pane."""
        self.show_title()
        self.show_list()
        self.show_text()
        self.show_queue()
        self.show_command()
        ids = [
            "mark",
            "open",
            "start",
            "filter",
            *(["cancel"] if self.session.unfinished else []),
            "results",
            "jobs",
            "copy",
        ]
        self.show_keys(*ids, "back")

    def show_title(self) -> None:
        """Which screen, whose numbers."""
        counted = f"   {len(self.experiments)}" if self.experiments else ""
        marked = f", {len(self.marks)} marked" if self.marks else ""
        self.show_head(("  experiments", "strong"), (f"{counted}{marked}", ""), end=self.target_text())

    def show_list(self) -> None:
        """The experiments, or why there are none."""
        asked = self._asked or self._loading
        empty: Sequence[Line] = ([], [("  reading the experiments …", "muted")])
        if self._problem:
            empty = ([], [("  the experiments cannot be listed", "error")], [(f"  {self._problem}", "")])
        elif not self._loading:
            empty = ([], [("  no experiment has these words" if self.known else "  there is no experiment", "muted")])
        self.query_one(RowList).show(
            len(self.experiments),
            lambda index, width: experiment_list.row(
                self.experiments[index],
                self.estimate(self.experiments[index].id),
                asked,
                self.experiments[index].id in self.marks,
                width,
            ),
            head=lambda width: experiment_list.head(width, asked=self._asked),
            empty=empty,
        )

    def show_text(self) -> None:
        """What is said about the one under the cursor."""
        experiment = self.experiment
        estimate = self.estimate(experiment.id) if experiment is not None else None
        title = experiment.id if experiment is not None else ""
        focused = self.focused_id() == "experiments-text"
        self.query_one("#experiments-title", TitleBar).show(title, "", focused)
        self.text.show_made(
            lambda width: experiment_list.detail_lines(experiment, estimate, width) if experiment is not None else []
        )

    def show_queue(self) -> None:
        """What runs, what waits, what has ended lately."""
        unfinished = self.session.unfinished
        ended = [job for job in self.session.jobs if job not in unfinished]
        jobs: list[JobInfo] = [*unfinished, *ended]
        now = self.now()
        told = f"{len(unfinished)} unfinished" if unfinished else ""
        self.query_one("#experiments-queue-title", TitleBar).show("jobs", told)
        nothing: list[Line] = [[("no job yet: Enter shows the parameters, s starts with the defaults", "muted")]]
        self.query_one("#experiments-queue", LinesView).show_made(
            lambda width: [job_lines.row(job, width, now) for job in jobs] if jobs else nothing
        )

    def show_command(self) -> None:
        """The command of what s would start, and what several cost together."""
        chosen = self.chosen
        known = self._shared.get(frozenset(each.id for each in chosen))
        cost = experiment_list.together(chosen, known)
        name = f"{len(chosen)} together" if len(chosen) > 1 else "the same as a command"
        self.query_one("#experiments-command-title", TitleBar).show(name, cost)
        command = self.command()
        self.query_one("#experiments-command", LinesView).show_made(
            lambda width: job_lines.command_lines(command, width) if command else []
        )

    def command(self) -> str:
        """What s would start, as a command; '' while there is nothing to start."""
        ids = tuple(each.id for each in self.chosen)
        return Request(experiments=ids).command(self.target_words()) if ids else ""

    def on_descendant_focus(self) -> None:
        """The title says which pane has the focus."""
        self.show_text()

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another experiment."""
        message.stop()
        self.text.show_made(lambda _: [], keep_place=False)
        self.show_text()
        self.show_command()
        self._ask_cost_soon()

    def filtered(self) -> None:
        """Other experiments."""
        self.experiments = [each for each in self.known if self.matches(f"{each.id} {each.title} {each.reference}")]
        self.show_all()

    def go_to(self, ids: Sequence[str]) -> None:
        """Put the cursor on the first of these, as soon as it is listed."""
        self._wanted = tuple(ids)
        at = next((at for at, each in enumerate(self.experiments) if each.id in self._wanted), None)
        if at is not None:
            self._wanted = ()
            self.query_one(RowList).move_to(at)

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter."""
        message.stop()
        self.action_open()

    def action_mark(self) -> None:
        """Run it together with the others that are marked."""
        experiment = self.experiment
        if experiment is None:
            return
        toggle(self.marks, experiment.id)
        self._marks_changed()
        self.query_one(RowList).action_move(1)

    def action_mark_all(self) -> None:
        """All that can run here; if they are marked, none."""
        able = [each.id for each in self.experiments if not self._why_not(each.id)]
        self.marks = [] if set(able) <= set(self.marks) else able
        self._marks_changed()

    def _why_not(self, experiment_id: str) -> str:
        estimate = self.estimate(experiment_id)
        return estimate.why_not if estimate is not None else ""

    def _marks_changed(self) -> None:
        self.show_all()
        self._ask_cost_soon()

    def _ask_cost_soon(self) -> None:
        """What the chosen ones cost together, passes included; asked when the cursor has rested."""
        if self._cost_timer is not None:
            self._cost_timer.stop()
        self._cost_timer = self.set_timer(COST_DELAY, self._ask_cost)

    def _ask_cost(self) -> None:
        ids = [each.id for each in self.chosen]
        if ids and frozenset(ids) not in self._shared and self._estimates is not None:
            self.in_worker("marked", self._estimate_marked(ids))

    def action_open(self) -> None:
        """The form of the marked ones, or of this one."""
        from inspector.tui.screens.parameters import ParametersScreen

        if self.chosen:
            values = self.remembered.setdefault(tuple(each.id for each in self.chosen), {})
            self.app.push_screen(ParametersScreen(self.link, self.chosen, values), self._started)

    def action_start(self) -> None:
        """With the defaults."""
        if self.chosen:
            self.in_worker("start", self._start())

    async def _start(self) -> None:
        from inspector.tui.screens.parameters import start_job

        self._started(await start_job(self, Request(experiments=tuple(each.id for each in self.chosen))))

    def _started(self, queued: bool | None) -> None:
        """A job of the chosen ones is queued, or not: marks have done their work then."""
        if queued:
            self.marks.clear()
            self._marks_changed()

    def action_cancel(self) -> None:
        """The job that runs."""
        unfinished = self.session.unfinished
        self.cancel_job(unfinished[0] if unfinished else None)

    def action_copy(self) -> None:
        """The command of what s would start."""
        if self.command():
            self.copy_out(self.command(), "the command", "command.txt")

    def action_pane(self) -> None:
        """Between the list and the text."""
        rows = self.query_one(RowList)
        (self.text if rows.has_focus and self.text.region.height else rows).focus()


def _discover() -> list[Experiment]:
    """In a thread: some 0.1 s of imports, and as much for the lines of explanation that the form will show."""
    from inspector.experiments import discover

    found = list(discover().values())
    for experiment in found:
        experiment_list.field_docs(experiment.params)
    return found
