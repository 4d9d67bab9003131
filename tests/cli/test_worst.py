"""`dm-inspect worst` on stored results: groups, sorting, finding, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from inspector.experiments import worst_tokens as experiment
from inspector.reports import worst_tokens as reports
from inspector.reports.worst_tokens import listing
from inspector.store.results import save
from tests.cli.conftest import Run
from tests.store.objects import result, worst_result


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    return save(worst_result(), "dm-inspect run worst-tokens").id


def rows_of(run: Run, *args: str) -> list[dict[str, Any]]:
    outcome = run("worst", *args, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(outcome.out)["worst"]
    return found


def test_its_numbers_are_those_of_the_experiment() -> None:
    assert tuple(reports.VALUES) == experiment.VALUES


def test_places_come_worst_first_and_sort_by_any_number(run: Run, stored: str) -> None:
    assert [row["nonlinear"] for row in rows_of(run, "--result", stored)] == [6, 5, 4, 3, 2, 1]
    assert [row["linear"] for row in rows_of(run, "--result", stored, "--by", "linear", "--top", "2")] == [6, 5]
    assert rows_of(run, "--result", stored, "--by", "share")[-1]["share"] is None
    loss = [(row["loss"], row["position"]) for row in rows_of(run, "--result", stored, "--by", "loss")]
    assert loss == [(2, 12), (2, 15), (1, 11), (1, 14), (0, 10), (0, 13)]  # equals as they were


def test_words_are_found_in_tokens_and_classes(run: Run, stored: str) -> None:
    assert [row["token"] for row in rows_of(run, "--result", stored, "--find", "IMPORT")] == [" import"]
    assert len(rows_of(run, "--result", stored, "--find", "word")) == 3


def test_groups(run: Run, stored: str) -> None:
    assert [row["class"] for row in rows_of(run, "--result", stored, "--group", "class")] == ["all", "word start"]
    assert [row["first"] for row in rows_of(run, "--result", stored, "--group", "position")] == [8, 16]
    assert [row["position"] for row in rows_of(run, "--result", stored, "--group", "outlier")] == [10, 11]
    assert rows_of(run, "--result", stored, "--group", "token")[-1]["n"] == 1  # though sorted by no column


def test_text_is_safe_and_says_what_counts(run: Run, stored: str) -> None:
    outcome = run("worst", "--result", stored, "--top", "3")
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and "\x1b" not in outcome.out
    assert lines[0] == (
        "SAE layer_3/resid/width_1k/l0_16 · 6 tokens · positions 8 to 20 · 3 contexts · 2 outliers apart"
    )
    assert lines[2].split() == [
        "token", "class", "context", "position", "‖nonlinear‖", "‖linear‖", "‖error‖", "share", "(%)", "fvu", "(%)",
        "loss", "(nats)",
    ]  # fmt: skip
    assert lines[-1] == "3 of 6 rows. --top, --json and --out FILE.parquet give more of them."


def test_files_hold_every_row_and_every_column(run: Run, stored: str, tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = rows_of(run, "--result", stored)
    for name in ("worst.csv", "worst.parquet"):
        outcome = run("worst", "--result", stored, "--out", str(tmp_path / name))
        assert (outcome.code, outcome.err) == (0, f"wrote 6 rows to {tmp_path / name}\n")
    assert parquet.read_table(tmp_path / "worst.parquet").to_pylist() == rows
    with (tmp_path / "worst.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["token"] for row in found] == [rows[0]["token"], "'=1+1", *(row["token"] for row in rows[2:3]), "'\n",
                                               *(row["token"] for row in rows[4:])]  # fmt: skip
    assert [float(row["nonlinear"]) for row in found] == [row["nonlinear"] for row in rows]


def test_what_is_wrong_is_said_before_anything_is_measured(run: Run, stored: str, tmp_path: Path) -> None:
    other = save(result("error-vector"), "dm-inspect run error-vector").id
    for args, code, said in (
        (("--json", "--out", "w.csv"), 2, "--json and --out were both given."),
        (("--out", str(tmp_path / "w.txt")), 2, "ends in neither .csv nor .parquet."),
        (("--result", "worst-tokens-nothing"), 2, "There is no result 'worst-tokens-nothing'."),
        (("--result", other), 2, f"{other} is a result of error-vector. Name one of worst-tokens."),
        (("--result", stored, "--by", "damage"), 2, "The result has no damage: it was measured without."),
        (("--by", "size"), 2, "'size'"),
    ):
        outcome = run("worst", *args)
        assert outcome.code == code and outcome.out == "" and said in outcome.err, args


def test_a_result_without_its_columns_is_bad_data(run: Run, stored: str) -> None:
    broken = worst_result(fingerprint="b" * 16)
    broken["result"]["places"]["loss"] = [1.0]
    outcome = run("worst", "--result", save(broken, "dm-inspect run worst-tokens").id)
    assert outcome.code == 4 and "Measure it again: dm-inspect worst." in outcome.err


def test_ten_thousand_rows_are_sorted_and_filtered_by_every_column() -> None:
    shown = listing(worst_result(10_000), "place")  # type: ignore[arg-type]
    for name in shown.shown:
        order = shown.order(name)
        values = [shown.columns[name][number] for number in order if shown.columns[name][number] is not None]
        assert sorted(order) == list(range(10_000)) and values == sorted(values, reverse=True)
    assert shown.order("loss", words="T9993") == [9_999]
