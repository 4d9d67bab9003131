"""What the screens beside the Stream have in common: actions from a table, help, the theme, workers, the session.

They are opened over the Stream screen and left with Escape; the session goes on talking to the Stream below.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from inspector.session.protocol import CancelJob, Failed, JobTold
from inspector.tui import documents
from inspector.tui.actions import Action, shown_keys
from inspector.tui.session import SessionView
from inspector.tui.widgets.header import short_name, site_name

if TYPE_CHECKING:
    from inspector.drawing.palette import TokenPalette
    from inspector.events import JobInfo
    from inspector.session.protocol import SessionMessage, ViewMessage
    from inspector.tui.inspector_app import InspectorApp
    from inspector.tui.screens.help import PaneHelp


COMMON = (
    Action(id="side.theme", keys=("t",), call="app.next_theme", title="Next theme"),
    Action(id="side.palette", keys=(":",), call="commands", title="All commands"),
)
"""Keys of the screens beside the Stream that carry no key of their own for them."""


def bindings_of(actions: Sequence[Action]) -> list[Binding]:
    """Textual's bindings of a table of actions."""
    return [
        Binding(",".join("comma" if key == "," else key for key in action.keys), action.call, action.title, show=False,
                id=action.id)
        for action in actions if action.keys
    ]  # fmt: skip


class SideScreen(Screen[None]):
    """A screen with a table of actions, which the command palette offers as well."""

    ACTIONS: ClassVar[tuple[Action, ...]] = ()
    AUTO_FOCUS = ""

    @property
    def help_text(self) -> PaneHelp:
        """What `?` says here."""
        raise NotImplementedError

    @property
    def palette(self) -> TokenPalette:
        """Of the theme in use."""
        app = cast("InspectorApp", self.app)
        return app.chosen_theme.palette(app.depth)

    def on_mount(self) -> None:
        """Draw again when the theme changes."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self.restyle())

    def restyle(self) -> None:
        """The theme changed."""

    def hints(self, *ids: str) -> list[tuple[str, str]]:
        """Keys and words for the footer, of the actions with these ids."""
        known = {action.id: action for action in self.ACTIONS}
        return [(shown_keys(known[each]).partition(" ")[0], known[each].hint) for each in ids]

    def action_help(self) -> None:
        """What this screen shows, and its keys."""
        from inspector.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.help_text))

    def action_commands(self) -> None:
        """The command palette."""
        self.app.action_command_palette()

    def action_back(self) -> None:
        """To the screen below."""
        self.dismiss()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that broke is a bug: it ends the program as any other would, with one line and a log."""
        error = event.worker.error
        if event.state == WorkerState.ERROR and isinstance(error, Exception):
            self.app._handle_exception(error)


class SessionScreen(SideScreen):
    """Draws again when the session says something, at most once per message."""

    @property
    def session(self) -> SessionView:
        """What the session has told so far."""
        home = cast("InspectorApp", self.app).home
        return home.session if home is not None else SessionView()

    def on_mount(self) -> None:
        """Listen."""
        super().on_mount()
        home = cast("InspectorApp", self.app).home
        if home is not None:
            home.session_changed.subscribe(self, self.session_changed)

    def session_changed(self, session: SessionView) -> None:
        """Something is different."""

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Ask the session and wait for its answer; from a worker, never from a handler."""
        home = cast("InspectorApp", self.app).home
        assert home is not None, "these screens are opened over the Stream screen"
        return await home.call(message)

    async def tell(self, message: ViewMessage) -> SessionMessage:
        """The same, and say aloud if it failed."""
        answer = await self.call(message)
        if isinstance(answer, Failed):
            self.notify(answer.message, severity="error", markup=False)
        return answer

    def target_text(self) -> str:
        """Whose numbers these are: 'demo · layer 3 · resid_post · cpu'."""
        ready = self.session.ready
        if ready is None:
            return {"failed": "no session", "lost": "the session has ended"}.get(self.session.stage, "loading …")
        layer = f" · layer {ready.layer}" if ready.layer is not None else ""
        ended = " · the session has ended" if self.session.stage == "lost" else ""
        return f"{short_name(ready.model)}{layer} · {site_name(ready.hook_name)} · {ready.device}{ended}"

    def copy_text(self, text: str, what: str, name: str) -> None:
        """To the clipboard through the terminal, which may not support it and never says so; so to a file as well."""
        self.app.copy_to_clipboard(text)
        try:
            path = documents.write_export(name, text + "\n")
        except OSError as error:
            self.notify(f"Copied {what}; the file could not be written: {error}.", markup=False)
        else:
            self.notify(f"Copied {what}.\nAlso in {path}", markup=False)

    def cancel_job(self, job: JobInfo | None) -> None:
        """Stop a job after its present step."""
        if job is None or job.state not in ("queued", "running"):
            self.notify("There is no job to cancel here.", timeout=3)
            return
        self.run_worker(self._cancel(job.id), group="cancel", exit_on_error=False)

    async def _cancel(self, job_id: str) -> None:
        answer = await self.tell(CancelJob(job=job_id))
        if isinstance(answer, JobTold) and answer.job.state == "running":
            self.notify("It stops after the present step; what is finished is kept.", timeout=4)

    def now(self) -> float:
        """Clock time, seconds since the epoch."""
        return time.time()
