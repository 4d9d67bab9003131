"""The benchmark for a GPU, at a small shape on the CPU: that it runs and what it reports holds together."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.gpu import L0, SHAPES, as_markdown, measure


def test_it_measures_a_sweep_of_random_weights() -> None:
    small = dataclasses.replace(SHAPES["small"], widths=(256, 512))
    found = measure(small, 60, torch.device("cpu"))
    assert found["n_tokens"] == 60 * small.length
    assert found["ratio"] == pytest.approx(found["sweep_seconds"] / found["bare_seconds"])
    assert found["tokens_per_second"] == pytest.approx(found["n_tokens"] / found["sweep_seconds"])
    # The thresholds are set on 48 tokens of one context.
    assert all(L0 / 2 < l0 < 2 * L0 for l0 in found["l0"])
    assert (found["peak_bytes"], found["peak_of_plan"]) == (0, None)  # the CPU's allocator counts nothing
    assert "memory: not counted on this device" in as_markdown("small", found)


def test_the_large_shape_is_gemma_2_9b_with_seven_widths() -> None:
    large = SHAPES["gemma-2-9b"]
    assert (large.d_model, large.n_layers, large.length) == (3584, 42, 1024)
    assert large.widths == (16384, 32768, 65536, 131072, 262144, 524288, 1048576)
