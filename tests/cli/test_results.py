"""`dm-inspect results`: the whole text, the stream it comes on, the exit code."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inspector.claims import CLAIMS
from inspector.store.exports import flat_rows
from inspector.store.results import save
from tests.cli.conftest import Run
from tests.store.objects import HOSTILE, result

ID = "error-vector-0123456789"
COMMAND = "dm-inspect run error-vector --seed 7"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(folder))
    return folder


@pytest.fixture
def one(store: Path) -> str:
    """A store with one result; its time."""
    return save(result(), COMMAND).created


def test_an_empty_store_says_what_fills_it(run: Run, store: Path) -> None:
    outcome = run("results", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "No result is stored. `dm-inspect run` measures and keeps them.\n"
    assert json.loads(run("results", "list", "--json").out) == {"results": []}


def test_the_list_is_the_contract(run: Run, one: str) -> None:
    assert json.loads(run("results", "list", "--json").out) == {
        "results": [{"id": ID, "experiment": "error-vector", "created": one, "command": COMMAND, "profile": "careful"}]
    }
    time = one.replace("T", " ").removesuffix("+00:00")
    assert run("results", "list").out == (
        "id                       measured             model               hook                      profile\n"
        "───────────────────────  ───────────────────  ──────────────────  ────────────────────────  ───────\n"
        f"{ID}  {time}  ␛[2J</script><b>&⇄  blocks.3.hook_resid_post  careful\n"
    )


def test_a_damaged_file_is_named_and_the_others_listed(run: Run, store: Path, one: str) -> None:
    (store / "bad-1.json").write_text("{")
    outcome = run("results", "list", "--json")
    assert (outcome.code, len(json.loads(outcome.out)["results"])) == (0, 1)
    assert outcome.err.startswith(f"warning: {store / 'bad-1.json'} is damaged: ")
    shown = run("results", "show", "bad-1")
    assert (shown.code, shown.out) == (4, "")


def test_show_tells_everything_and_obeys_nobody(run: Run, one: str) -> None:
    outcome = run("results", "show", "error-vector")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"result {ID} · measured {one}\nError vector · ␛[2J</script><b>&⇄ · ")
    for part in (
        "R² = 1 - a / b.",
        "control shuffled targets: r2_pooled -0.0125. As if shuffled.",
        "warning: Something about ␛[2J</script><b>&⇄.",
        "contradicted by: ",
        f"repeat with: {COMMAND}\n",
        "⠒●⠒ 256",
    ):
        assert part in outcome.out, part
    assert "\x1b" not in outcome.out


def test_show_as_json_is_the_object(run: Run, one: str) -> None:
    assert json.loads(run("results", "show", ID, "--json").out) == result()


def test_an_unknown_id_is_answered_with_the_nearest(run: Run, one: str) -> None:
    outcome = run("results", "show", "eror-vector-01")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: There is no result 'eror-vector-01'. Nearest: {ID}.\n"


def test_tables_go_to_stdout_and_hold_the_object(run: Run, one: str) -> None:
    assert json.loads(run("results", "export", ID, "--format", "json").out) == result()
    rows = list(csv.DictReader(io.StringIO(run("results", "export", ID, "--format", "csv").out)))
    assert [row["sae"] for row in rows] == ["a", HOSTILE]
    assert float(rows[0]["r2_pooled"]) == 0.1 + 0.2


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("parquet", b"PAR1"), ("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!doc")],
)
def test_files_appear_where_they_were_asked_for(run: Run, one: str, tmp_path: Path, kind: str, sign: bytes) -> None:
    out = tmp_path / f"file.{kind}"
    outcome = run("results", "export", ID, "--format", kind, "--out", str(out))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote {out}\n")
    assert out.read_bytes().startswith(sign)
    if kind == "parquet":
        assert pq.read_table(out).to_pylist() == flat_rows(result())


def test_a_picture_without_a_name_is_called_after_the_result(
    run: Run, one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("results", "export", ID, "--format", "png").err == f"wrote {ID}.png\n"
    assert (tmp_path / f"{ID}.png").is_file()


def test_a_result_that_cannot_be_drawn_says_what_to_do(run: Run, store: Path) -> None:
    save(result(saes=[{"sae": "a"}]), COMMAND)
    outcome = run("results", "show", ID)
    assert outcome.code == 4
    assert outcome.err == (
        "error: This result of error-vector, written by dm-inspect 0.1.0, lacks what its figures need (KeyError: "
        "'d_sae'). Measure it again with its command.\n"
    )


def test_the_report_is_one_file_with_the_claims(run: Run, one: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    outcome = run("results", "report", "--out", str(out))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote {out}: 1 result\n")
    text = out.read_text("utf-8")
    assert all(f"<td>{claim.id}</td>" in text for claim in CLAIMS)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_report_in_markdown_has_the_claims_and_what_show_prints(run: Run, one: str, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    assert run("results", "report", "--out", str(out)).code == 0
    page, shown = out.read_text("utf-8"), run("results", "show", ID).out
    assert "## The paper's claims\n\n```text\n" in page and page.count("```") == 4
    assert shown.partition("\n")[2].rstrip() in page  # all but the line with the id


def test_a_report_of_nothing_is_refused(run: Run, store: Path, tmp_path: Path) -> None:
    outcome = run("results", "report", "--out", str(tmp_path / "r.html"))
    assert outcome.code == 2
    assert outcome.err == "error: No result is stored yet. `dm-inspect run all` measures everything on the demo.\n"
    assert not (tmp_path / "r.html").exists()


def test_the_claims_are_a_list(run: Run, one: str) -> None:
    found = json.loads(run("results", "claims", "--json").out)["claims"]
    assert [claim["id"] for claim in found] == [claim.id for claim in CLAIMS]
    c2 = found[1]
    assert set(c2) == {
        "id", "claim", "paper", "number", "value", "interval", "verdict", "why", "results", "all_tokens",
    }  # fmt: skip
    assert (c2["verdict"], c2["value"], c2["interval"], c2["results"]) == (
        "cannot tell",  # the middle SAE's number has no interval
        1e-17,
        None,
        [ID],
    )
    assert run("results", "claims").out.startswith(
        "? C1   The size of the error is linearly predictable. Cannot tell.\n"
    )


def test_the_report_of_one_result_that_was_named(run: Run, one: str, tmp_path: Path) -> None:
    save(result("norm-prediction", saes=[]), COMMAND)
    out = tmp_path / "one.html"
    run("results", "report", ID, ID, "--out", str(out))
    assert out.read_text("utf-8").count("<section") == 2  # the claims, and it


def test_two_results_are_compared_as_text_and_as_json(run: Run, store: Path) -> None:
    from tests.tui.stored_results import norm_result

    for fingerprint, shift in (("a" * 16, 0.0), ("b" * 16, 0.25)):
        save(norm_result(fingerprint, shift=shift), "dm-inspect run norm-prediction")
    text = run("results", "compare", "norm-prediction-a", "norm-prediction-b")
    assert text.code == 0
    assert text.out.splitlines()[0].split() == ["norm-prediction-aaaaaaaaaa", "norm-prediction-bbbbbbbbbb"]
    assert "\x1b" not in text.out
    said = run("results", "compare", "norm-prediction-a", "norm-prediction-b", "--json")
    assert json.loads(said.out)["scores"][0]["r2_norm"] == [0.5, 0.75, 0.25]
    assert run("results", "compare", "norm-prediction-a", "nothing").code == 2
