"""Intervals: of the right width on data whose answer is known, and absent where there is none."""

from __future__ import annotations

import pytest
import torch

from inspector.engine.resampling import percentile_estimate, resampling_counts


def test_row_zero_is_the_data_and_every_row_draws_as_many_contexts() -> None:
    counts = resampling_counts(30, seed=0)
    assert counts.shape == (1001, 30)
    assert torch.equal(counts[0], torch.ones(30, dtype=torch.float64))
    assert torch.equal(counts.sum(dim=1), torch.full((1001,), 30.0, dtype=torch.float64))


def test_the_seed_decides() -> None:
    assert torch.equal(resampling_counts(10, seed=4), resampling_counts(10, seed=4))
    assert not torch.equal(resampling_counts(10, seed=4), resampling_counts(10, seed=5))


def test_fewer_than_ten_contexts_give_the_number_and_no_interval() -> None:
    values = torch.arange(9, dtype=torch.float64)
    counts = resampling_counts(9, seed=4)
    assert torch.equal(counts, torch.ones(1, 9, dtype=torch.float64))
    estimate = percentile_estimate(counts @ values / 9)
    assert (estimate.value, estimate.interval) == (4.0, None)


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """200 contexts with standard deviation 1: half-width 1.96 / sqrt(200) = 0.139, within 10%."""
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = resampling_counts(200, seed=1, n_resamples=4000)
    estimate = percentile_estimate(counts @ values / 200)
    assert estimate.value == pytest.approx(float(values.mean()))
    assert estimate.interval is not None
    low, high = estimate.interval
    assert low < float(values.mean()) < high
    assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()) / 200**0.5, rel=0.1)


def test_whole_contexts_are_drawn_so_that_dependent_tokens_widen_the_interval() -> None:
    """Tokens equal within a context: resampling tokens would be sqrt(50) times too sure."""
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_context = percentile_estimate(resampling_counts(40, seed=1) @ (50 * values) / (40 * 50))
    by_token = percentile_estimate(resampling_counts(2000, seed=1) @ values.repeat_interleave(50) / 2000)
    assert by_context.interval is not None and by_token.interval is not None
    widths = [high - low for low, high in (by_context.interval, by_token.interval)]
    assert widths[0] / widths[1] == pytest.approx(50**0.5, rel=0.15)


def test_undefined_is_none() -> None:
    nan = float("nan")
    assert percentile_estimate(torch.tensor([nan, 1.0, 2.0])).value is None
    undefined_draw = percentile_estimate(torch.tensor([1.0, nan, 2.0]))
    assert undefined_draw.value == 1.0 and undefined_draw.interval is None
    assert percentile_estimate(torch.tensor([1.0])).interval is None
