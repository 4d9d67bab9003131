"""What few SAEs and little text say of the paper's claims, beside what the whole suite and all text say."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.claims import CONSISTENT, CONTRADICTS, evaluate
from tests.commands import ROOT
from tests.conftest import Say

EXPERIMENTS = (
    "norm-prediction", "error-vector", "fvu-nonlinear", "dark-matter-breakdown", "per-token-scaling", "norm-test",
    "ce-splice", "pursuit", "cross-component", "shrinkage", "norm-baselines", "per-token-split", "synthetic-sae",
    "synthetic-random", "scaling-with-nonlinear", "probe-vs-latents",
)  # fmt: skip
"""All that a claim needs, but training and a judge."""
FEW = (
    ("--widths", "256,4k", "--l0", "16"),
    ("--widths", "256,512,1k,2k", "--l0", "8"),
    ("--widths", "512,1k,2k,4k", "--l0", "32", "--seed", "1"),
)
"""Choices of at most six SAEs, all on 60 contexts."""
OF_SAES = ("norm-prediction", "error-vector", "fvu-nonlinear", "norm-test", "shrinkage", "norm-baselines")
"""Their rows are each of one SAE: of some SAEs alone the result would hold those rows and no others."""


def wrong_fours(kept: Path, contradicted: set[str]) -> list[tuple[str, ...]]:
    """Choices of four SAEs of a kept run that agree to a contradicted claim."""
    stored = [json.loads(path.read_text())["result"] for path in kept.glob("*.json")]
    results = {result["experiment"]: result for result in stored if result["experiment"] in OF_SAES}
    names = [row["sae"] for row in results["fvu-nonlinear"]["saes"]]
    assert len(results) == len(OF_SAES) and len(names) == 15
    found = []
    for four in itertools.combinations(names, 4):
        part = {
            name: result | {"saes": [row for row in result["saes"] if row["sae"] in four]}
            for name, result in results.items()
        }
        if any(each.verdict == CONSISTENT and each.id in contradicted for each in evaluate(part)):
            found.append(four)
    return found


def verdicts(home: Path, *words: str) -> dict[str, str]:
    environment = {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "DM_INSPECT_RESULTS_DIR": str(home / "kept"),
    }

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "inspector", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("run", *EXPERIMENTS, "--quiet", *words)
    return {each["id"]: each["verdict"] for each in json.loads(command("results", "claims", "--json"))["claims"]}


@pytest.mark.slow
def test_little_evidence_agrees_to_nothing_that_all_of_it_contradicts(tmp_path: Path, say: Say) -> None:
    whole = verdicts(tmp_path / "whole")
    assert CONTRADICTS in whole.values() and CONSISTENT in whole.values()
    contradicted = {claim for claim, said in whole.items() if said == CONTRADICTS}
    assert wrong_fours(tmp_path / "whole" / "kept", contradicted) == []
    for number, words in enumerate(FEW):
        few = verdicts(tmp_path / str(number), "--contexts", "60", *words)
        told = ", ".join(f"{claim} {few[claim]}" for claim in few if few[claim] != "cannot tell")
        say(f"claims from 60 contexts, {' '.join(words)}", len(few), told)
        assert [c for c in few if few[c] == CONSISTENT and whole[c] == CONTRADICTS] == []
