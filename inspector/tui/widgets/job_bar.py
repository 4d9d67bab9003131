"""One line at the bottom of the Stream screen while a job runs or waits: how far it is, and the key that shows more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.tui.job_lines import indicator
from inspector.tui.lines import Line
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.protocol import JobInfo


class JobBar(LinePane):
    """Hidden while there is nothing to tell. A report changes a few cells of it, twice a second at most."""

    DEFAULT_CSS = """
    JobBar { height: 1; display: none; background: $surface; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._jobs: tuple[JobInfo, ...] = ()

    def show(self, unfinished: tuple[JobInfo, ...]) -> None:
        """Draw the first of these; the others wait."""
        self._jobs = unfinished
        self.display = bool(unfinished)
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The line."""
        return [indicator(self._jobs[0], len(self._jobs) - 1, width)] if self._jobs else []
