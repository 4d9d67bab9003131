"""The demo's language model: its loss, its schedule, and that a killed training continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import AutoModelForCausalLM

from inspector.demo.corpus import Windows
from inspector.demo.language_model import (
    SOFT_CAP,
    Progress,
    Schedule,
    SoftCappedLoss,
    export,
    learning_rate,
    load_checkpoint,
    loss_on,
    new_model,
    train,
)

TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "layer_types": ["full_attention"] * 2,
}
SCHEDULE = Schedule(tokens=16 * 4 * 28, minutes=60, batch_size=4, warmup_steps=4, compiled=False)


def windows() -> Windows:
    """A stream in which every token follows from the one before."""
    return Windows((np.arange(3000) % 50 + 5).astype(np.uint16), np.asarray([0]), seed=0, length=16)


def held_out() -> np.ndarray:
    return windows().batch(1000, 8)


def run(folder: Path, schedule: Schedule = SCHEDULE, stop_after: int | None = None) -> list[Progress]:
    model = new_model(0, **TINY)
    reports = []
    for progress in train(model, windows(), held_out(), schedule, folder, log_every=5):
        reports.append(replace(progress))
        if stop_after is not None and len(reports) > stop_after:
            break
    return reports


def test_loss_in_rows_equals_plain_cross_entropy_of_capped_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1100, 12, generator=generator, requires_grad=True)
    weight = (5 * torch.randn(30, 12, generator=generator)).requires_grad_()
    targets = torch.randint(0, 30, (1100,), generator=generator)
    plain = functional.cross_entropy(SOFT_CAP * torch.tanh(hidden @ weight.t() / SOFT_CAP), targets)
    expected = torch.autograd.grad(plain, (hidden, weight))
    loss = SoftCappedLoss.apply(hidden, weight, targets, torch.float32, False)
    actual = torch.autograd.grad(2 * loss, (hidden, weight))
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs, rtol=1e-4, atol=1e-7)
    uncapped = functional.cross_entropy(hidden @ weight.t(), targets)
    assert abs(float((uncapped - plain).detach())) > 0.1, "the cap matters at these sizes, or this test cannot see it"


def test_loss_in_rows_equals_the_models_own_loss() -> None:
    model = new_model(0, **TINY)
    ids = torch.from_numpy(held_out())
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    loss = SoftCappedLoss.apply(hidden.flatten(0, 1), model.lm_head.weight, ids[:, 1:].flatten(), torch.float32, False)
    assert loss.item() == pytest.approx(loss_on(model, held_out()), rel=1e-5)


def test_learning_rate_rises_holds_and_falls_to_zero() -> None:
    schedule = Schedule(tokens=1, minutes=1, learning_rate=1.0, warmup_steps=10)
    assert learning_rate(0, schedule, None) == pytest.approx(0.1)
    assert learning_rate(50, schedule, None) == 1.0
    assert learning_rate(100, schedule, 100) == 1.0
    assert learning_rate(120, schedule, 100) == pytest.approx(0.5)
    assert learning_rate(140, schedule, 100) == pytest.approx(0.0, abs=1e-12)


def test_training_learns_and_spends_its_token_budget(tmp_path: Path) -> None:
    reports = run(tmp_path, Schedule(tokens=16 * 16 * 84, minutes=60, batch_size=16, warmup_steps=4, compiled=False))
    assert reports[-1].step == 84
    assert reports[-1].decay_from == 60
    # Untrained, all 64 tokens are about equally likely, give or take logits of unit size; the stream is certain.
    assert reports[0].held_out_loss == pytest.approx(np.log(64), abs=1.0)
    assert reports[-1].held_out_loss < 1.0


def test_decay_begins_when_the_time_left_is_needed_for_it(tmp_path: Path) -> None:
    reports = run(tmp_path, replace(SCHEDULE, tokens=10**9, minutes=1e-9))
    assert reports[-1].decay_from is not None
    assert reports[-1].decay_from <= 1
    assert reports[-1].step <= 2


def test_a_killed_training_continues_to_the_same_weights(tmp_path: Path) -> None:
    always = replace(SCHEDULE, checkpoint_minutes=0.0)
    run(tmp_path / "whole", always)
    run(tmp_path / "killed", always, stop_after=2)
    with safe_open(tmp_path / "killed/checkpoint.safetensors", framework="pt") as file:
        assert '"step": 9' in file.metadata()["progress"]
    run(tmp_path / "killed", always)
    for name in ("whole", "killed"):
        assert len(list((tmp_path / name).iterdir())) == 1
    whole, killed = new_model(1, **TINY), new_model(2, **TINY)
    load_checkpoint(whole, tmp_path / "whole")
    load_checkpoint(killed, tmp_path / "killed")
    for a, b in zip(whole.parameters(), killed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_export_loads_in_float32_with_the_same_loss(tmp_path: Path) -> None:
    model = new_model(0, **TINY)
    export(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.dtype == torch.float32
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    # float16 keeps eleven bits of each weight.
    assert loss_on(loaded, held_out()) == pytest.approx(loss_on(model, held_out()), rel=1e-3)
