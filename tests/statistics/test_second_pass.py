"""Held-out scores from per-context sums against the same scores from the tokens, and their bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inspector.engine import scores
from inspector.engine.resampling import resampling_counts
from inspector.errors import DataError
from inspector.statistics.second_pass import SecondPass
from tests.statistics.made import ALL, N_CONTEXTS, SAES, Data, data, first_pass, second_pass


def direct(of: Data, name: str, mask: torch.Tensor, *, intercept: bool) -> dict[str, float | None]:
    """The five scores of the tokens in mask, each from its own formula."""
    maps = first_pass(of, ALL).fit(intercept=intercept)[name]
    x, x_hat = of.rows(mask, name)
    error, linear = x - x_hat, maps.error_map.predict(x)
    return {
        "fvu": scores.fvu(x, x_hat),
        "fvu_nonlinear": scores.fvu_nonlinear(x, x_hat, linear),
        "r2_norm": scores.r2_scalar(error.square().sum(dim=1), maps.norm_map.predict(x)[:, 0]),
        "r2_pooled": scores.r2_pooled(error, linear),
        "r2_mean_dims": scores.r2_mean_dims(error, linear),
    }


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("split", ["context", "token"])
@pytest.mark.parametrize("scored", ["test", "all"])
def test_scores_from_sums_are_the_scores_of_the_tokens(intercept: bool, split: str, scored: str) -> None:
    """1e-6: the sums decompose in float32, the tokens are in float64 here."""
    of = data(split=split)
    maps = first_pass(of, ALL).fit(intercept=intercept)
    sums = second_pass(of, SecondPass(maps, of.plan, scored=scored), ALL)  # type: ignore[arg-type]
    mask = of.plan.test if scored == "test" else of.plan.included
    everything = torch.ones(1, len(sums.n), dtype=torch.float64)
    for i, name in enumerate(SAES):
        for score, expected in direct(of, name, mask, intercept=intercept).items():
            ours = float(getattr(sums, score)(name, everything))
            assert ours == pytest.approx(expected, abs=1e-6), (name, score)
        assert sums.l0(name) == 3 + i
        assert sums.undefined_dims(name) == 0


@pytest.mark.parametrize("intercept", [True, False])
def test_the_intercept_can_be_switched_without_another_pass(intercept: bool) -> None:
    of = data()
    sums = second_pass(of, SecondPass(first_pass(of, ALL).fit(intercept=intercept), of.plan), ALL)
    everything = torch.ones(1, len(sums.n), dtype=torch.float64)
    for name in SAES:
        expected = direct(of, name, of.plan.test, intercept=not intercept)
        for score in ("fvu_nonlinear", "r2_norm", "r2_pooled", "r2_mean_dims"):
            ours = float(getattr(sums, score)(name, everything, switched=True))
            assert ours == pytest.approx(expected[score], abs=1e-6), (name, score)


def test_a_bootstrap_draw_is_the_score_of_the_drawn_contexts() -> None:
    """Contexts repeated as drawn, scored directly: the whole vectorised path against one loop."""
    of = data()
    maps = first_pass(of, ALL).fit()
    sums = second_pass(of, SecondPass(maps, of.plan), ALL)
    counts = resampling_counts(len(sums.n), seed=0, n_resamples=3)
    for row in range(4):
        rows = torch.cat(
            [
                torch.stack([torch.full((int(of.plan.test[c].sum()),), int(c)), of.plan.test[c].nonzero()[:, 0]])
                for c, times in zip(sums.contexts, counts[row], strict=True)
                for _ in range(int(times))
            ],
            dim=1,
        )
        x, x_hat = of.x[rows[0], rows[1]].double(), of.x_hat["wide"][rows[0], rows[1]].double()
        linear = maps["wide"].error_map.predict(x)
        expected = {
            "fvu": scores.fvu(x, x_hat),
            "r2_pooled": scores.r2_pooled(x - x_hat, linear),
            "r2_mean_dims": scores.r2_mean_dims(x - x_hat, linear),
        }
        for score, value in expected.items():
            ours = getattr(sums, score)("wide", counts)
            assert float(ours[row]) == pytest.approx(value, abs=1e-6), score


def test_s28_order_batches_and_shards_give_the_same_sums() -> None:
    of = data()
    maps = first_pass(of, ALL).fit()
    whole = second_pass(of, SecondPass(maps, of.plan), ALL)
    order = np.random.default_rng(0).permutation(N_CONTEXTS).tolist()
    halves = [SecondPass(maps, of.plan), SecondPass(maps, of.plan)]
    for i, start in enumerate(range(0, N_CONTEXTS, 4)):
        batch, made = of.batch(order[start : start + 4])
        halves[i % 2].update(batch, made)
    halves[1].merge(halves[0])
    merged = halves[1].finish()
    assert merged is not None and torch.equal(merged.contexts, whole.contexts)
    for field in ("n", "x_sum", "x_sq", "h_sq"):
        torch.testing.assert_close(getattr(merged, field), getattr(whole, field), rtol=1e-9, atol=1e-9)
    for field in type(whole.saes["wide"]).__dataclass_fields__:
        one, other = getattr(merged.saes["wide"], field), getattr(whole.saes["wide"], field)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_context_may_come_in_parts() -> None:
    of = data()
    maps = first_pass(of, ALL).fit()
    second = SecondPass(maps, of.plan)
    context = int(of.plan.test.any(dim=1).nonzero()[0])
    batch, made = of.batch([context])
    for part in (slice(0, 20), slice(20, 40)):
        piece = type(batch)(
            contexts=batch.contexts[part],
            positions=batch.positions[part],
            token_ids=batch.token_ids[part],
            x=batch.x[part],
        )
        second.update(piece, {k: type(v)(x_hat=v.x_hat[part], l0=v.l0[part]) for k, v in made.items()})
    sums = second.finish()
    whole = second_pass(of, SecondPass(maps, of.plan), [[context]])
    assert sums is not None and sums.n.tolist() == whole.n.tolist()
    torch.testing.assert_close(sums.saes["wide"].rest_sq, whole.saes["wide"].rest_sq, rtol=1e-6, atol=1e-9)


def test_s13_a_perfect_sae_has_fvu_zero_and_undefined_r2() -> None:
    of = data()
    of = Data(x=of.x, x_hat={name: of.x.clone() for name in SAES}, plan=of.plan)
    sums = second_pass(of, SecondPass(first_pass(of, ALL).fit(), of.plan), ALL)
    everything = torch.ones(1, len(sums.n), dtype=torch.float64)
    assert float(sums.fvu("wide", everything)) == 0.0
    for score in ("r2_norm", "r2_pooled", "r2_mean_dims"):
        assert math.isnan(float(getattr(sums, score)("wide", everything)))
    assert sums.undefined_dims("wide") == 6


def test_nothing_scored_is_none_and_a_bad_number_is_located() -> None:
    of = data()
    maps = first_pass(of, ALL).fit()
    assert SecondPass(maps, of.plan).finish() is None
    context, position = of.plan.test.nonzero()[7].tolist()
    batch, made = of.batch([context])
    batch.x[position] = math.inf
    with pytest.raises(DataError, match=rf"context {context}, position {position} "):
        SecondPass(maps, of.plan).update(batch, made)
    batch, made = of.batch([context])
    with pytest.raises(ValueError, match="1 reconstructions came for 2 SAEs"):
        SecondPass(maps, of.plan).update(batch, {"wide": made["wide"]})
