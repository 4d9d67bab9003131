"""The door to the app: settles what must be known before Textual is imported, then runs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from inspector.spec import TargetSpec
    from inspector.tui.session import Client

REMOTE_FPS = "15"
"""Frames per second over SSH; Textual's 60 only make a slow line later."""
LOCAL_FPS = "120"
"""Elsewhere. Nothing is animated, so this is no load; it is how long a changed line may wait to be painted: 8 ms."""


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """What Textual reads once, while it is imported: frames per second and no animations. The user's own wish wins."""
    environment.setdefault("TEXTUAL_FPS", REMOTE_FPS if is_remote(environment) else LOCAL_FPS)
    environment.setdefault("TEXTUAL_ANIMATIONS", "none")


def is_remote(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is at the other end of an SSH connection."""
    return bool(environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"))


def open_app(
    target: TargetSpec,
    *,
    theme: str | None = None,
    new_session: bool = False,
    in_process: bool = False,
    session_id: str | None = None,
    prompts: Sequence[str] = (),
) -> int:
    """Show the app until the user leaves it; returns the exit code.

    Args:
        target: What to look at.
        theme: Name of a theme; None: the last one chosen, or the default.
        new_session: Start a session of its own even if one for this target runs.
        in_process: View and engine in one process, for debugging.
        session_id: Attach to this running session, whatever its target.
        prompts: Texts to list beside the contexts; it begins with the first.

    Raises:
        UsageError: there is no theme of that name.
    """
    prepare_environment(os.environ)
    from inspector.tui.inspector_app import InspectorApp

    async def connect_to(wanted: TargetSpec) -> Client:
        # Only now, after the first paint.
        from inspector.session.client import SessionClient

        return await SessionClient.open(wanted, new_session=new_session, in_process=in_process)

    async def connect() -> Client:
        if session_id is None:
            return await connect_to(target)
        from inspector.session.client import SessionClient

        return await SessionClient.attach(session_id)

    app = InspectorApp(session_id or target.model, connect, theme=theme, survives=not in_process, prompts=prompts)
    app.asked = target if session_id is None else None
    app.connect_to = connect_to
    app.run()
    return app.return_code or 0
