"""What the view knows of its session, and the requests that are under way.

`SessionView` is pure: messages in, a frozen value out. `Conversation` remembers what each request was asked for until
its last answer, so that an outdated answer can be told from the current one. `SessionClient` and the tests' fake both
fit `Client`.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from inspector.errors import ExitCode
from inspector.events import GateLine, JobInfo
from inspector.session.cards import SaeQuality
from inspector.session.frames import is_last
from inspector.session.protocol import (
    Cancel,
    ContextScores,
    Failed,
    Jobs,
    JobTold,
    LoadProgress,
    MapImproved,
    Policy,
    PolicySet,
    Ready,
    SessionMessage,
    TokenDetail,
    ViewMessage,
    Welcome,
)
from inspector.tui.job_lines import name_of

if TYPE_CHECKING:
    from textual.signal import Signal

Stage = Literal["connecting", "loading", "ready", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """One thing that is loaded."""

    told: LoadProgress
    """The latest report of it."""
    started: float
    """Clock time, seconds."""
    seconds: float | None
    """How long it took; None: under way."""


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """The session as this view knows it."""

    stage: Stage = "connecting"
    id: str = ""
    """Of the session; '' until it is known, and for one in this very process."""
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
    bringing: LoadProgress | None = None
    """The SAE in slices that is brought for this view; None: none is."""
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
                return replace(self, stage="loading", log_path=message.log_path, id=message.session)
            case LoadProgress() if message.for_text:
                return replace(self, bringing=message)
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
            case ContextScores() | TokenDetail() if self.bringing is not None:
                return replace(self, bringing=None)
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

    def again(self) -> SessionView:
        """While another connection is made: what is on the screen stays."""
        return SessionView(
            ready=self.ready, improved=self.improved, policy=self.policy, beside=self.beside, jobs=self.jobs
        )

    def lost(self, why: str, exit_code: int = 1) -> SessionView:
        """The connection ended, or never came about. A reason given before stays."""
        if self.stage in ("failed", "lost"):
            return self
        stage: Stage = "lost" if self.ready is not None else "failed"
        return replace(self, stage=stage, error=why, exit_code=0 if self.ready is not None else exit_code)

    def quality(self, row: int, *, beside: bool = False) -> SaeQuality | None:
        """How well the affine map does for the SAE in this row; None before the first fit.

        Args:
            row: of the SAE.
            beside: under the other policy; None if that was never asked for.
        """
        fit = self.beside if beside else self.improved
        return fit.qualities[row] if fit is not None and row < len(fit.qualities) else None

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
    names = [_counted(known.told.what)[0] for known in steps]
    index = names.index(name) if name in names else len(steps)
    if index < len(steps):
        started = steps[index].started
    if of:
        seconds = now - started if count == of and message.seconds is not None else None
    step = LoadStep(told=message, started=started, seconds=seconds)
    return (*steps[:index], step, *steps[index + 1 :])


def _counted(what: str) -> tuple[str, int, int]:
    """'SAE 3/15' as ('SAE', 3, 15); anything else with 0 of 0."""
    match = re.fullmatch(r"(.*\S)\s+(\d+)/(\d+)", what)
    return (match[1], int(match[2]), int(match[3])) if match else (what, 0, 0)


Purpose = Literal["context", "detail", "find", "pairs", "prompt", "generate", "policy", "jobs"]
MAX_EARLY = 16
"""Answers kept for a caller who does not know its request's number yet."""
NO_SESSION = Failed(exit_code=1, message="There is no session. Connect again with r on the Stream screen.")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something to say beside the picture."""

    text: str
    title: str = ""
    severity: Literal["information", "warning", "error"] = "information"
    seconds: float | None = None
    """How long it stays; None: as long as notices do."""


def notices_of(message: object, before: SessionView, purpose: Purpose | None) -> list[Notice]:
    """What is said aloud of a message.

    Args:
        message: a SessionMessage.
        before: the session as it was known before it.
        purpose: what it answers; None: nothing that is still awaited.
    """
    match message:
        case Ready():
            return [Notice(text=warning, severity="warning") for warning in message.warnings]
        case PolicySet() if message.policy != before.policy:
            moved = f"{message.n_special:,} special tokens and {message.n_before:,} early positions"
            now = "counted" if message.policy == "included" else "left out"
            return [Notice(text=f"{moved} are {now} now.", seconds=4)]
        case JobTold():
            return _of_job(before.job(message.job.id), message.job)
        case Failed(request=0) if before.stage == "ready":  # the header has no room for the whole sentence
            return [Notice(text=message.message, title="The fit stopped", severity="error")]
        case Failed() if purpose not in (None, "detail") and message.exit_code != ExitCode.CANCELLED:
            return [Notice(text=message.message, severity="error")]
        case _:
            return []


def _of_job(before: JobInfo | None, job: JobInfo) -> list[Notice]:
    """A job that ended says so, on whichever screen the user is."""
    if before is None or before.state == job.state or before.state not in ("queued", "running"):
        return []
    name = name_of(job)
    match job.state:
        case "done":
            return [Notice(text=f"{name} is done. J, then Enter shows the results.")]
        case "failed":
            return [Notice(text=job.error, title=f"{name} failed", severity="error")]
        case "cancelled":
            return [Notice(text=f"{name} was cancelled; what was finished is kept.")]
        case _:
            return []


class Client(Protocol):
    """An open connection to a session."""

    lost: str | None
    """Why the connection ended, if it was not closed by this side."""

    async def send(self, message: ViewMessage) -> int:
        """Send; the request number it was given."""

    def messages(self) -> AsyncIterator[SessionMessage]:
        """What the session tells; ends with the connection."""

    async def close(self) -> None:
        """Leave; the session goes on."""


Connect = Callable[[], Awaitable[Client]]


class Link(Protocol):
    """The session as screens beside the Stream see it."""

    session_changed: Signal[SessionView]

    @property
    def session(self) -> SessionView:
        """What the session has told so far."""

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Ask the session and wait for its one answer; from a worker, never from a handler."""


Question = tuple[ViewMessage, object]
"""A request, and what else its answer depends on."""


class Requests:
    """What is to be asked, and what is under way; of each purpose only the latest counts."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Purpose | None, ViewMessage]] = []
        """To be sent; None: nothing answers."""
        self._open: dict[Purpose, int] = {}
        self._questions: dict[Purpose, Question] = {}

    def add(self, purpose: Purpose | None, message: ViewMessage) -> None:
        """Ask as soon as the screen gets to it."""
        self.waiting.append((purpose, message))

    def add_question(self, purpose: Purpose, question: Question) -> None:
        """The same, for what is asked again only if it differs."""
        self._questions[purpose] = question
        self.add(purpose, question[0])

    def is_new(self, purpose: Purpose, question: Question) -> bool:
        """Whether this is another question than the latest of its purpose."""
        return self._questions.get(purpose) != question

    def ask_again(self, *purposes: Purpose) -> None:
        """The next question of these purposes is new, whatever it is; of all, if none is named."""
        for purpose in purposes or tuple(self._questions):
            self._questions.pop(purpose, None)

    def sent(self, purpose: Purpose | None, request: int) -> None:
        """It has this number; 0: there is no session."""
        if purpose is not None and request:
            self._open[purpose] = request

    def cancel(self, purpose: Purpose) -> None:
        """Ask the session to stop working on it."""
        if purpose in self._open:
            self.add(None, Cancel(target=self._open[purpose]))

    def is_open(self, purpose: Purpose) -> bool:
        """Whether an answer is awaited."""
        return purpose in self._open

    def answered(self, message: SessionMessage) -> Purpose | None:
        """What this answers, if it is still awaited; a generation and a text are until their last part."""
        purpose = next((each for each, request in self._open.items() if request == message.request), None)
        if purpose is not None and is_last(message):
            del self._open[purpose]
        return purpose

    def clear(self) -> None:
        """The session is gone: nothing is answered any more."""
        self.waiting.clear()
        self._open.clear()
        self._questions.clear()


class Conversation:
    """Sends requests, and hands answers to those who wait for one."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self._calls: dict[int, asyncio.Future[SessionMessage]] = {}
        self._early: OrderedDict[int, SessionMessage] = OrderedDict()

    def attach(self, client: Client | None) -> None:
        """Talk to this session from now on; what was asked of another is forgotten."""
        self.client = client
        self._early.clear()
        calls, self._calls = self._calls, {}
        for waiting in calls.values():
            if not waiting.done():
                waiting.set_result(NO_SESSION)

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Send a request and wait for its one answer, `Failed` among them; never raises for a session that is gone.

        Not for a handler of the Stream screen, which delivers the answer: a handler adds to `Requests`.
        """
        request = await self.send(message)
        if not request:
            return NO_SESSION
        early = self._early.pop(request, None)
        if early is not None:
            return early
        self._calls[request] = asyncio.get_running_loop().create_future()
        try:
            return await self._calls[request]
        finally:
            self._calls.pop(request, None)

    async def send(self, message: ViewMessage) -> int:
        """Send a request; its number, 0 if there is no session to ask."""
        if self.client is None:
            return 0
        try:
            return await self.client.send(message)
        except ConnectionError:
            return 0  # The end of messages() tells why, in its turn.

    def deliver(self, message: SessionMessage) -> bool:
        """Hand an answer to the call that waits for it; False if none does yet, and then it is kept for a while."""
        request = message.request
        if not request:
            return False
        waiting = self._calls.get(request)
        if waiting is None:
            self._early[request] = message
            while len(self._early) > MAX_EARLY:
                self._early.popitem(last=False)
            return False
        if not waiting.done():
            waiting.set_result(message)
        return True
