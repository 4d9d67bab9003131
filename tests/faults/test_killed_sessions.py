"""A session is killed in the middle of a sweep, at seeded random moments; resumed, it ends in the same bytes.

After every kill: what was stored is there and whole, the job is found interrupted, and what a resumed job computes
again is at most the batches that were under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from inspector.disk.folders import JOBS, RESULTS
from inspector.spec import TargetSpec
from inspector.store import results
from inspector.store.checkpoints import VARIABLE as CHECKPOINT_SECONDS
from inspector.store.jobs import Job, JobStore
from tests.conftest import Say
from tests.faults.forking import Forks, forks

FEW = ["error-vector", "norm-prediction", "norm-baselines"]
PARAMS = {"resamples": "50"}
N_SAES = 4


@pytest.fixture(scope="module")
def sweeper(toy_target: TargetSpec) -> Iterator[Forks]:
    with forks("tests.faults.sweeper", json.dumps(asdict(toy_target))) as made:
        yield made


def begin(sweeper: Forks, folder: Path, **what: Any) -> None:
    """Start a session with a job of its own folders."""
    environment = {
        JOBS.variable: str(folder / "jobs"),
        RESULTS.variable: str(folder / "results"),
        CHECKPOINT_SECONDS: "0",
    }
    sweeper.begin(environment=environment, log=str(folder / "log"), counts=str(folder / "counts"), **what)


@dataclass
class Undisturbed:
    """What a sweep gives that nobody disturbs."""

    results: dict[str, bytes]
    """By name of the file, the result in it."""
    seconds: float
    reconstructions: int


@dataclass
class Counts:
    """What the suite prints."""

    kills: int = 0
    too_late: int = 0
    resumed: int = 0
    results_kept: int = 0
    repeated: list[int] = field(default_factory=list)
    """Calls of an SAE beyond those of an undisturbed sweep, per kill."""


def stored(folder: Path) -> dict[str, bytes]:
    """Every result of a folder, read with its checks; a damaged one raises."""
    found = {}
    for path in sorted((folder / "results").glob("*.json")):
        found[path.name] = json.dumps(results.read(path).result, sort_keys=True).encode()
    return found


def the_job(folder: Path) -> Job:
    (job,) = JobStore(folder / "jobs").all().jobs
    return job


def undisturbed(sweeper: Forks, folder: Path, experiments: list[str]) -> Undisturbed:
    folder.mkdir()
    began = time.monotonic()
    begin(sweeper, folder, experiments=experiments, params=PARAMS)
    assert sweeper.ended().code == 0, (folder / "log").read_text()
    seconds = time.monotonic() - began
    assert the_job(folder).state == "done", the_job(folder)
    found = stored(folder)
    assert [name.rpartition("-")[0] for name in found] == sorted(experiments)
    reconstructions = (folder / "counts").stat().st_size
    assert reconstructions > 0
    return Undisturbed(results=found, seconds=seconds, reconstructions=reconstructions)


def kill_after(sweeper: Forks, seconds: float) -> int:
    """Kill the session then, if it is not over by itself; its exit code."""
    killer = threading.Timer(seconds, lambda: _kill(sweeper.pid))
    killer.start()
    try:
        return sweeper.ended().code
    finally:
        killer.cancel()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def sweep_with_kills(sweeper: Forks, folder: Path, experiments: list[str], n: int, seed: int) -> Counts:
    """Sweeps in which sessions are killed until `n` kills have met one; every sweep is resumed to its end."""
    plain = undisturbed(sweeper, folder / "undisturbed", experiments)
    chosen = random.Random(seed)
    counts, sweep, met = Counts(), 0, 0
    while counts.kills < n:
        place = folder / f"sweep{sweep}"
        place.mkdir()
        sweep, met = sweep + 1, 0
        begin(sweeper, place, experiments=experiments, params=PARAMS)
        before: dict[str, bytes] = {}
        # Late moments are as likely as early ones, and a sweep meets one to three kills.
        for _ in range(chosen.randint(1, 3)):
            code = kill_after(sweeper, chosen.uniform(0.0, 1.1 * plain.seconds))
            if code == 0:
                counts.too_late += 1
                break
            assert code == -signal.SIGKILL, (place / "log").read_text()
            counts.kills, met = counts.kills + 1, met + 1
            after = stored(place)
            assert before.items() <= after.items() <= plain.results.items()  # nothing lost, nothing wrong
            before = after
            listed = JobStore(place / "jobs").all()
            assert listed.problems == ()
            if not listed.jobs:  # before it was queued: nobody was told that it was
                begin(sweeper, place, experiments=experiments, params=PARAMS)
                continue
            job = listed.jobs[0]
            assert job.state in ("interrupted", "done"), job
            assert {f"{name}.json" for name in job.results} <= set(after)
            counts.results_kept += len(after)
            if job.state == "done":
                break
            counts.resumed += 1
            begin(sweeper, place, job=job.id)
        else:
            assert sweeper.ended().code == 0, (place / "log").read_text()
        assert the_job(place).state == "done", the_job(place)
        assert stored(place) == plain.results  # in every byte
        again = (place / "counts").stat().st_size - plain.reconstructions
        if met:
            counts.repeated.append(again // met)
            # Of each pass at most the batch under way: with a checkpoint after every batch that is one call per SAE.
            log = JobStore(place / "jobs").log(the_job(place).id).path.read_text()
            assert again <= met * N_SAES, (again, met, log)
    return counts


def told(counts: Counts) -> str:
    most = max(counts.repeated, default=0)
    return (
        f"{counts.too_late} too late to meet anything, {counts.resumed} resumed, "
        f"{counts.results_kept} stored results looked at after a kill, none lost, none different; "
        f"at most {most} SAE calls repeated per kill"
    )


def test_a_killed_session_loses_nothing_and_ends_in_the_same_bytes(sweeper: Forks, tmp_path: Path) -> None:
    print(told(sweep_with_kills(sweeper, tmp_path, FEW, n=4, seed=1)))


@pytest.mark.slow
def test_twenty_kills(sweeper: Forks, tmp_path: Path, say: Say) -> None:
    experiments = [*FEW, "fvu-nonlinear", "ce-splice"]
    counts = sweep_with_kills(sweeper, tmp_path, experiments, n=20, seed=2)
    say("kills in a sweep of 5, in a session", counts.kills, told(counts))
