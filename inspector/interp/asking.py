"""Asks many questions at a time, each once, and tells how far it is.

Synchronous from outside, as all work here: a generator of events with its own asyncio loop inside. An answer is kept
the moment it is there, so whatever ends the process loses only what was on the way.

Answers lie in one SQLite file, each committed whole with a checksum, under the judge's name, the version of the prompts
and all that was asked. It is readable by its owner alone, because it holds the text that was shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspector.disk.files import require_file
from inspector.disk.folders import ANSWERS
from inspector.errors import ResourceError
from inspector.events import Event, JudgeProgress
from inspector.interp.judge import Judge, JudgeUnreachable, Question, Reply

NAME = "answers.sqlite"
VERSION = 1
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT, sha256 TEXT, created REAL)"


def key_of(judge: str, version: str, question: Question) -> str:
    """sha256 of who is asked, with which prompts, and what."""
    asked = [judge, version, question.max_tokens, [[each.role, each.text] for each in question.messages]]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()


class AnswerStore:
    """The answers in a folder. Usable as a context; several processes may have it open.

    A damaged file is put aside under another name, and one that cannot be opened at all ends the run before the judge
    is paid for answers that would be lost.

    Args:
        folder: where; None: the user's.

    Raises:
        ResourceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or ANSWERS.path()) / NAME
        self.was_damaged = False
        """A file was put aside."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            require_file(self.path)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise ResourceError(
                f"Answers cannot be kept in {self.path.parent}: {error.strerror}. Make room, or set {ANSWERS.variable}."
            ) from error
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or a disk that fails: no damage to put aside
                raise self._failed(error) from error
            self.was_damaged = True
            self.path.replace(self.path.with_name(f"{NAME}.damaged-{time.time_ns()}"))
            self.path.touch(mode=0o600)
            self._connection = self._open()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, key: str) -> str | None:
        """The answer, or None; one that does not fit its checksum counts as none."""
        try:
            row = self._connection.execute("SELECT answer, sha256 FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if row is None or not isinstance(row[0], str) or checksum(key, row[0]) != row[1]:
            return None
        return row[0]

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep answers by key, on the disk before this returns.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        rows = []
        for key, answer in answers.items():
            whole = answer.encode("utf-8", "replace").decode()  # half characters cannot be stored
            rows.append((key, whole, checksum(key, whole), time.time()))
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
                raise sqlite3.DatabaseError("another version")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("SELECT key, answer, sha256, created FROM answers LIMIT 1").fetchone()
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, error: sqlite3.Error) -> ResourceError:
        return ResourceError(
            f"The answers in {self.path} cannot be used: {error}. Make room there, or set {ANSWERS.variable}."
        )


def checksum(key: str, answer: str) -> str:
    """sha256 of an answer and what it answers."""
    return hashlib.sha256(f"{key}\0{answer}".encode()).hexdigest()


SECONDS_BETWEEN_EVENTS = 0.5
MOST_USELESS = 20
"""Responses in a row that are no answers, before the judge is taken for something else."""


@dataclass(kw_only=True)
class Tally:
    """What asking has cost so far."""

    asked: int = 0
    """Questions that a judge answered now."""
    known: int = 0
    """Questions whose answer was kept from before, or was asked for twice."""
    retried: int = 0
    """Tries beyond the first."""
    useless: int = 0
    """Questions to which no answer could be had."""


class Asker:
    """Asks a judge, and the stored answers before it. Usable as a context, which closes the judge.

    Args:
        judge: whom.
        store: of answers.
        version: of the prompts.
    """

    def __init__(self, judge: Judge, store: AnswerStore, version: str) -> None:
        self.judge, self.tally = judge, Tally()
        self._store, self._version = store, version
        self._loop = asyncio.new_event_loop()
        self._useless_in_a_row, self._last_problem = 0, ""

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run_until_complete(self.judge.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def known(self, question: Question) -> str | None:
        """The stored answer, if there is one; asks nobody."""
        return self._store.find(key_of(self.judge.name, self._version, question))

    def ask(self, questions: Sequence[Question], stage: str) -> Generator[Event, None, list[str | None]]:
        """The answer to each, in order; None where none could be had.

        Raises:
            JudgeUnreachable: the judge does not answer.
            ResourceError: answers cannot be kept.
        """
        keys = [key_of(self.judge.name, self._version, question) for question in questions]
        answers: dict[str, str | None] = {}
        waiting: dict[str, Question] = {}
        for key, question in zip(keys, questions, strict=True):
            if key in answers or key in waiting:
                self.tally.known += 1
            elif (known := self._store.find(key)) is not None:
                answers[key] = known
                self.tally.known += 1
            else:
                waiting[key] = question
        yield from self._ask_all(waiting, answers, stage)
        return [answers[key] for key in keys]

    def _ask_all(
        self, waiting: dict[str, Question], answers: dict[str, str | None], stage: str
    ) -> Generator[Event, None, None]:
        """Fill `answers` with those of `waiting`, `parallel` at a time; the first goes alone, to see who is there."""
        total, began, told_at = len(waiting), time.monotonic(), float("-inf")
        queue = iter(waiting.items())
        on_the_way: dict[asyncio.Task[Reply], str] = {}
        done = 0
        try:
            while done < total:
                room = self.judge.parallel if done or self.tally.asked else 1
                while len(on_the_way) < room and (item := next(queue, None)) is not None:
                    key, question = item
                    on_the_way[self._loop.create_task(self._reply(question))] = key
                self._loop.run_until_complete(_first(on_the_way))
                done += self._take(on_the_way, answers)
                if time.monotonic() - told_at >= SECONDS_BETWEEN_EVENTS or done == total:
                    told_at = time.monotonic()
                    yield self._progress(stage, done, total, told_at - began)
        finally:
            for task in on_the_way:
                task.cancel()
            if on_the_way:
                self._loop.run_until_complete(asyncio.wait(on_the_way))
                # An answer that came at the last moment counts; a failure has nobody left to be told.
                came = {on_the_way[task]: task.result().text for task in on_the_way if _went_well(task)}
                self._store.keep({key: text for key, text in came.items() if text is not None})

    def _take(self, on_the_way: dict[asyncio.Task[Reply], str], answers: dict[str, str | None]) -> int:
        """Keep what has come; how many. Of several failures the first is raised, after the rest was kept."""
        finished = [task for task in on_the_way if task.done()]
        failure: BaseException | None = None
        good: dict[str, str] = {}
        for task in finished:
            key = on_the_way.pop(task)
            trouble = task.exception()
            if trouble is not None:
                failure = failure or trouble
                continue
            reply = task.result()
            answers[key] = reply.text
            self._count(reply)
            if reply.text is not None:
                good[key] = reply.text
        self._store.keep(good)
        if failure is not None:
            raise failure
        if self._useless_in_a_row >= MOST_USELESS:
            raise JudgeUnreachable(
                f"The judge gave {self._useless_in_a_row} responses in a row that are no answers: "
                f"{self._last_problem}. Look what --judge-url leads to."
            )
        return len(finished)

    async def _reply(self, question: Question) -> Reply:
        return await self.judge.ask(question)

    def _count(self, reply: Reply) -> None:
        self.tally.retried += reply.tries - 1
        if reply.text is None:
            self.tally.useless += 1
            self._useless_in_a_row += 1
            self._last_problem = reply.problem
        else:
            self.tally.asked += 1
            self._useless_in_a_row = 0

    def _progress(self, stage: str, done: int, total: int, seconds: float) -> JudgeProgress:
        return JudgeProgress(
            stage=stage,
            done=done,
            total=total,
            known=self.tally.known,
            retried=self.tally.retried,
            seconds_left=seconds / done * (total - done) if done else -1.0,
        )


async def _first(tasks: Iterable[asyncio.Task[Reply]]) -> None:
    """Wait until one is done, or some time has passed, so that the caller can be stopped."""
    await asyncio.wait(list(tasks), timeout=SECONDS_BETWEEN_EVENTS, return_when=asyncio.FIRST_COMPLETED)


def _went_well(task: asyncio.Task[Reply]) -> bool:
    return not task.cancelled() and task.exception() is None
