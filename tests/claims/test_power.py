"""What few SAEs and little text say about the demo is never taken back by more of both."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inspector.claims import CONSISTENT, CONTRADICTS, evaluate

OF_SAES = ("norm-prediction", "error-vector", "fvu-nonlinear", "norm-test", "shrinkage", "norm-baselines")
"""Their rows are each of one SAE: of some SAEs alone the result would hold those rows and no others."""
OTHERS = ("dark-matter-breakdown", "per-token-scaling", "per-token-split", "scaling-with-nonlinear", "probe-vs-latents")
FOURS = (
    ("0", ("width_256/l0_8", "width_256/l0_32", "width_4k/l0_8", "width_4k/l0_32")),
    ("1", ("width_256/l0_16", "width_512/l0_16", "width_1k/l0_16", "width_2k/l0_16")),
)
"""Seeds and SAEs: two widths of two L0s, and four widths of one."""

Results = dict[str, dict[str, Any]]


def measured(cache: Path, *options: str) -> Results:
    command = [sys.executable, "-m", "inspector", "run", *OF_SAES, *OTHERS, "--json", "--cache-dir", str(cache)]
    done = subprocess.run([*command, "--model", "demo", *options], capture_output=True, text=True, check=True)
    return {result["experiment"]: result for result in map(json.loads, done.stdout.splitlines())}


def verdicts(results: Results) -> dict[str, str]:
    return {each.id: each.verdict for each in evaluate(results)}


@pytest.mark.slow
def test_four_saes_and_sixty_contexts_agree_with_nothing_that_all_the_demo_contradicts(tmp_path: Path) -> None:
    """Fifteen SAEs and 300 contexts against runs of four and 60, and against every choice of four of the fifteen."""
    everything = measured(tmp_path)
    whole = verdicts(everything)
    contradicted = {claim for claim, said in whole.items() if said == CONTRADICTS}
    assert contradicted and CONSISTENT in whole.values(), "there must be something to be wrong about"
    for seed, four in FOURS:
        saes = itertools.chain.from_iterable(("--sae", f"layer_3/resid/{name}") for name in four)
        few = verdicts(measured(tmp_path, "--contexts", "60", "--seed", seed, *saes))
        assert not [claim for claim, said in few.items() if said == CONSISTENT and claim in contradicted]
    names = [row["sae"] for row in everything["fvu-nonlinear"]["saes"]]
    assert len(names) == 15
    wrong: Counter[str] = Counter()
    for chosen in itertools.combinations(names, 4):
        part = {
            name: everything[name] | {"saes": [row for row in everything[name]["saes"] if row["sae"] in chosen]}
            for name in OF_SAES
        }
        wrong.update(claim for claim, said in verdicts(part).items() if said == CONSISTENT and claim in contradicted)
    assert not wrong
