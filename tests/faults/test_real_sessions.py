"""The whole way, with processes as users have them: detached, killed, found interrupted, resumed, read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.disk.folders import JOBS, RESULTS
from inspector.disk.locks import is_running
from inspector.session import discovery
from inspector.session.client import SOCKET_VARIABLE
from inspector.spec import TargetSpec, target_words
from inspector.store import results
from inspector.store.checkpoints import VARIABLE as CHECKPOINT_SECONDS

EXPERIMENTS = ("error-vector", "norm-baselines", "ce-splice")
SECONDS = 300.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sessions, jobs and results of this test alone; a relative folder must mean the same to a session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(RESULTS.variable, "results")
    monkeypatch.setenv(JOBS.variable, "jobs")
    monkeypatch.setenv(CHECKPOINT_SECONDS, "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    yield tmp_path
    for record in discovery.list_sessions():
        discovery.stop_session(record.id)


def dm(*words: str) -> str:
    """A command as a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "inspector", *words], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def show(job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dm("jobs", "show", job, "--json"))
    return found


def until(job: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = show(job)
        if condition(found):
            return found
        time.sleep(0.1)
    raise AssertionError((show(job), dm("jobs", "log", job)))


def stored(names: list[str]) -> list[str]:
    return [json.dumps(results.load(name).result, sort_keys=True) for name in names]


@pytest.mark.slow
def test_a_detached_run_outlives_kills_and_ends_in_the_same_bytes(private: Path, toy_target: TargetSpec) -> None:
    words = ["run", *EXPERIMENTS, *target_words(toy_target), "-p", "resamples=20"]
    job = dm(*words, "--detach").strip()
    first = until(job, lambda found: found["state"] == "done")
    assert Path(first["results_folder"]) == private / "results"
    plain = stored(first["results"])
    # Again, killed while it is queued, while it measures, and once stopped in order.
    for path in (private / "results").glob("*.json"):
        path.unlink()
    job = dm(*words, "--detach").strip()
    for reason in ("done", "results"):
        found = until(job, lambda found, reason=reason: bool(found[reason]) or found["state"] == "done")
        if found["state"] != "done":
            os.kill(found["pid"], signal.SIGKILL)
            while is_running(found["pid"]):
                time.sleep(0.01)
            assert show(job)["state"] in ("interrupted", "done")
            dm("jobs", "resume", job)
    dm("sessions", "stop")
    stopped = show(job)
    assert stopped["state"] in ("interrupted", "done")
    if stopped["state"] == "interrupted":
        dm("jobs", "resume", job)
    last = until(job, lambda found: found["state"] == "done")
    assert stored(sorted(last["results"])) == stored(sorted(first["results"]))
    assert sorted(stored(last["results"])) == sorted(plain)
    print(dm("jobs", "log", job))
