"""A screen beside the Stream that shows parts of its conversation with the session: jobs, estimates, policy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from inspector.session.protocol import CancelJob, Failed, JobTold
from inspector.tui import export
from inspector.tui.screens.side_screen import SideScreen
from inspector.tui.session_view import SessionView
from inspector.tui.widgets.header import short_name, site_name

if TYPE_CHECKING:
    from inspector.session.protocol import JobInfo, SessionMessage, ViewMessage
    from inspector.tui.inspector_app import InspectorApp


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
            path = export.write_export(name, text + "\n")
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
