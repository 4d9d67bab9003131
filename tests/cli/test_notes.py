"""`dm-inspect notes`: taken, listed, removed and written from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspector.store.results import save
from tests.cli.conftest import Run
from tests.store.objects import HOSTILE, result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path))
    return tmp_path


def test_taken_listed_and_removed(run: Run) -> None:
    stored = save(result(), "dm-inspect run error-vector").id
    assert run("notes", "list").err.startswith("There is no note.")
    assert json.loads(run("notes", "list", "--json").out) == {"notes": []}
    for args in (("an import", "--token", "12:45"), ("dense", "--latent", "37", "--sae", "x"), ("--result", stored)):
        outcome = run("notes", "add", *args)
        assert (outcome.code, outcome.out) == (0, "") and outcome.err.startswith("kept as note ")
    lines = run("notes", "list").out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]
    assert "context 12, position 45" in lines[2] and "latent 37 of x" in lines[3] and stored in lines[4]
    found = json.loads(run("notes", "list", "--json").out)["notes"]
    assert [(note["kind"], note["words"]) for note in found] == [
        ("token", "an import"), ("latent", "dense"), ("result", ""),
    ]  # fmt: skip
    assert found[1]["command"] == "dm-inspect latent --latent 37 --sae x" and found[0]["about"]["context"] == 11
    outcome = run("notes", "remove", "1", "3", "--json")
    assert [note["note"] for note in json.loads(outcome.out)["removed"]] == [1, 3]
    assert run("notes", "remove", "1").code == 2


def test_the_same_thing_has_one_note(run: Run) -> None:
    run("notes", "add", "before", "--token", "1:2")
    again = json.loads(run("notes", "add", "after", "--token", "1:2", "--json").out)
    assert again["note"] == 1 and again["words"] == "after"
    assert len(json.loads(run("notes", "list", "--json").out)["notes"]) == 1


def test_written_as_one_page(run: Run, tmp_path: Path) -> None:
    run("notes", "add", HOSTILE, "--token", "1:2")
    run("notes", "add", "another", "--token", "1:3")
    outcome = run("notes", "export")
    assert outcome.code == 0 and outcome.out.startswith("# Notes\n\n## 1. token:") and "\x1b" not in outcome.out
    outcome = run("notes", "export", "2", "--out", str(tmp_path / "n.md"))
    assert (outcome.code, outcome.err) == (0, f"wrote {tmp_path / 'n.md'}: 1 note\n")
    assert "another" in (tmp_path / "n.md").read_text() and "## 1." not in (tmp_path / "n.md").read_text()


@pytest.mark.parametrize(
    "args,said",
    [
        (("add", "words"), "A note is on one thing."),
        (("add", "--token", "1:2", "--result", "x"), "A note is on one thing."),
        (("add", "--token", "0:3"), "'0:3' is no place. Write CONTEXT:POSITION"),
        (("add", "--token", "12"), "'12' is no place. Write CONTEXT:POSITION"),
        (("add", "--latent", "3"), "--latent 3 is of one SAE, and 0 were named."),
        (("add", "--result", "nothing"), "There is no result 'nothing'."),
        (("export", "5"), "There is no note 5."),
        (("export", "--json", "--out", "n.md"), "--json and --out were both given."),
    ],
)
def test_what_is_wrong_is_a_matter_of_usage(run: Run, args: tuple[str, ...], said: str) -> None:
    outcome = run("notes", *args)
    assert outcome.code == 2 and said in outcome.err
