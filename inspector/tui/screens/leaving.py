"""The question before leaving while a job runs. Without a job nobody is asked anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from inspector.tui.job_lines import duration, name_of
from inspector.tui.lines import Line
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from inspector.session.protocol import JobInfo

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


class Question(LinePane):
    """The lines of the question."""

    def __init__(self, lines: Sequence[Line]) -> None:
        super().__init__()
        self._asked = lines

    def build(self, width: int, height: int) -> Sequence[Line]:
        """As given."""
        return self._asked


class LeavingScreen(ModalScreen[Answer]):
    """Returns what the user wants."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q,ctrl+q,ctrl+c", "answer('leave')", "leave", show=False, priority=True, id="leaving.leave"),
        Binding("c", "answer('cancel')", "cancel the job and leave", show=False, id="leaving.cancel"),
        Binding("escape", "answer('stay')", "stay", show=False, id="leaving.stay"),
    ]
    DEFAULT_CSS = """
    LeavingScreen { align: center middle; background: $background 0%; }
    LeavingScreen > Question { width: 78; max-width: 100%; padding: 0 2; background: $surface; border: heavy $accent; }
    """

    def __init__(self, jobs: Sequence[JobInfo], *, survives: bool = True) -> None:
        super().__init__()
        self._lines = question_lines(jobs, survives=survives)
        self._survives = survives

    def compose(self) -> ComposeResult:
        """The question alone."""
        question = Question(self._lines)
        question.styles.height = len(self._lines) + 2  # the border
        yield question

    def action_answer(self, answer: Answer) -> None:
        """A key was pressed."""
        if answer != "cancel" or self._survives:
            self.dismiss(answer)
