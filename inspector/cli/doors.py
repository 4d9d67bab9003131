"""How a command opens the app without knowing it: the request it hands to whoever does.

`cli` and `tui` stand on one step and do not import each other; `inspector.__main__` passes the opener in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.spec import TargetSpec


@dataclass(frozen=True, kw_only=True)
class AppRequest:
    """What the app shall show, and on which session."""

    target: TargetSpec
    theme: str | None = None
    """Name of a theme; None: the default, or what the environment says."""
    new_session: bool = False
    """Start a session of its own even if one for this target runs."""
    in_process: bool = False
    """View and engine in one process, for debugging."""
    session_id: str | None = None
    """Attach to this running session, whatever its target; None: the target decides."""


OpenApp = Callable[[AppRequest], int]
"""Shows the app until the user leaves it; returns the exit code."""
