"""The comparison of Fig. 7: what the two SAEs read, and a difference that is known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from inspector.claims import evaluate
from inspector.errors import ExitCode, TargetError
from inspector.experiments import find
from inspector.interp.examples import draw_latents, gather
from inspector.interp.readers import error_readers, with_base
from inspector.interp.scoring import explaining, items_of
from inspector.spec import TargetSpec
from inspector.training import error_saes as files
from tests.cli.conftest import Run
from tests.interp.conftest import SETTINGS, finished
from tests.judge_server import Script, coin, is_explaining, judge_server, judging

if TYPE_CHECKING:
    from collections.abc import Generator

    from inspector.engine.regression import LinearMap
    from inspector.sources.target import Loaded

PARTS = ("linear_error", "nonlinear_error")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def error_map(judged: Loaded) -> LinearMap:
    """From x to the error, fitted on the toy's training tokens."""
    from inspector.statistics.first_pass import collect_first
    from inspector.statistics.passes import Activations

    first = finished(collect_first(Activations(loaded=judged, batch_size=8), judged.plan)).ordinary
    with torch.inference_mode():
        return first.fit()[judged.saes[0].ref.sae_id].error_map


@pytest.fixture(scope="module")
def folder(judged: Loaded, error_map: LinearMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `run error-saes` leaves it, with SAEs that have learned nothing."""
    from tests.toy import write_toy_sae

    made = tmp_path_factory.mktemp("error-saes")
    base = judged.saes[0]
    for part in PARTS:
        for seed in SEEDS:
            write_toy_sae(
                files.sae_folder(made, part, seed), d_in=16, d_sae=48, k=3, hook_name=f"{judged.hook_name}.{part}",
                seed=seed,
            )  # fmt: skip
    files.save_map(made / files.MAP_FILE, error_map)
    files.write_about(
        made,
        {
            "fingerprint": "f",
            "base": {
                "sae": base.ref.sae_id, "release": base.ref.release, "hook_name": judged.hook_name,
                "weights_hash": base.weights_hash,
            },
            "map_sha256": files.map_hash(error_map),
            "saes": [{"part": part, "seed": seed, "curve": []} for part in PARTS for seed in SEEDS],
        },
    )  # fmt: skip
    return made


def test_each_sae_reads_its_part(judged: Loaded, folder: Path) -> None:
    found = files.read_error_saes(folder)
    readers, more = error_readers(found, judged)
    assert [reader.name for reader in readers] == [f"{part}/seed_{seed}" for part in PARTS for seed in SEEDS]
    assert more["map_sha256"] == files.map_hash(found.linear_map)
    x = judged.model.activations(judged.contexts.token_ids[:2], judged.hook_name).flatten(0, 1)
    columns = torch.arange(48)
    # By hand, in float64: the map, the rest, and the three largest of the encoder's outputs.
    wide = x.double().numpy()
    linear = wide @ found.linear_map.weight.numpy().T + found.linear_map.bias.numpy()
    error = wide - judged.saes[0].reconstruct(x).x_hat.double().numpy()
    parts = {"linear_error": linear, "nonlinear_error": error - linear}
    for reader in readers:
        sae = reader.sae._sae
        w_enc, b_enc, b_dec = (each.detach().double().numpy() for each in (sae.W_enc, sae.b_enc, sae.b_dec))
        hidden = np.maximum((parts[reader.part] - b_dec) @ w_enc + b_enc, 0.0)
        third = np.sort(hidden, axis=1)[:, -3][:, None]
        expected = np.where(hidden >= third, hidden, 0.0)
        latents, n_active = reader.active(x, columns)
        # float32 of a difference of numbers a hundred times larger.
        np.testing.assert_allclose(latents.numpy(), expected, atol=2e-4)
        assert n_active == int((latents > 0).sum())


def test_only_the_saes_own_base_will_do(judged: Loaded, folder: Path, tmp_path: Path) -> None:
    found = files.read_error_saes(folder)
    other = replace(found, about={**found.about, "base": {**found.base, "sae": "other"}})
    with pytest.raises(TargetError, match="on the error of other at"):
        error_readers(other, judged)
    changed = replace(found, about={**found.about, "base": {**found.base, "weights_hash": "x"}})
    with pytest.raises(TargetError, match="on the error of another"):
        error_readers(changed, judged)
    with pytest.raises(TargetError, match=r"has no error_saes\.json"):
        files.read_error_saes(tmp_path)


def test_the_base_sae_is_loaded_without_being_named(judged: Loaded, folder: Path) -> None:
    found = files.read_error_saes(folder)
    base = found.base["sae"]
    assert with_base(TargetSpec(), found) == TargetSpec(saes=(base,), hook=judged.hook_name)
    assert with_base(TargetSpec(layers=(1,)), found) == TargetSpec(saes=(base,), layers=(1,))
    assert with_base(TargetSpec(saes=("mine",)), found) == TargetSpec(saes=("mine",))


def knows_linear_alone(judged: Loaded, folder: Path) -> Script:
    """An oracle about the latents on linear_error, a coin about the others."""
    readers, _ = error_readers(files.read_error_saes(folder), judged)
    _, gathered = finished(gather(judged, readers, SETTINGS, batch_size=8))
    decode = judged.model.tokenizer.text
    names: dict[str, str] = {}
    truth: dict[tuple[str, str], bool] = {}
    for one in gathered:
        for latent in one.latents:
            name = f"{one.reader.name} {latent.index}"
            names[explaining(latent, decode, SETTINGS).user] = name
            for item in items_of(latent, "detection", decode, 0):
                truth[name, item.text] = item.truth
    knows = judging(lambda description, text: int(truth[description, text]))
    throws = coin()

    def script(messages: list[dict[str, str]]) -> str:
        if is_explaining(messages):
            return json.dumps({"explanation": names[messages[-1]["content"]]})
        return (throws if "nonlinear" in messages[-1]["content"] else knows)(messages)

    return script


def test_the_comparison_finds_a_difference_that_is_there(
    run: Run, judged: Loaded, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(target: TargetSpec) -> Generator[Any, None, Loaded]:
        yield from ()
        assert target.saes == (judged.saes[0].ref.sae_id,)
        return judged

    monkeypatch.setattr("inspector.cli.opening.opened", opened)
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DM_INSPECT_ANSWERS_DIR", str(tmp_path / "answers"))
    with judge_server(knows_linear_alone(judged, folder)) as server:
        judge = ("--judge-url", server.url, "--judge-model", "half")
        words = ("--latents", "8", "--window", "7", "--shown", "12", "--error-saes", str(folder))
        outcome = run("interp", *words, *judge, "--json", "--quiet")
        assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["experiment"] == "interp-error-saes"
    assert [row["reads"] for row in result["saes"]] == ["linear_error"] * 2 + ["nonlinear_error"] * 2
    parts, difference = result["result"]["parts"], result["result"]["difference"]
    scored = {part: sum(row["n_scored"] for row in result["saes"] if row["reads"] == part) for part in PARTS}
    assert {part: parts[part]["n_latents"] for part in PARTS} == scored
    assert [parts["linear_error"][group]["value"] for group in result["result"]["groups"]] == [1.0] * 11
    # Some hundred throws per group: five standard errors of the balanced accuracy are 0.12.
    assert parts["nonlinear_error"]["balanced"]["value"] == pytest.approx(0.5, abs=0.12)
    low, high = difference["balanced"]["interval"]
    assert 0.3 < low < difference["balanced"]["value"] < high < 0.7
    assert difference["balanced"]["value"] == pytest.approx(
        parts["linear_error"]["balanced"]["value"] - parts["nonlinear_error"]["balanced"]["value"]
    )
    figures = find("interp-error-saes").draw(result)
    assert figures[1].title == "Detection accuracy by decile of activation, as Fig. 7"
    assert [bar.name for bar in figures[1].bars] == ["SAE on linear_error", "SAE on nonlinear_error"]  # type: ignore[union-attr]
    shown = run("results", "show", "interp-error-saes")
    assert shown.code == 0 and "linear - nonlinear" in shown.out and "the paper: difference 0.05" in shown.out
    (c9,) = [each for each in evaluate({"r": result}) if each.id == "C9"]
    assert c9.why == f"Only {min(scored.values())} latents of one part were scored; 30 are needed."


def test_a_folder_that_is_none_is_refused_early(run: Run, tmp_path: Path) -> None:
    outcome = run("interp", "--estimate", "--error-saes", str(tmp_path))
    assert outcome.code == ExitCode.TARGET and "has no error_saes.json" in outcome.err


def test_the_same_latents_are_drawn_of_both_parts(judged: Loaded, folder: Path) -> None:
    readers, _ = error_readers(files.read_error_saes(folder), judged)
    drawn = [draw_latents(reader.sae.ref.d_sae, 8, 0).tolist() for reader in readers]
    assert drawn.count(drawn[0]) == len(drawn)
