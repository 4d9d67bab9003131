"""The first pass against direct least squares on the training tokens, however the tokens come."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inspector.errors import DataError
from inspector.statistics.first_pass import FirstPass
from tests.engine.toy import least_squares
from tests.statistics.made import ALL, N_CONTEXTS, SAES, D, data, first_pass


@pytest.mark.parametrize("intercept", [True, False])
def test_the_maps_are_least_squares_on_the_training_tokens_alone(intercept: bool) -> None:
    of = data()
    maps = first_pass(of, ALL).fit(intercept=intercept)
    for name in SAES:
        x, x_hat = of.rows(of.plan.train, name)
        error = x - x_hat
        for y, fitted in ((error, maps[name].error_map), (error.square().sum(dim=1), maps[name].norm_map)):
            weight, bias = least_squares(x, y, intercept)
            # 1e-6: x_hat is subtracted in float32 here and in float64 there.
            np.testing.assert_allclose(fitted.weight, weight, atol=2e-6)
            np.testing.assert_allclose(fitted.bias, bias, atol=2e-6)
            assert fitted.n_train == of.plan.n_train


def test_s28_batches_order_and_shards_do_not_matter() -> None:
    of = data()
    whole = first_pass(of, ALL)
    order = torch.randperm(N_CONTEXTS, generator=torch.Generator().manual_seed(1)).tolist()
    shards = [first_pass(of, [order[i : i + 4] for i in range(start, N_CONTEXTS, 8)]) for start in (0, 4)]
    shards[0].merge(shards[1])
    assert shards[0].n_train == whole.n_train == of.plan.n_train
    one, other = whole.fit(), shards[0].fit()
    for name in SAES:
        torch.testing.assert_close(one[name].error_map.weight, other[name].error_map.weight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one[name].norm_map.bias, other[name].norm_map.bias, rtol=1e-9, atol=1e-9)


def test_it_can_be_fitted_and_go_on_without_moving_what_was_fitted() -> None:
    """A live session does this: the map of epoch 1 must stay what it was when epoch 2 is added."""
    of = data()
    groups = [[i] for i in range(N_CONTEXTS)]
    first = first_pass(of, groups[:20])
    early = first.fit()["narrow"]
    weight, centre, mean = early.error_map.weight.clone(), early.error_map.centre.clone(), early.mean_error.clone()
    for group in groups[20:]:
        batch, made = of.batch(group)
        first.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    late = first.fit()["narrow"]
    assert torch.equal(early.error_map.weight, weight)
    assert torch.equal(early.error_map.centre, centre) and torch.equal(early.mean_error, mean)
    assert not torch.equal(late.error_map.weight, weight)


def test_it_works_inside_and_outside_of_inference_mode() -> None:
    of = data()
    first = FirstPass(D, SAES)
    for i in range(N_CONTEXTS):
        batch, made = of.batch([i])
        with torch.inference_mode(i % 2 == 0):
            first.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    expected = first_pass(of, ALL).fit()["wide"].error_map.weight
    torch.testing.assert_close(first.fit()["wide"].error_map.weight, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_located(bad: float) -> None:
    of = data()
    context, position = of.plan.train.nonzero()[50].tolist()
    batch, made = of.batch([context, (context + 1) % N_CONTEXTS])
    batch.x[position, 2] = bad
    message = rf"activation is not finite at context {context}, position {position} "
    with pytest.raises(DataError, match=message):
        FirstPass(D, SAES).update(batch, made, of.plan.train[batch.contexts, batch.positions])
    batch, made = of.batch([context])
    made["wide"].x_hat[position, 0] = bad
    message = rf"reconstruction of SAE 'wide' is not finite at context {context}, position {position} "
    with pytest.raises(DataError, match=message):
        FirstPass(D, SAES).update(batch, made, of.plan.train[batch.contexts, batch.positions])


def test_a_number_that_is_not_finite_where_nothing_is_fitted_does_no_harm() -> None:
    of = data()
    batch, made = of.batch(ALL[0])
    batch.x[0, 0] = math.nan  # position 0 is excluded
    first = FirstPass(D, SAES)
    first.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    assert torch.isfinite(first.fit()["narrow"].error_map.weight).all()


def test_nothing_fitted_on_is_an_error_not_a_map() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        FirstPass(D, SAES).fit()


@pytest.mark.parametrize("covariance", [False, True])
def test_sums_that_were_stored_go_on_in_the_same_bits(covariance: bool) -> None:
    of = data()
    groups = [list(range(start, start + 3)) for start in range(0, N_CONTEXTS, 3)]
    through = first_pass(of, groups, covariance=covariance)
    before = first_pass(of, groups[:6], covariance=covariance)
    tensors, facts = before.state()
    after = FirstPass(D, SAES, covariance=covariance)
    after.restore({name: values.clone() for name, values in tensors.items()}, facts, torch.device("cpu"))
    for group in groups[6:]:
        batch, made = of.batch(group)
        after.update(batch, made, of.plan.train[batch.contexts, batch.positions])
    assert after.n_train == through.n_train
    mine, theirs = after.state()[0], through.state()[0]
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_sums_of_another_pass_are_refused() -> None:
    of = data()
    tensors, facts = first_pass(of, ALL, covariance=False).state()
    cpu = torch.device("cpu")
    for make, change in (
        (lambda: FirstPass(D, SAES, covariance=True), {}),
        (lambda: FirstPass(D, SAES[:1]), {}),
        (lambda: FirstPass(D + 1, SAES), {}),
        (lambda: FirstPass(D, SAES), {"s_xx": None}),
        (lambda: FirstPass(D, SAES), {"1 s_xy": None}),
        (lambda: FirstPass(D, SAES), {"mean_x": torch.zeros(D)}),
    ):
        changed = {**tensors, **change}
        changed = {name: values for name, values in changed.items() if values is not None}
        with pytest.raises(ValueError, match=r"[Ss]tored sum"):
            make().restore(changed, facts, cpu)
    empty = FirstPass(D, SAES)
    empty.restore(*FirstPass(D, SAES).state(), cpu)
    assert empty.n_train == 0
