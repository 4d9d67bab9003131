"""The load gate: every mistake it is there for is caught, and nothing healthy is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import ExitCode, TargetError
from inspector.sources import gate
from inspector.sources.built_in import BUILT_IN
from inspector.sources.gate import GateReport
from inspector.sources.target import Loaded, open_target
from inspector.spec import Site, TargetSpec, hook_name_of
from tests import toy

LAYER, D = 1, 16
TEXT = " ".join(f"{['the', 'model', 'reads', 'a', 'token'][i * i % 5]} {i * i % 97}" for i in range(6000))


def opened(target: TargetSpec) -> Loaded:
    work = open_target(target)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


@pytest.fixture(scope="module", autouse=True)
def models_once() -> Iterator[None]:
    with toy.models_loaded_once():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and for every site of each a healthy TopK suite; a JumpReLU SAE whose L0 is known."""
    root = tmp_path_factory.mktemp("gate")
    (root / "text.txt").write_text(TEXT)
    for kind in ("gemma2", "llama"):
        toy.write_toy_model(root / kind, kind, n_layers=3, d_model=D, context=64)
        for site, d_in in (("resid", D), ("mlp", D), ("attn", toy.HEADS * toy.HEAD_DIM)):
            suite = root / f"{kind}-{site}"
            toy.write_toy_suite(suite, d_in=d_in, layers=(LAYER,), site=site, widths=(64,), l0s=(8,))
            toy.fit_toy_suite(suite, root / kind, TEXT)
    jump = root / "gemma2-jump" / "layer_1" / "width_64" / "average_l0_1"
    toy.write_toy_sae(jump, d_in=D, d_sae=64, threshold=1.0, hook_name=hook_name_of("resid", LAYER))
    toy.fit_toy_suite(root / "gemma2-jump", root / "gemma2", TEXT)
    (measured,) = opened(replace(target(root, suite="gemma2-jump"), accept_gate=True)).saes
    x = torch.cat([part.x for part in _batches(root)])
    l0 = round(float(measured.reconstruct(x).l0.double().mean()))
    jump.rename(jump.with_name(f"average_l0_{l0}"))
    return root


def _batches(root: Path):
    from inspector.sources.activations import stream

    loaded = opened(replace(target(root, suite="gemma2-jump"), accept_gate=True))
    return list(stream(loaded.model, loaded.contexts, loaded.hook_name, range(20), 4))


def target(root: Path, kind: str = "gemma2", suite: str = "gemma2-resid", **fields: object) -> TargetSpec:
    given: dict[str, object] = {
        "model": str(root / kind),
        "suite": str(root / suite),
        "text": str(root / "text.txt"),
        "contexts": 100,
        "device": "cpu",
    }
    return TargetSpec(**{**given, **fields})  # type: ignore[arg-type]


def report_of(target: TargetSpec) -> GateReport:
    report = opened(replace(target, accept_gate=True)).gate
    assert report is not None
    return report


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.failures}


@pytest.mark.parametrize("kind", ["gemma2", "llama"])
@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
def test_what_is_healthy_passes(world: Path, kind: str, site: str) -> None:
    report = opened(target(world, kind, f"{kind}-{site}", site=site)).gate
    assert report is not None
    assert report.passed
    assert report.n_tokens >= 4000
    verdicts = {check.name: check.passed for check in report.checks}
    assert verdicts["residual identity"] is verdicts["L0"] is verdicts["FVU"] is verdicts["layer"] is True
    assert verdicts["same model"] is None  # nobody published either
    assert report.summary() == {
        "passed": True,
        "accepted": False,
        "n_tokens": report.n_tokens,
        "failures": [],
        "not_checked": ["same model"],
    }


def test_a_jumprelu_sae_near_its_nominal_l0_passes(world: Path) -> None:
    assert report_of(target(world, suite="gemma2-jump")).passed


@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
def test_the_demo_passes(site: Site) -> None:
    """Its heads are together as wide as its residual stream: nothing may be told apart by shape."""
    report = opened(TargetSpec(site=site, contexts=24, device="cpu")).gate
    assert report is not None
    assert report.passed
    assert report.n_tokens >= 4000


def changed(world: Path, folder: Path, suite: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a suite with other weights."""
    (source,) = (world / suite).rglob("cfg.json")
    copy = folder / source.parent.relative_to(world)
    copy.mkdir(parents=True)
    (copy / "cfg.json").write_text(source.read_text())
    weights = load_file(source.parent / "sae_weights.safetensors")
    change(weights)
    save_file({name: value.contiguous() for name, value in weights.items()}, copy / "sae_weights.safetensors")
    return folder / suite


def test_halved_thresholds_are_caught(world: Path, tmp_path: Path) -> None:
    suite = changed(world, tmp_path, "gemma2-jump", lambda weights: weights["threshold"].mul_(0.5))
    assert "L0" in failed(report_of(target(world, suite=str(suite))))


def test_swapped_encoder_and_decoder_are_caught(world: Path, tmp_path: Path) -> None:
    """As one would load a file that stores both the other way round: the shapes fit."""

    def swap(weights: dict[str, torch.Tensor]) -> None:
        encoder, decoder = weights["W_enc"], weights["W_dec"]
        weights["W_enc"], weights["W_dec"] = decoder.reshape(encoder.shape), encoder.reshape(decoder.shape)

    suite = changed(world, tmp_path, "gemma2-resid", swap)
    assert "FVU" in failed(report_of(target(world, suite=str(suite))))


def test_the_raw_output_of_an_mlp_before_its_post_norm_is_caught(world: Path, tmp_path: Path) -> None:
    hook = f"blocks.{LAYER}.mlp.hook_out"

    def relabel(kind: str) -> str:
        suite = changed(world, tmp_path / kind, f"{kind}-mlp", lambda _: None)
        (path,) = suite.rglob("cfg.json")
        cfg = json.loads(path.read_text())
        cfg["metadata"]["hook_name"] = hook
        path.write_text(json.dumps(cfg))
        return str(suite)

    assert "hook" in failed(report_of(target(world, "gemma2", relabel("gemma2"), hook=hook)))
    # Llama has no norm there: the two are the same.
    assert report_of(target(world, "llama", relabel("llama"), hook=hook)).passed


@pytest.mark.parametrize("end", ["mlp.hook_out", "mlp.hook_in", "attn.hook_out"])
def test_an_sae_of_a_modules_own_input_or_output_passes_there(world: Path, tmp_path: Path, end: str) -> None:
    hook = f"blocks.{LAYER}.{end}"
    suite = toy.write_toy_suite(tmp_path / "own", d_in=D, layers=(LAYER,), site="mlp", widths=(64,), l0s=(8,))
    (path,) = suite.rglob("cfg.json")
    cfg = json.loads(path.read_text())
    cfg["metadata"]["hook_name"] = hook
    path.write_text(json.dumps(cfg))
    toy.fit_toy_suite(suite, world / "gemma2", TEXT)
    report = report_of(target(world, "gemma2", str(suite), hook=hook))
    assert not failed(report), report.sentences()
    checked = [check for check in report.checks if check.name == "hook"]
    assert [check.passed for check in checked] == ([] if end == "mlp.hook_in" else [True])


def test_an_sae_of_another_layer_is_caught(world: Path, tmp_path: Path) -> None:
    suite = changed(world, tmp_path, "gemma2-resid", lambda _: None)
    (path,) = suite.rglob("cfg.json")
    path.write_text(path.read_text().replace(hook_name_of("resid", LAYER), hook_name_of("resid", 2)))
    assert failed(report_of(target(world, suite=str(suite)))) & {"FVU", "L0", "layer"}


@pytest.mark.parametrize("trained_at", [0, 1, 2, 4, 5])
def test_a_trained_sae_is_recognised_at_a_wrong_layer(tmp_path: Path, trained_at: int) -> None:
    """The demo's: their FVU at other layers is often below 1, but lowest where they belong."""
    source = BUILT_IN["demo"].suite / f"layer_{trained_at}" / "resid" / "width_1k" / "l0_16"
    folder = tmp_path / "sae"
    folder.mkdir()
    (folder / "sae_weights.safetensors").symlink_to(source / "sae_weights.safetensors")
    cfg = (source / "cfg.json").read_text().replace(hook_name_of("resid", trained_at), hook_name_of("resid", 3))
    (folder / "cfg.json").write_text(cfg)
    report = report_of(TargetSpec(saes=(str(folder),), contexts=24, device="cpu"))
    assert failed(report) & {"FVU", "layer"}


@pytest.mark.parametrize(("sae", "passes"), [("gemma-2-9b", True), ("google/gemma-2-9b-it", False)])
def test_an_instruct_model_under_saes_of_the_base_one_is_caught(
    world: Path, tmp_path: Path, sae: str, passes: bool
) -> None:
    """Names: the configuration says where the model is from, the SAE what it was trained on."""
    model = tmp_path / "model"
    model.mkdir()
    for path in (world / "gemma2").iterdir():
        (model / path.name).symlink_to(path)
    config = json.loads((model / "config.json").read_text()) | {"_name_or_path": "google/gemma-2-9b"}
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(config))
    suite = changed(world, tmp_path, "gemma2-resid", lambda _: None)
    (path,) = suite.rglob("cfg.json")
    path.write_text(path.read_text().replace('"model_name": "toy"', f'"model_name": "{sae}"'))
    report = report_of(target(world, suite=str(suite), model=str(model)))
    assert failed(report) == (set() if passes else {"same model"})


def test_weights_of_another_model_are_caught(world: Path) -> None:
    toy.write_toy_model(world / "other", "gemma2", n_layers=3, d_model=D, context=64, seed=7)
    assert "L0" in failed(report_of(target(world, "other", "gemma2-jump")))


def test_a_failure_is_exit_code_3_with_its_numbers_unless_accepted(world: Path, tmp_path: Path) -> None:
    suite = changed(world, tmp_path, "gemma2-resid", lambda weights: weights["W_dec"].mul_(-1))
    bad = target(world, suite=str(suite))
    with pytest.raises(TargetError, match=r"FVU of layer_1/resid/width_64/l0_8 is \d.*--accept-gate") as caught:
        opened(bad)
    assert caught.value.exit_code == ExitCode.TARGET
    loaded = opened(replace(bad, accept_gate=True))
    assert loaded.warnings[0].startswith("The load gate failed and was accepted: FVU of")
    assert loaded.gate is not None
    summary = loaded.gate.summary()
    assert (summary["passed"], summary["accepted"], len(summary["failures"])) == (False, True, 1)


def test_too_few_tokens_are_no_ground_to_refuse(world: Path, tmp_path: Path) -> None:
    suite = changed(world, tmp_path, "gemma2-resid", lambda weights: weights["W_dec"].mul_(-1))
    report = report_of(target(world, suite=str(suite), contexts=3))
    assert report.passed
    assert {check.passed for check in report.checks if check.name in ("L0", "FVU")} == {None}


@pytest.mark.parametrize(
    ("nominal", "own", "other", "comparable"),
    [
        (24.0, 24.0, 40.0, False),  # a healthy SAE on a GPT-2, and the next layer with more latents
        (24.0, 40.0, 24.0, True),  # the same SAE looked at there: its own layer is the nominal one
        (24.0, 16.0, 24.0, True),
        (24.0, 24.0, 25.0, True),  # sampling
        (50.0, 50.0, 50.0, True),  # TopK
        (None, 24.0, 40.0, False),
        (None, 40.0, 24.0, True),
        (None, 24.0, 24.0, True),
    ],
)
def test_another_layer_counts_only_with_as_few_latents(
    nominal: float | None, own: float, other: float, comparable: bool
) -> None:
    assert gate._as_sparse(nominal, own, other) == comparable
