"""`dm-inspect jobs` and `run --detach`: what is printed where, and what happens when the session is gone."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inspector.disk.folders import JOBS
from inspector.events import WorkerInfo
from inspector.session import client
from inspector.session.jobs import info
from inspector.session.protocol import CancelJob, JobTold, ResumeJob, SessionMessage, StartJob, ViewMessage
from inspector.spec import RunSpec, TargetSpec
from inspector.store.jobs import Job, JobStore, Owner
from tests.cli.conftest import Run

SESSION = "0123456789ab"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    monkeypatch.setenv(JOBS.variable, str(tmp_path / "jobs"))
    monkeypatch.setenv("TZ", "UTC")
    return JobStore()


@pytest.fixture
def dead() -> Owner:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return Owner(pid=process.pid, host=socket.gethostname())


def job(store: JobStore, job_id: str = "3f8a2c91", **changes: Any) -> Job:
    made = Job(
        id=job_id,
        spec=RunSpec(target=TargetSpec(model="toy"), experiments=("error-vector", "fvu-nonlinear")),
        command="dm-inspect run error-vector fvu-nonlinear --model toy",
        session=SESSION,
        log=str(store.log(job_id).path),
        owner=Owner.me(),
        created=1_700_000_000.0,
        started=1_700_000_002.0,
        results=("error-vector-39162c75fa",),
        results_folder="/results",
    )
    return store.add(replace(made, **changes))


RUNNING: dict[str, Any] = {
    "state": "running",
    "stage": "moments",
    "done": 30,
    "total": 120,
    "tokens_per_second": 4100.0,
    "seconds_left": 125.0,
}


def test_no_job_is_said_on_stderr_and_is_an_empty_list_in_json(run: Run, store: JobStore) -> None:
    outcome = run("jobs", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "There are no jobs. `dm-inspect run --detach` starts one.\n"
    assert run("jobs", "list", "--json").out == '{"jobs": []}\n'


def test_jobs_are_listed(run: Run, store: JobStore) -> None:
    job(store, **RUNNING)
    job(store, "00000001", state="done", created=1_600_000_000.0, results=("a", "b"))
    progress = "moments 30/120 · 4,100 tokens/s · 2 min 05 s left"
    width = len(progress)
    two = "2 of 2 results".ljust(width)
    assert run("jobs", "list").out == (
        f"job       experiments                 state    {'progress'.ljust(width)}  session       created\n"
        f"────────  ──────────────────────────  ───────  {'─' * width}  ────────────  ───────────────────\n"
        f"3f8a2c91  error-vector fvu-nonlinear  running  {progress}  {SESSION}  2023-11-14 22:13:20\n"
        f"00000001  error-vector fvu-nonlinear  done     {two}  {SESSION}  2020-09-13 12:26:40\n"
    )
    first, second = json.loads(run("jobs", "list", "--json").out)["jobs"]
    keys = ("id", "experiment", "state", "progress", "session", "command", "result")
    assert {key: first[key] for key in keys} == {
        "id": "3f8a2c91",
        "experiment": "error-vector fvu-nonlinear",
        "state": "running",
        "progress": 0.25,
        "session": SESSION,
        "command": "dm-inspect run error-vector fvu-nonlinear --model toy",
        "result": "error-vector-39162c75fa",
    }
    assert (second["progress"], second["results"]) == (1.0, ["a", "b"])


def test_workers_of_a_job_on_a_cluster_are_told(run: Run, store: JobStore) -> None:
    at = WorkerInfo(number=1, state="running", where="n1 cuda:0", used_bytes=int(41e9), free_bytes=int(38e9))
    job(store, **RUNNING, workers=(replace(at, stage="moments", contexts=30), WorkerInfo(number=2)))
    shown = run("jobs", "show", "3f8").out
    assert (
        "workers      1 running n1 cuda:0 · 41.0 GB, 38.0 free · moments, 30 contexts\n             2 starting\n"
    ) in shown
    told = json.loads(run("jobs", "show", "3f8", "--json").out)["workers"]
    assert [(each["number"], each["where"], each["used_bytes"]) for each in told] == [
        (1, "n1 cuda:0", 41e9),
        (2, "", 0),
    ]


def test_one_job_is_shown(run: Run, store: JobStore) -> None:
    job(store, state="failed", error="The disk is full. Make room.", exit_code=5, ended=1_700_000_067.0)
    outcome = run("jobs", "show", "3f8")
    pid, host = Owner.me().pid, socket.gethostname()
    assert outcome.out == (
        "job          3f8a2c91\n"
        "experiments  error-vector fvu-nonlinear\n"
        "state        failed, exit code 5\n"
        "why          The disk is full. Make room.\n"
        "progress     1 of 2 results\n"
        "created      2023-11-14 22:13:20\n"
        "started      2023-11-14 22:13:22\n"
        "ended        2023-11-14 22:14:27\n"
        "took         1 min 05 s\n"
        f"session      {SESSION}, pid {pid} on {host}\n"
        "results      error-vector-39162c75fa\n"
        "kept in      /results\n"
        "command      dm-inspect run error-vector fvu-nonlinear --model toy\n"
        f"log          {store.log('3f8a2c91').path}\n"
    )
    data = json.loads(run("jobs", "show", "3f8a2c91", "--json").out)
    assert (data["error"], data["exit_code"], data["id"]) == ("The disk is full. Make room.", 5, "3f8a2c91")
    missing = run("jobs", "show", "4f8a2c91")
    assert (missing.code, missing.out) == (2, "")
    assert "There is no job '4f8a2c91'. Nearest: 3f8a2c91." in missing.err


def test_a_log_ends_with_the_last_lines_and_cannot_act_on_the_terminal(run: Run, store: JobStore) -> None:
    log = store.log(job(store).id)
    for number in range(30):
        log.say(f"line {number}")
    log.say("\x1b[2Jcleared\nand more")
    lines = run("jobs", "log", "3f8a2c91", "--lines", "2").out.splitlines()
    assert [line.partition("Z ")[2] for line in lines] == ["line 29", "␛[2Jcleared and more"]
    data = json.loads(run("jobs", "log", "3f8a2c91", "--json").out)
    assert (data["job"], len(data["lines"])) == ("3f8a2c91", 31)


def test_a_job_whose_session_died_is_interrupted_and_can_be_cancelled(run: Run, store: JobStore, dead: Owner) -> None:
    job(store, owner=dead, **RUNNING)
    assert json.loads(run("jobs", "list", "--json").out)["jobs"][0]["state"] == "interrupted"
    outcome = run("jobs", "cancel", "3f8a2c91")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("cancelled 3f8a2c91 (error-vector fvu-nonlinear)")
    again = run("jobs", "cancel", "3f8a2c91")
    assert again.code == 2
    assert "is cancelled already" in again.err


def test_a_job_that_runs_elsewhere_is_not_cancelled_here(run: Run, store: JobStore) -> None:
    import time

    job(store, owner=Owner(pid=1, host="another"), beat=time.time(), **RUNNING)
    outcome = run("jobs", "cancel", "3f8a2c91")
    assert outcome.code == 2
    assert "is running on another, and its session 0123456789ab is not found here." in outcome.err


@pytest.fixture
def session(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str | TargetSpec, ViewMessage]]]:
    """Takes questions in a session's place, and does at once what it is asked."""
    asked: list[tuple[str | TargetSpec, ViewMessage]] = []

    def answer(where: str | TargetSpec, message: ViewMessage) -> SessionMessage:
        asked.append((where, message))
        match message:
            case CancelJob(job=wanted):
                return JobTold(job=info(store.update(wanted, lambda found: replace(found, state="cancelled"))))
            case ResumeJob(job=wanted):
                return JobTold(job=info(store.update(wanted, lambda found: replace(found, state="queued"))))
            case StartJob():
                return JobTold(job=info(job(store, "99999999", results=())))
        raise AssertionError(message)

    monkeypatch.setattr(client, "ask_session", answer)
    monkeypatch.setattr(client, "ask_target", answer)
    return asked  # type: ignore[return-value]


def test_a_running_job_is_cancelled_by_its_session(run: Run, store: JobStore, session: list[Any]) -> None:
    job(store, **RUNNING)
    data = json.loads(run("jobs", "cancel", "3f8", "--json").out)
    assert data["state"] == "cancelled"
    assert session == [(SESSION, CancelJob(job="3f8a2c91"))]


def test_resuming_asks_the_jobs_session_or_a_new_one(
    run: Run, store: JobStore, dead: Owner, session: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job(store, owner=dead, **RUNNING)
    outcome = run("jobs", "resume", "3f8a2c91")
    assert outcome.err.startswith("resumed 3f8a2c91 in session 0123456789ab")
    assert session == [(SESSION, ResumeJob(job="3f8a2c91"))]

    def gone(*_: object) -> SessionMessage:
        raise FileNotFoundError

    monkeypatch.setattr(client, "ask_session", gone)
    job(store, owner=dead, **RUNNING)
    assert json.loads(run("jobs", "resume", "3f8a2c91", "--json").out)["id"] == "3f8a2c91"
    assert session[1:] == [(TargetSpec(model="toy"), ResumeJob(job="3f8a2c91"))]
    job(store, state="done")
    refused = run("jobs", "resume", "3f8a2c91")
    assert refused.code == 2
    assert "The job 3f8a2c91 is done." in refused.err


def test_a_detached_run_prints_the_jobs_id(run: Run, store: JobStore, session: list[Any]) -> None:
    words = shlex.split("run error-vector fvu-nonlinear --detach -p resamples=10 --null shuffle --model toy")
    outcome = run(*words)
    assert (outcome.code, outcome.out) == (0, "99999999\n")
    ((target, message),) = session
    assert target.model == "toy"
    assert message == StartJob(
        experiments=["error-vector", "fvu-nonlinear"], params={"resamples": "10"}, profile="careful", null="shuffle"
    )
    assert json.loads(run(*words, "--json").out)["id"] == "99999999"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run error-vektor --detach", "There is no experiment 'error-vektor'"),
        ("run error-vector --detach --out x", "--out and --detach were both given"),
        ("run error-vector --detach -p odd=1", "'odd' is not a parameter"),
        ("run error-vector --detach --layers 1:3", "--detach works on one hook and 2 were asked for"),
    ],
)
def test_what_cannot_be_detached_is_said_before_a_session_starts(
    run: Run, session: list[Any], words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*shlex.split(words))
    assert (outcome.code, outcome.out, session) == (2, "", [])
    assert says in outcome.err
