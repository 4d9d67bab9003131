"""The quicker way to run a model: the same numbers as the bridge's, at every hook, or the bridge itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from inspector.sources import forward, hooks, memory_sums
from inspector.sources.forward import Bridged, Edge, Native, agree, loss_of
from inspector.sources.model import LanguageModel

RESID, MLP, ATTN = "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"
Z, PRE, NORM = "blocks.1.attn.hook_z", "blocks.1.hook_resid_pre", "blocks.1.ln2.hook_out"
SERVED = (RESID, MLP, ATTN, Z, PRE, NORM)
INSIDE = "blocks.1.ln2.hook_normalized"
"""Between two operations of one module."""


@pytest.fixture
def ways(model: LanguageModel) -> Iterator[tuple[Native, Bridged]]:
    """Both, of each toy."""
    assert model._native is not None
    with torch.inference_mode():
        yield model._native, model._bridged


@pytest.fixture
def fresh(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    """A toy of which nothing was compared yet, whose points may be changed."""
    assert model._native is not None
    monkeypatch.setattr(model, "_agreed", {})
    monkeypatch.setattr(model._native, "points", dict(model._native.points))
    return model


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.flatten() - expected.flatten()).norm() / expected.norm())


@pytest.mark.parametrize("hook", SERVED)
def test_values_and_what_follows_from_others_are_the_bridges(
    ways: tuple[Native, Bridged], tokens: Tensor, hook: str
) -> None:
    made = []
    for way in ways:
        with hooks.capture(way.points, [hook]) as taken:
            logits = way.run(tokens[:1]).all()
        other = torch.randn(taken[hook].shape, generator=torch.Generator().manual_seed(1))
        with hooks.replace(way.points, hook, other):
            spliced = way.run(tokens[:1]).all()
        made.append((taken[hook], logits, spliced))
    for ours, theirs in zip(*made, strict=True):
        assert relative(ours, theirs) < 2e-6  # float32 through three layers
    assert relative(made[0][2], made[0][1]) > 0.01


def test_a_vector_per_token_at_the_edge_of_a_module_is_taken_there_and_others_are_the_bridges(
    fresh: LanguageModel,
) -> None:
    assert all(fresh._way([hook]) is fresh._native for hook in SERVED)
    assert fresh._way([RESID, INSIDE]) is fresh._bridged
    assert fresh._way([]) is fresh._native


@pytest.mark.parametrize("side", ["in", "out"])
def test_where_the_two_differ_the_bridge_runs(fresh: LanguageModel, tokens: Tensor, side: str) -> None:
    expected = fresh._values(tokens, [MLP], fresh._bridged)[MLP]
    module = fresh._native._body.layers[1]  # type: ignore[union-attr]
    fresh._native.points[MLP] = Edge(module, side)  # type: ignore[union-attr, index, arg-type]
    assert torch.equal(fresh.activations(tokens, MLP), expected)
    assert fresh._agreed == {None: True, MLP: False}


def test_reading_the_same_is_not_enough_if_a_replacement_is_lost(
    ways: tuple[Native, Bridged], tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, bridged = ways

    class Reads(Edge):
        def add_hook(self, hook: object, *, level: int) -> None:
            def only(value: Tensor, point: object) -> None:
                hook(value, point)  # type: ignore[operator]

            super().add_hook(only, level=level)

    assert agree(native, bridged, RESID, tokens[:1], torch.float32)
    monkeypatch.setattr(native, "points", {RESID: Reads(native._body.layers[1], "out")})
    assert not agree(native, bridged, RESID, tokens[:1], torch.float32)


def test_a_model_that_fails_without_the_bridge_runs_with_it(
    fresh: LanguageModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh._values(tokens, [RESID], fresh._bridged)[RESID]

    def fails(*_: object, **__: object) -> None:
        raise AttributeError("'_Body' object has no attribute 'rope_deltas'")

    monkeypatch.setattr(fresh._native._body, "forward", fails)  # type: ignore[union-attr]
    assert torch.equal(fresh.activations(tokens, RESID), expected)


def test_logits_are_made_a_few_positions_at_a_time(
    model: LanguageModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, loss = model.forward(tokens).logits, model.score(tokens).loss
    rows: list[int] = []
    head = model._native._head.lm_head  # type: ignore[union-attr]
    handle = head.register_forward_hook(lambda _, __, value: rows.append(value.shape[1]))
    monkeypatch.setattr(forward, "ROWS", 7)
    try:
        scored = model.score(tokens[:1])
    finally:
        handle.remove()
    assert rows == [7, 7, 7, 3]
    assert scored.loss.shape == (1, 24) and scored.loss[0, -1].isnan()
    torch.testing.assert_close(scored.loss[0, :-1], loss[0, :-1], rtol=0, atol=2e-6)
    outputs = model.forward(tokens[:1]).outputs[0]
    assert torch.equal(outputs.kept().all(), outputs.all())
    monkeypatch.setattr(forward, "KEPT_BYTES", 0)
    assert outputs.kept() is outputs
    torch.testing.assert_close(outputs.at(9), whole[0, 9], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(loss_of(outputs, tokens[0])[:-1], loss[0, :-1], rtol=0, atol=2e-6)


def test_the_memory_plan_knows_how_many_logits_there_are_at_once() -> None:
    assert (memory_sums.LOGIT_ROWS, memory_sums.KEPT_LOGITS) == (forward.ROWS, forward.KEPT_BYTES)


def test_the_copy_has_no_weights_of_its_own(model: LanguageModel) -> None:
    ours = {each.data_ptr() for each in model._native._body.parameters()}  # type: ignore[union-attr]
    assert ours <= {each.data_ptr() for each in model._bridge.original_model.parameters()}


def test_attention_is_fused_but_where_scores_have_a_cap(toys: dict[str, LanguageModel]) -> None:
    used = {kind: toy._native._body.config._attn_implementation for kind, toy in toys.items()}  # type: ignore[union-attr]
    assert used == {"llama": "sdpa", "gemma2": "eager"}
