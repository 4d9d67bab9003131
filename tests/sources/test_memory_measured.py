"""The memory plan against the peak of a process that does what was planned for; a fifth either way is allowed.

In processes of their own, with an allocator that gives back what is freed: a peak is what was needed at once, and not
what was needed one after the other. Measured on the CPU; on a GPU the same sums are of the device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from transformers import Gemma2Config, Gemma2ForCausalLM

from inspector.spec import hook_name_of
from tests import toy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak of a process"),
]
TOLERANCE = 0.2
"""Of the plan: design.md, section 7."""
Fields = dict[str, Any]
ROOT = Path(__file__).parents[2]


def write(folder: Path, *, d_model: int, widths: tuple[int, ...], context: int, vocab_size: int = 300) -> Fields:
    """A target of random weights, as fields of its TargetSpec."""
    config = Gemma2Config(
        vocab_size=vocab_size,
        hidden_size=d_model,
        intermediate_size=4 * d_model,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=max(2, d_model // 8),
        query_pre_attn_scalar=max(2, d_model // 8),
        max_position_embeddings=context,
        sliding_window=context // 2,
        pad_token_id=toy.PAD_ID,
        bos_token_id=toy.BOS_ID,
        eos_token_id=toy.EOS_ID,
        initializer_range=0.5 * d_model**-0.5,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder / "model")
    toy._save_tokenizer(toy.toy_tokenizer(300), folder / "model", context)
    words = np.random.default_rng(0).choice(["model", "token", "error", "linear", "x_hat", " the", ";"], size=40_000)
    (folder / "text.txt").write_text(" ".join(words))
    for d_sae in widths:
        toy.write_toy_sae(
            folder / "suite" / f"width_{d_sae}",
            d_in=d_model,
            d_sae=d_sae,
            threshold=1.5,
            hook_name=hook_name_of("resid", 1),
        )
    return {
        "model": str(folder / "model"),
        "suite": str(folder / "suite"),
        "text": str(folder / "text.txt"),
        "context_length": context,
        "contexts": 24,
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Fields:
    """So small that only what libraries allocate once counts."""
    return write(tmp_path_factory.mktemp("small"), d_model=16, widths=(64,), context=48)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Fields:
    """17, 34 and 67 MB of SAEs on a small model."""
    return write(tmp_path_factory.mktemp("wide"), d_model=128, widths=(2**14, 2**15, 2**16), context=256)


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Fields:
    """A vocabulary of 131,000 and contexts of 512: embeddings, logits and attention are what counts."""
    made = write(tmp_path_factory.mktemp("wordy"), d_model=128, widths=(1024,), context=512, vocab_size=131_000)
    return made | {"contexts": 12}


def measured(small: Fields, target: Fields, what: Literal["run", "session"]) -> Fields:
    done = subprocess.run(
        [sys.executable, "-m", "tests.measured_memory", json.dumps(small), json.dumps(target), what],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: Fields = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: planned {found['planned'] / 1e6:.0f} MB, measured {found['measured'] / 1e6:.0f} MB")
    return found


@pytest.mark.parametrize("what", ["run", "session"])
def test_saes_that_stay(small: Fields, wide: Fields, what: Literal["run", "session"]) -> None:
    found = measured(small, wide, what)
    assert found["sliced"] == []
    assert found["measured"] == pytest.approx(found["planned"], rel=TOLERANCE), found


def test_saes_in_slices(small: Fields, wide: Fields) -> None:
    found = measured(small, wide | {"max_memory": 180_000_000}, "run")
    assert found["sliced"]
    assert found["measured"] == pytest.approx(found["planned"], rel=TOLERANCE), found
    assert found["measured"] <= 180_000_000


def test_a_session_on_a_large_vocabulary(small: Fields, wordy: Fields) -> None:
    found = measured(small, wordy, "session")
    assert "forward pass and logits" in dict(found["rows"])
    assert found["measured"] == pytest.approx(found["planned"], rel=TOLERANCE), found
