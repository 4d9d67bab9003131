"""Jobs of all sessions of this user, in one SQLite table that every process may read and write.

A job is one run that a session does beside answering its views. What it has finished are results, in files of their
own; the table only says what was asked for and how far it is. Each row carries a checksum, so that a flipped bit costs
that row and never tells something wrong. Never pickle; no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from inspector.disk.files import require_file
from inspector.disk.folders import JOBS
from inspector.disk.locks import born, is_running
from inspector.errors import InspectorError, ResourceError, UsageError, nearest
from inspector.events import JobInfo, JobState
from inspector.spec import RunSpec

NAME = "jobs.sqlite"
VERSION = 1
"""Of the table and of what is in its rows."""
LOCK_SECONDS = 5.0
"""To wait for another process's write, which takes milliseconds."""
BEAT_SECONDS = 600.0
"""A job of another machine that has told nothing for so long is taken for dead; here the process itself is looked at.
Long, because a session tells between two steps and one step on a slow device may take minutes."""
KEPT = 500
"""Ended jobs that are remembered; older ones and their logs are removed."""
_ID_DIGITS = 8
_ROWS = "SELECT id, body, sha256 FROM jobs"

LIVE: tuple[JobState, ...] = ("queued", "running")
"""States in which a session has the job in its hands."""
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that has a job in its hands."""

    pid: int = 0
    born: str = ""
    """As `processes.born` says it."""
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


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What is in the table."""

    jobs: tuple[Job, ...]
    """Newest first."""
    problems: tuple[str, ...] = ()
    """What could not be read, each in two sentences."""


class JobStore:
    """The table. Holds no connection between two calls, so it may be used from anywhere at any time.

    Args:
        folder: where; None: the user's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or JOBS.path()
        self.path = self.folder / NAME

    def new_id(self) -> str:
        """An id nobody else draws."""
        return os.urandom(_ID_DIGITS // 2).hex()

    def log_path(self, job_id: str) -> Path:
        """Where a job's log is."""
        return self.folder / "logs" / f"{job_id}.log"

    def add(self, job: Job) -> Job:
        """Remember a new job.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        return self._changed(job.id, lambda found: job)

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Change a job to what `change` makes of what is stored now; nobody writes between. Raises what `change` does.

        Raises:
            UsageError: there is no such job.
            ResourceError: the disk is full or cannot be written to.
        """

        def changed(found: Job | None) -> Job:
            if found is None:
                raise UsageError(f"There is no job {job_id!r}.{nearest(job_id, self._ids())}")
            return change(found)

        return self._changed(job_id, changed)

    def all(self) -> Jobs:
        """Every job, newest first. Those whose session died without a word are 'interrupted' from then on."""
        if not self.path.exists():
            return Jobs(jobs=())
        rows = self._rows()
        jobs, problems = [], []
        for job_id, body, checksum in rows:
            job = _decoded(job_id, body, checksum)
            if job is None:
                problems.append(
                    f"The entry of job {_printable(job_id)} in {self.path} is damaged. "
                    "Its results are not; start it again for what is missing."
                )
                self._forget(job_id)
            else:
                jobs.append(self._settled(job))
        jobs.sort(key=lambda job: (job.created, job.id), reverse=True)
        return Jobs(jobs=tuple(jobs), problems=tuple(problems))

    def find(self, wanted: str) -> Job:
        """The job of an id, or of the beginning of one if only one begins so.

        Raises:
            UsageError: there is none, or several begin so.
        """
        jobs = self.all().jobs
        found = [job for job in jobs if job.id == wanted] or [
            job for job in jobs if wanted and job.id.startswith(wanted)
        ]
        if len(found) > 1:
            ids = ", ".join(job.id for job in found[:4])
            raise UsageError(f"'{wanted}' is the beginning of {len(found)} jobs: {ids}. Write more of it.")
        if not found:
            hint = nearest(wanted, [job.id for job in jobs]) if jobs else " `dm-inspect run --detach` starts one."
            raise UsageError(f"There is no job {wanted!r}.{hint}")
        return found[0]

    def _forget(self, job_id: object) -> None:
        with contextlib.suppress(ResourceError):
            self._transact(lambda table: table.execute("DELETE FROM jobs WHERE id IS ?", (job_id,)))

    def _rows(self) -> list[tuple[object, object, object]]:
        try:
            return self._transact(lambda table: table.execute(_ROWS).fetchall())
        except ResourceError:
            # A full disk has no room for the files of a transaction; what was written before can be read all the same.
            with contextlib.suppress(sqlite3.Error, OSError):
                require_file(self.path)
                uri = f"{self.path.as_uri()}?mode=ro&immutable=1"
                with contextlib.closing(sqlite3.connect(uri, uri=True)) as table:
                    return table.execute(_ROWS).fetchall()
            raise

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

    def _ids(self) -> list[str]:
        return [job.id for job in self.all().jobs]

    def _changed(self, job_id: str, change: Callable[[Job | None], Job]) -> Job:
        # The owner of a failed change decides what it raises; sqlite's own errors alone become ours.
        def write(table: sqlite3.Connection) -> Job:
            row = table.execute("SELECT id, body, sha256 FROM jobs WHERE id = ?", (job_id,)).fetchone()
            job = change(None if row is None else _decoded(*row))
            body = msgspec.json.encode(job)
            table.execute(
                "INSERT OR REPLACE INTO jobs (id, created, live, body, sha256) VALUES (?, ?, ?, ?, ?)",
                (job.id, job.created, int(job.is_live), body, _checksum(body)),
            )
            old = "SELECT id FROM jobs WHERE NOT live ORDER BY created DESC LIMIT -1 OFFSET ?"
            for (gone,) in table.execute(old, (KEPT,)).fetchall():
                table.execute("DELETE FROM jobs WHERE id = ?", (gone,))
                with contextlib.suppress(OSError):
                    self.log_path(str(gone)).unlink(missing_ok=True)
            return job

        return self._transact(write)

    def _transact(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do it in one transaction; a table that is damaged is saved as far as it can be read and made anew."""
        try:
            with self._open() as table:
                return work(table)
        except sqlite3.OperationalError as error:
            raise self._no_room(error) from error
        except sqlite3.DatabaseError:
            self._rescue()
        try:
            with self._open() as table:
                return work(table)
        except sqlite3.Error as error:
            raise self._no_room(error) from error

    def _no_room(self, error: sqlite3.Error) -> ResourceError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            return ResourceError(
                f"Another process has held the list of jobs {self.path} for {LOCK_SECONDS:g} seconds. "
                "Try again when it is done; what it runs goes on."
            )
        return ResourceError(
            f"The list of jobs {self.path} cannot be read or written: {error}. "
            f"Make room there, or set {JOBS.variable} to another folder."
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"The folder of jobs {self.folder} cannot be made: {error.strerror}. "
                f"Set {JOBS.variable} to another one."
            ) from error
        try:
            require_file(self.path)
        except OSError as error:
            raise ResourceError(
                f"The list of jobs {self.path} cannot be opened: {error.strerror}. "
                f"Move it away, or set {JOBS.variable} to another folder."
            ) from error
        connection = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        connection.text_factory = _text
        try:
            # Readers never wait for a writer. What a power cut takes are the last words about a job, not the table.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise InspectorError(
                    f"The list of jobs {self.path} has version {version} and this program knows {VERSION}. "
                    f"Update dm-inspect, or set {JOBS.variable} to another folder."
                )
            if version < VERSION:
                _create(connection)
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()

    def _rescue(self) -> None:
        """Put a damaged table aside and take over every row that is whole."""
        rows: list[tuple[object, object, object]] = []
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.path)) as damaged:
            damaged.text_factory = _text
            for row in damaged.execute(_ROWS):
                rows.append(row)
        aside = self.path.with_name(f"{NAME}.damaged-{time.time():.0f}")
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.replace(f"{self.path}{ending}", f"{aside}{ending}")
        for row in rows:
            job = _decoded(*row)
            if job is not None:
                self.add(job)


def _create(table: sqlite3.Connection) -> None:
    table.execute(
        "CREATE TABLE IF NOT EXISTS jobs "
        "(id TEXT PRIMARY KEY, created REAL, live INTEGER, body BLOB, sha256 TEXT) WITHOUT ROWID"
    )
    table.execute(f"PRAGMA user_version = {VERSION}")


def _text(raw: bytes) -> str:
    """A flipped bit may leave what is no text; it must reach the checksum and not raise before."""
    return raw.decode(errors="replace")


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _decoded(job_id: object, body: object, checksum: object) -> Job | None:
    """The job of a row; None if it is not what was written."""
    if not isinstance(body, bytes) or _checksum(body) != checksum:
        return None
    try:
        job = msgspec.json.decode(body, type=Job)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return job if job.id == job_id else None


WHOLE_ROWS = "SELECT id, created, live, body, sha256 FROM jobs"
"""For `is_whole`."""


def is_whole(row: Sequence[object]) -> bool:
    """Whether a row of WHOLE_ROWS is as it was written."""
    job_id, created, live, body, checksum = row
    job = _decoded(job_id, body, checksum)
    return job is not None and (job.created, int(job.is_live)) == (created, live)


def _printable(text: object) -> str:
    return ascii(text)[:40]
