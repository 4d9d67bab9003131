"""`dm-inspect plan`: what it tells is what loading then does, for what is here and for what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inspector.cli.plan import plan_of
from inspector.events import MemoryPlanned
from inspector.experiments import ids
from inspector.sources.target import open_target, resolve
from inspector.spec import TargetSpec
from tests.cli.conftest import Run

PAPER = ("--model", "gemma-2-9b", "--layer", "20", "--device", "cuda", "--host-memory", "128G", "--offline")
GIVEN = ("--rate", "model=400T", "--rate", "sae=50T", "--rate", "sums=30T", "--rate", "numbers=1T")
KEYS = {
    "model", "hook_name", "layer", "for", "device", "dtype", "memory", "saes", "downloads", "download_bytes", "time",
    "notes",
}  # fmt: skip


def planned(run: Run, *words: str) -> dict[str, Any]:
    outcome = run("plan", *words, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found: dict[str, Any] = json.loads(outcome.out)["plan"]
    return found


def test_the_papers_own_command_on_a_card_that_is_not_here(run: Run, tmp_path: Path) -> None:
    """A model of 37 GB and SAEs of 60 on 24 GB, from names alone, with nothing on the disk."""
    found = planned(run, *PAPER, "--max-memory", "24G", "--cache-dir", str(tmp_path), *GIVEN)
    assert found.keys() == KEYS
    assert (found["model"], found["hook_name"], found["layer"]) == (
        "google/gemma-2-9b",
        "blocks.20.hook_resid_post",
        20,
    )
    assert (found["device"], found["dtype"], found["for"]) == ("cuda", "bfloat16", "app")
    memory = found["memory"]
    assert sum(row["bytes"] for row in memory["rows"]) == memory["needed"] <= memory["budget"] == 24 * 10**9
    assert {"what": "model weights", "bytes": 2 * 9_241_705_984} in memory["rows"]
    assert [sae["d_sae"] for sae in found["saes"]] == [2**power for power in range(14, 21)]
    assert {sae["where"] for sae in found["saes"][1:]} == {"host"}  # the narrowest has room
    assert memory["page_from_host"] > 30e9
    assert found["download_bytes"] == sum(each["bytes"] for each in found["downloads"])
    assert not any(each["on_disk"] for each in found["downloads"])
    assert any(note.startswith("In float32 it would not fit: at least 4") for note in found["notes"])


def test_where_it_fits_it_is_whole_and_in_float32(run: Run) -> None:
    found = planned(run, *PAPER, "--max-memory", "141G", *GIVEN)
    assert found["dtype"] == "float32"
    assert {sae["where"] for sae in found["saes"]} == {"device"}
    assert (found["memory"]["slice_bytes"], found["memory"]["page_from_host"]) == (0, 0)


def test_the_time_is_what_the_rates_give(run: Run) -> None:
    time = planned(run, *PAPER, "--max-memory", "80G", *GIVEN, "--experiment", "ce-splice")["time"]
    assert time["given"] == ["model", "numbers", "sae", "sums"]
    assert [each["pass"] for each in time["passes"]] == ["moments", "scores", "splices"]
    for each in time["passes"]:
        assert each["seconds"] == pytest.approx(sum(each[name] / rate for name, rate in time["rates"].items()))
    assert time["seconds"] == pytest.approx(sum(each["seconds"] for each in time["passes"]))
    (alone,) = time["experiments"]
    assert alone["seconds"] == pytest.approx(time["seconds"])
    # 300 contexts through 21 of 42 layers, two operations per weight: 37 s of 80 TFLOP/s, as the review counted.
    shared = sum(each["model"] for each in time["passes"][:2])
    assert shared == pytest.approx(2 * 300 * 1024 * (9_241_705_984 - 256_000 * 3584) / 2, rel=0.05)


def test_workers_share_the_time(run: Run) -> None:
    words = ("plan", *PAPER, "--max-memory", "80G", *GIVEN, "--experiment", "norm-test", "--ray", "1,8")
    one, eight = planned(run, *words[1:])["time"]["workers"]
    assert (one["workers"], eight["workers"]) == (1, 8)
    parts = ("loading", "computing", "waiting", "merging", "alone")
    for each in (one, eight):
        assert each["seconds"] == pytest.approx(sum(each[part] for part in parts))
    assert eight["computing"] == pytest.approx(one["computing"] / 8)
    faster = planned(run, *words[1:], "--rate", "network=12G", "--rate", "merging=4G")["time"]["workers"][1]
    assert faster["merging"] < eight["merging"]
    outcome = run(*words)
    assert "on workers of a cluster" in outcome.out
    assert "note: Workers are equally fast" in outcome.err
    assert run("plan", "--ray", "1,x").err.startswith("error: --ray: '1,x' is no list of numbers of workers.")


def test_without_the_device_and_without_rates_the_time_is_not_known(run: Run) -> None:
    found = planned(run, *PAPER, "--max-memory", "80G", "--experiment", "all")
    assert (found["time"]["rates"], found["time"]["seconds"]) == (None, None)
    assert {each["experiment"] for each in found["time"]["experiments"]} == set(ids())
    assert all(each["seconds"] is None and each["passes"] for each in found["time"]["experiments"])


def test_here_the_time_is_told_from_rates_of_this_machine(run: Run) -> None:
    outcome = run("plan", "--experiment", "all", "--contexts", "20")
    assert outcome.code == 0
    assert "timed here" in outcome.out
    assert "?" not in outcome.out.split("takes about", 1)[1]
    assert outcome.err.startswith("note: ")


def test_the_plan_is_the_one_that_loading_obeys() -> None:
    target = TargetSpec(device="cpu", contexts=20, max_memory=2 * 10**9)
    told = plan_of(resolve(target), session=False, given={"model": 1, "sae": 1, "sums": 1, "numbers": 1})
    event = next(event for event in open_target(target) if isinstance(event, MemoryPlanned))
    assert [(row["what"], row["bytes"]) for row in told["memory"]["rows"]] == list(event.rows)
    assert (told["memory"]["needed"], told["memory"]["budget"]) == (event.needed, event.budget)
    assert told["download_bytes"] == 0


def test_layers_are_planned_one_after_the_other(run: Run) -> None:
    outcome = run("plan", "--layers", "2:4", "--json", "--device", "cpu", "--max-memory", "1G", *GIVEN)
    assert [json.loads(line)["plan"]["layer"] for line in outcome.out.splitlines()] == [2, 3]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((*PAPER, "--max-memory", "8G"), 5, "error: At least "),
        (("--model", "nobody/nothing", "--suite", "/nowhere"), 3, "error: "),
        (("--rate", "speed=3"), 2, "error: --rate 'speed=3' names no rate. Write one of model, sae,"),
        (("--rate", "sae=fast"), 2, "error: --rate 'sae=fast' is no number per second. Write"),
        (("--experiment", "ce-slice"), 2, "error: "),
    ],
)
def test_what_is_wrong_is_said_with_the_code_of_every_command(
    run: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = run("plan", *words)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(message)


def test_a_plan_for_a_named_device_imports_no_torch() -> None:
    words = ["plan", *PAPER, "--max-memory", "24G", *GIVEN, "--json"]
    code = (
        "import sys; from inspector.cli.failures import run_command; from inspector.cli.main import dm_inspect\n"
        f"code = run_command(dm_inspect, {words!r}, open_app=lambda _: 1)\n"
        "assert code == 0; assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
