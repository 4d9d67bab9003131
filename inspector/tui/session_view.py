"""What the session has told so far, in the view's own words. Pure: messages in, a frozen value out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from inspector.session.protocol import (
    Failed,
    GateLine,
    JobInfo,
    Jobs,
    JobTold,
    LoadProgress,
    MapImproved,
    Policy,
    PolicySet,
    Ready,
    SaeQuality,
    Welcome,
)

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
    done_bytes: int = 0
    total_bytes: int = 0
    """Of a download; 0 of 0 if nothing is fetched."""
    bytes_per_second: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """The session as this view knows it."""

    stage: Stage = "connecting"
    log_path: str = ""
    steps: tuple[LoadStep, ...] = ()
    ready: Ready | None = None
    improved: MapImproved | None = None
    """The newest fit of the policy in use."""
    policy: Policy = "excluded"
    """What becomes of special tokens and early positions, as the session last confirmed it."""
    policy_told: PolicySet | None = None
    """How many tokens the policy moves; None until it was ever changed."""
    beside: MapImproved | None = None
    """The newest fit of the other policy, to compare with; None if there was none."""
    jobs: tuple[JobInfo, ...] = ()
    """All that are known, newest first."""
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
            case MapImproved() if message.policy != self.policy:
                return replace(self, beside=message)
            case MapImproved():
                return replace(self, improved=message)
            case PolicySet() if message.policy != self.policy:
                return replace(
                    self,
                    policy=message.policy,
                    policy_told=message,
                    improved=self.beside,
                    beside=self.improved,
                )
            case PolicySet():
                return replace(self, policy_told=message)
            case Jobs():
                return replace(self, jobs=newest_first(message.jobs))
            case JobTold():
                others = [job for job in self.jobs if job.id != message.job.id]
                return replace(self, jobs=newest_first([message.job, *others]))
            case Failed(request=0) if self.ready is None:
                return replace(self, stage="failed", error=message.message, exit_code=message.exit_code)
            case Failed(request=0) if self.stage == "ready":
                return replace(self, stopped=message.message)
            case Failed(request=0):  # a session that was started again could not load what is still on the screen
                return replace(self, stage="lost", error=message.message)
            case _:
                return self

    def lost(self, why: str, exit_code: int = 1) -> SessionView:
        """The connection ended, or never came about. A reason given before stays."""
        if self.stage in ("failed", "lost"):
            return self
        stage: Stage = "lost" if self.ready is not None else "failed"
        return replace(self, stage=stage, error=why, exit_code=0 if self.ready is not None else exit_code)

    def quality(self, row: int) -> SaeQuality | None:
        """How well the affine map does for the SAE in this row; None before the first fit."""
        if self.improved is None or row >= len(self.improved.qualities):
            return None
        return self.improved.qualities[row]

    def quality_beside(self, row: int) -> SaeQuality | None:
        """The same under the other policy; None if it was never asked for."""
        if self.beside is None or row >= len(self.beside.qualities):
            return None
        return self.beside.qualities[row]

    @property
    def gate_failures(self) -> tuple[GateLine, ...]:
        """The checks of the load gate that failed and were accepted."""
        return tuple(self.ready.gate_failures) if self.ready is not None else ()

    @property
    def unfinished(self) -> tuple[JobInfo, ...]:
        """The jobs that run or wait, the one that runs first, then the order in which they will."""
        alive = [job for job in reversed(self.jobs) if job.state in ("queued", "running")]
        return tuple(sorted(alive, key=lambda job: job.state != "running"))

    def job(self, job_id: str) -> JobInfo | None:
        """A job by id."""
        return next((job for job in self.jobs if job.id == job_id), None)


def newest_first(jobs: Iterable[JobInfo]) -> tuple[JobInfo, ...]:
    """As lists show them."""
    return tuple(sorted(jobs, key=lambda job: (-job.created, job.id)))


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
        done_bytes=message.done_bytes,
        total_bytes=message.total_bytes,
        bytes_per_second=message.bytes_per_second,
    )
    return (*steps[:index], step, *steps[index + 1 :])


def _counted(what: str) -> tuple[str, int, int]:
    """'SAE 3/15' as ('SAE', 3, 15); anything else with 0 of 0."""
    match = re.fullmatch(r"(.*\S)\s+(\d+)/(\d+)", what)
    return (match[1], int(match[2]), int(match[3])) if match else (what, 0, 0)
