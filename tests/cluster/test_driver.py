"""Whole commands on a Ray cluster of this machine: the bits of one process, a worker or the driver killed on the way.

Small loads in many shards, so that every kill meets work; nothing here waits for a time. A worker costs ten seconds of
imports, so there are five of them in all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inspector.cluster import driver
from inspector.errors import TargetError, UsageError
from inspector.events import Measured, PassProgress, Warned
from inspector.experiments import choose
from inspector.runner import run
from inspector.sources.target import open_target
from inspector.spec import TOKENS, RunSpec, TargetSpec, command_of
from inspector.statistics.token_table import fitted_maps, rows_of_contexts
from inspector.store.checkpoints import VARIABLE
from tests.experiments.own import finish, write_files

pytest.importorskip("ray", reason="of the extra [cluster]")
ROOT = Path(__file__).parents[2]
SHARDS = 8
DEMO = TargetSpec(contexts=40, context_length=128, positions=(0, None), widths=(256, 1024), l0=16, device="cpu")
"""Hardly more than the 20 tokens per dimension that a regression needs."""
SMALL = {
    "resamples": "10", "draws": "1000", "controls": "off", "seeds": "1", "sae_tokens": "1000", "features": "200",
    "dims": "20", "samples": "500", "active": "5", "start": "0", "length": "20", "tokens": "500", "latents": "50",
    "window": "16", "l0": "16", "places": "20", "contexts": "2",
}  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return write_files(tmp_path)


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def as_text(results: list[dict[str, Any]]) -> list[str]:
    """But for the folder in which each run keeps the SAEs it trains."""
    trained = str(Path(os.environ["DM_INSPECT_RESULTS_DIR"]))
    return [json.dumps(each, sort_keys=True).replace(trained, "results") for each in results]


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


def test_the_demos_run_all_on_two_workers_one_of_them_killed_ends_in_the_bits_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-9 in the middle of it; nothing runs on afterwards, and no folder of checkpoints stays."""
    everything = tuple(each.id for each in choose(["all"]))
    spec = RunSpec(target=DEMO, experiments=everything, params=SMALL, shards=SHARDS)
    work = driver.run_on_cluster(replace(spec, ray="local:2"))
    events, killed = [], False
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            results = as_text(end.value)
            break
        events.append(event)
        if isinstance(event, PassProgress) and event.name == "token norms" and not killed:
            killed = True
            workers = [pid for pid in started_by(os.getpid()) if b"ray::Worker" in command_line(pid)]
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
    assert killed
    told = [event.message for event in events if isinstance(event, Warned) and "died" in event.message]
    assert len(told) == 1 and "The others do what it had begun." in told[0]
    assert sorted(event.index for event in events if isinstance(event, Measured)) == list(range(len(everything)))
    assert not [pid for pid in started_by(os.getpid()) if b"ray" in command_line(pid)]
    assert not list(Path(os.environ["DM_INSPECT_RESULTS_DIR"]).glob("**/sums-*"))
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "alone"))  # nothing that was trained is found there
    assert results == as_text(finish(run(spec, finish(open_target(DEMO)))))


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_driver_that_is_killed_goes_on_where_it_was_with_another_number_of_workers(
    target: TargetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    chosen = ("norm-prediction", "fvu-nonlinear")
    spec = RunSpec(target=target, experiments=chosen, params={"resamples": "20"}, batch_size=2, shards=SHARDS)
    words = [*command_of(spec, *chosen).split()[1:], "--json", "--shards", str(SHARDS), "--batch-size", "2", "--ray"]
    command = [sys.executable, "-W", "ignore", "-m", "inspector", *words]
    with subprocess.Popen(
        [*command, "local:2"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as driven:
        assert driven.stderr is not None
        for line in driven.stderr:
            if line.startswith("scores: "):
                break
        else:
            raise AssertionError("no second pass")
        driven.kill()
        driven.stderr.read()  # ends when all of its processes have
    again = subprocess.run([*command, "local:1"], capture_output=True, text=True, check=True, cwd=ROOT)
    once = finish(run(spec, finish(open_target(target))))
    assert as_text(list(map(json.loads, again.stdout.splitlines()))) == as_text(once)
    assert "moments: " not in again.stderr, "the first pass is on disk"


@pytest.mark.slow
def test_the_per_token_table_of_two_workers_is_that_of_one_process(target: TargetSpec) -> None:
    """To the bit, as their maps come from as many shards."""
    spec = RunSpec(target=target, experiments=(TOKENS,), batch_size=2, shards=SHARDS, ray="local:2")
    table = finish(driver.tokens_on_cluster(spec, lambda table: table))
    one = finish(open_target(target))
    assert table.equals(finish(rows_of_contexts(one, finish(fitted_maps(one, 2, shards=SHARDS)), 2)))
    assert not list(Path(os.environ["DM_INSPECT_RESULTS_DIR"]).glob("**/sums-*"))


def test_what_a_worker_cannot_do_is_the_error_of_the_run(tmp_path: Path) -> None:
    nowhere = RunSpec(target=TargetSpec(model=str(tmp_path)), experiments=("norm-prediction",), ray="local:1")
    with pytest.raises(TargetError, match=str(tmp_path)):
        finish(driver.run_on_cluster(nowhere))


@pytest.mark.parametrize("n_late", [1, 2])
def test_a_start_that_takes_ray_too_long_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, n_late: int) -> None:
    asked: list[str] = []

    def init(**_: Any) -> None:
        asked.append("init")
        if asked.count("init") <= n_late:
            raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(driver, "_ray", lambda: SimpleNamespace(init=init, shutdown=lambda: asked.append("end")))
    if n_late == 1:
        with driver._cluster("local:2") as n_workers:
            assert n_workers == 2
        assert asked == ["init", "end", "init", "end"]
    else:
        with (
            pytest.raises(TargetError, match=r"at 'local:2': The current node timed out during startup\. Start one"),
            driver._cluster("local:2"),
        ):
            pass


def test_a_simulation_needs_no_cluster() -> None:
    spec = RunSpec(target=TargetSpec(), experiments=("theory-c1",), params={"draws": "2000"})
    assert finish(driver.run_on_cluster(spec)) == finish(run(spec, None))


def on(where: str) -> RunSpec:
    return RunSpec(target=TargetSpec(), experiments=("norm-prediction",), ray=where)


def test_a_cluster_that_is_not_there_is_said() -> None:
    with pytest.raises(TargetError, match=r"^No Ray cluster answers at '127\.0\.0\.1:1': .* use --ray local\.$"):
        finish(driver.run_on_cluster(on("127.0.0.1:1")))


@pytest.mark.parametrize("where", ["nowhere", "local:x", "http://a", "1.2.3.4"])
def test_what_is_no_address_is_a_mistake(where: str) -> None:
    with pytest.raises(UsageError, match=rf"^--ray {where} is no cluster\. Write local, local:N, auto, or an address"):
        finish(driver.run_on_cluster(on(where)))


def test_without_the_extra_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--ray needs Ray, which is not installed\. Run: pip install 'dm-inspect"):
        finish(driver.run_on_cluster(on("local")))
