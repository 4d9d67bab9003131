"""Jobs of one session: runs of experiments that are done step by step, while the service answers views in between.

One job runs at a time; the others wait in the order they came. Every finished result is stored at once, the table of
jobs is told at every change of state, and what else is lost when the process dies is the step under way: checkpoints
keep the rest. Called by the service's one thread only. No torch before a job begins.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, cast, get_args

from inspector.cluster import SHARDS, check_address
from inspector.errors import Cancelled, UsageError
from inspector.events import Event, JobInfo, Loading, Measured, PassProgress, PassShared, TrainProgress, Warned, Workers
from inspector.experiment import parse_params
from inspector.experiments import choose
from inspector.session import discovery
from inspector.session.job_thread import Turns, work_on
from inspector.session.loading import first_layer
from inspector.session.protocol import (
    CancelJob,
    Failed,
    GetJobLog,
    GetJobs,
    JobLog,
    JobQuestion,
    Jobs,
    JobTold,
    ResumeJob,
    StartJob,
)
from inspector.session.server import failed
from inspector.spec import Null, Profile, RunSpec, TargetSpec, command_of
from inspector.store.jobs import Job, JobLogFile, JobStore
from inspector.store.results import save_measured

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.statistics.costs import Ahead

TOLD_SECONDS = 0.5
"""Between two messages about progress; a change of state is told at once."""
WRITTEN_SECONDS = 2.0
"""Between two writes of progress into the table."""
MOST_QUEUED = 100
"""A view that asks for more is mistaken, or wants to fill the disk."""
MOST_NAMED = 1000
"""Names of experiments in one question."""
SHARED = ("moments", "scores")
"""Passes that all experiments of a run share."""

log = logging.getLogger(__name__)


class JobRunner:
    """The jobs of a session.

    Args:
        target: the session's, resolved and of one hook.
        session_id: the session's; jobs are listed under it.
        tell: tells every view.
        store: the table; None: the user's.
    """

    def __init__(
        self, target: TargetSpec, *, session_id: str, tell: Callable[[JobTold], None], store: JobStore | None = None
    ) -> None:
        self._target = target
        self._session_id = session_id
        self._tell = tell
        self._store = store or JobStore()
        self._queue: deque[Job] = deque()
        self._running: _Running | None = None
        self._told_at = self._written_at = float("-inf")
        self.ahead_of: Callable[[RunSpec], Ahead] | None = None
        """The passes of a run; None: nobody can tell."""

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return self._running is not None or bool(self._queue)

    # ---- questions --------------------------------------------------------------------------------------------

    def answer(self, message: JobQuestion) -> JobTold | Jobs | JobLog:
        """What a view, or a command, asked about jobs.

        Raises:
            UsageError: an unknown experiment, parameter or job, or a job in a state that does not allow it.
            ResourceError: the table cannot be written.
        """
        match message:
            case StartJob():
                job = self.start(message)
            case CancelJob():
                job = self.cancel(message.job)
            case ResumeJob():
                job = self.resume(message.job)
            case GetJobs():
                return Jobs(request=message.request, jobs=[info(job) for job in self.jobs()])
            case GetJobLog():
                job = self._find(message.job)
                lines = self._store.log(job.id).last_lines(message.lines)
                return JobLog(request=message.request, job=job.id, lines=lines)
        return JobTold(request=message.request, job=info(job))

    def start(self, message: StartJob) -> Job:
        """Queue a new job."""
        if len(self._queue) >= MOST_QUEUED:
            raise UsageError(f"{len(self._queue)} jobs are waiting already. Cancel some, or wait.")
        spec, job_id = self._spec(message), self._store.new_id()
        job = Job(
            id=job_id,
            spec=spec,
            command=command_of(spec, *spec.experiments, ray=True),
            session=self._session_id,
            log=str(self._store.log(job_id).path),
            created=time.time(),
        )
        return self._taken_up(
            self._store.add(job.queued(self._session_id)), f"queued in session {self._session_id}: {job.command}"
        )

    def cancel(self, wanted: str) -> Job:
        """End a job; one that runs has just ended a step and begins no other."""
        job = self._find(wanted)
        if not job.is_live:
            raise job.over()
        running = self._running
        if running is not None and running.job.id == job.id:
            running.work.close()
            job, self._running = running.job, None
        elif any(each.id == job.id for each in self._queue):
            self._queue = deque(each for each in self._queue if each.id != job.id)
        else:
            raise UsageError(
                f"The job {job.id} is in session {job.session}. Cancel it with `dm-inspect jobs cancel {job.id}`."
            )
        return self._ended(replace(job, state="cancelled"), "cancelled; what was finished is kept")

    def resume(self, wanted: str) -> Job:
        """Queue a job again that did not come to its end."""
        found = self._find(wanted)
        if discovery.session_key(first_layer(found.spec.target)) != discovery.session_key(self._target):
            raise UsageError(
                f"The job {found.id} is of another target. Resume it with `dm-inspect jobs resume {found.id}`, "
                "which opens the right session."
            )
        job = self._store.update(found.id, lambda found: found.resumed(self._session_id))
        return self._taken_up(
            job,
            f"queued again in session {self._session_id}"
            if job.is_live
            else "done: all its results were stored already",
        )

    def _taken_up(self, job: Job, said: str) -> Job:
        self._store.log(job.id).say(said)
        if job.is_live:
            self._queue.append(job)
        self._tell(JobTold(job=info(job)))
        return job

    def jobs(self) -> list[Job]:
        """All jobs of this session, newest first; those of earlier processes of the same target, too."""
        mine = {job.id: job for job in self._queue}
        if self._running is not None:
            mine[self._running.job.id] = self._running.job  # further than the table knows
        listed = self._store.all()
        for problem in listed.problems:
            log.warning("%s", problem)
        return [mine.get(job.id, job) for job in listed.jobs if job.session == self._session_id]

    def _find(self, wanted: str) -> Job:
        job = self._store.find(wanted)
        return self._running.job if self._running is not None and self._running.job.id == job.id else job

    def _spec(self, message: StartJob) -> RunSpec:
        """What to run, once everything that can be wrong with it was looked at."""
        refuse_too_many(message.experiments)
        experiments = choose(message.experiments)
        parse_params(experiments, message.params)
        if message.profile not in get_args(Profile):
            raise UsageError(f"There is no profile {message.profile!r}. Known: {', '.join(get_args(Profile))}.")
        if message.null is not None and message.null not in get_args(Null):
            raise UsageError(f"There is no null {message.null!r}. Known: {', '.join(get_args(Null))}.")
        shards = RunSpec.shards
        if message.ray is not None:
            check_address(message.ray)
            shards = SHARDS
        return RunSpec(
            target=self._target,
            experiments=tuple(experiment.id for experiment in experiments),
            params=dict(message.params),
            profile=cast("Profile", message.profile),
            null=cast("Null | None", message.null),
            shards=shards,
            ray=message.ray,
        )

    # ---- work -------------------------------------------------------------------------------------------------

    def step(self, loaded: Loaded) -> None:
        """One turn of the job that runs; the next one is begun if none does. Never raises what a job does wrong."""
        if self._running is None:
            self._begin(self._queue.popleft(), loaded)
        running = self._running
        assert running is not None
        began = time.perf_counter()
        try:
            event = running.work.turn()
        except StopIteration:
            self._running = None
            job = running.job
            self._ended(replace(job, state="done", stage=""), f"done: {len(job.results)} results")
        except Exception as error:
            self._running = None
            self._failed(running.job, failed(error))
        else:
            running.seconds += time.perf_counter() - began
            if event is None:  # it only rests
                return
            try:
                self._hear(running, event)
            except Exception as error:  # a result that cannot be stored: the work stops, its checkpoints stay
                self._running = None
                running.work.close()
                self._failed(running.job, failed(error))

    def fail_all(self, why: Failed) -> None:
        """The target cannot be loaded, or was stopped while it was: then the jobs are not over but interrupted."""
        if why.exit_code == Cancelled.exit_code:
            self.interrupt_all()
        while self._queue:
            self._failed(self._queue.popleft(), why)

    def interrupt_all(self) -> None:
        """The session ends in order: what runs or waits can be resumed."""
        jobs = [*([self._running.job] if self._running is not None else []), *self._queue]
        if self._running is not None:
            self._running.work.close()
        self._running = None
        self._queue.clear()
        for job in jobs:
            self._ended(replace(job, state="interrupted"), "interrupted: the session ends")

    def _begin(self, job: Job, loaded: Loaded) -> None:
        now = time.time()
        job = replace(job, state="running", started=now, beat=now)
        work: Turns[Event] = Turns(lambda turns: work_on(job.spec, loaded, turns))
        self._running = _Running(job, self._store.log(job.id), work)
        if self.ahead_of is not None:
            self._running.ahead = self.ahead_of(job.spec)
        self._running.log.say("running")
        self._write(job)
        self._tell(JobTold(job=info(job)))

    def _hear(self, running: _Running, event: Event) -> None:
        """Take note of what a step has told."""
        job, at_once = running.job, False
        match event:
            case PassProgress():
                stage, done, total = event.name, event.contexts_done, event.contexts_total
                if stage in SHARED and not job.seconds.keys() - {""}:
                    running.add_shared()
                left = event.seconds_left if running.ahead is None else running.ahead.left(event)
                said = f"{done} of {total} contexts, {event.tokens_per_second:,.0f} tokens/s"
                job = running.at(stage, done, total, event.tokens_per_second, left, said)
            case TrainProgress():
                done, total = event.tokens_done, event.tokens_total
                said = f"{done:,} of {total:,} tokens"
                job = running.at("training", done, total, event.tokens_per_second, event.seconds_left, said)
            case Measured():
                experiment = str(event.result["experiment"])
                record = save_measured(job.spec, event.result)
                at_once = True
                running.log.say(f"{experiment} is measured ({event.index + 1} of {event.total}): result {record.id}")
                results = tuple(dict.fromkeys((*job.results, record.id)))
                job = replace(job, results=results, seconds={**job.seconds, experiment: running.take_seconds()})
            case Warned():
                running.log.say(f"warning: {event.message}")
            case PassShared():
                running.log.say(event.told)
            case Workers():
                job = replace(job, workers=event.workers)
            case Loading():
                if event.seconds is not None:  # 'moments' of an interrupted run, or what a worker loads
                    running.log.say(f"{event.what}: {event.seconds:.1f} s" if event.seconds else f"found {event.what}")
                job = replace(job, stage=f"loading {event.what}", done=event.done, total=event.total)
        running.job = job
        self._told(running, at_once=at_once)

    def _told(self, running: _Running, *, at_once: bool) -> None:
        """Tell the views and the table, unless they were told a moment ago."""
        now = time.monotonic()
        if at_once or now - self._written_at >= WRITTEN_SECONDS:
            running.job = replace(running.job, beat=time.time())
            self._write(running.job)
        if at_once or now - self._told_at >= TOLD_SECONDS:
            self._told_at = now
            self._tell(JobTold(job=info(running.job)))

    def _failed(self, job: Job, why: Failed) -> None:
        if why.exit_code == Cancelled.exit_code:
            self._ended(replace(job, state="cancelled"), f"cancelled: {why.message}")
            return
        changed = replace(job, state="failed", error=why.message, exit_code=why.exit_code)
        self._ended(changed, f"failed with exit code {why.exit_code}: {why.message}")

    def _ended(self, job: Job, said: str) -> Job:
        now = time.time()
        job = replace(job, ended=now, beat=now, seconds_left=None)
        self._store.log(job.id).say(said)
        self._write(job)
        self._tell(JobTold(job=info(job)))
        log.info("job %s: %s", job.id, said)
        return job

    def _write(self, job: Job) -> None:
        """Into the table. A disk that is full or a table that is locked costs the entry, never the job."""
        self._written_at = time.monotonic()
        try:
            self._store.add(job)
        except Exception as error:
            log.warning("the table of jobs could not be written: %s", error)


class _Running:
    """The job under way."""

    def __init__(self, job: Job, job_log: JobLogFile, work: Turns[Event]) -> None:
        self.job = job
        self.log = job_log
        self.work = work
        self.ahead: Ahead | None = None
        """Its passes; None: nobody can tell."""
        self.seconds = 0.0
        """Spent in steps since the last `take_seconds`: what views asked in between is not counted."""

    def at(self, stage: str, done: int, total: int, rate: float, left: float | None, said: str) -> Job:
        """The job with its progress, which goes into its log now and then."""
        self.log.progress(stage, f"{stage}: {said}")
        return replace(self.job, stage=stage, done=done, total=total, tokens_per_second=rate, seconds_left=left)

    def take_seconds(self) -> float:
        """What was spent since it was asked last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def add_shared(self) -> None:
        """The step was one of a pass that all experiments share."""
        spent = self.job.seconds.get("", 0.0) + self.take_seconds()
        self.job = replace(self.job, seconds={**self.job.seconds, "": spent})


def refuse_too_many(experiments: Sequence[str]) -> None:
    """'all' stands for every experiment, and a message may hold a million of them.

    Raises:
        UsageError: more names than any command has.
    """
    if len(experiments) > MOST_NAMED:
        raise UsageError(f"{len(experiments):,} experiments were named, at most {MOST_NAMED:,} can be. Name each once.")


def info(job: Job) -> JobInfo:
    """A job as views are told of it."""
    return JobInfo(**{each.name: getattr(job, each.name) for each in fields(JobInfo)})
