"""The form before a job is started: parameters, profile, control, and the command that does the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.session.protocol import JobTold, StartJob
from inspector.tui import job_lines
from inspector.tui.actions import actions_of, help_rows
from inspector.tui.experiment_list import Request, param_fields
from inspector.tui.lines import Line, wrapped
from inspector.tui.screens.base import SessionScreen
from inspector.tui.screens.help import PaneHelp
from inspector.tui.widgets.bars import TitleBar
from inspector.tui.widgets.entry import Form
from inspector.tui.widgets.scrolling import LinesView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual import events
    from textual.app import ComposeResult

    from inspector.experiment import Experiment
    from inspector.tui.session import Link, SessionView


ACTIONS = actions_of(
    "form",
    ("start", "s", "start", "Start the job", "start"),
    ("reset", "z", "reset", "All parameters as they were", "reset"),
    ("copy", "y", "copy", "Copy the command", "copy command"),
    ("help", "?", "help", "Help for the parameters", "help"),
    ("back", "escape q", "back", "Back to the experiments", "back"),
)

MOVES = (
    ("↑ ↓ k j Tab", "the next parameter"),
    ("Enter", "edit a value: what is typed takes its place; take what was typed; or start"),
    ("Esc", "while a value is edited: as it was"),
    ("← → h l Space", "another choice"),
    ("Backspace", "the default again"),
)

HELP = PaneHelp(
    title="Parameters",
    paragraphs=(
        "What the experiment, or each of the marked ones, can be told. A parameter that several know is one field; "
        "one that only some know says which. A value that differs from its default is coloured.",
        "profile: how tokens are split, fitted and scored. null: measure a control instead of the thing itself; such "
        "a result is never evidence for or against a claim.",
        "ray: the workers of a cluster that share the job; the session only drives them, and the Jobs screen shows "
        "what each is at. The results are the same.",
        "The line with $ is the command that does the same; it changes as you change a value.",
    ),
    keys=help_rows(MOVES, ACTIONS),
)


TWINS = ("queued", "running", "done")
"""States of a job that make another of the same command worth a question."""


class ParametersScreen(SessionScreen):
    """Over the Experiments screen; leaves, with True, when the job is queued. The values come back the next time that
    these very experiments are asked for.
    """

    ACTIONS = ACTIONS
    HELP_TEXT = HELP
    DEFAULT_CSS = """
    #form { height: 1fr; }
    #form-doc { height: 4; }
    #form-command { height: 5; }
    """

    def __init__(self, link: Link, experiments: Sequence[Experiment], remembered: dict[str, str]) -> None:
        """A form with the values of the last time.

        Args:
            link: to the session.
            experiments: to run, not empty.
            remembered: values by key; changed in place.
        """
        super().__init__(link)
        self._experiments = experiments
        self._remembered = remembered
        self._fields = param_fields(experiments)

    @property
    def request(self) -> Request:
        """What would be started."""
        return Request.of(self._experiments, self._fields, self._values)

    @property
    def _values(self) -> Mapping[str, str]:
        return self.query_one(Form).values

    def compose(self) -> ComposeResult:
        """Fields, what the selected one means, the command."""
        yield from super().compose()
        yield Form(id="form")
        yield TitleBar(id="form-doc-title")
        yield LinesView(id="form-doc")
        yield TitleBar(id="form-command-title")
        yield LinesView(id="form-command")

    def on_mount(self) -> None:
        """Draw."""
        super().on_mount()
        known = {field.key for field in self._fields}
        form = self.query_one(Form)
        form.show(self._fields, {key: value for key, value in self._remembered.items() if key in known})
        form.focus()
        self.query_one("#form-doc").can_focus = False
        self.query_one("#form-command").can_focus = False
        self.show_all()

    def restyle(self) -> None:
        """The theme changed."""
        self.query_one(Form).rebuild()
        self.show_all()

    def session_changed(self, session: SessionView) -> None:
        """The target may be known only now."""
        self.show_all()

    def show_all(self) -> None:
        """Titles, the selected field, the command."""
        names = ", ".join(experiment.title for experiment in self._experiments)
        self.show_head(("  parameters", "strong"), (f"   {names}", ""), end=self.target_text())
        field = self.query_one(Form).field
        title = field.key if field is not None else "start"
        self.query_one("#form-doc-title", TitleBar).show(title)
        self.query_one("#form-doc", LinesView).show_made(self._doc_lines)
        problem = self.request.problem(self._experiments)
        self.query_one("#form-command-title", TitleBar).show("the same as a command")
        command = self.request.command(self.target_words())

        def command_lines(width: int) -> list[Line]:
            return [*wrapped(problem, width, "error"), *job_lines.command_lines(command, width)]

        self.query_one("#form-command", LinesView).show_made(command_lines)
        self.show_keys(("↑↓", "field"), ("Enter", "edit"), ("←→", "choice"), "start", "copy", "back")

    def _doc_lines(self, width: int) -> list[Line]:
        field = self.query_one(Form).field
        if field is None:
            return wrapped("Queues the job in the session; it goes on when you leave.", width)
        lines = wrapped(field.doc or "Nothing more is known about it.", width)
        if field.used_by:
            lines += wrapped(f"Only for {', '.join(field.used_by)}.", width, "muted")
        return lines

    # ---- keys -------------------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Typed before the form had the focus."""
        form = self.query_one(Form)
        if not form.has_focus:
            form.on_key(event)

    def on_form_changed(self, message: Form.Changed) -> None:
        """Another command, perhaps a problem."""
        message.stop()
        self._remembered.clear()
        self._remembered.update(self._values)
        self.show_all()

    def on_form_moved(self, message: Form.Moved) -> None:
        """Another field is explained."""
        message.stop()
        self.show_all()

    def on_form_started(self, message: Form.Started) -> None:
        """Enter on the last line."""
        message.stop()
        self.action_start()

    def action_start(self) -> None:
        """Queue the job, unless something is wrong with it."""
        problem = self.request.problem(self._experiments)
        if problem:
            self.notify(problem, severity="error", markup=False)
            return
        self.in_worker("start", self._start())

    async def _start(self) -> None:
        if await start_job(self, self.request):
            self.dismiss(True)

    def action_reset(self) -> None:
        """All as they were."""
        self._remembered.clear()
        self.query_one(Form).show(self._fields, {})
        self.show_all()

    def action_copy(self) -> None:
        """The command."""
        self.copy_out(self.request.command(self.target_words()), "the command", "command.txt")


async def start_job(screen: SessionScreen, request: Request) -> bool:
    """Queue a job; ask first if the session has the same already. From a worker.

    Args:
        screen: that asks.
        request: what to start.

    Returns:
        Whether it is queued.
    """
    command = request.command(screen.target_words())
    twin = next((job for job in screen.session.jobs if job.command == command and job.state in TWINS), None)
    if twin is not None:
        from inspector.tui.screens.questions import TwinScreen

        if not await screen.app.push_screen_wait(TwinScreen(twin)):
            return False
    message = StartJob(
        experiments=list(request.experiments),
        params=dict(request.params),
        profile=request.profile,
        null=request.null,
        ray=request.ray,
    )
    return isinstance(await screen.tell(message), JobTold)
