"""Whole runs on a toy model, against a recomputation that shares nothing with them but the files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from inspector.errors import DataError, ResourceError, UsageError
from inspector.events import Event, Measured, PassProgress, Warned
from inspector.runner import run, token_table
from inspector.sources.contexts import contexts_from
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.statistics.token_table import INDEX, SPLITS, VectorFile, require_room, size_of
from tests.toy import HEAD_DIM, HEADS, fit_toy_suite, write_toy_model, write_toy_sae, write_toy_suite

T = TypeVar("T")
Array = npt.NDArray[np.float64]
EXPERIMENTS = ("norm-prediction", "error-vector", "fvu-nonlinear")
D = 16


def finish(work: Generator[Event, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: T = stop.value
            return value


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_toy_model(root / "model", "gemma2")
    write_toy_suite(root / "suite", widths=(32, 64), l0s=(4,))
    write_toy_sae(root / "suite" / "jump", d_in=D, d_sae=48, threshold=1.5, hook_name="blocks.1.hook_resid_post")
    # hook_z is wider than d_model: a regression of the wrong width would be a shape error.
    write_toy_suite(root / "suite", d_in=HEADS * HEAD_DIM, site="attn", widths=(64,), l0s=(4,), seed=9)
    words = np.random.default_rng(0).integers(97, 123, size=(4000, 6), dtype=np.uint8)
    text = " ".join(bytes(word).decode() for word in words)
    (root / "text.txt").write_text(text)
    fit_toy_suite(root / "suite", root / "model", text)
    return root


def target_of(files: Path, **changes: Any) -> TargetSpec:
    base = TargetSpec(
        model=str(files / "model"),
        layers=(1,),
        suite=str(files / "suite"),
        text=str(files / "text.txt"),
        contexts=40,
        context_length=48,
        positions=(6, None),
        train_tokens=900,
        device="cpu",
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def loaded(files: Path) -> Loaded:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sae-lens imports a deprecated module of transformer-lens
        return finish(open_target(target_of(files)))


def measured(loaded: Loaded, *experiments: str, **changes: Any) -> list[dict[str, Any]]:
    return finish(run(RunSpec(target=loaded.target, experiments=experiments or EXPERIMENTS, **changes), loaded))


def scores(objects: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Every float of `saes` and `intervals`."""
    found = {}
    for each in objects:
        for row in each["saes"]:
            found |= {(row["sae"], key): value for key, value in row.items() if isinstance(value, float)}
        for sae, own in each["intervals"].items():
            found |= {(sae, f"{key}{end}"): ends[end] for key, ends in own.items() if ends for end in (0, 1)}
    return found


# ---- the independent recomputation ----


def raw_activations(files: Path, token_ids: Array) -> Array:
    """[c, t, d] residual after block 1, from transformers alone."""
    from transformers import Gemma2ForCausalLM

    model: Any = Gemma2ForCausalLM.from_pretrained(files / "model", attn_implementation="eager")
    with torch.no_grad():
        states = model(torch.from_numpy(token_ids), output_hidden_states=True).hidden_states
    return states[2].double().numpy()


def raw_reconstruction(folder: Path, x: Array) -> Array:
    """[n, d] of a sae-lens folder, written from the paper's equations in numpy."""
    weights = {name: value.astype(np.float64) for name, value in load_file(folder / "sae_weights.safetensors").items()}
    config = json.loads((folder / "cfg.json").read_text())
    if config["architecture"] == "topk":
        z = np.maximum((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0)
        kth = np.sort(z, axis=1)[:, -config["k"]][:, None]
        hidden = np.where(z >= kth, z, 0)
    else:
        z = x @ weights["W_enc"] + weights["b_enc"]
        hidden = np.where(z > weights["threshold"], np.maximum(z, 0), 0)
    return hidden @ weights["W_dec"] + weights["b_dec"]


def test_the_numbers_are_those_of_numpy_and_scikit_learn_from_raw_activations(files: Path, loaded: Loaded) -> None:
    """To 1e-6: model from transformers, SAE and decomposition in float64 numpy, fits and scores by scikit-learn."""
    objects = measured(loaded)
    ours = scores(objects)
    token_ids = loaded.contexts.token_ids.numpy()
    x = raw_activations(files, token_ids)
    train, test = loaded.plan.train.numpy(), loaded.plan.test.numpy()
    assert not (train.any(axis=1) & test.any(axis=1)).any()
    assert {row["n_train"] for row in objects[0]["saes"]} == {int(train.sum())}
    assert len(loaded.saes) == 3
    for sae in loaded.saes:
        assert sae.ref.path is not None
        x_train, x_test = x[train], x[test]
        e_train = x_train - raw_reconstruction(Path(sae.ref.path), x_train)
        e_test = x_test - raw_reconstruction(Path(sae.ref.path), x_test)
        linear = LinearRegression().fit(x_train, e_train).predict(x_test)
        norm = LinearRegression().fit(x_train, (e_train**2).sum(axis=1)).predict(x_test)
        variance = ((x_test - x_test.mean(axis=0)) ** 2).sum()
        expected = {
            "fvu": (e_test**2).sum() / variance,
            "fvu_nonlinear": ((e_test - linear) ** 2).sum() / variance,
            "r2_norm": r2_score((e_test**2).sum(axis=1), norm),
            "r2_pooled": r2_score(e_test, linear, multioutput="variance_weighted"),
            "r2_mean_dims": r2_score(e_test, linear),
        }
        for key, value in expected.items():
            assert ours[sae.ref.sae_id, key] == pytest.approx(value, abs=1e-6), (sae.ref.sae_id, key)


def test_paper_code_is_the_regression_without_intercept_on_a_token_split(files: Path, loaded: Loaded) -> None:
    """D-04, D-05, D-25: fvu over all tokens, no intercept; the split is by token."""
    from inspector.engine.plan import make_plan

    objects = measured(loaded, profile="paper-code")
    ours = scores(objects)
    plan = make_plan(loaded.contexts.token_ids, loaded.model.special_ids, (6, None), 900, "token", 0)
    assert objects[0]["saes"][0]["n_train"] == 900 and objects[0]["provenance"]["split"] == "token"
    assert objects[0]["provenance"]["intercept"] is False and "D-05" in objects[0]["definition"]
    x = raw_activations(files, loaded.contexts.token_ids.numpy())
    train, test, everything = (mask.numpy() for mask in (plan.train, plan.test, plan.included))
    for sae in loaded.saes:
        error = x - raw_reconstruction(Path(sae.ref.path or ""), x.reshape(-1, D)).reshape(x.shape)
        fit = LinearRegression(fit_intercept=False).fit(x[train], error[train])
        rest = error[everything] - fit.predict(x[everything])
        variance = ((x[everything] - x[everything].mean(axis=0)) ** 2).sum()
        assert ours[sae.ref.sae_id, "fvu_nonlinear"] == pytest.approx((rest**2).sum() / variance, abs=1e-6)
        assert ours[sae.ref.sae_id, "fvu"] == pytest.approx((error[everything] ** 2).sum() / variance, abs=1e-6)
        r2 = r2_score(error[test], fit.predict(x[test]), multioutput="variance_weighted")
        assert ours[sae.ref.sae_id, "r2_pooled"] == pytest.approx(r2, abs=1e-6)


# ---- what must not matter ----


@pytest.mark.parametrize("profile", ["careful", "paper-code"])
def test_batch_size_and_shards_change_no_number(loaded: Loaded, profile: str) -> None:
    """1e-6 is the promise; the model runs context by context, so only the order of float64 sums is left."""
    plain = scores(measured(loaded, profile=profile))
    for changes in ({"batch_size": 1}, {"batch_size": 7, "shards": 2}, {"batch_size": 40, "shards": 5}):
        other = scores(measured(loaded, profile=profile, **changes))
        assert other.keys() == plain.keys()
        assert max(abs(other[key] - plain[key]) for key in plain) < 1e-9


def test_experiments_run_alone_or_together_give_the_same_numbers(loaded: Loaded) -> None:
    together = measured(loaded)
    for i, name in enumerate(EXPERIMENTS):
        (alone,) = measured(loaded, name)
        assert alone == together[i]


def test_the_fingerprint_is_of_what_makes_the_number(loaded: Loaded) -> None:
    def fingerprint(**changes: Any) -> str:
        (found,) = measured(loaded, "error-vector", **changes)
        return str(found["provenance"]["fingerprint"])

    assert fingerprint() == fingerprint(batch_size=3, shards=2)
    others = [fingerprint(profile="paper-text"), fingerprint(null="affine"), fingerprint(params={"intercept": "off"})]
    assert len({fingerprint(), *others}) == 4


def test_the_provenance_says_what_made_it_and_not_where(loaded: Loaded) -> None:
    (found,) = measured(loaded, "norm-prediction")
    about = found["provenance"]
    assert about["tokens_sha256"] == loaded.contexts.sha256 and about["weights_hash"] == loaded.model.weights_hash
    assert about["saes"] == {sae.ref.sae_id: sae.weights_hash for sae in loaded.saes}
    assert about["effective_rank"] == D and 0 < about["q"] < 1 and about["n_train_per_d"] == about["n_train"] / D
    assert not {"device", "batch_size", "shards"} & set(about)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# ---- nulls ----


def test_s06_null_shuffle_predicts_nothing(loaded: Loaded) -> None:
    real, null = scores(measured(loaded)), scores(measured(loaded, null="shuffle"))
    for sae in loaded.saes:
        name = sae.ref.sae_id
        assert real[name, "r2_pooled"] > 0.1
        assert -0.06 < null[name, "r2_pooled"] < 0.0 and -0.1 < null[name, "r2_norm"] < 0.02
        assert null[name, "fvu"] == pytest.approx(real[name, "fvu"], abs=1e-6)
    again = scores(measured(loaded, null="shuffle", batch_size=3, shards=2))
    assert max(abs(again[key] - null[key]) for key in null) < 1e-6


def test_s10_null_affine_has_no_nonlinear_error(loaded: Loaded) -> None:
    null = scores(measured(loaded, null="affine"))
    for sae in loaded.saes:
        assert null[sae.ref.sae_id, "fvu"] > 0.01
        assert abs(null[sae.ref.sae_id, "fvu_nonlinear"]) < 1e-10


def test_null_gaussian_is_the_same_in_any_batches(loaded: Loaded) -> None:
    """x is drawn context by context from seeds of their own, so batches do not matter; the result says what it is."""
    objects = measured(loaded, null="gaussian")
    null = scores(objects)
    assert "Gaussian" in objects[0]["definition"] and objects[0]["provenance"]["null"] == "gaussian"
    again = scores(measured(loaded, null="gaussian", batch_size=3))
    assert max(abs(again[key] - null[key]) for key in null) < 1e-6


# ---- refusals ----


def test_too_few_tokens_are_refused_before_the_model_runs(files: Path, loaded: Loaded) -> None:
    few = finish(open_target(target_of(files, contexts=8)))
    message = r"needs 320 training tokens \(20 for each of the 16 dimensions at blocks\.1\.hook_resid_post\) and has "
    for work in (run(RunSpec(target=few.target, experiments=("all",)), few), token_table(few)):
        with pytest.raises(DataError, match=message):
            next(work)


def test_attention_hooks_count_heads_times_their_width(files: Path) -> None:
    attention = finish(open_target(target_of(files, site="attn", contexts=30, train_tokens=400)))
    with pytest.raises(DataError, match="needs 480 training tokens"):
        finish(run(RunSpec(target=attention.target, experiments=("all",)), attention))
    enough = finish(open_target(target_of(files, site="attn")))
    (found,) = measured(enough, "error-vector")
    assert found["saes"][0]["hook_name"] == "blocks.1.attn.hook_z" and found["provenance"]["d"] == HEADS * HEAD_DIM


def test_nothing_held_out_is_refused(loaded: Loaded) -> None:
    plan = replace(loaded.plan, train=loaded.plan.included, n_train=loaded.plan.n_train + loaded.plan.n_test, n_test=0)
    with pytest.raises(DataError, match="No token is left to test on"):
        measured(replace(loaded, plan=plan))


def test_an_activation_that_is_not_finite_is_named(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    context, position = loaded.plan.test.nonzero()[20].tolist()
    honest = loaded.model.activations

    def broken(tokens: torch.Tensor, hook_name: str) -> torch.Tensor:
        x = honest(tokens, hook_name).clone()
        hit = (tokens == loaded.contexts.token_ids[context]).all(dim=1)
        x[hit, position, 3] = torch.nan
        return x

    monkeypatch.setattr(loaded.model, "activations", broken)
    where = (
        rf"not finite at context {context}, position {position} "
        r"\(NaN; 1 of \d+ tokens of its batch; blocks\.1\.hook_resid_post, layer 1, float32\)\. Check the weights"
    )
    with pytest.raises(DataError, match=where):
        measured(loaded)


def test_unknown_experiments_and_parameters_are_refused_at_once(loaded: Loaded) -> None:
    for changes, message in (({}, "no experiment 'norm'"), ({"params": {"x": "1"}}, "'x' is not a parameter")):
        name = "norm" if not changes else "error-vector"
        with pytest.raises(UsageError, match=message):
            measured(loaded, name, **changes)


# ---- events and warnings ----


def test_progress_names_both_passes_and_ends_complete(loaded: Loaded) -> None:
    events = list(run(RunSpec(target=loaded.target, experiments=EXPERIMENTS, batch_size=5), loaded))
    passes = [event for event in events if isinstance(event, PassProgress)]
    assert [event.name for event in passes] == sorted(event.name for event in passes)
    for name, mask in (("moments", loaded.plan.train), ("scores", loaded.plan.test)):
        own = [event for event in passes if event.name == name]
        n_contexts = int(mask.any(dim=1).sum())
        assert [event.contexts_done for event in own] == [*range(5, n_contexts, 5), n_contexts]
        assert {event.contexts_total for event in own} == {n_contexts}
        assert own[-1].seconds_left == 0 and all(event.tokens_per_second > 0 for event in own)


def test_every_experiment_is_told_when_it_is_finished_the_shared_ones_before_the_expensive(loaded: Loaded) -> None:
    """theory-c1 measures for itself: it comes last, though it was asked for first."""
    names = ("theory-c1", "error-vector", "norm-prediction")
    work = run(RunSpec(target=loaded.target, experiments=names, params={"resamples": "20"}), loaded)
    events: list[Event] = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            objects: list[dict[str, Any]] = stop.value
            break
    told = [event for event in events if isinstance(event, Measured)]
    assert [event.index for event in told] == [1, 2, 0] and {event.total for event in told} == {3}
    assert [each["experiment"] for each in objects] == list(names)
    assert all(event.result == objects[event.index] for event in told)
    passes = [event.name for event in events[: events.index(told[1])] if isinstance(event, PassProgress)]
    assert set(passes) == {"moments", "scores"}  # the simulation's own progress comes after both


def test_each_context_goes_through_the_model_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    honest = loaded.model.activations

    def counted(tokens: torch.Tensor, hook_name: str) -> torch.Tensor:
        seen.append(len(tokens))
        return honest(tokens, hook_name)

    monkeypatch.setattr(loaded.model, "activations", counted)
    for profile in ("careful", "paper-text", "paper-code"):
        seen.clear()
        measured(loaded, profile=profile)
        assert sum(seen) == 40, profile


def test_beyond_the_bound_activations_are_computed_again_with_the_same_numbers(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scores(measured(loaded, profile="paper-code"))
    monkeypatch.setattr("inspector.statistics.passes.CACHE_BYTES", 20_000)
    assert scores(measured(loaded, profile="paper-code")) == pytest.approx(plain, abs=1e-9)


def test_few_held_out_contexts_are_warned_about(files: Path) -> None:
    few = finish(open_target(target_of(files, contexts=14)))
    (found,) = measured(few, "error-vector")
    assert any("contexts are held out, and an interval needs 10: none is given" in each for each in found["warnings"])
    assert all(ends is None for own in found["intervals"].values() for ends in own.values())
    assert all(row["r2_pooled"] is not None for row in found["saes"])
    assert any("the paper's share" in warning for warning in found["warnings"])
    assert len(found["warnings"]) == len(set(found["warnings"]))


# ---- the token table ----

COLUMNS = [
    *("context", "position", "token_id", "token", "split", "loss", "x_norm", "sae", "l0"),
    *("sae_error_norm", "linear_error_norm", "nonlinear_error_norm"),
]


def test_the_table_has_every_position_of_every_context_for_every_sae(files: Path, loaded: Loaded) -> None:
    table = finish(token_table(loaded, batch_size=7))
    assert table.column_names == COLUMNS and table.num_rows == 40 * 48 * 3
    columns = table.to_pydict()
    ids = [sae.ref.sae_id for sae in loaded.saes]
    assert columns["sae"] == ids * (40 * 48)
    assert columns["context"] == [c for c in range(40) for _ in range(48 * 3)]
    assert columns["position"] == [p for p in range(48) for _ in ids] * 40
    assert columns["token_id"][::3] == loaded.contexts.token_ids.flatten().tolist()
    for name, mask in (("train", loaded.plan.train), ("test", loaded.plan.test)):
        assert columns["split"][::3].count(name) == int(mask.sum())
    assert columns["split"].count("excluded") == 3 * int((~loaded.plan.included).sum())
    assert [i for i, loss in enumerate(columns["loss"][::3]) if loss is None] == [48 * c + 47 for c in range(40)]


def test_the_table_is_the_decomposition(files: Path, loaded: Loaded) -> None:
    """Norms against numpy and scikit-learn from raw files; 1e-4 relative: float32 against float64."""
    columns = finish(token_table(loaded)).to_pydict()
    x = raw_activations(files, loaded.contexts.token_ids.numpy())
    np.testing.assert_allclose(columns["x_norm"][::3], np.linalg.norm(x, axis=2).ravel(), rtol=1e-5)
    train = loaded.plan.train.numpy()
    for i, sae in enumerate(loaded.saes):
        error = x - raw_reconstruction(Path(sae.ref.path or ""), x.reshape(-1, D)).reshape(x.shape)
        linear = LinearRegression().fit(x[train], error[train]).predict(x.reshape(-1, D))
        rest = error.reshape(-1, D) - linear
        for name, expected in (
            ("sae_error_norm", error.reshape(-1, D)),
            ("linear_error_norm", linear),
            ("nonlinear_error_norm", rest),
        ):
            np.testing.assert_allclose(columns[name][i::3], np.linalg.norm(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_losses_are_those_of_transformers(files: Path, loaded: Loaded) -> None:
    from transformers import Gemma2ForCausalLM

    columns = finish(token_table(loaded)).to_pydict()
    model: Any = Gemma2ForCausalLM.from_pretrained(files / "model", attn_implementation="eager")
    with torch.no_grad():
        logits = model(loaded.contexts.token_ids).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), loaded.contexts.token_ids[:, 1:], reduction="none"
    )
    ours = np.array(columns["loss"][::3], dtype=float).reshape(40, 48)[:, :-1]
    np.testing.assert_allclose(ours, losses.numpy(), atol=1e-5)


def test_vectors_sum_to_x_and_are_numpys_row_by_row(files: Path, loaded: Loaded, tmp_path: Path) -> None:
    """x = x_hat + linear + nonlinear, with x and x_hat from raw files in float64; 1e-4 of the largest: float32."""
    from safetensors import safe_open

    ids = [sae.ref.sae_id for sae in loaded.saes]
    path = tmp_path / "v.safetensors"
    file = VectorFile(path, ("x", "error", "linear", "nonlinear"), ids, D, {"hook_name": "here"}, name=path.name)
    table = finish(token_table(loaded, batch_size=7, vectors=file)).to_pydict()
    n = 40 * 48
    assert file.finish() == path.stat().st_size
    assert 0 < path.stat().st_size - size_of(("x", "error", "linear", "nonlinear"), ids, n, D) < 4096
    with safe_open(path, framework="np") as opened:
        about = opened.metadata()
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
    assert set(found) == {*INDEX, "split", "x", *(f"{k}/{i}" for k in ("error", "linear", "nonlinear") for i in ids)}
    assert json.loads(about["saes"]) == ids and about["hook_name"] == "here"
    for name in INDEX:
        assert found[name].tolist() == table[name][::3]
    assert [SPLITS[split] for split in found["split"]] == table["split"][::3]
    x = raw_activations(files, loaded.contexts.token_ids.numpy()).reshape(n, D)
    close = partial(np.testing.assert_allclose, atol=1e-4 * np.abs(x).max())
    close(found["x"], x)
    train = loaded.plan.train.numpy().ravel()
    for i, sae in enumerate(loaded.saes):
        x_hat = raw_reconstruction(Path(sae.ref.path or ""), x)
        error, linear, rest = (
            found[f"{kind}/{ids[i]}"].astype(np.float64) for kind in ("error", "linear", "nonlinear")
        )
        close(x_hat + linear + rest, x)
        close(error, x - x_hat)
        close(linear, LinearRegression().fit(x[train], (x - x_hat)[train]).predict(x))
        assert np.abs(rest[~train].mean(axis=0)).max() > 0 and np.abs(linear - error).max() > 1e-3
        for kind, vectors in (("sae", error), ("linear", linear), ("nonlinear", rest)):  # the rows are the table's rows
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), table[f"{kind}_error_norm"][i::3], rtol=1e-4)
        assert json.loads(about["maps"])[ids[i]]["n_train"] == loaded.plan.n_train


def test_vectors_of_a_prompt_and_without_a_table(loaded: Loaded, tmp_path: Path) -> None:
    ids = [sae.ref.sae_id for sae in loaded.saes]
    text = "the model reads a token"
    given: dict[str, dict[str, Any]] = {"prompt": {"prompts": [text]}, "text": {"keep_rows": False}}
    for name, options in given.items():
        file = VectorFile(tmp_path / name, ("error",), ids, D, {}, name=name)
        table = finish(token_table(loaded, batch_size=4, vectors=file, **options))
        file.finish()
        found = load_file(tmp_path / name)
        n = len(loaded.model.encode(text)) if name == "prompt" else 40 * 48
        assert table.num_rows == 3 * (n if name == "prompt" else 4 * 48)  # of the text, no more than the first batch
        assert {key: tuple(value.shape) for key, value in found.items() if key not in (*INDEX, "split")} == {
            f"error/{sae_id}": (n, D) for sae_id in ids
        }
        norms = np.stack([np.linalg.norm(found[f"error/{sae_id}"], axis=1) for sae_id in ids], axis=1).ravel()
        np.testing.assert_allclose(norms[: table.num_rows], table["sae_error_norm"].to_numpy(), rtol=1e-5)


def test_vectors_that_find_no_room_are_refused_with_their_size(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"v would take 1,000,000,000 MB of the [\d,]+ MB left on its disk"):
        require_room(tmp_path / "v", 10**15, "v")
    with pytest.raises(ResourceError, match=r"would take .* MB"):
        VectorFile(tmp_path / "v", ("x",), ["a"], 4096, {}, name="v").begin(10**11, {})
    assert not (tmp_path / "v").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_vectors_on_a_disk_that_fills_on_the_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.statistics.token_table.require_room", lambda *_: None)
    file = VectorFile(Path("/dev/full"), ("x",), ["a"], 8, {}, name="v")
    for step in (lambda: file.begin(1000, {}), file.close):
        with pytest.raises(ResourceError, match=r"v could not be written: No space left on device\. Make room there"):
            step()
    file.close()


def test_a_prompt_that_is_no_unicode_is_mended_and_it_is_said(loaded: Loaded) -> None:
    """`--prompt $'caf\\xe9'` comes as a lone surrogate."""
    events: list[Event] = []
    work = token_table(loaded, prompts=["caf\udce9 noir"])
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            table = end.value
            break
    assert table["token_id"].to_pylist()[::3] == loaded.model.encode("caf\ufffd noir")
    said = "--prompt: 1 character was no valid UTF-8 or half a surrogate pair and became U+FFFD."
    assert Warned(message=said) in events


def test_a_prompt_is_scored_with_the_maps_of_the_text(loaded: Loaded) -> None:
    """The first context's own tokens as a prompt: the same norms as in the table of the text."""
    text = "the model reads a token"
    table = finish(token_table(loaded, prompts=[text])).to_pydict()
    assert table["token_id"][::3] == loaded.model.encode(text)
    assert set(table["split"]) == {"excluded"} and set(table["context"]) == {0}
    as_context = contexts_from([loaded.model.encode(text)], ["prompt"])
    with torch.inference_mode():
        x = loaded.model.activations(as_context.token_ids, loaded.hook_name)[0]
    np.testing.assert_allclose(table["x_norm"][::3], x.norm(dim=1), rtol=1e-6)
    with pytest.raises(DataError, match="The prompt is empty"):
        finish(token_table(loaded, prompts=[""]))
    with pytest.raises(DataError, match="takes 64"):
        finish(token_table(loaded, prompts=["word " * 200]))


def test_several_prompts_are_contexts_with_the_numbers_of_each_alone(loaded: Loaded) -> None:
    texts = ["the model reads a token", "of\ntwo lines"]
    together = finish(token_table(loaded, prompts=texts))
    for number, text in enumerate(texts):
        alone = finish(token_table(loaded, prompts=[text]))
        rows = together.filter(pc.equal(together["context"], number))
        assert rows.drop_columns("context") == alone.drop_columns("context")


@pytest.mark.parametrize("prompts", [[], ["the error"]])
def test_generated_tokens_have_the_numbers_of_a_full_rerun(loaded: Loaded, prompts: list[str]) -> None:
    """1e-4 relative; a cached step differs from a full pass by rounding only."""
    live = finish(token_table(loaded, prompts=prompts, generate=12, seed=3)).to_pydict()
    ids = live["token_id"][::3]
    start = loaded.model.encode(prompts[0]) if prompts else [loaded.model.bos_id]
    assert ids[: len(start)] == start and len(start) < len(ids) <= len(start) + 12
    # The same tokens as one context of the target's text, scored with maps fitted on the same plan.
    token_ids = loaded.contexts.token_ids.clone()
    context = int((~loaded.plan.train.any(dim=1)).nonzero()[0])
    token_ids[context, : len(ids)] = torch.tensor(ids)
    again = replace(loaded, contexts=replace(loaded.contexts, token_ids=token_ids))
    table = finish(token_table(again)).to_pydict()
    first = context * 48 * 3
    for name in ("x_norm", "sae_error_norm", "linear_error_norm", "nonlinear_error_norm"):
        np.testing.assert_allclose(live[name], table[name][first : first + len(live[name])], rtol=1e-4)
    losses = np.array(live["loss"][:-3], dtype=float)
    np.testing.assert_allclose(losses, table["loss"][first : first + len(losses)], atol=1e-4)
    assert live["loss"][-1] is None
    assert live["l0"] == table["l0"][first : first + len(live["l0"])]


def test_sampling_repeats_with_its_seed(loaded: Loaded) -> None:
    def sampled(seed: int) -> Iterator[int]:
        return iter(finish(token_table(loaded, generate=12, seed=seed)).to_pydict()["token_id"])

    assert list(sampled(1)) == list(sampled(1)) != list(sampled(2))


def test_a_simulation_opens_no_target_and_is_the_same_beside_one(loaded: Loaded) -> None:
    names, params = ("theory-c1", "synthetic-random"), {"resamples": "20", "samples": "300", "draws": "1000"}
    target = TargetSpec(model="no-such-model", seed=3)
    alone = finish(run(RunSpec(target=target, experiments=names, params=params), None))
    assert [each["experiment"] for each in alone] == list(names)
    assert all(each["saes"] == [] and "model" not in each["provenance"] for each in alone)
    target = replace(loaded.target, seed=3)
    beside = finish(run(RunSpec(target=target, experiments=("error-vector", *names), params=params), loaded))
    assert beside[1:] == alone and beside[0]["provenance"]["model"]
    nulled = finish(run(RunSpec(target=target, experiments=names, params=params, null="shuffle"), None))
    assert "does not reach it" in nulled[0]["definition"]
    assert nulled[0]["provenance"]["fingerprint"] != alone[0]["provenance"]["fingerprint"]
