"""The list of experiments, against the folder it is made from."""

from __future__ import annotations

import json
from pathlib import Path

import inspector.experiments
from inspector.experiment import Experiment
from inspector.experiments import discover
from tests.cli.conftest import Run

FILES = sorted(Path(inspector.experiments.__file__).parent.glob("[a-z]*.py"))


def test_the_list_has_an_object_per_file(run: Run) -> None:
    outcome = run("experiments", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    rows = json.loads(outcome.out)["experiments"]
    assert [row["id"] for row in rows] == [path.stem.replace("_", "-") for path in FILES]
    for row in rows:
        assert set(row) == {"id", "title", "question", "reference", "needs"}
        assert row["question"].endswith("?")
        assert row["needs"]


def needs(found: Experiment) -> list[str]:
    return [*found.needs, *(["a measurement of its own"] if found.own_work else [])]


def test_the_text_tells_what_would_contradict_each(run: Run) -> None:
    outcome = run("experiments")
    expected = "".join(
        f"{found.id}\n  {found.question}\n  Paper: {found.reference}.\n  Needs: {', '.join(needs(found))}.\n"
        f"  Contradicted by: {found.contradicted_by}\n"
        for found in discover().values()
    )
    assert (outcome.code, outcome.out, outcome.err) == (0, expected, "")
