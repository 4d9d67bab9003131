"""docs/replication.md says what the kept results say, and what is kept leads to the verdicts of everything measured."""

from __future__ import annotations

import json
import sys

import pytest

from inspector.claims import CLAIMS, evaluate
from inspector.drawing.figures import with_interval
from tests.test_suites_table import load_script

script = load_script("make_replication")
replicate = sys.modules["replicate"]


def test_the_page_is_made_of_what_is_kept_and_judges_every_claim() -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    made = script.make()
    assert script.page(text, made) == text, "run `python docs/make_replication.py`"
    for claim in CLAIMS:
        assert sum(line.startswith(f"| {claim.id} ") for line in made["claims"].splitlines()) == 1
    for name in script.MODELS:
        assert (own := script.kept(name)) is None or len(own.verdicts) == len(CLAIMS)


def test_what_is_kept_holds_no_path_of_the_machine_that_measured() -> None:
    for path in script.KEPT.glob("*.json"):
        assert '"/' not in path.read_text(encoding="utf-8")


def test_curves_are_left_out_and_numbers_shortened() -> None:
    found = replicate.short(
        {"curve": [0.1] * 41, "pair": [0.123456789, None], "n": 12345678, "of": {"deep": [1.0] * 41}}
    )
    assert found == {"pair": [0.12346, None], "n": 12345678, "of": {}}


@pytest.mark.parametrize("name", script.REAL)
def test_numbers_of_a_table_are_those_of_the_result(name: str) -> None:
    path = script.KEPT / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} was not measured yet")
    results = {each["experiment"]: each for each in json.loads(path.read_text(encoding="utf-8"))[""]}
    verdicts = {each.id: each for each in evaluate(results)}
    own = script.kept(name)
    lines = script.row_of([own.verdicts["C2"].number]), "\n".join(script.of_claims({name: own}))
    assert verdicts["C2"].number in lines[1] and verdicts["C2"].verdict in lines[1]
    sae, row = script.MODELS[name].like, "\n".join(script.of_tokens({name: own}))
    fvu = next(each["fvu"] for each in results["fvu-nonlinear"]["saes"] if each["sae"] == sae)
    assert with_interval(fvu, results["fvu-nonlinear"]["intervals"][sae]["fvu"]) in row
