"""The command line as scripts see it: keys, numbers, exit codes, streams. Checked from outside.

The numbers are recomputed with transformers, NumPy and scikit-learn from the token ids and the split that
`dm-inspect tokens` prints; nothing of the package's own arithmetic is used for that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.cli.failures import run_command
from inspector.cli.main import dm_inspect
from tests import toy

D_MODEL, N_LAYERS, CONTEXT = 16, 3, 64
CONTEXTS = 30
"""Of which 12 are held out: an interval needs ten."""
LAYER = 1
EXPERIMENTS = ("norm-prediction", "error-vector", "fvu-nonlinear")
TOP_KEYS = {"experiment", "profile", "definition", "provenance", "saes", "result", "intervals", "controls", "warnings"}
SAE_KEYS = {"sae", "layer", "hook_name", "d_sae", "nominal_l0", "l0", "n_train", "n_test"}
MEASURED = {
    "norm-prediction": {"r2_norm"},
    "error-vector": {"r2_pooled", "r2_mean_dims"},
    "fvu-nonlinear": {"fvu", "fvu_nonlinear"},
}
TOKEN_KEYS = {
    "context", "position", "token_id", "token", "split", "loss", "x_norm",
    "sae", "l0", "sae_error_norm", "linear_error_norm", "nonlinear_error_norm",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


def no_app(_request: object) -> int:
    raise AssertionError("the app was opened without a terminal")


@pytest.fixture(scope="module")
def libraries() -> None:
    """Imported once, without what transformer-lens and sae-lens then say about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens  # noqa: F401
        import transformer_lens  # noqa: F401


@pytest.fixture
def dm(libraries, capfd, monkeypatch, tmp_path):
    """Runs one command in this process; its streams are the file descriptors, so C libraries cannot hide there."""
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(tmp_path / "runtime"))

    def run(*args: object) -> Answer:
        capfd.readouterr()
        code = run_command(dm_inspect, [str(arg) for arg in args], open_app=no_app)
        out, err = capfd.readouterr()
        return Answer(int(code), out, err)

    return run


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, ...], Answer]:
    return {}


@pytest.fixture
def told(dm, answers):
    """What a command said when it ran first: for tests that only read its answer."""

    def ask(*args: object) -> Answer:
        words = tuple(str(arg) for arg in args)
        if words not in answers:
            answers[words] = dm(*words)
        return answers[words]

    return ask


@dataclass(frozen=True)
class World:
    root: Path

    def target(self, kind: str = "gemma2", site: str = "resid", **changes: object) -> list[str]:
        options: dict[str, object] = {
            "model": self.root / kind,
            "layer": LAYER,
            "site": site,
            "suite": self.root / f"suite-{kind}-{site}",
            "text": self.root / "text.txt",
            "contexts": CONTEXTS,
            "context-length": CONTEXT,
            "device": "cpu",
        }
        options.update({name.replace("_", "-"): value for name, value in changes.items()})
        return [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    words = ["error", "token", "the", "linear", "model", "café", "日本", "x = 1", "part,", "\n", "read"]
    text = " ".join(rng.choice(words, size=6000))
    for kind in ("gemma2", "llama"):
        toy.write_toy_model(root / kind, kind, n_layers=N_LAYERS, d_model=D_MODEL, context=CONTEXT)
        for site, d_in in (("resid", D_MODEL), ("mlp", D_MODEL), ("attn", toy.HEADS * toy.HEAD_DIM)):
            suite = toy.write_toy_suite(root / f"suite-{kind}-{site}", d_in=d_in, layers=(LAYER,), site=site)
            toy.fit_toy_suite(suite, root / kind, text)
    (root / "text.txt").write_text(text, encoding="utf-8")
    return World(root)


# ---- independent recomputation ------------------------------------------------------------------------------------


def activations_by_transformers(directory: Path, site: str, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x [c,t,d] at LAYER and the loss of the next token [c,t-1], by transformers and its own forward hooks."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    block = model.model.layers[LAYER]
    kept: list[torch.Tensor] = []
    if site == "resid":
        handle = block.register_forward_hook(lambda _m, _i, out: kept.append(out[0] if isinstance(out, tuple) else out))
    elif site == "mlp":
        handle = block.post_feedforward_layernorm.register_forward_hook(lambda _m, _i, out: kept.append(out))
    else:
        handle = block.self_attn.o_proj.register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    ids = torch.from_numpy(contexts)
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten(), reduction="none"
        )
    handle.remove()
    return kept[0].double().numpy(), loss.view(ids.shape[0], -1).numpy()


def reconstruct_by_hand(directory: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TopK by its definition: relu, then all but the k largest are zero. x [n,d] -> x_hat [n,d], latents [n,m]."""
    from safetensors.numpy import load_file

    weights = {
        name: value.astype(np.float64) for name, value in load_file(directory / "sae_weights.safetensors").items()
    }
    k = json.loads((directory / "cfg.json").read_text())["k"]
    z = np.maximum((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0)
    cut = np.sort(z, axis=-1)[:, -k][:, None]
    z = np.where(z >= cut, z, 0)
    return z @ weights["W_dec"] + weights["b_dec"], z


def scores_by_scikit_learn(x: np.ndarray, x_hat: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    error = x - x_hat
    error_map = LinearRegression().fit(x[train], error[train])
    norm_map = LinearRegression().fit(x[train], (error[train] ** 2).sum(-1))
    linear = error_map.predict(x[test])
    variance = ((x[test] - x[test].mean(0)) ** 2).sum()
    return {
        "r2_norm": r2_score((error[test] ** 2).sum(-1), norm_map.predict(x[test])),
        "r2_mean_dims": r2_score(error[test], linear, multioutput="uniform_average"),
        "r2_pooled": 1 - ((error[test] - linear) ** 2).sum() / ((error[test] - error[test].mean(0)) ** 2).sum(),
        "fvu": (error[test] ** 2).sum() / variance,
        "fvu_nonlinear": ((error[test] - linear) ** 2).sum() / variance,
    }


def grid(rows: list[dict[str, Any]], column: str) -> np.ndarray:
    """A column of the token table as [contexts, positions]; rows of one SAE."""
    shape = (max(r["context"] for r in rows) + 1, max(r["position"] for r in rows) + 1)
    assert len(rows) == shape[0] * shape[1], "every position of every context has one row"
    values = np.empty(shape, dtype=object)
    for row in rows:
        values[row["context"], row["position"]] = row[column]
    return values


@pytest.mark.parametrize(
    ("kind", "site"), [("gemma2", "resid"), ("gemma2", "mlp"), ("gemma2", "attn"), ("llama", "resid")]
)
def test_scores_equal_an_independent_recomputation(told, world, kind, site):
    target = world.target(kind, site)
    rows = told("tokens", *target, "--json").data["tokens"]
    results = {found["experiment"]: found for found in told("run", *EXPERIMENTS, *target, "--json").lines}
    saes = sorted({row["sae"] for row in rows})
    assert len(saes) == 4

    one = [row for row in rows if row["sae"] == saes[0]]
    ids, split = grid(one, "token_id").astype(np.int64), grid(one, "split").astype(str)
    x, loss = activations_by_transformers(world.root / kind, site, ids)
    assert np.allclose(grid(one, "x_norm").astype(float), np.linalg.norm(x, axis=-1), rtol=1e-4)  # float32 sums
    shown = grid(one, "loss")
    assert set(shown[:, -1]) == {None}, "nothing follows the last token"
    assert np.allclose(shown[:, :-1].astype(float), loss, atol=2e-4)  # float32 logits of order 10

    flat, train, test = x.reshape(-1, x.shape[-1]), (split == "train").ravel(), (split == "test").ravel()
    assert train.sum() >= 20 * x.shape[-1]
    for sae in saes:
        x_hat, latents = reconstruct_by_hand(world.root / f"suite-{kind}-{site}" / sae, flat)
        expected = scores_by_scikit_learn(flat, x_hat, train, test)
        measured: dict[str, float] = {}
        for found in results.values():
            (entry,) = (entry for entry in found["saes"] if entry["sae"] == sae)
            assert (entry["n_train"], entry["n_test"]) == (train.sum(), test.sum())
            assert entry["l0"] == pytest.approx((latents[test] > 0).sum(-1).mean(), rel=1e-6)
            measured |= {name: entry[name] for name in expected if name in entry}
        assert measured.keys() == expected.keys()
        for name, value in expected.items():
            # float32 activations and SAE against float64: relative 1e-6 per value, amplified where R2 is small
            assert measured[name] == pytest.approx(value, abs=2e-5), (sae, name)


def test_token_norms_are_those_of_the_three_vectors(told, world):
    from sklearn.linear_model import LinearRegression

    rows = told("tokens", *world.target(), "--json").data["tokens"]
    for sae in sorted({row["sae"] for row in rows}):
        one = [row for row in rows if row["sae"] == sae]
        ids, split = grid(one, "token_id").astype(np.int64), grid(one, "split").astype(str).ravel()
        x = activations_by_transformers(world.root / "gemma2", "resid", ids)[0].reshape(-1, D_MODEL)
        x_hat, latents = reconstruct_by_hand(world.root / "suite-gemma2-resid" / sae, x)
        error = x - x_hat
        linear = LinearRegression().fit(x[split == "train"], error[split == "train"]).predict(x)
        for column, vector in (
            ("sae_error_norm", error),
            ("linear_error_norm", linear),
            ("nonlinear_error_norm", error - linear),
        ):
            shown = grid(one, column).astype(float).ravel()
            assert np.allclose(shown, np.linalg.norm(vector, axis=-1), rtol=1e-4, atol=1e-4), (sae, column)
        assert (grid(one, "l0").astype(int).ravel() == (latents > 0).sum(-1)).all()


def test_token_table_has_the_columns_of_the_contract_and_excludes_what_it_says(told, world):
    rows = told("tokens", *world.target(), "--json").data["tokens"]
    assert all(set(row) == TOKEN_KEYS for row in rows)
    assert {row["split"] for row in rows} == {"train", "test", "excluded"}
    for row in rows:
        if row["position"] in (0, CONTEXT - 1) or row["token_id"] in (toy.PAD_ID, toy.BOS_ID, toy.EOS_ID):
            assert row["split"] == "excluded", row
    by_context: dict[int, set[str]] = {}
    for row in rows:
        by_context.setdefault(row["context"], set()).add(row["split"])
    assert all(len(found - {"excluded"}) <= 1 for found in by_context.values()), "no context in both halves"


def test_token_table_as_parquet_is_the_same_table(dm, world, tmp_path):
    import pyarrow.parquet as parquet

    rows = dm("tokens", *world.target(l0=2, widths="32"), "--json").data["tokens"]
    answer = dm("tokens", *world.target(l0=2, widths="32"), "--out", tmp_path / "tokens.parquet")
    assert answer.code == 0, answer.err
    table = parquet.read_table(tmp_path / "tokens.parquet").to_pylist()
    assert len(table) == len(rows)
    for got, shown in zip(table, rows, strict=True):
        assert set(got) == TOKEN_KEYS
        for name, value in shown.items():
            if isinstance(value, float):
                assert got[name] == pytest.approx(value, rel=1e-6), name
            elif value is None:
                assert got[name] is None or got[name] != got[name], name
            else:
                assert got[name] == value, name


@pytest.mark.parametrize("option", [("--batch-size", 1), ("--batch-size", 5), ("--batch-size", 64), ("--shards", 2)])
def test_numbers_do_not_depend_on_batches_or_shards(dm, told, world, option):
    target = world.target()
    reference = told("run", *EXPERIMENTS, *target, "--json").lines
    other = dm("run", *EXPERIMENTS, *target, *option, "--json").lines
    for one, two in zip(reference, other, strict=True):
        assert [s["sae"] for s in one["saes"]] == [s["sae"] for s in two["saes"]]
        for first, second in zip(one["saes"], two["saes"], strict=True):
            for name, value in first.items():
                if isinstance(value, float):
                    assert second[name] == pytest.approx(value, abs=1e-6), (option, first["sae"], name)
        compare_numbers(one["intervals"], two["intervals"])


def compare_numbers(one: Any, two: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            compare_numbers(one[key], two[key])
    elif isinstance(one, list):
        for first, second in zip(one, two, strict=True):
            compare_numbers(first, second)
    elif isinstance(one, float):
        assert two == pytest.approx(one, abs=1e-6)


def test_run_prints_one_object_per_experiment_with_the_keys_of_the_contract(told, world):
    answer = told("run", *EXPERIMENTS, *world.target(), "--json")
    assert [found["experiment"] for found in answer.lines] == list(EXPERIMENTS)
    for found in answer.lines:
        assert set(found) >= TOP_KEYS
        assert found["profile"] == "careful"
        assert found["definition"].strip()
        assert len(found["saes"]) == 4
        for entry in found["saes"]:
            assert set(entry) >= SAE_KEYS | MEASURED[found["experiment"]]
            assert entry["hook_name"] == f"blocks.{LAYER}.hook_resid_post"
            assert entry["layer"] == LAYER
            assert entry["n_train"] > entry["n_test"] > 0
    assert "NaN" not in answer.out


def test_every_score_has_an_interval_that_holds_it(told, world):
    for found in told("run", *EXPERIMENTS, *world.target(), "--json").lines:
        for entry in found["saes"]:
            for name in MEASURED[found["experiment"]]:
                low, high = interval_of(found["intervals"], entry["sae"], name)
                assert low <= entry[name] <= high, (entry["sae"], name)
                assert low < high


def interval_of(intervals: Any, sae: str, name: str) -> tuple[float, float]:
    """However they are nested, an interval is found under its SAE and its number."""
    found = intervals[sae][name] if sae in intervals else intervals[name][sae]
    return (found["low"], found["high"]) if isinstance(found, dict) else tuple(found)


def test_a_shuffled_target_predicts_nothing(dm, world):
    """The case that must fail: with the pairing destroyed no score may stay positive (S-06)."""
    (found,) = dm("run", "error-vector", *world.target(), "--null", "shuffle", "--json").lines
    shown = json.dumps(found["controls"])
    assert "shuffle" in shown
    values = [float(v) for v in re.findall(r'"r2_pooled": (-?[\d.e-]+)', shown)]
    assert values, shown
    assert all(value < 0.05 for value in values)


def test_an_affine_map_in_the_saes_place_leaves_nothing(dm, world):
    """S-10: whatever its FVU, the error of an affine map is affine in x."""
    (found,) = dm("run", "fvu-nonlinear", *world.target(), "--null", "affine", "--json").lines
    values = [float(v) for v in re.findall(r'"fvu_nonlinear": (-?[\d.e-]+)', json.dumps(found["controls"]))]
    assert values
    assert min(abs(value) for value in values) < 1e-10  # float64 sums


def test_several_layers_give_an_object_each_and_a_layer_without_saes_is_refused(dm, world, tmp_path):
    suite = toy.write_toy_suite(tmp_path / "suite", layers=(0, 1), widths=(32,), l0s=(2,))
    toy.fit_toy_suite(suite, world.root / "gemma2", (world.root / "text.txt").read_text(encoding="utf-8"))
    target = world.target(layer=None, suite=tmp_path / "suite")
    found = dm("run", "error-vector", *target, "--layers", "0:2", "--json").lines
    assert [{sae["layer"] for sae in one["saes"]} for one in found] == [{0}, {1}]
    refused = dm("run", "error-vector", *target, "--layers", "1:3", "--json")
    assert refused.code == 3
    assert refused.err.count("error: ") == 1


def test_lists_have_their_keys(dm, world):
    experiments = dm("experiments", "--json").data["experiments"]
    assert {e["id"] for e in experiments} >= set(EXPERIMENTS)
    assert all(set(e) >= {"id", "title", "question", "reference", "needs"} for e in experiments)
    saes = dm("suites", *world.target(), "--json").data["saes"]
    assert len(saes) == 4
    keys = {"sae", "release", "layer", "hook_name", "d_sae", "nominal_l0", "bytes", "on_disk"}
    assert all(set(s) >= keys for s in saes)
    picks = dm("suites", *world.target(l0=4), "--json").data["saes"]
    assert [(s["d_sae"], s["nominal_l0"]) for s in picks] == [(32, 4), (64, 4)]
    assert dm("sessions", "list", "--json").data == {"sessions": []}


def test_prompt_and_generated_tokens_split_as_a_full_recomputation_does(dm, world, tmp_path):
    """Sampled step by step with a cache, recomputed in one pass: float32 sums in another order, hence 1e-4."""
    from sklearn.linear_model import LinearRegression

    target = world.target(widths="64", l0=4)
    rows = dm("tokens", *target, "--json").data["tokens"]
    directory = world.root / "suite-gemma2-resid" / rows[0]["sae"]
    ids, train = grid(rows, "token_id").astype(np.int64), grid(rows, "split").astype(str).ravel() == "train"
    x = activations_by_transformers(world.root / "gemma2", "resid", ids)[0].reshape(-1, D_MODEL)[train]
    linear_map = LinearRegression().fit(x, x - reconstruct_by_hand(directory, x)[0])
    path = tmp_path / "prompt.txt"
    path.write_text("the linear\n\n error\n")
    for extra in (
        ("--prompt", "the linear error"),
        ("--prompt-file", path),
        ("--generate", 8),
        ("--prompt", "a token", "--generate", 8),
    ):
        data = dm("tokens", *target, *extra, "--json").data
        rows = data["tokens"]
        assert "count from 0" in data["notes"][0]
        assert all(set(row) == TOKEN_KEYS for row in rows)
        assert [row["position"] for row in rows] == list(range(len(rows)))
        x = activations_by_transformers(world.root / "gemma2", "resid", np.array([[r["token_id"] for r in rows]]))[0][0]
        error = x - reconstruct_by_hand(directory, x)[0]
        linear = linear_map.predict(x)
        for column, vector in (
            ("x_norm", x),
            ("sae_error_norm", error),
            ("linear_error_norm", linear),
            ("nonlinear_error_norm", error - linear),
        ):
            shown = np.array([row[column] for row in rows])
            assert np.allclose(shown, np.linalg.norm(vector, axis=-1), rtol=1e-4, atol=1e-4), (extra, column)


def test_an_sae_without_error_has_no_r2_and_one_without_output_no_nonlinear_error(dm, world, tmp_path):
    """S-13: undefined is null, not 0 or 1.  S-10: x_hat = 0 is affine, so its error is wholly linear."""
    from safetensors.numpy import load_file, save_file

    eye = np.eye(D_MODEL, dtype=np.float32)
    changes = {
        "perfect": {"W_enc": np.hstack([eye, -eye]), "W_dec": np.vstack([eye, -eye]), "b_dec": 0 * eye[0]},
        "empty": {"W_dec": 0 * np.vstack([eye, eye]), "b_dec": 0 * eye[0]},
    }
    scores = {}
    for name, weights in changes.items():
        hook = f"blocks.{LAYER}.hook_resid_post"
        path = toy.write_toy_sae(tmp_path / name, d_in=D_MODEL, d_sae=2 * D_MODEL, threshold=0.0, hook_name=hook)
        save_file(load_file(path / "sae_weights.safetensors") | weights, path / "sae_weights.safetensors")
        # What explains nothing, and what lets twice as many latents through as its name says, no gate lets pass.
        target = [*world.target(suite=None, sae=path), "--accept-gate"]
        scores[name] = {
            k: v for found in dm("run", *EXPERIMENTS, *target, "--json").lines for k, v in found["saes"][0].items()
        }
    assert [scores["perfect"][name] for name in ("r2_norm", "r2_pooled", "r2_mean_dims")] == [None] * 3
    assert scores["perfect"]["fvu"] == scores["perfect"]["fvu_nonlinear"] == 0
    assert scores["empty"]["r2_pooled"] == pytest.approx(1, abs=1e-10)  # float64 sums
    assert scores["empty"]["fvu_nonlinear"] == pytest.approx(0, abs=1e-10)
    assert scores["empty"]["fvu"] > 1, "uncentred x against centred variance"


# ---- without a terminal ---------------------------------------------------------------------------------------------


def test_without_a_terminal_the_app_prints_its_numbers_and_exits_0(dm, world):
    answer = dm(*world.target())
    assert answer.code == 0, answer.err
    for sae in ("width_32/l0_2", "width_32/l0_4", "width_64/l0_2", "width_64/l0_4"):
        assert sae in answer.out
    for name in ("r2", "fvu"):
        assert name in answer.out.lower()
    assert len(answer.out.splitlines()) > CONTEXT // 2, "the first context's tokens"


HOSTILE_TEXT = "\x1b[2J \x1b]0;pwned\x07 \x9b31m e\u0301 \u202e abc \u200b 日本 👩\u200d🔬 \r over \x08\x08 \x7f "
CONTROLS = r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]"


def test_plain_output_of_hostile_text_holds_no_control_character(dm, world, tmp_path):
    words = "the model reads a token and the linear part "
    (tmp_path / "hostile.txt").write_text((words + HOSTILE_TEXT) * 120, encoding="utf-8")
    target = world.target(text=tmp_path / "hostile.txt", widths="32", l0=2)
    for arguments in (target, ["tokens", *target], ["tokens", *target, "--prompt", HOSTILE_TEXT[:30]]):
        answer = dm(*arguments)
        assert answer.code == 0, answer.err
        assert not re.search(CONTROLS, answer.out), arguments
        assert not re.search(CONTROLS, answer.err), arguments


def test_errors_about_hostile_names_hold_no_control_character(dm, world, command):
    for option in ("model", "sae", "suite", "text", "hook", "widths"):
        answer = dm(*command, *world.target(**{option: "no\x1b[2Jsuch\x07\u202e"}))
        assert answer.code in (2, 3, 4), answer.err
        assert not re.search(CONTROLS, answer.err), (option, answer.err)


# ---- errors ---------------------------------------------------------------------------------------------------------


def says(answer: Answer, code: int, *parts: object) -> None:
    """Nothing on stdout, one error in at most two sentences, no traceback, the right code."""
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert len(errors) == 1, answer.err
    assert answer.err.rstrip().endswith(errors[0]), "the error comes last"
    assert "Traceback" not in answer.err
    sentences = re.findall(r"(?<!\.)[.?!](?=\s|$)", errors[0])
    assert 1 <= len(sentences) <= 2, errors[0]
    for part in parts:
        assert str(part) in errors[0], errors[0]


@pytest.fixture(params=["run", "tokens"])
def command(request) -> list[str]:
    return ["run", "error-vector"] if request.param == "run" else ["tokens"]


def test_a_model_directory_that_is_not_one(dm, world, command, tmp_path):
    (tmp_path / "notes").mkdir()
    says(dm(*command, *world.target(model=tmp_path / "notes"), "--json"), 3, "notes")
    says(dm(*command, *world.target(model=tmp_path / "absent"), "--json"), 3, "absent")


def test_a_model_whose_weights_are_cut_short(dm, world, command, tmp_path):
    shutil.copytree(world.root / "gemma2", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    says(dm(*command, *world.target(model=tmp_path / "cut"), "--json"), 3, "cut")


def test_an_sae_of_another_width(dm, world, command, tmp_path):
    toy.write_toy_sae(tmp_path / "sae", d_in=24, d_sae=32, k=2, hook_name=f"blocks.{LAYER}.hook_resid_post")
    says(dm(*command, *world.target(suite=None, sae=tmp_path / "sae"), "--json"), 3, 24, D_MODEL)


def test_an_unknown_layer(dm, world, command):
    says(dm(*command, *world.target(layer=7), "--json"), 3, 7)


def test_a_layer_the_suite_lacks(dm, world, command):
    says(dm(*command, *world.target(layer=2), "--json"), 3, 2, LAYER)


def test_an_unknown_hook_with_the_nearest_names(dm, world, command):
    hook = f"blocks.{LAYER}.hook_resid_pots"
    says(
        dm(
            *command, *world.target(layer=None, site=None, hook=hook, suite=world.root / "suite-gemma2-resid"), "--json"
        ),
        3,
        hook,
        f"blocks.{LAYER}.hook_resid_post",
    )


def test_an_unknown_sae_with_the_nearest_names(dm, world, command):
    wrong = f"layer_{LAYER}/resid/width_32/l0_3"
    answer = dm(*command, *world.target(sae=wrong), "--json")
    says(answer, 3, wrong, f"layer_{LAYER}/resid/width_32/l0_2")


def test_an_unknown_width(dm, world, command):
    says(dm(*command, *world.target(widths="128"), "--json"), 3, 128, 64)


def test_empty_and_binary_and_missing_text(dm, world, command, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n  ")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "zeros.txt").write_bytes(b"\0" * 5000)
    for name in ("empty.txt", "blank.txt", "binary.txt", "zeros.txt", "absent.txt"):
        says(dm(*command, *world.target(text=tmp_path / name), "--json"), 4, name)


def test_too_few_tokens_says_how_many_are_needed(dm, world, command, tmp_path):
    (tmp_path / "short.txt").write_text("the linear model reads a token " * 30)
    says(dm(*command, *world.target(text=tmp_path / "short.txt"), "--json"), 4, 20 * D_MODEL)
    says(dm(*command, *world.target(contexts=6), "--json"), 4, 20 * D_MODEL)


def test_a_context_longer_than_the_models(dm, world, command):
    says(dm(*command, *world.target(context_length=CONTEXT + 1), "--json"), 2, CONTEXT + 1, CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "error-vectro"], ["error-vectro", "error-vector"]),
        (["run"], []),
        (["rnu"], ["rnu", "run"]),
        (["run", "error-vector", "--profile", "sloppy"], ["sloppy"]),
        (["run", "error-vector", "--batch-size", "0"], ["0"]),
        (["run", "error-vector", "--contexts", "-3"], ["-3"]),
        (["run", "error-vector", "--positions", "9:3"], ["9:3"]),
        (["run", "error-vector", "-p", "nonsense"], ["nonsense"]),
        (["run", "error-vector", "-p", "nonsense=1"], ["nonsense"]),
        (["tokens", "--generate", "many"], ["many"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
    ids=" ".join,
)
def test_usage_errors(dm, arguments, parts):
    says(dm(*arguments), 2, *parts)


def test_out_of_range_positions_and_split(dm, world, command):
    says(dm(*command, *world.target(positions=f"{CONTEXT}:"), "--json"), 2, CONTEXT)


def test_nothing_is_written_to_out_after_an_error(dm, world, tmp_path):
    path = tmp_path / "tokens.parquet"
    says(dm("tokens", *world.target(contexts=2), "--out", path), 4)
    assert not path.exists()
    assert list(tmp_path.glob(".*tmp*")) == []


# ---- as a process of its own --------------------------------------------------------------------------------------


def start(world: World, tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "DM_INSPECT_RUNTIME_DIR": str(tmp_path / "run")}
    command = [sys.executable, "-m", "inspector", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.slow
def test_interrupted_it_says_so_once_writes_nothing_and_returns_6(world, tmp_path):
    for wait_for in ("importing", "model"):
        out = tmp_path / f"{wait_for}.parquet"
        process = start(world, tmp_path, "tokens", *world.target(), "--out", out)
        assert process.stderr is not None
        for line in process.stderr:
            if wait_for in line:
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)
        assert process.returncode == 6, errors
        assert rest == ""
        assert errors.count("error: ") == 1
        assert "Traceback" not in errors
        assert not out.exists()


@pytest.mark.slow
def test_stdout_is_data_and_nothing_else(world, tmp_path):
    """Libraries print what they like; none of it may land between the objects."""
    process = start(world, tmp_path, "run", *EXPERIMENTS, *world.target(), "--json")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert [json.loads(line)["experiment"] for line in out.splitlines()] == list(EXPERIMENTS)
    assert "moments" in errors, "progress is narrated on stderr"
    process = start(world, tmp_path, "run", "error-vector", *world.target(), "--json", "--quiet")
    quiet_out, errors = process.communicate(timeout=300)
    assert json.loads(quiet_out)["saes"] == json.loads(out.splitlines()[1])["saes"], "another process, the same digits"
    assert all(line.startswith("warning: ") for line in errors.splitlines()), errors


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(world, tmp_path):
    with start(world, tmp_path, "tokens", *world.target(), "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10) == '{"tokens":'
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "error" not in errors
