"""Tokens that outweigh all others: apart, among, and the sums of both; on a stream with a few rows scaled by 50."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from inspector.engine.plan import Outliers, outliers_of
from inspector.engine.resampling import percentile_estimate
from inspector.sources.activations import ActivationBatch
from inspector.statistics import held_out
from inspector.statistics.first_pass import FirstApart, FirstPass
from inspector.statistics.held_out import HookSums
from inspector.statistics.second_pass import SecondPass, Tokens
from tests.statistics.made import ALL, LENGTH, N_CONTEXTS, SAES, D, Data, FakeReconstruction, data

SCALE = 50.0
N_HEAVY = 12
"""Of 1,080 included tokens."""


def gaussian(seed: int = 0) -> tuple[Data, Tensor]:
    """A Gaussian stream whose SAE error is half linear in it, N_HEAVY rows of it scaled; and where those are [c, t]."""
    clean = clean_stream(seed)
    rng = torch.Generator().manual_seed(seed)
    places = clean.plan.included.flatten().nonzero()[:, 0]
    chosen = places[torch.randperm(len(places), generator=rng)[:N_HEAVY]]
    heavy = torch.zeros(N_CONTEXTS * LENGTH, dtype=torch.bool)
    heavy[chosen] = True
    heavy = heavy.view(N_CONTEXTS, LENGTH)
    factor = torch.where(heavy, SCALE, 1.0)[:, :, None]
    return replace(clean, x=clean.x * factor, x_hat={name: v * factor for name, v in clean.x_hat.items()}), heavy


def clean_stream(seed: int) -> Data:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(N_CONTEXTS, LENGTH, D, generator=rng)
    noise = torch.randn(N_CONTEXTS, LENGTH, D, generator=rng)
    return replace(data(seed), x=x, x_hat={name: 0.7 * x + (0.3 + 0.1 * i) * noise for i, name in enumerate(SAES)})


def marked(of: Data, contexts: Sequence[int]) -> tuple[ActivationBatch, dict[str, FakeReconstruction]]:
    batch, made = of.batch(contexts)
    rule = outliers_of(4.0, float(of.x[of.plan.included].norm(dim=-1).median()))
    assert rule is not None
    return replace(batch, outlier=rule.among(batch.x)), made


def first_apart(of: Data, groups: Sequence[Sequence[int]], *, covariance: bool = True) -> FirstApart:
    first = FirstApart(D, SAES, covariance=covariance)
    for group in groups:
        batch, made = marked(of, group)
        rows = of.plan.train[batch.contexts, batch.positions]
        kept = {name: FakeReconstruction(x_hat=one.x_hat[rows], l0=one.l0[rows]) for name, one in made.items()}
        if bool(rows.any()):
            first.update(batch.rows(rows), kept)
    return first


def scored(of: Data, first: FirstPass, tokens: Tokens, groups: Sequence[Sequence[int]]) -> SecondPass:
    second = SecondPass(first.fit(), of.plan, tokens=tokens)
    for group in groups:
        batch, made = marked(of, group)
        second.update(batch, made)
    return second


def finished(second: SecondPass) -> HookSums:
    sums = second.finish()
    assert sums is not None
    return sums


def scores(sums: HookSums, sae_id: str = "narrow") -> dict[str, float]:
    once = torch.ones(1, len(sums.n), dtype=torch.float64)
    weights = sums.weights(sae_id)
    named = (sums.fvu, sums.fvu_nonlinear, sums.r2_norm, sums.r2_pooled)
    found = {score.__name__: percentile_estimate(score(sae_id, once)).value for score in named}
    return {name: value or 0.0 for name, value in found.items()} | {"n_eff": weights.n_eff or 0.0}


def test_the_rule_is_strict_and_passes_over_what_is_not_finite() -> None:
    rule = Outliers(factor=4.0, median_norm=2.0)
    x = torch.tensor([[8.0, 0.0], [8.1, 0.0], [float("nan"), 9.0], [float("inf"), 0.0]])
    assert rule.among(x).tolist() == [False, True, False, False] and rule.times(9.0) == 4.5
    assert outliers_of(None, 2.0) is None and outliers_of(4.0, 0.0) is None and outliers_of(4.0, None) is None


def test_a_few_rows_scaled_by_fifty_make_every_number_theirs() -> None:
    """In kind what Gemma's own few do: n_eff collapses and the squared norm looks predictable."""
    of, heavy = gaussian()
    first = first_apart(of, ALL)
    ordinary = scores(finished(scored(of, first.ordinary, "ordinary", ALL)))
    everything = scores(finished(scored(of, first.of_all_tokens(), "all", ALL)))
    clean = clean_stream(0)
    whole = FirstPass(D, SAES)
    batch, made = clean.batch(ALL[0])
    whole.update(batch, made, clean.plan.train[batch.contexts, batch.positions])
    without = scores(finished(scored(clean, whole, "all", ALL)))
    assert everything["n_eff"] < int((heavy & of.plan.test).sum()) < 20 < 200 < ordinary["n_eff"]
    # 4 standard errors of an R-squared or FVU over the ~430 held-out tokens; what is left out are 12 of 1,080 tokens.
    for name in ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled"):
        assert ordinary[name] == pytest.approx(without[name], abs=0.05), name
    assert ordinary["n_eff"] == pytest.approx(without["n_eff"], rel=0.1)
    assert abs(everything["r2_norm"] - without["r2_norm"]) > 0.2


def test_ordinary_and_outliers_add_up_to_all_exactly() -> None:
    of, heavy = gaussian()
    first = first_apart(of, ALL)
    both, at_once = first.of_all_tokens(), FirstPass(D, SAES, covariance=True)
    batch, made = of.batch(ALL[0])
    at_once.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    assert both.n_train == at_once.n_train and first.ordinary.n_train == at_once.n_train - len(first.places.found)
    assert {tuple(place) for place in first.places.found.tolist()} == {
        tuple(place) for place in (heavy & of.plan.train).nonzero().tolist()
    }
    for name, values in at_once.moments.state()[0].items():
        torch.testing.assert_close(both.moments.state()[0][name], values, rtol=1e-9, atol=1e-9)  # as merging promises
    # Under one map, scores add up too.
    parts = [scored(of, first.ordinary, tokens, ALL) for tokens in ("outliers", "ordinary")]
    parts[0].merge(parts[1])
    merged, whole = finished(parts[0]), finished(scored(of, first.ordinary, "all", ALL))
    assert scores(merged) == pytest.approx(scores(whole), rel=1e-9)
    for sae_id in SAES:
        assert torch.equal(merged.top[sae_id].top, whole.top[sae_id].top)


def test_the_fits_are_those_of_scikit_learn_on_the_same_tokens() -> None:
    of, heavy = gaussian()
    first = first_apart(of, ALL)
    for mask, maps in (
        (of.plan.train & ~heavy, first.ordinary.fit()["wide"]),
        (of.plan.train, first.of_all_tokens().fit()["wide"]),
    ):
        x, x_hat = of.rows(mask, "wide")
        fitted = LinearRegression().fit(x.numpy(), (x - x_hat).numpy())
        assert np.allclose(maps.error_map.weight.numpy(), fitted.coef_, atol=1e-6)
        assert np.allclose(maps.error_map.bias.numpy(), fitted.intercept_, atol=1e-6)


def test_batches_and_shards_change_nothing() -> None:
    of, _ = gaussian()
    ways = [ALL, [[c] for c in range(N_CONTEXTS)], [list(range(i, N_CONTEXTS, 3)) for i in range(3)]]
    found = []
    for groups in ways:
        first = first_apart(of, groups)
        halves = [scored(of, first.of_all_tokens(), "all", groups[i::2]) for i in range(min(2, len(groups)))]
        for other in halves[1:]:
            halves[0].merge(other)
        sums = finished(halves[0])
        found.append((scores(sums), sums.weights("wide")))
    for values, weights in found[1:]:
        assert values == pytest.approx(found[0][0], rel=1e-9)
        assert [(t.context, t.position) for t in weights.heaviest] == [
            (t.context, t.position) for t in found[0][1].heaviest
        ]
        assert weights.top_share == pytest.approx(found[0][1].top_share, rel=1e-9)


def test_what_was_kept_is_taken_over_and_so_is_what_a_version_without_outliers_kept() -> None:
    of, _ = gaussian()
    first = first_apart(of, ALL)
    after = FirstApart(D, SAES, covariance=True)
    tensors, facts = first.state()
    after.restore(tensors, facts, torch.device("cpu"))
    assert torch.equal(after.places.found, first.places.found) and after.outliers is not None
    assert torch.equal(after.of_all_tokens().moments.s_xx, first.of_all_tokens().moments.s_xx)
    plain = FirstApart(D, SAES, covariance=True)
    plain.restore(*first.ordinary.state(), torch.device("cpu"))
    assert plain.outliers is None and torch.equal(plain.ordinary.moments.s_xx, first.ordinary.moments.s_xx)
    second = scored(of, first.ordinary, "all", ALL)
    again = SecondPass(second.maps, of.plan)
    tensors, facts = second.state()
    again.restore(tensors, facts, torch.device("cpu"))
    assert scores(finished(again)) == scores(finished(second))
    assert torch.equal(finished(again).top["wide"].top, finished(second).top["wide"].top)
    old = {name: values for name, values in tensors.items() if "top" not in name}
    with pytest.raises(ValueError, match="of another pass"):
        SecondPass(second.maps, of.plan).restore(old, facts, torch.device("cpu"))


def test_n_eff_and_the_share_of_the_largest_are_those_of_numpy() -> None:
    of, heavy = gaussian()
    first = first_apart(of, ALL)
    sums = finished(scored(of, first.of_all_tokens(), "all", ALL))
    x, x_hat = of.rows(of.plan.test, "wide")
    squared = (x - x_hat).square().sum(dim=1).numpy()
    weights = sums.weights("wide")
    assert weights.n_eff == pytest.approx(squared.sum() ** 2 / (squared**2).sum(), rel=1e-6)  # float32 rows
    k = int(np.ceil(len(squared) / 1000))
    assert weights.top_share == pytest.approx(np.sort(squared)[::-1][:k].sum() / squared.sum(), rel=1e-6)
    assert weights.few and all(bool(heavy[token.context, token.position]) for token in weights.heaviest[:3])
    assert not held_out.Weights(n_eff=200.0, top_share=0.2).few and held_out.Weights(n_eff=199.0, top_share=0.0).few
