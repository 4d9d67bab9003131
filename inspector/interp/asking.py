"""Asks many questions at a time, each once, and tells how far it is.

Synchronous from outside, as all work here: a generator of events with its own asyncio loop inside. An answer is kept
the moment it is there, so whatever ends the process loses only what was on the way.

Answers lie in one SQLite file, each committed whole with a checksum, under the judge's name, the version of the prompts
and all that was asked. It is readable by its owner alone, because it holds the text that was shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspector.disk.folders import ANSWERS
from inspector.disk.table import Row, Table
from inspector.events import Event, JudgeProgress
from inspector.interp.judge import Judge, JudgeUnreachable, Question, Reply

ANSWERS_FILE = "answers.sqlite"


def key_of(judge: str, version: str, question: Question) -> str:
    """sha256 of who is asked, with which prompts, and what."""
    asked = [judge, version, question.max_tokens, [["system", question.system], ["user", question.user]]]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()


class AnswerStore:
    """The answers in a folder; several processes may use it. Making one finds out whether answers can be kept, before
    the judge is paid for any that would be lost.

    Args:
        folder: where; None: the user's.

    Raises:
        ResourceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.table = answers_table(folder or ANSWERS.path())
        self.find([""])

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """Those that are kept, by key; one that does not fit its checksum is not.

        Raises:
            ResourceError: they cannot be read.
        """
        rows = self.table.transact(lambda table: [self.table.row(table, key) for key in keys])
        return {row[0]: row[1] for row in rows if row is not None and _is_whole(row)}

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep answers by key, on the disk before this returns.

        Raises:
            ResourceError: the disk is full or cannot be written to.
        """
        rows = []
        for key, answer in answers.items():
            whole = answer.encode("utf-8", "replace").decode()  # half characters cannot be stored
            rows.append((key, whole, _checksum(key, whole), time.time()))
        self.table.transact(lambda table: self.table.put(table, rows))


def answers_table(folder: Path) -> Table:
    """The table in a folder."""
    columns = {"key": "TEXT", "answer": "TEXT", "sha256": "TEXT", "created": "REAL"}
    return Table(folder / ANSWERS_FILE, "answers", columns, version=1, variable=ANSWERS.variable, is_whole=_is_whole)


def _is_whole(row: Row) -> bool:
    """Whether an answer fits its checksum, which is of what it answers too."""
    return isinstance(row[1], str) and _checksum(row[0], row[1]) == row[2]


def _checksum(key: object, answer: str) -> str:
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

    def known(self, questions: Sequence[Question]) -> list[str | None]:
        """The stored answer to each, if there is one; the judge is not asked."""
        keys = self._keys(questions)
        found = self._store.find(keys)
        return [found.get(key) for key in keys]

    def ask(self, questions: Sequence[Question], stage: str) -> Generator[Event, None, list[str | None]]:
        """The answer to each, in order; None where none could be had.

        Raises:
            JudgeUnreachable: the judge does not answer.
            ResourceError: answers cannot be kept.
        """
        keys = self._keys(questions)
        answers: dict[str, str | None] = {**self._store.find(keys)}
        waiting = {key: question for key, question in zip(keys, questions, strict=True) if key not in answers}
        self.tally.known += len(questions) - len(waiting)
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
                    on_the_way[self._loop.create_task(self.judge.ask(question))] = key
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
                # An answer that came at the last moment counts; of a failure there is nothing more to tell.
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
            self.tally.retried += reply.tries - 1
            if reply.text is not None:
                good[key] = reply.text
                self.tally.asked += 1
                self._useless_in_a_row = 0
            else:
                self._useless_in_a_row += 1
                self._last_problem = reply.problem
        self._store.keep(good)
        if failure is not None:
            raise failure
        if self._useless_in_a_row >= MOST_USELESS:
            raise JudgeUnreachable(
                f"The judge gave {self._useless_in_a_row} responses in a row that are no answers: "
                f"{self._last_problem}. Look what --judge-url leads to."
            )
        return len(finished)

    def _keys(self, questions: Sequence[Question]) -> list[str]:
        return [key_of(self.judge.name, self._version, question) for question in questions]

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
