"""A part of the contexts is a random part: whoever took the first ones measured the beginning of a file."""

import torch

from inspector.engine.plan import make_plan, random_part
from inspector.statistics.grouping import sample_plan


def test_a_part_is_seeded_and_fewer_are_a_part_of_more() -> None:
    indices = list(range(100, 300))
    one, again, other = (random_part(indices, 20, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one == sorted(one)
    assert len(set(one)) == 20
    assert set(one) < set(random_part(indices, 60, 1)) < set(indices)
    assert random_part(indices, 999, 1) == indices


def test_contexts_of_a_sample_come_from_all_of_the_text_and_stay_on_their_side() -> None:
    token_ids = torch.arange(200 * 16).reshape(200, 16)
    plan = make_plan(token_ids, (), (2, None), None, "context", 0)
    n = int(plan.included.sum())
    part = sample_plan(plan, n // 10, 3)
    assert not (part.included & ~plan.included).any()
    assert not (part.train & ~plan.train).any()
    assert not (part.test & ~plan.test).any()
    assert 0.09 * n < part.n_train + part.n_test < 0.12 * n
    assert part.n_train == int(part.train.sum())
    assert part.n_test == int(part.test.sum())
    for side in (part.train, part.test):
        taken = side.any(dim=1).nonzero()[:, 0].float()
        # The mean of k of 200 random places is 100 with a spread of 58 / sqrt(k); of the first it would be near 10.
        assert abs(float(taken.mean()) - 100) < 4 * 58 / len(taken) ** 0.5
        assert float(taken.max()) > 120
    assert not torch.equal(part.included, sample_plan(plan, n // 10, 4).included)
    assert torch.equal(part.included, sample_plan(plan, n // 10, 3).included)
    assert sample_plan(plan, n, 3) is plan
