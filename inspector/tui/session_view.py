"""What the session has told so far, in the view's own words. Pure: messages in, a frozen value out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from inspector.session.protocol import Failed, LoadProgress, MapImproved, Ready, SaeQuality, Welcome

Stage = Literal["connecting", "loading", "ready", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """One thing that is loaded."""

    what: str
    detail: str
    started: float
    """Clock time, seconds."""
    seconds: float | None
    """How long it took; None: under way."""
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """The session as this view knows it."""

    stage: Stage = "connecting"
    log_path: str = ""
    steps: tuple[LoadStep, ...] = ()
    ready: Ready | None = None
    improved: MapImproved | None = None
    stopped: str = ""
    """Why the fit ended before its time; '' if it did not. What was fitted before stays in use."""
    error: str = ""
    """Why loading failed or the connection ended; '' if it did not."""
    exit_code: int = 0
    """What the program returns when it is left in this state."""

    def told(self, message: object, now: float) -> SessionView:
        """The view after a message; those that answer a request change nothing here.

        Args:
            message: A SessionMessage.
            now: Clock time in seconds, for how long a step has been going on.
        """
        match message:
            case Welcome():
                return replace(self, stage="loading", log_path=message.log_path)
            case LoadProgress():
                return replace(self, stage="loading", steps=_with_step(self.steps, message, now))
            case Ready():
                return replace(self, stage="ready", ready=message, stopped="", error="", exit_code=0)
            case MapImproved():
                return replace(self, improved=message)
            case Failed(request=0) if self.ready is None:
                return replace(self, stage="failed", error=message.message, exit_code=message.exit_code)
            case Failed(request=0) if self.stage == "ready":
                return replace(self, stopped=message.message)
            case _:
                return self

    def lost(self, why: str, exit_code: int = 1) -> SessionView:
        """The connection ended, or never came about. A reason given before stays."""
        if self.stage == "failed":
            return self
        stage: Stage = "lost" if self.ready is not None else "failed"
        return replace(self, stage=stage, error=why, exit_code=0 if self.ready is not None else exit_code)

    def quality(self, row: int) -> SaeQuality | None:
        """How well the affine map does for the SAE in this row; None before the first fit."""
        if self.improved is None or row >= len(self.improved.qualities):
            return None
        return self.improved.qualities[row]


def _with_step(steps: tuple[LoadStep, ...], message: LoadProgress, now: float) -> tuple[LoadStep, ...]:
    """A step reported again replaces its earlier report; 'SAE 3/15' replaces 'SAE 2/15' and lasts until 'SAE 15/15' is
    there.
    """
    name, count, of = _counted(message.what)
    started = now - (message.seconds or 0.0)
    seconds = message.seconds
    names = [_counted(known.what)[0] for known in steps]
    index = names.index(name) if name in names else len(steps)
    if index < len(steps):
        started = steps[index].started
    if of:
        seconds = now - started if count == of and message.seconds is not None else None
    step = LoadStep(
        what=message.what,
        detail=message.detail,
        started=started,
        seconds=seconds,
        done=message.done,
        total=message.total,
    )
    return (*steps[:index], step, *steps[index + 1 :])


def _counted(what: str) -> tuple[str, int, int]:
    """'SAE 3/15' as ('SAE', 3, 15); anything else with 0 of 0."""
    match = re.fullmatch(r"(.*\S)\s+(\d+)/(\d+)", what)
    return (match[1], int(match[2]), int(match[3])) if match else (what, 0, 0)
