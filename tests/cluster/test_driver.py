"""Whole commands on a Ray cluster of this machine: the bits of one process, a worker or the driver killed on the way.

Small loads in many shards, so that every kill meets work; nothing here waits for a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inspector.cluster import driver
from inspector.errors import DataError, TargetError, UsageError
from inspector.events import Measured, PassProgress, Warned
from inspector.runner import run
from inspector.sources.target import open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.store.checkpoints import VARIABLE
from tests.experiments.own import finish, write_files

pytest.importorskip("ray", reason="of the extra [cluster]")
ROOT = Path(__file__).parents[2]
EXPERIMENTS = ("theory-c1", "norm-prediction", "error-vector", "fvu-nonlinear", "norm-test", "per-token-scaling")
PARAMS = {"resamples": "20", "draws": "2000", "start": "0", "length": "20"}
SHARDS = 8


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> TargetSpec:
    return write_files(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv(VARIABLE, "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def spec_of(target: TargetSpec, *experiments: str) -> RunSpec:
    return RunSpec(target=target, experiments=experiments or EXPERIMENTS, params=PARAMS, shards=SHARDS, batch_size=2)


def as_text(results: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(each, sort_keys=True) for each in results]


def started_by(pid: int) -> list[int]:
    """The processes below one, those of theirs included."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(entry.parent.name)] = int(fields[1])
    found, new = [], {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found += sorted(new)
    return found


def test_two_workers_one_of_them_killed_end_in_the_bits_of_one_process(target: TargetSpec) -> None:
    """-9 in the middle of the second pass; nothing runs on afterwards, and no folder of checkpoints stays."""
    spec = spec_of(target)
    alone = finish(run(spec, finish(open_target(target))))
    work = driver.run_on_cluster(replace(spec, ray="local:2"))
    events, killed = [], False
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            results = end.value
            break
        events.append(event)
        if isinstance(event, PassProgress) and event.name == "scores" and not killed:
            killed = True
            workers = [pid for pid in started_by(os.getpid()) if b"ray::Worker" in command_line(pid)]
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
    assert as_text(results) == as_text(alone)
    told = [event.message for event in events if isinstance(event, Warned) and "died" in event.message]
    assert len(told) == 1 and "The others do what it had begun." in told[0]
    assert sorted(event.index for event in events if isinstance(event, Measured)) == list(range(len(EXPERIMENTS)))
    assert not [pid for pid in started_by(os.getpid()) if b"ray" in command_line(pid)]
    assert not list(Path(os.environ["DM_INSPECT_RESULTS_DIR"]).glob("**/sums-*"))


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_driver_that_is_killed_goes_on_where_it_was(target: TargetSpec, tmp_path: Path) -> None:
    words = ["run", "norm-prediction", "fvu-nonlinear", "--json", "--shards", str(SHARDS), "--batch-size", "2"]
    words += ["--model", str(target.model), "--suite", str(target.suite), "--layer", "1", "--text", str(target.text)]
    words += ["--contexts", "40", "--context-length", "48", "--positions", "6:", "--train-tokens", "900"]
    words += ["--accept-gate", "--device", "cpu", "-p", "resamples=20"]
    command = [sys.executable, "-W", "ignore", "-m", "inspector", *words]
    once = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    shared = [*command, "--ray", "local:2"]
    with subprocess.Popen(shared, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as driven:
        assert driven.stderr is not None
        for line in driven.stderr:
            if line.startswith("scores: "):
                break
        else:
            raise AssertionError("no second pass")
        driven.kill()
        driven.stderr.read()  # ends when all of its processes have
    again = subprocess.run(shared, capture_output=True, text=True, check=True, cwd=ROOT)
    assert again.stdout == once.stdout
    assert "moments: " not in again.stderr, "the first pass is on disk"


def test_what_a_worker_cannot_do_is_the_error_of_the_run(target: TargetSpec) -> None:
    few = replace(target, contexts=2)
    short = RunSpec(target=few, experiments=("norm-prediction",), shards=SHARDS, ray="local:1")
    with pytest.raises(DataError, match="training tokens"):
        finish(driver.run_on_cluster(short))


def test_a_simulation_needs_no_cluster() -> None:
    spec = RunSpec(target=TargetSpec(), experiments=("theory-c1",), params={"draws": "2000"})
    assert finish(driver.run_on_cluster(spec)) == finish(run(spec, None))


def test_a_cluster_that_is_not_there_is_said(target: TargetSpec) -> None:
    with pytest.raises(TargetError, match=r"^No Ray cluster answers at '127\.0\.0\.1:1': .* use --ray local\.$"):
        finish(driver.run_on_cluster(replace(spec_of(target), ray="127.0.0.1:1")))


@pytest.mark.parametrize("where", ["nowhere", "local:x", "http://a", "1.2.3.4"])
def test_what_is_no_address_is_a_mistake(target: TargetSpec, where: str) -> None:
    with pytest.raises(UsageError, match=rf"^--ray {where} is no cluster\. Write local, local:N, auto, or an address"):
        finish(driver.run_on_cluster(replace(spec_of(target), ray=where)))


def test_without_the_extra_it_says_which_to_install(target: TargetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--ray needs Ray, which is not installed\. Run: pip install 'dm-inspect"):
        finish(driver.run_on_cluster(replace(spec_of(target), ray="local")))
