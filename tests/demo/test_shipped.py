"""The model and suite in the wheel are what the card says, and better than chance on text they never saw."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import inspector.demo
from inspector.demo.corpus import BOS_ID, CONTEXT_LENGTH, VOCAB_SIZE
from inspector.demo.language_model import loss_on
from inspector.demo.recipe import held_out_windows
from inspector.demo.suite import FULL, SPECIAL_IDS
from inspector.sources.loading import load_model
from inspector.spec import TargetSpec
from inspector.training.blocks import source_of
from inspector.training.suite_files import measure, read_qualities

HOME = Path(inspector.demo.__file__).parent
MODEL, SUITE, CARD = HOME / "model", HOME / "suite", HOME / "CARD.md"
N_WINDOWS = 12


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return held_out_windows(Tokenizer.from_file(str(MODEL / "tokenizer.json")), N_WINDOWS)


def stated(pattern: str) -> float:
    found = re.search(pattern, CARD.read_text())
    assert found, pattern
    return float(found[1].replace(",", ""))


def test_model_loads_offline_in_float32_with_its_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True)
    ids = tokenizer("import os\n").input_ids
    assert ids.count(BOS_ID) == 1 == ids[0]
    assert tokenizer.decode(ids[1:]) == "import os\n"
    assert model.dtype == torch.float32
    assert (model.config.vocab_size, model.config.max_position_embeddings) == (VOCAB_SIZE, CONTEXT_LENGTH)
    assert model.num_parameters() == stated(r"a Gemma 2 of ([\d,]+) parameters")


def test_model_predicts_held_out_text_and_not_shuffled_text(windows: np.ndarray) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True)
    loss = loss_on(model, windows)
    # Few windows, and another Python's library than the card's: the mean moves by a few tenths of a nat.
    assert loss == pytest.approx(stated(r"loss, held-out text \| ([\d.]+)"), abs=0.6)
    shuffled = windows.copy()
    np.random.default_rng(0).shuffle(shuffled[:, 1:].T)
    assert loss_on(model, shuffled) > loss + 2
    assert math.log(VOCAB_SIZE) > loss + 4


def test_suite_is_complete_and_small() -> None:
    assert {path.parent.relative_to(SUITE).as_posix() for path in SUITE.rglob("cfg.json")} == {
        plan.sae_id for plan in FULL
    }
    assert {quality.sae_id for quality in read_qualities(SUITE)} == {plan.sae_id for plan in FULL}
    shipped = [path for path in HOME.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in shipped) < 90e6
    for plan in FULL:
        config = json.loads((SUITE / plan.sae_id / "cfg.json").read_text())
        assert (config["k"], config["d_sae"], config["metadata"]["hook_name"]) == (plan.k, plan.d_sae, plan.hook_name)


def test_saes_do_on_this_machine_what_their_quality_files_say(windows: np.ndarray) -> None:
    plans = [plan for plan in FULL if plan.d_sae == 1024]
    source = source_of(
        load_model(TargetSpec(model="demo", device="cpu", offline=True)), [plan.hook_name for plan in plans]
    )
    recorded = {quality.sae_id: quality for quality in read_qualities(SUITE)}
    for found in measure(source, windows, SUITE, plans, 0, SPECIAL_IDS):
        assert found.l0 == pytest.approx(found.nominal_l0, rel=0.05)
        assert found.fvu == pytest.approx(recorded[found.sae_id].fvu, rel=0.25)


def test_wider_and_denser_saes_leave_less_unexplained() -> None:
    grid = {
        (quality.d_sae, quality.nominal_l0): quality.fvu
        for quality in read_qualities(SUITE)
        if quality.sae_id.startswith("layer_3/resid/")
    }
    widths, l0s = sorted({width for width, _ in grid}), sorted({l0 for _, l0 in grid})
    assert len(grid) == len(widths) * len(l0s)
    assert all(grid[narrow, l0] > grid[wide, l0] for l0 in l0s for narrow, wide in itertools.pairwise(widths))
    assert all(grid[w, sparse] > grid[w, dense] for w in widths for sparse, dense in itertools.pairwise(l0s))


def test_decoder_rows_have_unit_norm() -> None:
    sae = SAE.load_from_disk(SUITE / FULL[0].sae_id, dtype="float32")
    # float16 has eleven bits.
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae), rtol=0, atol=2e-3)


def test_card_lists_every_sae() -> None:
    rows = re.findall(r"^\| (layer_\S+) \| (\d+) \|", CARD.read_text(), flags=re.MULTILINE)
    assert {(sae_id, int(width)) for sae_id, width in rows} == {(plan.sae_id, plan.d_sae) for plan in FULL}
