"""From a registry's name to errors per token, through exactly what a user runs, on files as they are published.

Nothing of the package is used for the reference: token ids and split are read from the table, activations come from
transformers, x_hat from the definition in NumPy, the affine map from a float64 least squares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.hub_server import Hub, hub_server
from tests.published import (
    MODEL_REPO,
    SAE_REPO,
    Published,
    gemma_scope,
    gemma_scope_error,
    publish,
    publish_gemma_scope_sae,
    residual_stream,
    text_file,
)

LAYER = 1
LENGTH = 256
"""Tokens per context of the test with the real width."""
TOKEN = "hf_SecretSecretSecretSecretSecretSe"
PICK = "layer_1/width_16k/average_l0_40"
"""The registry's nearest to --l0 60 at layer 1 of the 2B and width 16k."""
TOLERANCE = 1e-4
"""Relative, of norms in float32 against float64: the model's own rounding, times what the map's fit makes of it."""
ROOT = Path(__file__).parents[1]

BLOCKED = """
import socket, sys
def refuse(*_):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
from inspector.__main__ import main
sys.exit(main())
"""


def run(folder: Path, *arguments: str, blocked: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own with an empty home; with `blocked`, any connection is an error."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))},
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        **variables,
    }
    start = ["-c", BLOCKED] if blocked else ["-m", "inspector"]
    return subprocess.run(
        [sys.executable, *start, *arguments], env=environment, capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The real widths of the SAEs on a model of 32 dimensions."""
    published = publish(tmp_path_factory.mktemp("hub"), d_model=32)
    publish_gemma_scope_sae(published, layer=LAYER, d_sae=2**14, l0=40, folder=PICK, n_contexts=300)
    return published


def tokens(published: Published, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(
        folder,
        *("tokens", "--model", "gemma-2-2b", "--layer", str(LAYER), "--l0", "60", "--widths", "16k", "--offline"),
        *("--cache-dir", str(published.cache), "--text", str(text_file(folder)), "--json", *arguments),
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["tokens"]
    return rows


def check(rows: list[dict[str, Any]], published: Published) -> None:
    """Every row against the independent computation."""
    assert {row["sae"] for row in rows} == {PICK}
    ids = np.array([row["token_id"] for row in rows])
    n_contexts = rows[-1]["context"] + 1
    x = residual_stream(published.model, torch.from_numpy(ids.reshape(n_contexts, -1)), LAYER).reshape(len(rows), -1)
    x_hat, l0 = gemma_scope(published.saes / PICK / "params.npz", x)
    error = x - x_hat
    train = np.array([row["split"] == "train" for row in rows])
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights, *_ = np.linalg.lstsq(with_one[train], error[train], rcond=None)
    linear = with_one @ weights
    for name, vectors in (
        ("x_norm", x),
        ("sae_error_norm", error),
        ("linear_error_norm", linear),
        ("nonlinear_error_norm", error - linear),
    ):
        expected = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose([row[name] for row in rows], expected, rtol=TOLERANCE, err_msg=name)
    # A latent within rounding of its threshold may fall on either side.
    assert np.mean([row["l0"] for row in rows] == l0) > 0.99


@pytest.mark.holds("gemma-scope")
def test_from_the_registry_name_to_errors_per_token_without_a_socket(small: Published, tmp_path: Path) -> None:
    rows = tokens(small, tmp_path, "--contexts", "24")
    check(rows, small)


def test_swapped_decoder_rows_would_have_been_noticed(small: Published, tmp_path: Path) -> None:
    """The check itself: against other weights than those that were loaded it fails."""
    rows = tokens(small, tmp_path, "--contexts", "24")
    path = small.saes / PICK / "params.npz"
    kept = path.read_bytes()
    with np.load(path) as file:
        weights = dict(file)
    weights["W_dec"] = weights["W_dec"][::-1]
    np.savez(path, **weights)
    try:
        with pytest.raises(AssertionError, match="sae_error_norm"):
            check(rows, small)
    finally:
        path.write_bytes(kept)


def test_what_is_not_in_the_cache_is_named_at_once(small: Published, tmp_path: Path) -> None:
    done = run(
        tmp_path,
        *("tokens", "--model", "gemma-2-2b", "--layer", "0", "--l0", "60", "--widths", "16k", "--offline"),
        *("--cache-dir", str(small.cache), "--text", str(text_file(tmp_path)), "--json"),
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "layer_0/width_16k/average_l0_" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_comes_from_a_hub_when_nothing_is_on_disk(small: Published, tmp_path: Path) -> None:
    with hub_server() as hub:
        hub.publish(MODEL_REPO, small.model)
        hub.publish(SAE_REPO, small.saes)
        fresh = tmp_path / "cache"
        done = run(
            tmp_path,
            *("tokens", "--model", "gemma-2-2b", "--layer", str(LAYER), "--l0", "60", "--widths", "16k"),
            *("--cache-dir", str(fresh), "--text", str(text_file(tmp_path)), "--json", "--contexts", "24"),
            blocked=False,
            HF_ENDPOINT=hub.url,
            HF_HUB_DISABLE_XET="1",
            HF_TOKEN=TOKEN,
        )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    check(json.loads(done.stdout)["tokens"], small)
    # And from then on without it.
    check(tokens(replace(small, cache=fresh), tmp_path, "--contexts", "24"), small)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda hub: hub.gated.add(MODEL_REPO), f"https://huggingface.co/{MODEL_REPO}"),
        (lambda hub: hub.files.pop(SAE_REPO), f"no repository {SAE_REPO}"),
        (lambda hub: hub.files[SAE_REPO].clear(), "does not have the file"),
    ],
)
def test_each_fault_of_the_hub_is_one_line_and_exit_code_3(
    small: Published, tmp_path: Path, fault: Callable[[Hub], object], sentence: str
) -> None:
    with hub_server() as hub:
        hub.publish(MODEL_REPO, small.model)
        hub.publish(SAE_REPO, small.saes)
        fault(hub)
        done = run(
            tmp_path,
            *("tokens", "--model", "gemma-2-2b", "--layer", str(LAYER), "--widths", "16k", "--json"),
            *("--cache-dir", str(tmp_path / "cache"), "--text", str(text_file(tmp_path))),
            blocked=False,
            HF_ENDPOINT=hub.url,
            HF_HUB_DISABLE_XET="1",
            HF_TOKEN=TOKEN,
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, len(errors)) == (3, "", 1), done.stderr
    assert sentence in errors[0]
    assert TOKEN not in done.stderr


@pytest.mark.slow
def test_with_the_real_width_of_the_2b(tmp_path: Path) -> None:
    """d_model 2304: an SAE file of 302 MB, and the 46,080 training tokens that so many dimensions need.

    The model is small inside, so that the time goes into what is as large as it really is. The reference works in
    float32 but for the fit, whose normal equations are in float64: of a relative 1e-4 that takes a hundredth.
    """
    published = publish(tmp_path / "hub", d_model=2304, context=1024, d_ff=2304, head_dim=64)
    # Short contexts, many of them, and not their first tokens: in so small a model each context has a mean of its own,
    # and the number of latents that fire differs from one to the next by a third.
    made = {"n_contexts": 160, "context": LENGTH, "n_tokens": 6000}
    path = publish_gemma_scope_sae(published, layer=LAYER, d_sae=2**14, l0=40, folder=PICK, **made)
    rows = tokens(published, tmp_path, "--contexts", "320", "--context-length", str(LENGTH), "--positions", "16:")
    ids = torch.tensor([row["token_id"] for row in rows]).view(320, LENGTH)
    x = residual_stream(published.model, ids, LAYER).reshape(len(rows), -1).astype(np.float32)
    error = gemma_scope_error(path, x, np.array([row["l0"] for row in rows]))
    train = np.array([row["split"] == "train" for row in rows])
    assert train.sum() >= 20 * 2304
    mean_x, mean_error = x[train].mean(axis=0, dtype=np.float64), error[train].mean(axis=0, dtype=np.float64)
    s_xx, s_xy = np.zeros((2304, 2304)), np.zeros((2304, 2304))
    for part in np.array_split(np.flatnonzero(train), 16):
        centred = x[part] - mean_x
        s_xx += centred.T @ centred
        s_xy += centred.T @ (error[part] - mean_error)
    weights = np.linalg.lstsq(s_xx, s_xy, rcond=1e-12)[0].astype(np.float32)
    linear = (x - mean_x.astype(np.float32)) @ weights + mean_error.astype(np.float32)
    found: dict[str, float] = {}
    for name, vectors in (
        ("x_norm", x),
        ("sae_error_norm", error),
        ("linear_error_norm", linear),
        ("nonlinear_error_norm", error - linear),
    ):
        expected = np.linalg.norm(vectors.astype(np.float64), axis=1)
        differences = np.abs(np.array([row[name] for row in rows]) - expected) / expected
        found[name] = float(differences.max())
        assert (differences > TOLERANCE).sum() == 0, (name, found, int((differences > TOLERANCE).sum()))
    print({"n_rows": len(rows), "n_train": int(train.sum()), "largest relative difference": found})
