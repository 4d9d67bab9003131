"""Asking many questions: each once, also when the process is killed in between, and no answer that is not whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from inspector.errors import ExitCode, ResourceError
from inspector.events import JudgeProgress
from inspector.interp import prompts
from inspector.interp.asking import ANSWERS_FILE, MOST_USELESS, AnswerStore, Asker, key_of
from inspector.interp.chat import ChatJudge, Patience
from inspector.interp.judge import JudgeUnreachable, Question
from tests.judge_server import always_yes, judge_server

N = 40
PROGRAM = """
import sys
from inspector.interp import prompts
from inspector.interp.asking import AnswerStore, Asker
from inspector.interp.chat import ChatJudge, key_from_environment
from pathlib import Path
url, folder, parallel, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
store = AnswerStore(folder)
with Asker(ChatJudge(url, "m", key_from_environment(), parallel=parallel), store, prompts.VERSION) as asker:
    work = asker.ask([prompts.decide("detection", f"question {i}", ["a", "b"]) for i in range(n)], "scoring")
    try:
        while True:
            next(work)
    except StopIteration as end:
        assert end.value == ["[1, 1]"] * n
    print(asker.tally.asked, asker.tally.known)
"""
"""In a process of its own, to be killed."""


def questions(n: int) -> list[Question]:
    return [prompts.decide("detection", f"question {i}", ["a", "b"]) for i in range(n)]


def asked(work: object) -> list[str | None]:
    try:
        while True:
            next(work)  # type: ignore[call-overload]
    except StopIteration as end:
        found: list[str | None] = end.value
        return found


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_killed_process_goes_on_where_it_was(tmp_path: Path, parallel: int) -> None:
    with judge_server(always_yes()) as server:
        words = [sys.executable, "-c", PROGRAM, server.url, str(tmp_path), str(parallel), str(N)]
        environment = {**os.environ, "DM_INSPECT_JUDGE_KEY": "canary-99aa"}
        for at in (7, 19, 30):
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            )
            pid = process.pid
            server.on_request = lambda number, at=at, pid=pid: os.kill(pid, signal.SIGKILL) if number == at else None
            _, err = process.communicate(timeout=500)
            assert process.returncode == -signal.SIGKILL, err
        server.on_request = None
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
    counts = Counter(body["messages"][1]["content"] for body in server.asked)
    assert len(counts) == N
    # Kept before the next is asked: only what was on the way when a kill came is asked again.
    assert sum(counts.values()) - N <= 3 * parallel
    told_asked, told_known = map(int, done.stdout.split())
    assert told_asked + told_known == N and told_known >= 30 - 3 * parallel
    assert all(b"canary-99aa" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_questions_of_one_text_are_asked_once(tmp_path: Path) -> None:
    with judge_server(always_yes()) as server:
        with Asker(ChatJudge(server.url, "m"), AnswerStore(tmp_path), "1") as asker:
            answers = asked(asker.ask([*questions(3), *questions(3)], "scoring"))
        assert answers == ["[1, 1]"] * 6
        assert (len(server.asked), asker.tally.asked, asker.tally.known) == (3, 3, 3)


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    with (
        judge_server(always_yes()) as server,
        Asker(ChatJudge(server.url, "m", parallel=2), AnswerStore(tmp_path), "1") as asker,
    ):
        told = list(asker.ask(questions(5), "scoring"))
    assert all(isinstance(event, JudgeProgress) for event in told)
    assert told[-1] == JudgeProgress(stage="scoring", done=5, total=5, known=0, retried=0, seconds_left=0.0)


def test_something_else_at_the_address_is_noticed(tmp_path: Path) -> None:
    async def at_once(_seconds: float) -> None:
        """Nobody waits."""

    with judge_server(always_yes(), always="not json") as server:
        with (
            Asker(ChatJudge(server.url, "m", patience=Patience(sleep=at_once)), AnswerStore(tmp_path), "1") as asker,
            pytest.raises(JudgeUnreachable, match="in a row that are no answers") as caught,
        ):
            asked(asker.ask(questions(200), "scoring"))
        assert caught.value.exit_code == ExitCode.TARGET
        assert server.tried < 4 * (MOST_USELESS + 8)


def test_what_was_answered_is_kept_although_the_judge_breaks_down(tmp_path: Path) -> None:
    with judge_server(always_yes(), faults=[None, None, None, "401"]) as server:
        with (
            Asker(ChatJudge(server.url, "m", parallel=1), AnswerStore(tmp_path), "1") as asker,
            pytest.raises(JudgeUnreachable, match="status 401"),
        ):
            asked(asker.ask(questions(9), "scoring"))
        with Asker(ChatJudge(server.url, "m", parallel=1), AnswerStore(tmp_path), "1") as asker:
            asked(asker.ask(questions(9), "scoring"))
        assert (asker.tally.known, asker.tally.asked, len(server.asked)) == (3, 6, 9)


# ---- the store -------------------------------------------------------------------------------------------------------


def test_an_answer_is_kept_under_all_that_was_asked(tmp_path: Path) -> None:
    one, other = questions(2)
    keys = {
        key_of("m", "1", one), key_of("m", "1", other), key_of("m2", "1", one), key_of("m", "2", one),
        key_of("m", "1", replace(one, max_tokens=one.max_tokens + 1)),
        key_of("m", "1", replace(one, system="")),
    }  # fmt: skip
    assert len(keys) == 6
    AnswerStore(tmp_path).keep({"k": "half \ud800 letter\x00", "empty": ""})
    assert AnswerStore(tmp_path).find(["k", "empty", "other"]) == {"k": "half ? letter\x00", "empty": ""}
    assert (tmp_path / ANSWERS_FILE).stat().st_mode & 0o077 == 0, "nobody else may read the texts that were shown"


def test_a_changed_answer_counts_as_none(tmp_path: Path) -> None:
    AnswerStore(tmp_path).keep({"a": "[1, 1]", "b": "[1, 0]"})
    with sqlite3.connect(tmp_path / ANSWERS_FILE) as connection:
        connection.execute("UPDATE answers SET answer = '[0, 0]' WHERE key = 'a'")
    connection.close()
    assert AnswerStore(tmp_path).find(["a", "b"]) == {"b": "[1, 0]"}


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be looked at" * 40, b"SQLite format 3\0x"]
)
def test_a_damaged_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ANSWERS_FILE).write_bytes(content)
    store = AnswerStore(tmp_path)
    assert store.table.was_damaged
    store.keep({"a": "b"})
    assert store.find(["a"]) == {"a": "b"}
    (aside,) = tmp_path.glob(f"{ANSWERS_FILE}.damaged-*")
    assert aside.read_bytes() == content


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"The folder of answers .* cannot be made"):
        AnswerStore(tmp_path / "file" / "below")
