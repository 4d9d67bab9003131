"""An experiment of the user's own: one file in one folder, and it is in the list, in the app and in a run."""

from __future__ import annotations

import json
import sys
from binascii import crc32
from pathlib import Path

import pytest

from inspector.cli import experiments
from inspector.disk.folders import EXPERIMENTS_VARIABLE as VARIABLE
from inspector.errors import UsageError
from inspector.experiments import discover, find, ids
from tests import toy
from tests.cli.conftest import Run, run  # noqa: F401

WORDS = "the model reads a token and the error of the token is split in two parts a linear part and the rest "
FILE = '''
"""How many SAEs there are."""

from dataclasses import dataclass

from inspector.experiment import Experiment, FitParams, Outcome
from inspector.statistics.profiles import NORM_MAP


@dataclass(frozen=True, kw_only=True)
class Result:
    """Over all SAEs."""

    n_saes: int


def compute(statistics, params):
    """Count."""
    return Outcome(rows=(), result=Result(n_saes=len(statistics.saes)), intervals={})


EXPERIMENT = Experiment(
    id="sae-count",
    title="SAEs",
    question="How many SAEs are there?",
    reference="none",
    definition="The number of SAEs.",
    contradicted_by="Nothing.",
    params=FitParams,
    needs=(NORM_MAP,),
    compute=compute,
    draw=lambda result: (),
)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder with one experiment, and a cache of the test's own."""
    made = tmp_path / "mine"
    made.mkdir()
    (made / "sae_count.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(made))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    for name in [name for name in sys.modules if name.startswith("inspector_experiments_of_the_user")]:
        monkeypatch.delitem(sys.modules, name)
    return made


def listed(run: Run) -> list[str]:  # noqa: F811
    outcome = run("experiments", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    return [row["id"] for row in json.loads(outcome.out)["experiments"]]


def test_a_file_is_an_experiment(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    # In the command line.
    assert "sae-count" in listed(run)
    # In what the app lists.
    assert discover()["sae-count"].question == "How many SAEs are there?"
    # In a run, and in what it leaves behind.
    toy.write_toy_model(tmp_path / "model", "llama", n_layers=2, d_model=16, context=64)
    toy.write_toy_suite(tmp_path / "suite", d_in=16, layers=(0,), site="resid")
    toy.fit_toy_suite(tmp_path / "suite", tmp_path / "model", WORDS * 300)
    (tmp_path / "text.txt").write_text(WORDS * 300, encoding="utf-8")
    target = ["--model", tmp_path / "model", "--suite", tmp_path / "suite", "--text", tmp_path / "text.txt"]
    outcome = run("run", "sae-count", *map(str, target), "--device", "cpu", "--contexts", "20", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["result"] == {"n_saes": len(list((tmp_path / "suite").rglob("cfg.json")))}
    assert "sae-count" in run("results", "list").out


def test_the_list_follows_the_files(run: Run, folder: Path) -> None:  # noqa: F811
    before = listed(run)
    (folder / "second_count.py").write_text(FILE.replace("sae-count", "second-count"), encoding="utf-8")
    assert listed(run) == sorted([*before, "second-count"])
    (folder / "sae_count.py").unlink()
    assert "sae-count" not in listed(run)
    changed = FILE.replace("sae-count", "second-count").replace("How many SAEs", "What")
    (folder / "second_count.py").write_text(changed, encoding="utf-8")
    del sys.modules["inspector_experiments_of_the_user.second_count"]  # as in the next process
    assert "  What are there?\n" in run("experiments").out


@pytest.mark.parametrize("damage", ["", "[]", '{"made_from": 1}', "[" * 100_000, "\x00\xff"])
def test_a_damaged_kept_list_is_made_anew(run: Run, folder: Path, tmp_path: Path, damage: str) -> None:  # noqa: F811
    before = listed(run)
    kept = tmp_path / "cache" / "dm-inspect" / "experiments.json"
    assert kept.is_file()
    kept.write_text(damage, encoding="latin-1")
    assert listed(run) == before
    content = json.loads(kept.read_text().partition("\n")[2])
    content["rows"][0]["question"] = ["not", "text"]
    body = json.dumps(content)
    kept.write_text(f"{crc32(body.encode()):08x}\n{body}")  # undamaged, and yet not what this program writes
    assert listed(run) == before


def test_a_list_that_cannot_be_kept_is_listed(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "cache").write_text("in the way")
    assert "sae-count" in listed(run)


def test_the_kept_list_is_what_the_files_say(folder: Path) -> None:
    made = experiments.listed()
    assert experiments.listed() == made
    assert [row["id"] for row in made] == ids()
    assert {row["id"]: row["contradicted_by"] for row in made} == {
        name: found.contradicted_by for name, found in discover().items()
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("error_vector.py", FILE, "has the id of the program's experiment 'error-vector'. Rename the file."),
        ("broken.py", "1 / 0", "broken.py cannot be used as an experiment: ZeroDivisionError: division by zero. Mend"),
        ("other.py", FILE, "has the id 'sae-count'. It must declare EXPERIMENT = Experiment(id='other', ...)."),
        ("nothing.py", "", "has no EXPERIMENT. It must declare EXPERIMENT = Experiment(id='nothing', ...)."),
    ],
)
def test_a_file_that_is_no_experiment_is_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        find(name.removesuffix(".py").replace("_", "-"))
    assert message in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=f"{VARIABLE} names .*nowhere, which cannot be listed"):
        ids()


def test_files_that_begin_with_no_letter_are_not_looked_at(folder: Path) -> None:
    (folder / "_helper.py").write_text("1 / 0")
    (folder / ".hidden.py").write_text("1 / 0")
    assert set(ids()) - set(discover()) == set()
    assert not {"helper", "-helper", "hidden", ".hidden"} & set(ids())
