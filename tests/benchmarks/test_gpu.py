"""The benchmark for a GPU, at a small shape on the CPU: that it runs and what it reports holds together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import L0, SHAPES, as_markdown, measure
from inspector.sources.memory_plan import plan_memory
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

CPU = torch.device("cpu")
SMALL = dataclasses.replace(SHAPES["small"], widths=(256, 32_768))
"""The wider one has most of the memory."""


def budget_of(whole: Loaded, *, sliced: bool) -> int:
    """Bytes that are just enough, or so few that an SAE is sliced."""
    assert whole.memory is not None
    sizes, budget = gpu._sizes(SMALL, whole.model, tuple(sae.ref for sae in whole.saes), 60), whole.memory.needed
    while sliced and not plan_memory(sizes, budget, device="cpu").sliced:
        budget = int(0.97 * budget)
    return budget


@pytest.mark.parametrize("sliced", [0, 1])
def test_it_measures_a_sweep_of_random_weights_whole_and_in_slices(tmp_path: Path, sliced: int) -> None:
    model = gpu._model(SMALL, CPU, tmp_path)
    assert model._way([hook_name_of("resid", SMALL.layer)]) is model._native
    budget = budget_of(gpu.made(SMALL, 60, model, 10**12), sliced=bool(sliced))
    found = measure(SMALL, 60, CPU, model, budget)
    assert found["sliced"] == sliced
    assert found["n_tokens"] == 60 * SMALL.length
    assert found["tokens_per_second"] == pytest.approx(found["n_tokens"] / found["sweep_seconds"])
    # The thresholds are set on 48 tokens of one context.
    assert all(L0 / 2 < l0 < 2 * L0 for l0 in found["l0"])
    assert found["encode_share"] > 0
    assert len(found["switch_seconds"]) == len(SMALL.widths)
    assert (found["peak_bytes"], found["peak_of_plan"]) == (0, None)  # the CPU's allocator counts nothing
    assert found["planned_bytes"] <= found["budget"]
    told = as_markdown("small", found)
    assert told.startswith(
        f"- small within {budget / 1e9:.3g} GB, {found['sliced']} of 2 SAEs of 256 to 32,768 latents"
    )
    assert "memory not counted on this device" in told


def test_sliced_random_weights_are_the_whole_ones(tmp_path: Path) -> None:
    """To float32: the benchmark measures the same work either way."""
    model = gpu._model(SMALL, CPU, tmp_path)
    whole = gpu.made(SMALL, 60, model, 10**12)
    small = gpu.made(SMALL, 60, model, budget_of(whole, sliced=True))
    assert small.memory is not None
    assert small.memory.sliced == {"random/width_32k"}
    x = model.activations(whole.contexts.token_ids[:1], whole.hook_name)[0]
    for one, other in zip(whole.saes, small.saes, strict=True):
        assert torch.allclose(one.reconstruct(x).x_hat, other.reconstruct(x).x_hat, atol=1e-5)


def test_on_the_same_device_nothing_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "COMPARED", ("norm-prediction",))
    told = gpu.compared("demo", "cpu")
    assert told.startswith("- demo, 1 experiments on 100 contexts: ")
    assert "difference of a number is 0.0e+00" in told


def test_the_large_shape_is_gemma_2_9b_with_seven_widths() -> None:
    large = SHAPES["gemma-2-9b"]
    assert (large.d_model, large.n_layers, large.length) == (3584, 42, 1024)
    assert large.widths == (16384, 32768, 65536, 131072, 262144, 524288, 1048576)
