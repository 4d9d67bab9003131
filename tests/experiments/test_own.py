"""Experiments that measure for themselves, against numpy, scikit-learn and transformers from the same files."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from inspector.drawing.figures import Bands, Curve, GroupedBars, Table
from inspector.engine.plan import random_part
from inspector.errors import TargetError, UsageError
from inspector.experiments import find
from inspector.runner import run
from inspector.spec import RunSpec
from tests.experiments.own import Array, Toy, decoded, finish, hidden, opened, weights

ALL = (
    "ce-splice", "cross-component", "dark-matter-breakdown", "probe-vs-latents", "pursuit", "synthetic-random",
    "synthetic-sae", "theory-c1",
)  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return opened(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def results(toy: Toy) -> dict[str, dict[str, Any]]:
    """Every experiment of this file once; `tokens=0` takes all the toy has."""
    found = toy.run(*ALL, tokens="0", features="2000", dims="20", samples="4000", draws="4000", contexts="4")
    return {each["experiment"]: each for each in found}


@pytest.fixture(scope="module")
def published(toy: Toy) -> dict[str, dict[str, Any]]:
    names = ("cross-component", "dark-matter-breakdown", "pursuit", "synthetic-sae", "probe-vs-latents")
    return {each["experiment"]: each for each in toy.run(*names, profile="paper-code", tokens="0")}


def pursued(folder: Any, x: Array) -> Array:
    """[n, d] by gradient pursuit as the specification writes it, with a dense code, one token at a time."""
    w = weights(folder)
    lengths = np.linalg.norm(w["W_dec"], axis=1, keepdims=True)
    rows, made = w["W_dec"] / lengths, np.zeros_like(x)
    targets = (hidden(folder, x) > 0).sum(axis=1)
    for i, u in enumerate(x - w["b_dec"]):
        code = np.zeros(len(rows))
        for _ in range(targets[i]):
            rest = u - code @ rows
            g = rows @ rest
            active = code > 0
            active[np.argmax(np.where(active, -np.inf, g))] = True
            g = g * active
            direction = g @ rows
            code = np.maximum(code + (direction @ rest) / (direction @ direction) * g, 0)
        made[i] = code @ rows + w["b_dec"]
    return made


def fvus(toy: Toy, x: Array, x_hat: Array) -> tuple[float, float]:
    """FVU and nonlinear FVU on held-out tokens; x, x_hat [c, t, d]."""
    train, test = toy.train, toy.test
    fitted = LinearRegression().fit(x[train], (x - x_hat)[train])
    error = (x - x_hat)[test]
    variance = ((x[test] - x[test].mean(axis=0)) ** 2).sum()
    return float((error**2).sum() / variance), float(((error - fitted.predict(x[test])) ** 2).sum() / variance)


@pytest.mark.parametrize("experiment", ALL)
def test_result_is_json_and_draws_itself(results: dict[str, dict[str, Any]], experiment: str) -> None:
    stored = json.loads(json.dumps(results[experiment], allow_nan=False))
    assert stored["controls"]
    figures = find(experiment).draw(stored)
    assert any(isinstance(figure, Table) for figure in figures)
    assert any(isinstance(figure, Curve | Bands | GroupedBars) for figure in figures)
    for figure in figures:
        assert figure.title
        if isinstance(figure, Table):
            assert all(len(row) == len(figure.columns) for row in figure.rows)
        if isinstance(figure, Curve):
            assert all(len(series.x) == len(series.y) for series in figure.series)


def test_pursuit_and_breakdown_are_measured_once_for_both(results: dict[str, dict[str, Any]]) -> None:
    for one, other in zip(results["pursuit"]["saes"], results["dark-matter-breakdown"]["saes"], strict=True):
        assert one["fvu_nonlinear_pursuit"] == other["fvu_nonlinear_pursuit"]


def test_pursuit_is_numpys(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """To 1e-4: float32 codes against float64."""
    x = toy.raw["resid"]
    for row, width in zip(results["pursuit"]["saes"], toy.widths, strict=True):
        folder = toy.folder(toy.layer, "resid", width)
        plain = fvus(toy, x, decoded(folder, hidden(folder, x)))
        flat = x.reshape(-1, x.shape[-1])
        better = fvus(toy, x, pursued(folder, flat).reshape(x.shape))
        ours = (row["fvu"], row["fvu_nonlinear"], row["fvu_pursuit"], row["fvu_nonlinear_pursuit"])
        assert ours == pytest.approx((*plain, *better), abs=1e-4)
        assert row["fvu_decrease_percent"] == pytest.approx(100 * (1 - better[0] / plain[0]), abs=0.05)
        assert row["l0_pursuit"] <= row["l0"] + 1e-9


def test_breakdown_is_scipys_fit_of_those_points(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    found = results["dark-matter-breakdown"]["result"]
    values = np.array([row["fvu"] for row in results["dark-matter-breakdown"]["saes"]])
    scaled = np.array(toy.widths) / toy.widths[0]
    best = min(
        (
            least_squares(
                lambda p: p[0] + p[1] * scaled ** -p[2] - values,
                (c, 0.1, m),
                bounds=([0, 0, 1e-3], [1, 5, 8]),
                xtol=1e-14,
                ftol=1e-14,
                gtol=1e-14,
            )
            for c in (0.0, 0.1)
            for m in (0.1, 1.0, 3.0)
        ),
        key=lambda fit: float(fit.cost),
    )
    rest = np.sqrt(2 * best.cost / len(values))
    assert found["fit_rest"] <= rest + 1e-6
    assert found["mean_fvu_nonlinear"] == pytest.approx(
        np.mean([row["fvu_nonlinear"] for row in results["dark-matter-breakdown"]["saes"]])
    )
    assert found["floor_interval"][0] <= found["floor_interval"][1]


def test_components_are_scikit_learns(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """To 1e-4."""
    found = results["cross-component"]["result"]
    folder = toy.folder(toy.layer, "resid", toy.companion)  # as wide as its companions
    assert found["sae"] == folder.relative_to(toy.root / "suite").as_posix()
    train, test, x = toy.train, toy.test, toy.raw["resid"]
    x_hat = decoded(folder, hidden(folder, x))
    error = x - x_hat
    linear = LinearRegression().fit(x[train], error[train])
    parts = {name: linear.predict(x[mask]) for name, mask in (("train", train), ("test", test))}
    regressors = {"own": x_hat}
    layer = toy.layer
    for name, at, site in (("previous", layer - 1, "resid"), ("mlp", layer, "mlp"), ("attn", layer, "attn")):
        raw = toy.raw["previous" if name == "previous" else name]
        regressors[name] = decoded(
            toy.folder(at, site, toy.companion), hidden(toy.folder(at, site, toy.companion), raw)
        )
    regressors["joint"] = np.concatenate([regressors[name] for name in ("previous", "mlp", "attn")], axis=-1)
    for name, value in regressors.items():
        for target, y_train, y_test in (
            ("sae_error", error[train], error[test]),
            ("linear_error", parts["train"], parts["test"]),
            ("nonlinear_error", error[train] - parts["train"], error[test] - parts["test"]),
        ):
            predicted = LinearRegression().fit(value[train], y_train).predict(value[test])
            assert found["r2_mean_dims"][name][target] == pytest.approx(r2_score(y_test, predicted), abs=1e-4)
            assert found["r2_pooled"][name][target] == pytest.approx(
                r2_score(y_test, predicted, multioutput="variance_weighted"), abs=1e-4
            )
    increment = found["r2_mean_dims"]["joint"]["sae_error"] - found["r2_mean_dims"]["previous"]["sae_error"]
    assert found["increment_r2_mean_dims"]["sae_error"] == pytest.approx(increment)


def test_other_regressors_are_scikit_learns(toy: Toy) -> None:
    """Activations, and each component's own error and its parts; to 1e-4."""
    kinds = ("activation", "sae_error", "linear_error", "nonlinear_error")
    found = toy.one("cross-component", regressors=",".join(kinds), tokens="0")["result"]["r2_mean_dims"]
    folder = toy.folder(toy.layer, "resid", toy.companion)
    train, test, x = toy.train, toy.test, toy.raw["resid"]
    error = x - decoded(folder, hidden(folder, x))
    places = {"previous": (toy.layer - 1, "resid"), "mlp": (toy.layer, "mlp"), "attn": (toy.layer, "attn")}
    values: dict[str, Array] = {"own activation": x}
    for name, (layer, site) in places.items():
        raw, own = toy.raw[name], toy.folder(layer, site, toy.companion)
        rest = raw - decoded(own, hidden(own, raw))
        linear = LinearRegression().fit(raw[train], rest[train]).predict(raw.reshape(-1, raw.shape[-1]))
        linear = linear.reshape(raw.shape)
        for kind, value in zip(kinds, (raw, rest, linear, rest - linear), strict=True):
            values[f"{name} {kind}"] = value
    for kind in kinds:
        values[f"joint {kind}"] = np.concatenate([values[f"{name} {kind}"] for name in places], axis=-1)
    assert set(found) == set(values)
    for name, value in values.items():
        predicted = LinearRegression().fit(value[train], error[train]).predict(value[test])
        assert found[name]["sae_error"] == pytest.approx(r2_score(error[test], predicted), abs=1e-4), name
    with pytest.raises(UsageError, match="'linaer_error' is not known"):
        toy.one("cross-component", regressors="linaer_error")


def test_targets_are_the_activation_and_the_reconstruction_too(toy: Toy) -> None:
    """Least squares in NumPy, whole-matrix; to 1e-4. What x says of itself is 1, and the two must not be mixed up."""
    found = toy.one("cross-component", targets="activation,sae", regressors="sae,activation", tokens="0")
    assert "of x and Sae(x) of one SAE" in found["definition"] and "by construction" in found["definition"]
    folder = toy.folder(toy.layer, "resid", toy.companion)
    previous = toy.folder(toy.layer - 1, "resid", toy.companion)
    train, test, x = toy.train, toy.test, toy.raw["resid"]
    x_hat, earlier = decoded(folder, hidden(folder, x)), toy.raw["previous"]
    regressors = {
        "own": x_hat,
        "own activation": x,
        "previous": decoded(previous, hidden(previous, earlier)),
        "previous activation": earlier,
    }
    for name, value in regressors.items():
        ones = np.ones((*value.shape[:2], 1))
        wide = np.concatenate([value, ones], axis=-1)
        for target, y in (("activation", x), ("sae", x_hat)):
            weight = np.linalg.lstsq(wide[train], y[train], rcond=None)[0]
            rest = ((y[test] - wide[test] @ weight) ** 2).sum(axis=0)
            total = ((y[test] - y[test].mean(axis=0)) ** 2).sum(axis=0)
            scores = found["result"]["r2_mean_dims"][name], found["result"]["r2_pooled"][name]
            assert set(scores[0]) == {"activation", "sae"}
            assert scores[0][target] == pytest.approx(1 - (rest / total).mean(), abs=1e-4), (name, target)
            assert scores[1][target] == pytest.approx(1 - rest.sum() / total.sum(), abs=1e-4), (name, target)
    own = found["result"]["r2_mean_dims"]
    assert (own["own activation"]["activation"], own["own"]["sae"]) == pytest.approx((1, 1), abs=1e-6)
    assert own["own"]["activation"] < 0.999 and own["own activation"]["sae"] < 0.999
    table, panels = find("cross-component").draw(found)  # type: ignore[arg-type]
    assert [column.title for column in table.columns[1::2]] == ["x mean dims", "Sae(x) mean dims"]  # type: ignore[union-attr]
    assert panels.groups == ("x", "Sae(x)")  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="'targets=x': 'x' is not known"):
        toy.one("cross-component", targets="x")


def test_d22_previous_layers_mlp_is_another_regressor(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """With a suite that lacks attention there, which is said and left out."""
    found = toy.one("cross-component", components="previous", tokens="0")
    assert found["result"]["companions"]["mlp"]["hook_name"] == "blocks.0.hook_mlp_out"
    assert found["controls"]["companions"]["missing"] == ["attn"] and any("attn" in each for each in found["warnings"])
    here = results["cross-component"]["result"]["r2_mean_dims"]["mlp"]["sae_error"]
    assert abs(found["result"]["r2_mean_dims"]["mlp"]["sae_error"] - here) > 1e-3


def test_probe_is_numpys(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """To 1e-4 relative of the largest dot product."""
    x = toy.raw["resid"][toy.train]
    found = results["probe-vs-latents"]
    widest = toy.widths[-1]
    folder = toy.folder(toy.layer, "resid", widest)
    w, rows = hidden(folder, x), weights(folder)["W_dec"]
    s = w @ rows
    probe = LinearRegression().fit(s, (s**2).sum(axis=1))
    ever = np.flatnonzero((w > 0).any(axis=0))
    when_active = w.sum(axis=0)[ever] / (w > 0).sum(axis=0)[ever]
    order = ever[np.argsort(-when_active, kind="stable")]  # as the public code orders Fig. 14
    dot = (rows @ probe.coef_)[order]
    result = found["result"]
    assert result["left_out"] == widest - len(order)
    np.testing.assert_allclose(result["dot"], dot, atol=1e-4 * np.abs(dot).max())
    mean_active = w.sum(axis=0)[order] / (w > 0).sum(axis=0)[order]
    np.testing.assert_allclose(result["mean_active"], mean_active, rtol=1e-4)
    np.testing.assert_allclose(result["power_ratio"], (w**2).mean(axis=0)[order] / w.mean(axis=0)[order], rtol=1e-4)
    ols = [np.cov(w[:, i], w[:, i] ** 2)[0, 1] / w[:, i].var(ddof=1) for i in order]
    np.testing.assert_allclose(result["ols"], ols, rtol=1e-3)
    frequency = (w > 0).mean(axis=0)[order]
    line = LinearRegression().fit(mean_active[:, None], dot, sample_weight=frequency)
    row = found["saes"][-1]
    assert row["slope"] == pytest.approx(line.coef_[0], rel=1e-3)
    assert row["r2"] == pytest.approx(r2_score(dot, mean_active, sample_weight=frequency), abs=1e-3)
    once = LinearRegression().fit(mean_active[:, None], dot)
    assert row["slope_unweighted"] == pytest.approx(once.coef_[0], rel=1e-3) != row["slope"]
    low, high = found["intervals"][row["sae"]]["slope_unweighted"]
    assert low < row["slope_unweighted"] < high
    assert row["r2_probe"] == pytest.approx(probe.score(s, (s**2).sum(axis=1)), abs=1e-4)
    window = result["window"]
    assert window == 10 and result["dot_smoothed"][20] == pytest.approx(np.mean(dot[15:25]), rel=1e-3)


def test_d20_the_window_of_the_code(
    toy: Toy, results: dict[str, dict[str, Any]], published: dict[str, dict[str, Any]]
) -> None:
    wider = toy.one("probe-vs-latents", window="100", tokens="0")["result"]["dot_smoothed"]
    assert np.abs(np.array(wider) - results["probe-vs-latents"]["result"]["dot_smoothed"]).max() > 1e-3
    assert published["probe-vs-latents"]["result"]["window"] == 100


def test_without_resamples_there_are_no_intervals(toy: Toy) -> None:
    sizes = {"features": "2000", "dims": "20", "samples": "3000", "draws": "3000", "contexts": "2"}
    for found in toy.run(*ALL, resamples="0", tokens="0", **sizes):
        if found["experiment"] not in ("theory-c1", "probe-vs-latents"):  # theirs are not of contexts
            assert all(ends is None for own in found["intervals"].values() for ends in own.values())
        assert find(found["experiment"]).draw(json.loads(json.dumps(found, allow_nan=False)))


def test_splices_are_transformers_own(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """To 1e-3 nats: cross-entropy of the same replacement through a plain hook on the layer."""
    x = toy.raw["resid"]
    train, token_ids = toy.train, toy.loaded.contexts.token_ids
    included = toy.loaded.plan.included.numpy()
    held_out = np.flatnonzero(np.asarray(toy.test.any(axis=1)))
    contexts = random_part(held_out.tolist(), 4, toy.loaded.target.seed)
    assert contexts != held_out[:4].tolist()
    folder = toy.folder(toy.layer, "resid", toy.companion)
    x_hat = decoded(folder, hidden(folder, x))
    linear = LinearRegression().fit(x[train], (x - x_hat)[train])
    result = results["ce-splice"]
    row = next(row for row in result["saes"] if row["d_sae"] == toy.companion)
    losses: dict[str, list[Array]] = {}
    divergences: dict[str, list[Array]] = {}
    sums = {"error": 0.0, "linear": 0.0, "nonlinear": 0.0}
    for c in contexts:
        part = linear.predict(x[c])
        arms = {"original": x[c], "sae": x_hat[c], "linear": x_hat[c] + part, "nonlinear": x[c] - part}
        plain = None
        for arm, value in arms.items():
            replaced = np.where(included[c][:, None], value, x[c])
            logits = spliced(toy, token_ids[c : c + 1], replaced).log_softmax(dim=-1)
            plain = logits if plain is None else plain
            loss = -logits[:-1].gather(1, token_ids[c, 1:, None])[:, 0].numpy()
            losses.setdefault(arm, []).append(loss[included[c][:-1]])
            kl = (plain.exp() * (plain - logits)).sum(dim=-1).numpy()
            divergences.setdefault(arm, []).append(kl[included[c]])
        error = (x[c] - x_hat[c])[included[c]]
        sums["error"] += (error**2).sum()
        sums["linear"] += (part[included[c]] ** 2).sum()
        sums["nonlinear"] += ((error - part[included[c]]) ** 2).sum()
    ce = {arm: float(np.concatenate(values).mean()) for arm, values in losses.items()}
    assert result["result"]["ce_original"] == pytest.approx(ce["original"], abs=1e-3)
    for arm in ("sae", "linear", "nonlinear"):
        assert row[f"ce_{arm}"] == pytest.approx(ce[arm], abs=1e-3)
        assert row[f"kl_{arm}"] == pytest.approx(float(np.concatenate(divergences[arm]).mean()), abs=1e-3)
    assert row["variance_recovered_linear"] == pytest.approx(100 * (1 - sums["nonlinear"] / sums["error"]), abs=0.01)
    assert row["recovered_linear"] == pytest.approx(
        100 * (row["ce_sae"] - row["ce_linear"]) / (row["ce_sae"] - result["result"]["ce_original"])
    )


def spliced(toy: Toy, tokens: torch.Tensor, value: Array) -> torch.Tensor:
    """Logits [t, v] of transformers' own model with the layer's output replaced."""
    replacement = torch.from_numpy(value).float()[None]

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return (replacement, *output[1:]) if isinstance(output, tuple) else replacement

    handle = toy.model.model.layers[toy.layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits: torch.Tensor = toy.model(tokens).logits[0].double()
            return logits
    finally:
        handle.remove()


def test_planted_noise_is_scikit_learns(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """To 1e-4: the same draws added to reconstructions made from the files, fitted and scored by scikit-learn."""
    found = results["synthetic-sae"]["result"]
    folder = next(
        path
        for path in (toy.folder(toy.layer, "resid", width) for width in toy.widths)
        if found["sae"] == path.relative_to(toy.root / "suite").as_posix()
    )
    x = toy.raw["resid"]
    clean = decoded(folder, hidden(folder, x))
    again = hidden(folder, clean)
    noise = [np.random.default_rng((toy.loaded.target.seed, c)) for c in range(len(x))]
    drawn = [[rng.standard_normal(x.shape[1:]) for _ in range(2)] for rng in noise]
    planted, introduced = (np.stack([each[i] for each in drawn]) for i in (0, 1))
    train, test, unit = toy.train, toy.test, found["unit"]
    included = train | test
    variance = clean[included].var(axis=0).sum()
    assert unit == pytest.approx(np.sqrt(0.05 * variance / x.shape[-1]), rel=1e-4)

    def shares(a: float, b: float, codes: Array) -> tuple[float, float]:
        data = clean + a * unit * planted
        error = data - (decoded(folder, codes) + b * unit * introduced)
        rest = error[test] - LinearRegression().fit(data[train], error[train]).predict(data[test])
        total = ((data[test] - data[test].mean(axis=0)) ** 2).sum()
        return float((error[test] ** 2).sum() / total), float((rest**2).sum() / total)

    for i, a in enumerate(found["levels"]):
        for j, b in enumerate(found["levels"]):
            fvu, nonlinear = shares(a, b, again)
            assert found["dense"][i][j] == pytest.approx(fvu - nonlinear, abs=1e-4)
            assert found["introduced"][i][j] == pytest.approx(nonlinear, abs=1e-4)
    levels = np.array(found["levels"])
    assert found["correlations"]["dense noise, estimated dense"] == pytest.approx(
        np.corrcoef(np.repeat(levels, 5), np.array(found["dense"]).ravel())[0, 1], abs=1e-6
    )
    order = np.argsort(hidden(folder, x)[included].sum(axis=0), kind="stable")
    for panel in found["panels"]:
        for place, percent in enumerate(panel["ablated"]):
            codes = again.copy()
            codes[..., order[: len(order) * percent // 100]] = 0
            fvu, nonlinear = shares(panel["dense"], panel["introduced"], codes)
            assert panel["fvu"][place] == pytest.approx(fvu, abs=1e-4)
            assert panel["fvu_nonlinear"][place] == pytest.approx(nonlinear, abs=1e-4)


def test_the_ceiling_of_table_one(results: dict[str, dict[str, Any]]) -> None:
    found = results["synthetic-sae"]["controls"]["ceiling"]["correlation"]
    grid = np.repeat(np.arange(5.0), 5)
    assert found == pytest.approx(np.corrcoef(grid, grid**2)[0, 1]) and found == pytest.approx(0.959, abs=5e-4)


def used(result: dict[str, Any]) -> float:
    """Latents that the pursuits of all SAEs use together, per token."""
    return float(sum(row["l0_pursuit"] for row in result["saes"]))


def test_d17_and_d04_move_the_pursuit(results: dict[str, dict[str, Any]], published: dict[str, dict[str, Any]]) -> None:
    """The profile uses fewer latents, scores all tokens and fits without an intercept."""
    assert published["pursuit"]["result"]["variant"] == "paper-code"
    assert used(published["pursuit"]) < used(results["pursuit"])
    for careful, code in zip(results["pursuit"]["saes"], published["pursuit"]["saes"], strict=True):
        assert code["fvu_nonlinear"] != pytest.approx(careful["fvu_nonlinear"], rel=1e-3)


def test_d17_alone(toy: Toy, results: dict[str, dict[str, Any]]) -> None:
    """At the same tokens and fit: active latents are picked again, so fewer are used and more is left."""
    code = toy.one("pursuit", variant="paper-code", tokens="0")
    refit = toy.one("pursuit", variant="refit", tokens="0")["saes"]
    assert used(code) < used(results["pursuit"])
    for careful, other, again in zip(results["pursuit"]["saes"], code["saes"], refit, strict=True):
        assert other["fvu_pursuit"] > careful["fvu_pursuit"]
        assert other["fvu"] == careful["fvu"] and again["fvu_pursuit"] <= careful["fvu_pursuit"]


def test_d02_d07_d27_move_the_breakdown(
    results: dict[str, dict[str, Any]], published: dict[str, dict[str, Any]]
) -> None:
    careful, code = (each["dark-matter-breakdown"] for each in (results, published))
    assert not careful["controls"]["same_tokens"]["as_published"] and code["controls"]["same_tokens"]["as_published"]
    assert "Adam" in code["result"]["fit"] and "profile least squares" in careful["result"]["fit"]
    assert code["result"]["fit_rest"] > code["controls"]["careful_fit"]["rest"]
    # Its horizontal fit is over positions from 1 on, its rows and the pursuit over the others.
    own = np.mean([row["fvu_nonlinear"] for row in code["saes"]])
    assert abs(code["result"]["mean_fvu_nonlinear"] - own) > 1e-4


def test_d05_moves_the_components(results: dict[str, dict[str, Any]], published: dict[str, dict[str, Any]]) -> None:
    careful, code = (each["cross-component"]["result"]["r2_mean_dims"]["mlp"] for each in (results, published))
    assert abs(careful["sae_error"] - code["sae_error"]) > 1e-3


def test_d21_moves_planted_noise(results: dict[str, dict[str, Any]], published: dict[str, dict[str, Any]]) -> None:
    """In sample, the introduced noise is underestimated by what the map absorbs."""
    careful, code = (each["synthetic-sae"]["result"] for each in (results, published))
    assert code["n_train"] == code["n_test"] and code["unit"] == 1.0
    assert careful["n_train"] + careful["n_test"] == code["n_train"]


def test_wrong_parameters_are_answered(toy: Toy) -> None:
    with pytest.raises(UsageError, match=r"'variant=carefull' is not known\. Nearest: careful"):
        toy.one("pursuit", variant="carefull")
    with pytest.raises(TargetError, match=r"no hook 'blocks\.1\.hook_resid_pots'"):
        toy.one("ce-splice", hook="blocks.1.hook_resid_pots")
    with pytest.raises(TargetError, match="'sae=layer_1/resid' is not among"):
        toy.one("cross-component", sae="layer_1/resid")
    with pytest.raises(UsageError, match=r"'encode=noise' is not known\. Nearest: noisy"):
        toy.one("synthetic-sae", encode="noise")


def test_a_null_is_said_not_to_reach_it(toy: Toy) -> None:
    """And does not: the same numbers with x or the SAEs replaced for the shared passes."""
    plain = toy.one("cross-component", tokens="0")
    spec = RunSpec(
        target=toy.loaded.target, experiments=("cross-component",), params={"resamples": "40"}, null="gaussian"
    )
    null = finish(run(spec, toy.loaded))[0]
    assert "--null gaussian does not reach it" in null["definition"]
    for name, scores in plain["result"]["r2_mean_dims"].items():
        assert null["result"]["r2_mean_dims"][name] == pytest.approx(scores, abs=1e-9)


def test_saes_that_were_not_looked_at_have_no_row(toy: Toy) -> None:
    """Of three SAEs of one width the pursuit takes the one nearest its L0; the splices take all of the narrowest."""
    twins = tuple(
        renamed(sae, sae_id=f"{sae.ref.sae_id}{suffix}", nominal_l0=l0)
        for sae in toy.loaded.saes
        for suffix, l0 in (("", 4.0), ("-twin", 8.0))
    )
    more = Toy(toy.root, dataclasses.replace(toy.loaded, saes=twins))
    found = more.run("pursuit", "ce-splice", l0="8", tokens="0", contexts="1")
    assert [row["nominal_l0"] for row in found[0]["saes"]] == [8.0, 8.0, 8.0]
    assert [(row["d_sae"], row["nominal_l0"]) for row in found[1]["saes"]] == [
        (32, 4.0),
        (32, 8.0),
        (64, 8.0),
        (128, 8.0),
    ]


def renamed(sae: Any, **changes: Any) -> Any:
    """The same SAE under another name."""
    other = copy.copy(sae)
    other.ref = dataclasses.replace(sae.ref, **changes)
    return other


def test_fewer_than_three_widths_cannot_be_fitted(toy: Toy) -> None:
    two = dataclasses.replace(toy.loaded, saes=toy.loaded.saes[:2])
    found = Toy(toy.root, two).one("dark-matter-breakdown", tokens="0")
    assert found["result"]["floor"] is None and found["result"]["bands"] is None
    assert any("three widths" in each for each in found["warnings"])
    assert find("dark-matter-breakdown").draw(found)  # type: ignore[arg-type]
