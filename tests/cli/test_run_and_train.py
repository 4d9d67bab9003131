"""Commands that compute, on toy models: several layers, files, and a suite trained, interrupted and gone on with.

What the numbers are is the contract test's business; here it is where they go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import toy
from tests.cli.conftest import Run

WORDS = "the model reads a token and the error of the token is split in two parts a linear part and the rest "


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    toy.write_toy_model(root / "model", "llama", n_layers=2, d_model=16, context=64)
    toy.write_toy_suite(root / "suite", d_in=16, layers=(0, 1), site="resid")
    toy.fit_toy_suite(root / "suite", root / "model", WORDS * 300)
    (root / "text.txt").write_text(WORDS * 300, encoding="utf-8")
    return root


def target(world: Path, *more: str) -> tuple[str, ...]:
    text = str(world / "text.txt")
    return ("--model", str(world / "model"), "--text", text, "--device", "cpu", "--quiet", *more)


def test_every_layer_gives_a_line_and_a_file(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "kept"))
    picks = ("--suite", str(world / "suite"), "--widths", "32", "--l0", "2", "--contexts", "20")
    outcome = run(
        "run", "norm-prediction", *target(world), *picks, "--layers", "0:2", "--json", "--out", str(tmp_path / "r")
    )
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["saes"][0]["layer"] for line in lines] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "norm-prediction.layer_0.json",
        "norm-prediction.layer_1.json",
    ]
    for layer, line in enumerate(lines):
        assert json.loads((tmp_path / "r" / f"norm-prediction.layer_{layer}.json").read_text()) == line
    assert f"wrote {tmp_path / 'r' / 'norm-prediction.layer_0.json'}\n" in outcome.err
    kept = json.loads(run("results", "list", "--json").out)["results"]
    assert sorted(each["command"].rpartition("--layer ")[2][0] for each in kept) == ["0", "1"]
    assert all(json.loads(run("results", "show", each["id"], "--json").out) in lines for each in kept)


def test_a_simulation_asks_for_no_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "kept"))
    outcome = run("run", "theory-c1", "--model", str(tmp_path / "none"), "-p", "draws=1000", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["result"]["r2_poisson_1_exact"] == "9/11" and "model" not in found["provenance"]
    (kept,) = json.loads(run("results", "list", "--json").out)["results"]
    assert json.loads(run("results", "show", kept["id"], "--json").out) == found
    assert "Theory of the norm probe\n" in run("results", "show", kept["id"]).out


def test_open_layers_and_several_models_stand_in_one_table(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "kept"))
    toy.write_toy_model(tmp_path / "other", "llama", n_layers=2, d_model=16, context=64)
    suite = str(world / "suite")
    picks = ("--widths", "32", "--l0", "2", "--contexts", "20", "--layers", "1:", "-p", "resamples=0")
    models = ("--model", str(tmp_path / "other"), "--suite", suite)
    outcome = run(
        "run", "fvu-nonlinear", *target(world), "--suite", suite, *models, *picks, "--out", str(tmp_path / "r")
    )
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "fvu-nonlinear.model.layer_1.json",
        "fvu-nonlinear.other.layer_1.json",
    ]
    together = outcome.out.partition("Nonlinear FVU: all layers")[2].splitlines()
    rows = [line.split() for line in together if line.startswith(("/", "…"))]
    stored = [json.loads(path.read_text()) for path in sorted((tmp_path / "r").iterdir())]
    for words, result in zip(rows, stored, strict=True):
        (row,) = result["saes"]
        assert words[0].endswith(result["provenance"]["model"][-5:])
        assert words[1:] == ["1", row["sae"], "32", "2.0", f"{row['fvu']:.4f}", f"{row['fvu_nonlinear']:.4f}"]


def test_every_layer_from_one_on_and_none(run: Run, world: Path) -> None:
    suite = ("--suite", str(world / "suite"))
    listed = json.loads(run("suites", "--model", str(world / "model"), *suite, "--layers", "0:", "--json").out)["saes"]
    assert {row["layer"] for row in listed} == {0, 1}
    outcome = run("run", "fvu-nonlinear", *target(world), *suite, "--layers", "2:")
    assert outcome.code == 3
    assert "No layer from 2 on has an SAE in this suite. The last that has is 1." in outcome.err
    outcome = run("tokens", *target(world), *suite, "--layers", "0:")
    assert outcome.code == 2
    assert "All layers from 0 on were asked for. Take one, with --layer N." in outcome.err
    outcome = run("run", "fvu-nonlinear", *target(world), *suite, "--model", "demo", "--layer", "0")
    assert outcome.code == 2
    assert "--suite was given 1 times and --model 2 times. Give one suite per model, in the same order" in outcome.err


def test_a_result_that_cannot_be_kept_is_printed_all_the_same(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "file" / "kept"))
    picks = ("--suite", str(world / "suite"), "--widths", "32", "--l0", "2", "--contexts", "20", "--layer", "0")
    outcome = run("run", "norm-prediction", *target(world), *picks, "-p", "resamples=0", "--json")
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 1)
    assert "warning: the result is not kept. " in outcome.err


def test_a_wrong_experiment_is_refused_before_anything_is_made(run: Run, world: Path, tmp_path: Path) -> None:
    outcome = run("run", "error-vectr", *target(world), "--out", str(tmp_path / "r"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: There is no experiment 'error-vectr'. Nearest: error-vector, ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-p", "intercept"), "-p intercept is not a parameter. Write -p KEY=VALUE, for example -p intercept=off."),
        (("-p", "intercpt=off"), "'intercpt' is not a parameter of error-vector. Nearest: intercept."),
        (
            ("-p", "intercept=maybe"),
            "'intercept=maybe' is neither on nor off. Write -p intercept=on or -p intercept=off.",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_at_once(run: Run, args: tuple[str, ...], message: str) -> None:
    outcome = run("run", "error-vector", *args)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--json", "--out", "a.parquet"), "--json and --out were both given. Leave one out."),
        (
            ("--out", "a.csv"),
            "--out a.csv ends in neither .parquet (the table) nor .safetensors (--vectors). Rename it, or use --json.",
        ),
        (
            ("--ray", "auto", "--json"),
            "--ray shares the table of the target's text, which goes into a file. Add --out FILE.parquet, and leave "
            "--vectors, --prompt and --generate away.",
        ),
        (("--out", "/no/a.parquet"), "The folder /no does not exist. Create it, or choose another place."),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_at_once(run: Run, args: tuple[str, ...], message: str) -> None:
    outcome = run("tokens", *args)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


def training(world: Path, out: Path) -> tuple[str, ...]:
    sizes = ("--widths", "32,64", "--l0", "4", "--tokens", "12000")
    return ("train", *target(world, "--layer", "1", *sizes, "--out", str(out)))


def test_a_trained_suite_is_measured_listed_and_used(run: Run, world: Path, tmp_path: Path) -> None:
    trained = run(*training(world, tmp_path / "saes"), "--json")
    assert trained.code == 0, trained.err
    rows = json.loads(trained.out)["saes"]
    ids = ["layer_1/resid/width_32/l0_4", "layer_1/resid/width_64/l0_4"]
    assert [row["sae_id"] for row in rows] == ids
    assert all(0 < row["fvu"] < 1 and row["l0"] <= 4 for row in rows)
    listed = run("suites", "--model", str(world / "model"), "--suite", str(tmp_path / "saes"), "--json")
    assert [row["sae"] for row in json.loads(listed.out)["saes"]] == ids
    picks = ("--suite", str(tmp_path / "saes"), "--contexts", "20", "--json")
    measured = run("run", "fvu-nonlinear", *target(world), *picks)
    assert measured.code == 0, measured.err
    assert [row["sae"] for row in json.loads(measured.out)["saes"]] == ids

    again = run(*training(world, tmp_path / "saes"))
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        f"error: {tmp_path / 'saes' / ids[0]} holds an SAE already. Choose another --out, or remove that folder.\n"
    )


def test_a_stopped_training_goes_on_to_the_same_bytes(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C on the way; the same command again must end as if nothing had happened."""
    from contextlib import contextmanager

    whole = run(*training(world, tmp_path / "whole"))
    assert whole.code == 0, whole.err

    asked = []

    @contextmanager
    def on_the_way() -> object:
        def should_stop() -> bool:
            asked.append(True)
            return len(asked) == 20  # after the events of loading, a dozen of the block, and a step or two of six

        yield should_stop

    with monkeypatch.context() as patch:
        patch.setattr("inspector.cli.train.interruptible", on_the_way)
        stopped = run(*training(world, tmp_path / "parts"))
    assert (stopped.code, stopped.out) == (6, "")
    assert stopped.err.endswith("error: Stopped at your request. The same command goes on where it stopped.\n")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [".training", "training.jsonl"]
    resumed = run(*training(world, tmp_path / "parts"))
    assert resumed.code == 0, resumed.err
    for path in sorted((tmp_path / "whole").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_damaged_checkpoint_and_one_of_another_run_are_refused(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from inspector.training.checkpoint import FOLDER

    @contextmanager
    def soon() -> Iterator[Callable[[], bool]]:
        asked: list[bool] = []
        yield lambda: asked.append(True) or len(asked) == 20  # type: ignore[func-returns-value]

    kind = ("--architecture", "jumprelu")
    with monkeypatch.context() as patch:
        patch.setattr("inspector.cli.train.interruptible", soon)
        assert run(*training(world, tmp_path), *kind).code == 6
    other = run(*training(world, tmp_path), "--architecture", "batchtopk")
    assert (other.code, other.out) == (2, "")
    assert other.err == (
        f"error: {tmp_path} holds the checkpoint of a different training run. Choose another folder, or delete "
        f"{tmp_path / FOLDER} to start over.\n"
    )
    (state,) = (tmp_path / FOLDER).glob("state-*.safetensors")
    raw = bytearray(state.read_bytes())
    raw[len(raw) // 2] ^= 1
    state.write_bytes(raw)
    damaged = run(*training(world, tmp_path), *kind)
    assert (damaged.code, damaged.out) == (4, "")
    assert damaged.err == (
        f"error: The checkpoint in {tmp_path / FOLDER} is damaged: {state.name} does not match its checksum. "
        "Delete that folder to start over.\n"
    )


def test_several_layers_and_sites_learn_from_one_pass(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model runs once per context, however many hooks are read."""
    from inspector.sources.model import LanguageModel

    hooks: list[int] = []
    values = LanguageModel.values

    def counted(self: LanguageModel, tokens: object, names: list[str]) -> object:
        hooks.append(len(names))
        return values(self, tokens, names)  # type: ignore[arg-type]

    monkeypatch.setattr(LanguageModel, "values", counted)
    sizes = ("--widths", "32", "--l0", "4", "--tokens", "6000", "--architecture", "batchtopk")
    trained = run("train", *target(world, "--layers", "0:2", *sizes, "--out", str(tmp_path)), "--json")
    assert trained.code == 0, trained.err
    ids = [f"layer_{layer}/resid/width_32/l0_4-batchtopk" for layer in (0, 1)]
    assert [row["sae_id"] for row in json.loads(trained.out)["saes"]] == ids
    assert set(hooks) == {2}
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert set(lines[-1]["saes"]) == set(ids)
    assert set(lines[-1]["saes"][ids[0]]) == {"batch_fvu", "fvu", "l0", "dead"}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (lambda _: ("--architecture", "gated"), 2, "'gated' is not one of 'topk', 'batchtopk', 'jumprelu'"),
        (lambda _: ("--learning-rate", "0"), 2, "--learning-rate"),
        (lambda _: ("--layer", "2"), 3, "has no layer 2. Its layers are 0 to 1.\n"),
        (lambda _: ("--l0", "64", "--widths", "32"), 2, "Every L0 of 64 is larger than every width. Lower --l0.\n"),
        (
            lambda _: ("--widths", "1024,1025"),
            2,
            "Two of the widths have the same short name, so both would be layer_1/resid/width_1k/l0_16.",
        ),
        (lambda out: ("--text", str(out / "no.txt")), 4, "no.txt"),
        (lambda _: ("--ray", "auto"), 2, "--ray cannot share a training: its SAEs learn step by step, and each step"),
    ],
    ids=["architecture", "rate", "layer", "l0", "widths", "text", "ray"],
)
def test_what_cannot_be_trained_is_refused(
    run: Run, world: Path, tmp_path: Path, more: Callable[[Path], tuple[str, ...]], code: int, message: str
) -> None:
    outcome = run("train", *target(world), "--out", str(tmp_path / "saes"), *more(tmp_path))
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert not (tmp_path / "saes").exists() or list((tmp_path / "saes").iterdir()) == []


def test_without_a_text_there_is_nothing_to_learn_from(run: Run, world: Path, tmp_path: Path) -> None:
    outcome = run("train", "--model", str(world / "model"), "--out", str(tmp_path))
    assert (outcome.code, outcome.err) == (
        2,
        "error: There is no text to learn from. Give --text FILE, or --text demo for installed Python's.\n",
    )
