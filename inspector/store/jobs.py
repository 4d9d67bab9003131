"""Jobs of all sessions of this user, in one SQLite table that every process may read and write.

A job is one run that a session does beside answering its views. What it has finished are results, in files of their
own; the table only says what was asked for and how far it is. Each row carries a checksum, so that a flipped bit costs
that row and never tells something wrong. Never pickle; no torch.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from inspector.disk.files import at_once, open_file
from inspector.disk.folders import JOBS, RESULTS
from inspector.disk.locks import born, is_running
from inspector.disk.table import Row, Table
from inspector.errors import InspectorError, ResourceError, UsageError, nearest, only_one
from inspector.events import JobInfo, JobState
from inspector.spec import RunSpec
from inspector.store.results import load

JOBS_FILE = "jobs.sqlite"
BEAT_SECONDS = 600.0
"""A job of another machine that has told nothing for so long is taken for dead; here the process itself is looked at.
Long, because a session tells between two steps and one step on a slow device may take minutes."""
KEPT = 500
"""Ended jobs that are remembered; older ones and their logs are removed."""
_ID_DIGITS = 8
_COLUMNS = {"id": "TEXT", "created": "REAL", "live": "INTEGER", "body": "BLOB", "sha256": "TEXT"}

LARGEST_READ = 512 * 1024
"""Bytes of a log that are looked at for its last lines."""
MOST_LINES = 2000
SECONDS_BETWEEN = 10.0
"""Between two lines about progress; an hour's job stays readable."""

log = logging.getLogger(__name__)

LIVE: tuple[JobState, ...] = ("queued", "running")
"""States in which a session has the job in its hands."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that has a job in its hands."""

    pid: int = 0
    born: str = ""
    """As `locks.born` says it."""
    host: str = ""

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(pid=os.getpid(), born=born(os.getpid()), host=socket.gethostname())

    def is_gone(self, beat: float) -> bool:
        """Whether it has surely ended; `beat`: when it last wrote."""
        if self.host != socket.gethostname():
            return time.time() - beat > BEAT_SECONDS
        return not is_running(self.pid) or (self.born != "" and born(self.pid) != self.born)


@dataclass(frozen=True, kw_only=True)
class Job(JobInfo):
    """One job, as it is stored: what is told of it, and what its session has to know."""

    spec: RunSpec
    """What is run, on which target."""
    session: str
    """Id of the session that has it or had it."""
    log: str
    """Path of its log."""
    owner: Owner = Owner()
    beat: float = 0.0
    """When the session last wrote something here; seconds since the epoch."""
    results_folder: str = ""
    """Where the results are."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What each experiment took by itself, and under '' what the shared passes took."""

    def __post_init__(self) -> None:
        """The experiments are those of `spec`; tables written before they were stored beside it lack them."""
        object.__setattr__(self, "experiments", self.spec.experiments)

    @property
    def is_live(self) -> bool:
        """Whether a session has it in its hands."""
        return self.state in LIVE

    def queued(self, session: str) -> Job:
        """The job as a session of this process takes it up; of an earlier try its results stay, and its checkpoints."""
        return Job(
            id=self.id,
            spec=self.spec,
            command=self.command,
            created=self.created,
            log=self.log,
            results=self.results,
            seconds=self.seconds,
            session=session,
            owner=Owner.me(),
            beat=time.time(),
            results_folder=str(RESULTS.path()),
        )

    def resumed(self, session: str) -> Job:
        """The job as a session goes on with it: queued, or done if it died between its last result and saying so.

        Its run then starts from the checkpoints that an earlier try has left; see `runner.resumed`.

        Raises:
            UsageError: see `require_resumable`.
        """
        self.require_resumable()
        if self._is_complete():
            return replace(self, state="done", ended=time.time(), stage="", error="", exit_code=0)
        return self.queued(session)

    def require_resumable(self) -> None:
        """Refuse to go on with a job that is under way or at its end.

        Raises:
            UsageError: it is.
        """
        if self.is_live or self.state == "done":
            raise UsageError(
                f"The job {self.id} is {self.state}. Only an interrupted, failed or cancelled one can be resumed."
            )

    def over(self) -> UsageError:
        """What to answer when it is cancelled after it has ended."""
        return UsageError(f"The job {self.id} is {self.state} already. Only a queued or running one can be cancelled.")

    def _is_complete(self) -> bool:
        """Whether every experiment has a result that is there and whole."""
        if len(self.results) < len(self.experiments):
            return False
        try:
            return all(load(name, folder=Path(self.results_folder)).record.id == name for name in self.results)
        except InspectorError:
            return False


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What is in the table."""

    jobs: tuple[Job, ...]
    """Newest first."""
    problems: tuple[str, ...] = ()
    """What could not be read, each in two sentences."""


class JobLogFile:
    """What a job says while it runs, in a file beside the table: one line per thing that happened.

    A disk that is full costs the line, never the job.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said_at = float("-inf")
        self._about = ""

    def say(self, text: str) -> None:
        """One line, with the time before it."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        line = f"{now} {' '.join(text.split())}\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8", errors="backslashreplace", opener=at_once) as file:
                file.write(line)
        except OSError as error:
            log.warning("the job's log could not be written: %s", error)

    def progress(self, about: str, text: str) -> None:
        """A line about progress, unless one about the same was written a moment ago."""
        now = time.monotonic()
        if about != self._about or now - self._said_at >= SECONDS_BETWEEN:
            self._about, self._said_at = about, now
            self.say(text)

    def last_lines(self, n_lines: int) -> list[str]:
        """The last lines, at most MOST_LINES; none if there is no such file."""
        try:
            with open_file(self.path) as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - LARGEST_READ))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        lines = text.split("\n")
        if size > LARGEST_READ:
            del lines[0]  # its beginning was cut off
        if lines and not lines[-1]:
            lines.pop()
        return lines[-min(max(n_lines, 1), MOST_LINES) :]


class JobStore:
    """The table. Holds no connection between two calls, so it may be used from anywhere at any time.

    Args:
        folder: where; None: the user's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or JOBS.path()
        self.table = jobs_table(self.folder)

    def new_id(self) -> str:
        """An id that no other job has."""
        return os.urandom(_ID_DIGITS // 2).hex()

    def log(self, job_id: str) -> JobLogFile:
        """What a job has said."""
        return JobLogFile(self.folder / "logs" / f"{job_id}.log")

    def add(self, job: Job) -> Job:
        """Remember a new job.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        return self._changed(job.id, lambda found: job)

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Change a job to what `change` makes of what is stored now, without another write between.

        Raises what `change` does.

        Raises:
            UsageError: there is no such job.
            ResourceError: the disk is full or cannot be written to.
        """

        def changed(found: Job | None) -> Job:
            if found is None:
                known = [job.id for job in self.all().jobs]
                raise UsageError(f"There is no job {job_id!r}.{nearest(job_id, known)}")
            return change(found)

        return self._changed(job_id, changed)

    def all(self) -> Jobs:
        """Every job, newest first. Those whose session died without a word are 'interrupted' from then on."""
        jobs, problems = [], []
        for row in self.table.rows():
            job = _decoded(row)
            if job is None:
                problems.append(
                    f"The entry of job {ascii(row[0])[:40]} in {self.table.path} is damaged. "
                    "Its results are not; start it again for what is missing."
                )
                self._forget(row[0])
            else:
                jobs.append(self._settled(job))
        jobs.sort(key=lambda job: (job.created, job.id), reverse=True)
        return Jobs(jobs=tuple(jobs), problems=tuple(problems))

    def find(self, wanted: str) -> Job:
        """The job of an id, or of the beginning of one if only one begins so.

        Raises:
            UsageError: there is none, or several begin so.
        """
        jobs = {job.id: job for job in self.all().jobs}
        return jobs[only_one(wanted, list(jobs), "job", none=" `dm-inspect run --detach` starts one.")]

    def _forget(self, job_id: object) -> None:
        with contextlib.suppress(ResourceError):
            self.table.transact(lambda table: table.execute("DELETE FROM jobs WHERE id IS ?", (job_id,)))

    def _settled(self, job: Job) -> Job:
        """The job, interrupted if its session is gone."""
        if not (job.is_live and job.owner.is_gone(job.beat)):
            return job

        def interrupted(found: Job) -> Job:
            if not (found.is_live and found.owner == job.owner):
                return found
            return replace(found, state="interrupted", ended=found.beat or found.created, seconds_left=None)

        with contextlib.suppress(ResourceError):
            return self.update(job.id, interrupted)
        return interrupted(job)

    def _changed(self, job_id: str, change: Callable[[Job | None], Job]) -> Job:
        def write(table: sqlite3.Connection) -> Job:
            row = self.table.row(table, job_id)
            job = change(None if row is None else _decoded(row))
            body = msgspec.json.encode(job)
            self.table.put(table, [(job.id, job.created, int(job.is_live), body, hashlib.sha256(body).hexdigest())])
            old = "SELECT id FROM jobs WHERE NOT live ORDER BY created DESC LIMIT -1 OFFSET ?"
            for (gone,) in table.execute(old, (KEPT,)).fetchall():
                table.execute("DELETE FROM jobs WHERE id = ?", (gone,))
                with contextlib.suppress(OSError):
                    self.log(str(gone)).path.unlink(missing_ok=True)
            return job

        return self.table.transact(write)


def jobs_table(folder: Path) -> Table:
    """The table in a folder. Quick: what a power cut takes are the last words about a job."""
    return Table(
        folder / JOBS_FILE, "jobs", _COLUMNS, version=1, variable=JOBS.variable, is_whole=_is_whole, is_quick=True
    )


def _decoded(row: Row) -> Job | None:
    """The job of a row; None if it is not what was written."""
    job_id, _, _, body, checksum = row
    if not isinstance(body, bytes) or hashlib.sha256(body).hexdigest() != checksum:
        return None
    try:
        job = msgspec.json.decode(body, type=Job)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return job if job.id == job_id else None


def _is_whole(row: Row) -> bool:
    job = _decoded(row)
    return job is not None and (job.created, int(job.is_live)) == row[1:3]
