"""Jobs of an invented session: queued, run one at a time in small steps, cancelled, resumed; nothing is computed.

With `hold` nothing moves by itself and a test says `advance`. Ids, times and rates are the same every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from inspector.errors import InspectorError
from inspector.events import Cost, JobInfo, JobState
from inspector.session.protocol import (
    CancelJob,
    Costs,
    Failed,
    GetCosts,
    GetJobLog,
    GetJobs,
    JobLog,
    Jobs,
    JobTold,
    ResumeJob,
    SessionMessage,
    StartJob,
)

JobQuestion = StartJob | CancelJob | ResumeJob | GetJobs | GetJobLog | GetCosts
EPOCH = 1_700_000_000.0
"""When the first job was made, seconds."""
SECONDS_EACH = 12.0
SHARED_SECONDS = 30.0
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled", "interrupted")


@dataclass
class FakeJobs:
    """What the jobs are like."""

    steps: int = 10
    """Steps of each experiment."""
    step_seconds: float = 0.0
    """Between two steps."""
    hold: bool = False
    """Jobs move only when `advance` is called."""
    outcome: JobState = "done"
    """How jobs end."""
    error: str = "The device is out of memory. Run fewer experiments at once."
    """Said by jobs that end as 'failed'."""
    cannot: dict[str, str] = field(default_factory=dict)
    """Experiments that cannot run on this target, and why."""
    known: dict[str, JobInfo] = field(default_factory=dict)
    """By id, oldest first."""
    logs: dict[str, list[str]] = field(default_factory=dict)
    tellers: list[Callable[[SessionMessage], None]] = field(default_factory=list)
    """Attached views."""
    target: tuple[str, ...] = ()
    _task: asyncio.Task[None] | None = None

    def answer(self, asked: JobQuestion) -> SessionMessage:
        """The answer, without its request number; what it sets going is told to every view."""
        match asked:
            case StartJob():
                return self._start(asked)
            case GetJobs():
                return Jobs(jobs=list(reversed(self.known.values())))
            case GetCosts(experiments=ids):
                return Costs(
                    costs=[
                        Cost(
                            experiment=name,
                            seconds=None if name in self.cannot else SECONDS_EACH * (1 + len(name) % 7),
                            why_not=self.cannot.get(name, ""),
                        )
                        for name in ids
                    ],
                    shared_seconds=SHARED_SECONDS,
                )
            case CancelJob(job=job) | ResumeJob(job=job) | GetJobLog(job=job) if job not in self.known:
                return Failed(exit_code=2, message=f"There is no job '{job}'. `dm-inspect jobs list` shows them.")
            case CancelJob(job=job):
                return self._cancel(self.known[job])
            case ResumeJob(job=job):
                return self._resume(self.known[job])
            case GetJobLog(job=job, lines=lines):
                return JobLog(job=job, lines=self.logs[job][-lines:])

    def advance(self, steps: int = 1) -> None:
        """Move the running job, or the oldest queued one, that many steps."""
        for _ in range(steps):
            job = self.under_way
            if job is not None:
                self._step(job)

    def end(self, job: str, state: JobState, error: str = "") -> None:
        """End a job in any state."""
        self._change(self.known[job], state=state, ended=EPOCH + 500, error=error, exit_code=5 if error else 0)

    @property
    def under_way(self) -> JobInfo | None:
        """The running job, else the one that is next."""
        alive = [job for job in self.known.values() if job.state in ("running", "queued")]
        return next((job for job in alive if job.state == "running"), alive[0] if alive else None)

    def _start(self, asked: StartJob) -> SessionMessage:
        from inspector.experiment import parse_params  # a session without jobs starts without them
        from inspector.experiments import choose

        try:
            chosen = choose(asked.experiments)
            parse_params(chosen, asked.params)
        except InspectorError as error:
            return Failed(exit_code=error.exit_code, message=str(error))
        words = ["dm-inspect", "run", *(experiment.id for experiment in chosen), *self.target]
        words += [word for key, value in asked.params.items() for word in ("-p", f"{key}={value}")]
        words += ["--profile", asked.profile] if asked.profile != "careful" else []
        words += ["--null", asked.null] if asked.null else []
        job = JobInfo(
            id=f"job-{len(self.known) + 1}",
            experiments=tuple(experiment.id for experiment in chosen),
            state="queued",
            command=shlex.join(words),
            created=EPOCH + 60 * len(self.known),
        )
        self.logs[job.id] = [f"queued: {' '.join(job.experiments)}"]
        return self._changed(job)

    def _cancel(self, job: JobInfo) -> SessionMessage:
        if job.state in ENDED:
            return Failed(exit_code=2, message=f"The job {job.id} is {job.state}. Only a running one can be cancelled.")
        self.logs[job.id].append("cancelled")
        return self._change(job, state="cancelled", ended=EPOCH + 400, exit_code=6)

    def _resume(self, job: JobInfo) -> SessionMessage:
        if job.state not in ENDED or job.state == "done":
            return Failed(exit_code=2, message=f"The job {job.id} is {job.state}. There is nothing to resume.")
        self.logs[job.id].append("resumed from its checkpoints")
        return self._change(job, state="queued", ended=0.0, error="", exit_code=0)

    def _step(self, job: JobInfo) -> None:
        if job.state == "queued":
            self.logs[job.id].append(f"started {job.experiments[0]}")
            self._change(
                job, state="running", started=job.created + 1, stage=job.experiments[0], total=self.steps, done=0
            )
            return
        done = job.done + 1
        results = list(job.results)
        stage = job.stage
        if done >= self.steps:
            results.append(f"{stage}-0001")
            self.logs[job.id].append(f"{stage}: kept as {results[-1]}")
            if len(results) == len(job.experiments) or self.outcome != "done":
                self._change(
                    job,
                    state=self.outcome,
                    ended=job.created + 300,
                    done=done,
                    results=tuple(results) if self.outcome == "done" else (),
                    error=self.error if self.outcome == "failed" else "",
                    exit_code=5 if self.outcome == "failed" else 0,
                    seconds_left=None,
                    tokens_per_second=0.0,
                )
                return
            stage, done = job.experiments[len(results)], 0
            self.logs[job.id].append(f"started {stage}")
        left = (self.steps - done) + self.steps * (len(job.experiments) - len(results) - 1)
        self._change(
            job, stage=stage, done=done, results=tuple(results), tokens_per_second=12_345.0, seconds_left=left * 3.0
        )

    def _change(self, job: JobInfo, **changes: object) -> JobTold:
        return self._changed(replace(job, **changes))  # type: ignore[arg-type]

    def _changed(self, job: JobInfo) -> JobTold:
        self.known[job.id] = job
        told = JobTold(job=job)
        for tell in list(self.tellers):
            tell(told)
        if not self.hold and (self._task is None or self._task.done()):
            self._task = asyncio.ensure_future(self._run())
        return told

    async def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while self.under_way is not None:
                await asyncio.sleep(self.step_seconds)
                self.advance()
