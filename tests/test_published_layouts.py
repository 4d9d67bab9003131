"""From a registry's name to errors per token for every other published layout, offline, against NumPy from the files.

One process runs all commands with its sockets blocked. Nothing of the package is in the reference: see
`published_layouts.py` and `check` of `test_published_suites.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inspector.sources.registry import load_registry
from tests import published_layouts as layouts
from tests.commands import BLOCK, Done, commands
from tests.published import snapshot_folder, text_file
from tests.published_layouts import LAYER, Reference

LLAMA, R1, GEMMA_3, PYTHIA, GPT2 = (
    "meta-llama/Llama-3.1-8B",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "google/gemma-3-1b-pt",
    "EleutherAI/pythia-70m-deduped",
    "openai-community/gpt2",
)
TOLERANCE = 1e-4
"""Relative, as in `test_published_suites.py`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command and what it must give."""

    words: tuple[str, ...]
    sae: str
    model: Path
    folder: Path
    reference: Reference


N_CONTEXTS = 12
CENTRED = f"blocks.{LAYER + 1}.hook_resid_pre"
"""The stream behind block LAYER, as `gpt2-small-res-jb` names it."""
CASES = ("llama-scope", "openmoss", "gemma-scope-2", "sparsify", "dictionary-learning", "gpt2", "gpt2-centred")


def _cases(root: Path) -> dict[str, Case]:
    cache = root / "cache"
    llama = layouts.publish_model(cache, LLAMA, layouts.llama)
    gemma = layouts.publish_model(cache, GEMMA_3, layouts.gemma_3)
    pythia = layouts.publish_model(cache, PYTHIA, layouts.pythia)
    gpt2 = layouts.publish_model(cache, GPT2, layouts.gpt2)

    registry = load_registry()
    (entry,) = (one for one in registry.entries("llama_scope_lxr_8x") if one.layer == LAYER)
    llama_sae = snapshot_folder(cache, entry.repo) / entry.file
    assert entry.d_sae is not None and entry.norm_factor is not None
    made = layouts.directions(llama, entry.d_sae, 50)
    layouts.llama_scope(llama_sae, made, d_sae=entry.d_sae, factor=entry.norm_factor)

    r1 = layouts.publish_model(cache, R1, layouts.llama)
    newer = next(one for one in registry.entries("llama_scope_r1_distill") if one.layer == LAYER)
    newer_sae = snapshot_folder(cache, newer.repo) / newer.file
    assert newer.norm_factor is not None
    layouts.openmoss(newer_sae, layouts.directions(r1, 512, 20), d_sae=512, factor=newer.norm_factor)

    (jb,) = (one for one in registry.entries("gpt2-small-res-jb") if one.hook_name == CENTRED)
    jb_sae = snapshot_folder(cache, jb.repo) / jb.file
    assert jb.nominal_l0 is not None
    made = layouts.directions(gpt2, 512, jb.nominal_l0, centred=True)
    layouts.centred_gpt2(jb_sae, made, d_sae=512, hook_name=CENTRED)

    (wide,) = (
        one
        for one in registry.entries("gemma-scope-2-1b-pt-res-all")
        if one.layer == LAYER and one.d_sae == 2**14 and one.nominal_l0 == 66
    )
    gemma_sae = snapshot_folder(cache, wide.repo) / wide.file
    layouts.gemma_scope_2(gemma_sae, layouts.directions(gemma, 2**14, 66), d_sae=2**14, l0=66)

    sparse = root / "suites" / "sparsify" / f"layers.{LAYER}"
    layouts.sparsify(sparse, layouts.directions(llama, 1024, 32, top_k=True), d_sae=1024, k=32)
    learned = root / "suites" / "dictionaries" / f"resid_post_layer_{LAYER}" / "trainer_0"
    layouts.dictionary_learning(learned, layouts.directions(pythia, 512, 24), d_sae=512, k=24, model=PYTHIA)
    small = root / "suites" / "gpt2" / f"resid_post_layer_{LAYER}" / "trainer_0"
    layouts.dictionary_learning(small, layouts.directions(gpt2, 512, 24), d_sae=512, k=24, model=GPT2)

    def words(model: str, *more: str) -> tuple[str, ...]:
        return ("--model", model, "--layer", str(LAYER), "--cache-dir", str(cache), *more)

    return {
        "llama-scope": Case(
            words=words("llama-3.1-8b", "--widths", "32k"),
            sae=entry.sae_id,
            model=llama.model,
            folder=llama_sae,
            reference=layouts.run_llama_scope,
        ),
        "openmoss": Case(
            words=words("deepseek-r1-distill-llama-8b", "--sae", newer.sae_id),
            sae=newer.sae_id,
            model=r1.model,
            folder=newer_sae,
            reference=layouts.run_openmoss(newer.norm_factor),
        ),
        "gpt2-centred": Case(
            words=("--model", "gpt2", "--suite", jb.release, "--hook", CENTRED, "--cache-dir", str(cache)),
            sae=jb.sae_id,
            model=gpt2.model,
            folder=jb_sae,
            reference=layouts.run_centred_gpt2,
        ),
        "gemma-scope-2": Case(
            words=words("gemma-3-1b-pt", "--l0", "60", "--widths", "16k"),
            sae=wide.sae_id,
            model=gemma.model,
            folder=gemma_sae,
            reference=layouts.run_gemma_scope_2,
        ),
        "sparsify": Case(
            words=words("llama-3.1-8b", "--suite", str(root / "suites" / "sparsify")),
            sae=f"layers.{LAYER}",
            model=llama.model,
            folder=sparse,
            reference=layouts.run_sparsify,
        ),
        "dictionary-learning": Case(
            words=words("pythia-70m-deduped", "--suite", str(root / "suites" / "dictionaries")),
            sae=f"resid_post_layer_{LAYER}/trainer_0",
            model=pythia.model,
            folder=learned,
            reference=layouts.run_dictionary_learning,
        ),
        "gpt2": Case(
            words=words("gpt2", "--suite", str(root / "suites" / "gpt2")),
            sae=f"resid_post_layer_{LAYER}/trainer_0",
            model=gpt2.model,
            folder=small,
            reference=layouts.run_dictionary_learning,
        ),
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, Done]]:
    root = tmp_path_factory.mktemp("layouts")
    cases = _cases(root)
    text = ("--text", str(text_file(root)), "--contexts", str(N_CONTEXTS), "--offline", "--json")
    done = commands(root, [[BLOCK, "tokens", *case.words, *text] for case in cases.values()])
    return {name: (case, one) for (name, case), one in zip(cases.items(), done, strict=True)}


@pytest.mark.holds("sae-lens", "gemma-scope-2", "llama-scope", "openmoss", "dictionary-learning")
@pytest.mark.parametrize("name", CASES)
def test_errors_per_token_are_those_of_the_files(told: dict[str, tuple[Case, Done]], name: str) -> None:
    case, done = told[name]
    assert done.code == 0, done.err
    assert "load gate failed" not in done.err
    rows: list[dict[str, Any]] = json.loads(done.out)["tokens"]
    assert {row["sae"] for row in rows} == {case.sae}
    ids = np.array([row["token_id"] for row in rows])
    n_contexts = rows[-1]["context"] + 1
    x = layouts.residual_stream(case.model, torch.from_numpy(ids.reshape(n_contexts, -1))).reshape(len(rows), -1)
    error = x - case.reference(case.folder, x, np.array([row["l0"] for row in rows]))
    train = np.array([row["split"] == "train" for row in rows])
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights, *_ = np.linalg.lstsq(with_one[train], error[train], rcond=None)
    linear = with_one @ weights
    for column, vectors in (
        ("x_norm", x),
        ("sae_error_norm", error),
        ("linear_error_norm", linear),
        ("nonlinear_error_norm", error - linear),
    ):
        expected = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose([row[column] for row in rows], expected, rtol=TOLERANCE, err_msg=column)


def test_the_gate_in_use_is_named_for_llama_scope(told: dict[str, tuple[Case, Done]]) -> None:
    case, done = told["llama-scope"]
    assert f"Latents of {case.sae} pass: published JumpReLU threshold on unit-norm decoder rows" in done.err


def test_the_reference_notices_the_wrong_gate(told: dict[str, tuple[Case, Done]]) -> None:
    """The check can fail: a threshold that is a third higher lets other latents pass."""
    case, done = told["llama-scope"]
    rows = json.loads(done.out)["tokens"]
    ids = np.array([row["token_id"] for row in rows]).reshape(N_CONTEXTS, -1)
    x = layouts.residual_stream(case.model, torch.from_numpy(ids)).reshape(len(rows), -1)
    path = case.folder / "hyperparams.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"jump_relu_threshold": 1.3 * about["jump_relu_threshold"]}))
    try:
        with pytest.raises(AssertionError, match="more tokens than rounding explains"):
            case.reference(case.folder, x, np.array([row["l0"] for row in rows]))
    finally:
        path.write_text(json.dumps(about))
