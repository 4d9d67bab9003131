"""The list of SAEs of a suite that was written by hand: names and sizes, no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspector.spec import hook_name_of
from tests.cli.conftest import Run


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Layers 1 and 2 with widths 256 and 1k at L0 8 and 32; layer 2 lacks the 1k ones. 2,000 bytes each."""
    root = tmp_path / "suite"
    for layer, widths in ((1, (256, 1024)), (2, (256,))):
        for width in widths:
            for k in (8, 32):
                folder = root / f"layer_{layer}" / f"width_{width}" / f"l0_{k}"
                folder.mkdir(parents=True)
                config = {"d_in": 16, "d_sae": width, "k": k, "metadata": {"hook_name": hook_name_of("resid", layer)}}
                (folder / "cfg.json").write_text(json.dumps(config))
                (folder / "sae_weights.safetensors").write_bytes(b"\0" * 2000)
    return root


def ids(out: str) -> list[str]:
    return [row["sae"] for row in json.loads(out)["saes"]]


def test_without_a_hook_every_sae_is_listed(run: Run, suite: Path) -> None:
    outcome = run("suites", "--suite", str(suite), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert ids(outcome.out) == [
        "layer_1/width_256/l0_8",
        "layer_1/width_256/l0_32",
        "layer_1/width_1024/l0_8",
        "layer_1/width_1024/l0_32",
        "layer_2/width_256/l0_8",
        "layer_2/width_256/l0_32",
    ]
    assert json.loads(outcome.out)["saes"][0] == {
        "sae": "layer_1/width_256/l0_8",
        "release": str(suite),
        "layer": 1,
        "hook_name": "blocks.1.hook_resid_post",
        "d_sae": 256,
        "nominal_l0": 8.0,
        "bytes": 2000,
        "on_disk": True,
    }


def test_l0_leaves_the_pick_per_width_and_hook(run: Run, suite: Path) -> None:
    outcome = run("suites", "--suite", str(suite), "--l0", "10", "--json")
    assert ids(outcome.out) == ["layer_1/width_256/l0_8", "layer_1/width_1024/l0_8", "layer_2/width_256/l0_8"]


def test_a_width_that_only_one_layer_has_is_found_there(run: Run, suite: Path) -> None:
    outcome = run("suites", "--suite", str(suite), "--widths", "1k", "--json")
    assert ids(outcome.out) == ["layer_1/width_1024/l0_8", "layer_1/width_1024/l0_32"]


def test_the_table_adds_up_and_tells_the_gap(run: Run, suite: Path) -> None:
    outcome = run("suites", "--suite", str(suite), "--layer", "2", "--l0", "60")
    assert (outcome.code, outcome.err) == (0, "note: Nearest to --l0 60 at width 256 is 32, 47% away.\n")
    assert outcome.out == (
        "hook                      width  each (MB)  nominal L0, * on disk\n"
        "────────────────────────  ─────  ─────────  ─────────────────────\n"
        "blocks.2.hook_resid_post  256      2.0e-03  32*\n"
        "\n"
        "1 SAEs of 1 widths and hooks, 0.0 GB; 1 on disk\n"
        "\n"
        "SAE                      hook                      width  latents  nominal L0  size (MB)  on disk\n"
        "───────────────────────  ────────────────────────  ─────  ───────  ──────────  ─────────  ───────\n"
        "layer_2/width_256/l0_32  blocks.2.hook_resid_post  256        256          32    2.0e-03  yes\n"
        "\n"
        "1 SAEs, 0.0 MB\n"
    )


def test_many_saes_are_a_grid_alone(run: Run) -> None:
    """Those of the paper, from the registry, without a network."""
    outcome = run("suites", "--model", "gemma-2-9b", "--layer", "20", "--cache-dir", "/nowhere", "--offline")
    assert outcome.code == 0
    assert outcome.out == (
        "hook                       width  each (MB)  nominal L0, * on disk\n"
        "─────────────────────────  ─────  ─────────  ─────────────────────────────────\n"
        "blocks.20.hook_resid_post  16k        469.9  11  20  36  58  68  138  310  408\n"
        "blocks.20.hook_resid_post  32k        939.8  11  57  344\n"
        "blocks.20.hook_resid_post  65k      1,879.6  11  55  298\n"
        "blocks.20.hook_resid_post  131k     3,759.2  11  19  34  53  62  114  221  276\n"
        "blocks.20.hook_resid_post  262k     7,518.3  11  50  259\n"
        "blocks.20.hook_resid_post  524k    15,036.6  10  48  241\n"
        "blocks.20.hook_resid_post  1m      30,073.2  11  19  34  57  101  193\n"
        "\n"
        "34 SAEs of 7 widths and hooks, 290.4 GB; 0 on disk\n"
        "Ids are like layer_20/width_16k/average_l0_11; --json has all of them.\n"
    )


def test_a_layer_without_saes_is_an_error_with_the_nearest(run: Run, suite: Path) -> None:
    outcome = run("suites", "--suite", str(suite), "--layer", "3")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == (
        "error: The suite has no SAE at blocks.3.hook_resid_post. "
        "Nearest: blocks.2.hook_resid_post, blocks.1.hook_resid_post.\n"
    )


def test_no_suite_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "saes").mkdir()
    outcome = run("suites", "--suite", str(tmp_path / "sae"))
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == f"error: There is no SAE directory '{tmp_path / 'sae'}'. Nearest: saes.\n"


def test_what_cannot_be_measured_is_listed_with_its_reason_beside_what_can(run: Run, suite: Path) -> None:
    for name, architecture in (("a", "transcoder"), ("b", "temporal")):
        folder = suite / "layer_2" / name
        folder.mkdir()
        config = {"architecture": architecture, "d_in": 16, "d_sae": 256, "hook_name": hook_name_of("resid", 2)}
        (folder / "cfg.json").write_text(json.dumps(config))
        (folder / "sae_weights.safetensors").write_bytes(b"\0")
    outcome = run("suites", "--suite", str(suite), "--json")
    assert (outcome.code, len(ids(outcome.out))) == (0, 6)
    first, second = json.loads(outcome.out)["refused"]
    assert (first["sae_id"], second["sae_id"]) == ("layer_2/a", "layer_2/b")
    assert "is a transcoder" in first["reason"] and "is a temporal SAE" in second["reason"]
    text = run("suites", "--suite", str(suite)).out
    assert "Not measured here:\n  1 like layer_2/a: " in text
    assert run("suites", "--suite", str(suite), "--layer", "1").out.count("like layer_2") == 2


def test_a_release_of_transcoders_says_so_and_not_that_there_is_nothing(run: Run) -> None:
    words = ("suites", "--model", "gemma-3-270m", "--suite", "gemma-scope-2-270m-pt-transcoders")
    outcome = run(*words, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert (found["saes"], len(found["refused"])) == ([], 2)
    assert {each["reason"] for each in found["refused"]} == {"a transcoder: it does not reconstruct its own input"}
    assert run(*words).out.startswith("Not measured here:\n  2 like ")
