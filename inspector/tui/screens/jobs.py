"""Jobs: what runs and what ran in this session, how far it is, its log; cancel, resume, look at the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.drawing.safe_text import visible
from inspector.session.protocol import GetJobLog, JobLog, ResumeJob
from inspector.tui import job_lines
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.lines import Line
from inspector.tui.screens.base import OpenScreen, SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.scrolling import LinesView, RowList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.events import JobInfo
    from inspector.tui.session import Link, SessionView

ACTIONS = actions_of(
    "jobs",
    ("open", "enter", "open", "Results of this job", "results"),
    ("cancel", "x", "cancel", "Cancel this job", "cancel"),
    ("resume", "r", "resume", "Resume from its checkpoints", "resume"),
    ("copy", "y", "copy", "Copy its command", "copy command"),
    ("filter", "/", "filter", "Only those with these words", "filter"),
    ("experiments", "e", "app.open_screen('experiments')", "Experiments", "experiments"),
    ("pane", "tab shift+tab", "pane", "Between list and log", "pane"),
    ("help", "?", "help", "Help for the jobs", "help"),
    ("back", "escape q J", "back", "Back", "back"),
)

MOVES = (("↑ ↓ k j", "the next job; in the log, a line"), ("PgUp PgDn { }", "a page"), ("Home End", "the ends"))

HELP = PaneHelp(
    title="Jobs",
    paragraphs=(
        "Every job of this session, newest first. One runs at a time, the others wait in the order in which they were "
        "started. A job belongs to the session and not to this view: it goes on when you leave, and this list is "
        "there again when you come back. `dm-inspect jobs list` shows the same, and the jobs of all other sessions.",
        "queued: waits · running · done: its results are stored, Enter shows them · failed: why stands beside it · "
        "cancelled: on request · interrupted: its session died.",
        "Cancel stops a job after the step under way. What is finished is kept: resuming goes on from there and ends "
        "in the very same numbers.",
        "Below the list: where it is, its rate, how long it will take, the command that does the same, and its log. "
        "Of a job on a cluster also its workers: host and device, memory used and free there, what each is at.",
    ),
    keys=help_rows(MOVES, ACTIONS),
)

LOG_LINES = 200
LOG_SECONDS = 2.0
"""Between two questions for the log of a job that runs."""
EMPTY: tuple[Line, ...] = (
    [],
    [("no job yet", "strong")],
    [],
    [("e", "key"), (" shows the experiments: mark some with Space and start them with s.", "muted")],
    [("A job runs in the session and goes on when you leave.", "muted")],
)
WAITING: tuple[Line, ...] = ([], [("asking the session for its jobs …", "muted")])
NO_SESSION_LINES: tuple[Line, ...] = (
    [],
    [("no session, so no jobs", "strong")],
    [],
    [("Esc", "key"), (", then ", "muted"), ("r", "key"), (" starts one; what was stored is in the results.", "muted")],
)


class JobsScreen(SessionScreen):
    """List above, the selected job and its log below."""

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #jobs-list { height: 2fr; padding: 0 1; }
    #jobs-detail { height: 7; }
    #jobs-log { height: 3fr; }
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._selected = ""
        """Id of the job under the cursor; '': the newest."""
        self._log: tuple[str, Sequence[str]] = ("", ())
        """Of which job, and its lines."""

    def compose(self) -> ComposeResult:
        """Everything at once."""
        yield from super().compose()
        yield RowList(id="jobs-list")
        yield TitleBar(id="jobs-detail-title")
        yield LinesView(id="jobs-detail")
        yield TitleBar(id="jobs-log-title")
        yield LinesView(follow=True, id="jobs-log")

    def on_mount(self) -> None:
        """Paint, then ask."""
        super().on_mount()
        self.arrange_panes()
        self.query_one(RowList).focus()
        self.show_all()
        self.ask_log()
        self.set_interval(LOG_SECONDS, self._ask_again)

    @property
    def job(self) -> JobInfo | None:
        """The one under the cursor."""
        jobs = self.jobs
        return next((job for job in jobs if job.id == self._selected), jobs[0] if jobs else None)

    @property
    def jobs(self) -> list[JobInfo]:
        """Those with the words of the filter, newest first."""
        return [job for job in self.session.jobs if self.matches(f"{job.state} {job.id} {job.command}")]

    def filtered(self) -> None:
        """Other jobs."""
        self.show_all()
        self.ask_log()

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Another size has room for more or less."""
        self.arrange_panes()

    def arrange_panes(self) -> None:
        """In a low window the job itself gets fewer lines, its log the more."""
        height, job = self.app.size.height, self.job
        most = 8 if height >= 30 else 4  # workers, a line each; further ones are scrolled to
        workers = min(most, len(job.workers)) if job is not None else 0
        self.query_one("#jobs-detail").styles.height = (7 if height >= 30 else 4) + workers
        self.query_one("#jobs-list").styles.height = max(4, height // 3 if height >= 30 else height // 4 + 1)

    def restyle(self) -> None:
        """The theme changed."""
        self.show_all()

    def session_changed(self, session: SessionView) -> None:
        """A job is further, or there is a new one."""
        self.show_all()

    def show_all(self) -> None:
        """List, job, titles, footer."""
        session = self.session
        jobs, every = self.jobs, session.jobs
        counted = f"{len(every)} jobs" if len(every) != 1 else "1 job"
        told = f"   {counted}, {len(session.unfinished)} unfinished" if every else ""
        self.show_head(("  jobs", "strong"), (told, ""), end=self.target_text())
        empty = EMPTY if session.ready is not None else WAITING
        if session.stage in ("failed", "lost") and not every:
            empty = NO_SESSION_LINES
        if self.typed:
            empty = ([], [("no job has these words", "muted")])
        self.arrange_panes()
        now = self.now()
        at = next((index for index, job in enumerate(jobs) if job.id == self._selected), 0)
        self.query_one(RowList).show(
            len(jobs), lambda index, width: job_lines.row(jobs[index], width, now), cursor=at, empty=empty
        )
        self.show_job()
        self.show_keys(*self._hint_ids())

    def _hint_ids(self) -> list[str]:
        job = self.job
        ids = ["pane", "filter", "experiments", "back"]
        if job is None:
            return ids[2:]
        if job.state in ("queued", "running"):
            return ["cancel", "copy", *ids]
        first = "open" if job.results else ""
        second = "resume" if job.state != "done" else ""
        return [*(each for each in (first, second) if each), "copy", *ids]

    def show_job(self) -> None:
        """What is known of the job under the cursor, and its log."""
        job = self.job
        name = f"{job_lines.name_of(job)}" if job is not None else "no job"
        self.query_one("#jobs-detail-title", TitleBar).show(name, "", self.focused_id() == "jobs-detail")
        self.query_one("#jobs-detail", LinesView).show_made(
            (lambda width: job_lines.detail(job, width)) if job is not None else (lambda width: [])
        )
        of, lines = self._log
        shown = lines if job is not None and of == job.id else ()
        title = "log" if job is None or of == job.id else "log …"
        self.query_one("#jobs-log-title", TitleBar).show(title, "", self.focused_id() == "jobs-log")
        self.query_one("#jobs-log", LinesView).show_made(lambda _: [[(visible(line), "")] for line in shown])

    def on_descendant_focus(self) -> None:
        """The title says which pane has the focus."""
        self.show_job()

    # ---- the log ----------------------------------------------------------------------------------------------------

    _read_as: tuple[str, str] = ("", "")
    """Job and state when the log was last read."""

    def _ask_again(self) -> None:
        """While it runs, and once after it ended: the last lines of a log are the ones that matter."""
        job = self.job
        if job is not None and (job.state == "running" or (job.id, job.state) != self._read_as):
            self.ask_log()

    def ask_log(self) -> None:
        """Read the log of the job under the cursor."""
        job = self.job
        if job is not None:
            self.in_worker("log", self._read_log(job.id, job.state))

    async def _read_log(self, job_id: str, state: str) -> None:
        answer = await self.link.call(GetJobLog(job=job_id, lines=LOG_LINES))
        if isinstance(answer, JobLog):
            self._log, self._read_as = (job_id, tuple(answer.lines)), (job_id, state)
            self.show_job()

    def on_row_list_moved(self, message: RowList.Moved) -> None:
        """Another job."""
        message.stop()
        jobs = self.jobs
        if message.row < len(jobs):
            self._selected = jobs[message.row].id
            self.query_one("#jobs-log", LinesView).show_made(lambda _: [], keep_place=False)
            self.show_all()
            self.ask_log()

    # ---- keys -------------------------------------------------------------------------------------------------------

    def go_to(self, ids: Sequence[str]) -> None:
        """Put the cursor on the first of these jobs."""
        self._selected = ids[0]
        self.show_all()

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        """Enter."""
        message.stop()
        self.action_open()

    def action_open(self) -> None:
        """The results of this job."""
        job = self.job
        if job is None:
            return
        if not job.results:
            self.notify(f"{job_lines.name_of(job)} has no result yet; it is {job.state}.", timeout=3, markup=False)
            return
        self.post_message(OpenScreen("results", job.results))

    def action_cancel(self) -> None:
        """Stop it after the present step."""
        self.cancel_job(self.job)

    def action_resume(self) -> None:
        """Queue it again."""
        job = self.job
        if job is None or job.state in ("queued", "running", "done"):
            self.notify("Only a job that failed, was cancelled or interrupted can be resumed.", timeout=3)
            return
        self.in_worker("resume", self.tell(ResumeJob(job=job.id)), exclusive=False)

    def action_copy(self) -> None:
        """The command that does the same."""
        if self.job is not None:
            self.copy_out(self.job.command, "the command", "command.txt")

    def action_pane(self) -> None:
        """Between the list and the log."""
        panes = [self.query_one(RowList), self.query_one("#jobs-detail"), self.query_one("#jobs-log")]
        at = next((index for index, pane in enumerate(panes) if pane is self.focused), 0)
        panes[(at + 1) % len(panes)].focus()
