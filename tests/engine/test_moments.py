"""Moments against numpy's one-shot covariance, in any order, size and sharding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.engine.moments import Moments
from tests.engine.toy import toy

DATA = toy(n=600, d=7)
TARGETS = {"error": DATA.error, "norm": DATA.error.square().sum(dim=1)}


def added(parts: list[torch.Tensor]) -> Moments:
    moments = Moments(7, full=["error"])
    for rows in parts:
        moments.update(DATA.x[rows], {name: y[rows] for name, y in TARGETS.items()})
    return moments


def assert_same(a: Moments, b: Moments, tolerance: float) -> None:
    assert a.n == b.n and a.names == b.names
    for name in a.names:
        one, two = a.target(name), b.target(name)
        for field in ("mean_x", "mean_y", "s_xx", "s_xy", "s_yy"):
            torch.testing.assert_close(getattr(one, field), getattr(two, field), rtol=tolerance, atol=tolerance)


def test_moments_are_those_of_numpy() -> None:
    moments = added(list(torch.arange(600).split(37)))
    x, error = DATA.x.numpy(), DATA.error.numpy()
    target = moments.target("error")
    joint = np.cov(np.hstack([x, error]).T, bias=True) * 600
    np.testing.assert_allclose(target.mean_x, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(target.s_xx, joint[:7, :7], rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(target.s_xy, joint[:7, 7:], rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(target.s_yy, np.diag(joint[7:, 7:]), rtol=1e-10)
    assert target.s_yy_full is not None
    np.testing.assert_allclose(target.s_yy_full, joint[7:, 7:], rtol=1e-10, atol=1e-9)
    assert moments.target("norm").s_yy_full is None


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 600), st.integers(1, 4))
def test_s28_order_size_and_sharding_do_not_matter(seed: int, size: int, shards: int) -> None:
    """S-28. 1e-9 is the promise; float64 sums of 600 rows leave about 1e-13."""
    order = torch.randperm(600, generator=torch.Generator().manual_seed(seed))
    parts = list(order.split(size))
    merged = Moments(7, full=["error"])
    for shard in range(shards):
        merged.merge(added(parts[shard::shards]))
    assert_same(merged, added([torch.arange(600)]), 1e-9)


def test_a_mean_of_a_billion_deviations_keeps_its_variance() -> None:
    """Raw sums of squares fail here: 1e18 * 600 leaves no digit of a variance of 1."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 1)))
    x = noise + 1e9
    moments = Moments(1)
    for part in x.split(50):
        moments.update(part)
    exact = float((x - x.mean(dim=0)).square().sum())
    assert abs(float(moments.s_xx) - exact) / exact < 1e-6
    raw = float(x.square().sum() - 600 * x.mean() ** 2)
    assert abs(raw - exact) / exact > 0.1


def test_targets_may_come_one_at_a_time_and_must_be_complete() -> None:
    lazy = Moments(7)
    for rows in torch.arange(600).split(100):
        lazy.update(DATA.x[rows], ((name, y[rows]) for name, y in TARGETS.items()))
    assert_same(lazy, added([torch.arange(600)]), 1e-9)
    with pytest.raises(ValueError, match="differ from those before"):
        lazy.update(DATA.x, {"error": DATA.error})
    with pytest.raises(ValueError, match="was not in the first batch"):
        lazy.update(DATA.x, {**TARGETS, "new": DATA.error})


def test_an_empty_batch_and_an_empty_shard_add_nothing() -> None:
    moments = added([torch.arange(600)])
    moments.update(DATA.x[:0], {name: y[:0] for name, y in TARGETS.items()})
    moments.merge(Moments(7))
    assert_same(moments, added([torch.arange(600)]), 0.0)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"expected \[n, 7\]"):
        Moments(7).update(torch.zeros(3, 6))
    with pytest.raises(ValueError, match="2 rows, but x has 3"):
        Moments(7).update(torch.zeros(3, 7), {"error": torch.zeros(2, 7)})
    with pytest.raises(ValueError, match="width 6"):
        Moments(7).merge(Moments(6))
