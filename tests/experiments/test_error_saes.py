"""SAEs on the parts of an error: against numpy and scikit-learn from the files they leave, and against theory."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LinearRegression
from torch import Tensor

from inspector.claims import CANNOT_TELL, CONSISTENT, CONTRADICTS, evaluate
from inspector.drawing.figures import Curve, GroupedBars, Table
from inspector.errors import DataError, TargetError, UsageError
from inspector.events import Loading, TrainProgress
from inspector.experiment import parse_params
from inspector.experiments import find
from inspector.experiments.error_saes import over_seeds
from inspector.runner import run
from inspector.sources.contexts import load_contexts
from inspector.sources.target import open_target
from inspector.spec import RunSpec
from inspector.training.checkpoint import FOLDER
from inspector.training.error_recipe import recipe_of
from inspector.training.error_saes import ABOUT_FILE, Gaussian, geometric_median, read_error_saes
from inspector.training.learners import LearnerSettings
from inspector.training.topk_learner import TopKLearner
from tests.experiments.own import LAYER, Array, D, Toy, decoded, finish, hidden, opened, write_files

BASE = f"layer_{LAYER}/resid/width_64/l0_4"
PARTS = ("linear_error", "nonlinear_error", "x", "sae_error", "gaussian_linear", "gaussian_nonlinear")
SMALL = {"sae": BASE, "expansion": "4", "k": "4", "sae_tokens": "10240"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("errors"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def found(toy: Toy, folder: Path) -> dict[str, Any]:
    return toy.one("error-saes", folder=str(folder), **SMALL)


def parts_of(toy: Toy) -> dict[str, tuple[Array, Array]]:
    """(training, held-out) tokens of each measured part, [n, d], by scikit-learn from the toy's own files."""
    x = toy.raw["resid"]
    base = toy.folder(LAYER, "resid", 64)
    error = x - decoded(base, hidden(base, x))
    train, test = toy.train, toy.test
    fitted = LinearRegression().fit(x[train], error[train])
    linear = [fitted.predict(x[rows]) for rows in (train, test)]
    return {
        "linear_error": (linear[0], linear[1]),
        "nonlinear_error": (error[train] - linear[0], error[test] - linear[1]),
        "x": (x[train], x[test]),
        "sae_error": (error[train], error[test]),
    }


def fvu(values: Array, made: Array) -> float:
    return float(((values - made) ** 2).sum() / ((values - values.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("part", PARTS[:4])
def test_fvu_is_numpys_from_the_files(toy: Toy, found: dict[str, Any], part: str) -> None:
    """To 1e-4: float32 reconstructions against float64."""
    trained = read_error_saes(found["result"]["folder"])
    _, held_out = parts_of(toy)[part]
    saes = trained.of_part(part)
    assert [sae.seed for sae in saes] == ([0, 1, 2] if part in PARTS[:2] else [0])
    theirs = [fvu(held_out, decoded(sae.folder, hidden(sae.folder, held_out))) for sae in saes]
    assert found["result"]["parts"][part]["fvu_by_seed"] == pytest.approx(theirs, abs=1e-4)
    assert found["result"]["parts"][part]["fvu"] == pytest.approx(np.mean(theirs), abs=1e-4)
    x = parts_of(toy)["x"][1]
    share = held_out.var(axis=0).sum() / x.var(axis=0).sum()
    assert found["result"]["parts"][part]["share"] == pytest.approx(share, rel=1e-4)


def test_difference_and_intervals_are_scipys(found: dict[str, Any]) -> None:
    from scipy.stats import ttest_rel

    parts = found["result"]["parts"]
    linear, nonlinear = (parts[part]["fvu_by_seed"] for part in PARTS[:2])
    theirs = ttest_rel(nonlinear, linear).confidence_interval(0.95)
    assert found["intervals"][BASE]["difference"] == pytest.approx([theirs.low, theirs.high])
    assert found["result"]["difference"]["fvu"] == pytest.approx(np.mean(np.subtract(nonlinear, linear)))
    low, high = found["intervals"][BASE]["difference over contexts"]
    assert low < found["result"]["difference"]["fvu"] < high
    assert over_seeds([0.5]) is None and over_seeds([0.5, float("nan")]) is None


def test_noise_has_the_covariance_of_its_part_and_no_more(toy: Toy, found: dict[str, Any]) -> None:
    """Sampling error of a covariance from n draws is about its size / sqrt(n): 1% with 40,000."""
    values, _ = parts_of(toy)["nonlinear_error"]
    gaussian = Gaussian.of(torch.from_numpy(values.mean(axis=0)), torch.from_numpy(np.cov(values.T, bias=True)))
    drawn = gaussian.draw(40_000, 1).double().numpy()
    largest = np.cov(values.T).diagonal().max()
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(values.T), atol=0.05 * largest)
    np.testing.assert_allclose(drawn.mean(axis=0), values.mean(axis=0), atol=0.05 * largest**0.5)
    result = found["result"]
    for part, noise in zip(PARTS[:2], PARTS[4:], strict=True):
        gap = result["parts"][noise]["fvu_by_seed"][0] - result["parts"][part]["fvu_by_seed"][0]
        assert result["structure"][part] == pytest.approx(gap)
        assert result["parts"][noise]["share"] == pytest.approx(result["parts"][part]["share"], rel=0.2)


def test_a_noise_control_of_what_is_noise_finds_no_structure() -> None:
    """Both ways: normal data against noise of its covariance 0, sparse data of the very same covariance much."""
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(60_000, 16, generator=generator) * (torch.rand(60_000, 16, generator=generator) < 0.1)
    sparse /= sparse.std(dim=0)
    normal = torch.randn(60_000, 16, generator=generator)
    scores = {name: taught(values, d_sae=64, k=3) for name, values in (("sparse", sparse), ("normal", normal))}
    noise = Gaussian.of(torch.zeros(16), torch.eye(16)).draw(60_000, 5)
    control = taught(noise, d_sae=64, k=3)
    assert abs(control - scores["normal"]) < 0.02
    assert control - scores["sparse"] > 0.2


def taught(values: Tensor, d_sae: int, k: int) -> float:
    """FVU on the last 4,000 of an SAE that learned from the others."""
    settings = LearnerSettings(learning_rate=5e-3, warmup_tokens=2000, auxiliary_weight=0.0)
    learner = TopKLearner("a", d_sae, k, seed=0, settings=settings, center=values.mean(0))
    train, test = values[:-4000], values[-4000:]
    for first in range(0, len(train), 250):
        learner.step(train[first : first + 250], settings.rate(first, len(train)))
    return float((test - learner.reconstruct(test).x_hat).square().sum() / (test - test.mean(0)).square().sum())


def test_of_isotropic_noise_one_of_2d_latents_explains_its_largest_coordinate() -> None:
    """The best 2d directions for one active latent are the axes and their opposites: E max x_i^2 / d."""
    d = 8
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(80_000, d, generator=generator)
    best = 1.0 - float(noise.square().max(dim=1).values.mean()) / d
    found = taught(noise, d_sae=2 * d, k=1)
    assert best - 0.02 < found < best + 0.06
    assert found < 1.0 - 1.0 / d - 0.2, "more than any one fixed direction, 1/d, could"


def test_a_part_of_low_rank_is_easier() -> None:
    """Rank 2 needs two latents and their opposites; of full rank four of sixteen dimensions are left far behind."""
    generator = torch.Generator().manual_seed(2)
    full = torch.randn(60_000, 16, generator=generator)
    low = torch.randn(60_000, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
    assert taught(low, 32, 4) < 0.05 < 0.3 < taught(full, 32, 4)


def test_every_part_starts_from_the_same_weights_and_every_seed_from_others(toy: Toy, tmp_path: Path) -> None:
    """With a rate of next to nothing the weights stay where they began."""
    toy.one("error-saes", folder=str(tmp_path), learning_rate="1e-9", **{**SMALL, "sae_tokens": "1024"})
    trained = read_error_saes(tmp_path)

    def decoder(part: str, seed: int) -> Tensor:
        (sae,) = [sae for sae in trained.of_part(part) if sae.seed == seed]
        return load_file(sae.folder / "sae_weights.safetensors")["W_dec"] * 1.0

    first = decoder("linear_error", 0)
    for part in PARTS[1:]:
        other = decoder(part, 0)
        # Scales of the parts are folded into the encoder; rows keep unit norm.
        torch.testing.assert_close(other, first, rtol=0, atol=1e-5)
    assert float((decoder("linear_error", 1) - first).abs().max()) > 0.1


def test_first_weights_follow_the_seed_of_the_run(tmp_path: Path) -> None:
    spec = write_files(tmp_path)
    kept = {}
    for seed in (0, 1):
        toy = Toy(tmp_path, finish(open_target(replace(spec, seed=seed))))
        to = tmp_path / f"trained_{seed}"
        toy.one("error-saes", folder=str(to), learning_rate="1e-9", controls="off", **{**SMALL, "sae_tokens": "1024"})
        saes = read_error_saes(to).of_part("linear_error")
        kept[seed] = [load_file(sae.folder / "sae_weights.safetensors")["W_dec"] for sae in saes]
    assert len(kept[0]) == len(kept[1]) > 0
    for one, other in product(kept[0], kept[1]):
        assert float((one - other).abs().max()) > 0.1


def test_result_is_json_and_draws_itself(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found, allow_nan=False))
    table, bars, curve = find("error-saes").draw(stored)
    assert isinstance(table, Table) and isinstance(bars, GroupedBars) and isinstance(curve, Curve)
    assert [row[0] for row in table.rows] == list(PARTS) == list(bars.groups)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert [series.name for series in curve.series] == list(PARTS)
    assert all(len(series.x) == len(series.y) == 10 for series in curve.series)
    assert bars.bars[0].marks[0].values == (0.54, 0.59, None, None, None, None)
    assert set(stored["controls"]) == set(PARTS[2:])


def events_of(work: Generator[Any, None, list[dict[str, Any]]], stop_after: int | None = None) -> tuple[list[Any], Any]:
    events: list[Any] = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            return events, end.value
        if stop_after is not None and sum(isinstance(event, TrainProgress) for event in events) == stop_after:
            work.close()
            return events, None


def started(toy: Toy, folder: Path, **params: str) -> Generator[Any, None, list[dict[str, Any]]]:
    spec = RunSpec(
        target=toy.loaded.target,
        experiments=("error-saes",),
        params={"resamples": "40", "folder": str(folder), **SMALL, **params},
    )
    return run(spec, toy.loaded)


def test_it_says_how_long_it_will_take_before_it_begins(toy: Toy, tmp_path: Path) -> None:
    events, _ = events_of(started(toy, tmp_path), stop_after=1)
    said = [event for event in events if isinstance(event, Loading) and event.what == "training"]
    assert len(said) == 1 and "10 SAEs on 10,240 tokens will take about" in said[0].detail


def test_a_stopped_training_goes_on_to_the_same_bytes_and_is_not_done_twice(
    toy: Toy, found: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    events_of(started(toy, tmp_path), stop_after=4)
    assert (tmp_path / FOLDER).is_dir() and not (tmp_path / ABOUT_FILE).exists()
    events, (resumed,) = events_of(started(toy, tmp_path))
    assert sum(isinstance(event, TrainProgress) and bool(event.held_out) for event in events) == 6, "of ten steps"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path
    assert {**resumed["result"], "folder": ""} == {**found["result"], "folder": ""}
    events, (again,) = events_of(started(toy, tmp_path))
    assert not any(isinstance(event, TrainProgress) for event in events)
    assert any("trained before" in event.detail for event in events if isinstance(event, Loading))
    assert again == resumed


def test_two_processes_do_not_train_into_one_folder(toy: Toy, tmp_path: Path) -> None:
    """The second is refused; when the first is stopped, it goes on from what that has kept."""
    first = started(toy, tmp_path)
    while not isinstance(next(first), TrainProgress):
        pass
    with pytest.raises(UsageError, match=r"^Another process writes into .*\. Wait for it, or choose another folder\.$"):
        events_of(started(toy, tmp_path))
    first.close()
    events, _ = events_of(started(toy, tmp_path), stop_after=1)
    assert any(isinstance(event, TrainProgress) for event in events)


def test_half_a_file_of_a_killed_process_goes(toy: Toy, found: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    events_of(started(toy, tmp_path), stop_after=9)
    half = tmp_path / "linear_error" / "seed_0" / ".sae_weights.safetensors.abc123_9.tmp"
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half")
    events_of(started(toy, tmp_path))
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == {
        path.relative_to(folder) for path in folder.rglob("*")
    }


def test_what_is_kept_tells_the_parts_again(toy: Toy, found: dict[str, Any], folder: Path) -> None:
    """To 1e-4: float32 activations against float64."""
    trained = read_error_saes(folder)
    assert trained.base["sae"] == BASE and trained.base["hook_name"] == f"blocks.{LAYER}.hook_resid_post"
    x = torch.from_numpy(toy.raw["resid"][toy.test])
    theirs = parts_of(toy)["linear_error"][1]
    np.testing.assert_allclose(trained.linear_map.predict(x).numpy(), theirs, atol=1e-4 * np.abs(theirs).max())
    assert trained.linear_map.weight.shape == (D, D)
    assert len(trained.saes) == 10


@pytest.mark.parametrize("damage", ["map", "json", "weights", "base"])
def test_a_damaged_folder_is_told(found: dict[str, Any], folder: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    about = json.loads((copy / ABOUT_FILE).read_text())
    if damage == "map":
        raw = bytearray((copy / "linear_map.safetensors").read_bytes())
        raw[-1] ^= 1
        (copy / "linear_map.safetensors").write_bytes(raw)
    elif damage == "json":
        (copy / ABOUT_FILE).write_text("{")
    elif damage == "weights":
        (copy / "linear_error/seed_1/sae_weights.safetensors").unlink()
    else:
        del about["base"]["weights_hash"]
        (copy / ABOUT_FILE).write_text(json.dumps(about))
    with pytest.raises(TargetError, match=r"cannot be used: .*\. Run error-saes again\."):
        read_error_saes(copy)


def test_what_cannot_be_done_is_refused(toy: Toy, found: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'preset=papr' is not known\. Nearest: paper\."):
        parse_params([find("error-saes")], {"preset": "papr"})  # before anything is loaded
    with pytest.raises(TargetError, match=r"'sae=no' is not among the target's SAEs\."):
        toy.one("error-saes", sae="no")
    with pytest.raises(UsageError, match=r"'k=65' is more than the 64 latents\. Lower k, or raise expansion\."):
        toy.one("error-saes", k="65", expansion="4")
    with pytest.raises(UsageError, match=r"holds SAEs that were trained otherwise\. Choose another -p folder=DIR"):
        toy.one("error-saes", folder=str(folder), **{**SMALL, "k": "3"})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"'folder=.*' cannot be made: .*\. Choose another place\."):
        toy.one("error-saes", folder=str(tmp_path / "file" / "here"))
    with pytest.raises(TargetError, match=r"has no error_saes\.json"):
        read_error_saes(tmp_path)


def test_a_text_that_is_all_held_out_is_refused(toy: Toy, tmp_path: Path) -> None:
    """With single tokens held out, every context has some; a text of no more contexts leaves nothing to learn from."""
    (tmp_path / "short.txt").write_text((toy.root / "text.txt").read_text()[: 47 * 20])
    target = replace(toy.loaded.target, text=str(tmp_path / "short.txt"), train_tokens=400)
    loaded = replace(toy.loaded, target=target, contexts=load_contexts(target, toy.loaded.model))
    spec = RunSpec(target=target, experiments=("error-saes",), params=dict(SMALL), profile="paper-text")
    with pytest.raises(DataError, match=r"contexts of the text hold held-out tokens, so there is"):
        events_of(run(spec, loaded))


def test_presets_say_what_the_specification_says() -> None:
    paper, authors = recipe_of("paper"), recipe_of("authors")
    assert (paper.k, paper.expansion * 3584, paper.tokens, paper.seeds) == (32, 57_344, 100_000_000, 3)
    assert authors.expansion * 2304 == 36_864
    assert (authors.model, authors.layer, authors.l0) == ("gemma-2-2b", 12, 82.0)
    assert paper.rate_at(57_344) == pytest.approx(2e-4 / (57_344 / 16_384) ** 0.5)
    asked = recipe_of("paper", learning_rate=1e-3, k=8, control_seeds=0)
    assert (asked.rate_at(57_344), asked.k, asked.control_seeds) == (1e-3, 8, 0)


def test_without_controls_there_are_two_parts_and_a_preset_elsewhere_is_said(toy: Toy, tmp_path: Path) -> None:
    found = toy.one(
        "error-saes", folder=str(tmp_path), controls="off", preset="paper", seeds="1", **{**SMALL, "sae_tokens": "3000"}
    )
    assert list(found["result"]["parts"]) == list(PARTS[:2])
    assert found["controls"] == {} and found["result"]["structure"] == {}
    assert found["result"]["batch_tokens"] == int(0.98 * 8 * 42), "eight contexts of 42 positions"
    said = " ".join(found["warnings"])
    assert "belongs to gemma-2-9b, layer 20" in said and "With 1 seed(s)" in said
    find("error-saes").draw(json.loads(json.dumps(found)))


def test_geometric_median_is_where_no_step_shortens_the_way() -> None:
    points = torch.from_numpy(np.random.default_rng(0).standard_exponential((500, 3))).float()
    median = geometric_median(points)
    total = float((points - median).norm(dim=1).sum())
    for axis in torch.eye(3):
        for step in (-1e-2, 1e-2):
            assert float((points - median - step * axis).norm(dim=1).sum()) > total
    line = torch.tensor([[0.0], [1.0], [10.0]])
    assert float(geometric_median(line)) == pytest.approx(1.0, abs=1e-3), "in one dimension it is the median"


@pytest.mark.parametrize(
    ("interval", "by_seed", "answer"),
    [
        ([0.01, 0.09], [0.04, 0.05, 0.06], CONSISTENT),
        ([-0.01, 0.11], [0.0, 0.05, 0.1], CANNOT_TELL),
        ([-0.09, -0.01], [-0.04, -0.05, -0.06], CONTRADICTS),
        (None, [0.05], CANNOT_TELL),
        ([0.01, 0.09], [0.05, 0.05], CANNOT_TELL),
    ],
)
def test_c8_is_judged_by_the_spread_of_seeds(
    found: dict[str, Any], interval: list[float] | None, by_seed: list[float], answer: str
) -> None:
    changed = json.loads(json.dumps(found))
    changed["intervals"][BASE]["difference"] = interval
    changed["result"]["difference"] = {"fvu": float(np.mean(by_seed)), "by_seed": by_seed}
    verdict = next(each for each in evaluate({"error-saes-1": changed}) if each.id == "C8")
    assert verdict.verdict == answer
    assert verdict.value == pytest.approx(np.mean(by_seed))
