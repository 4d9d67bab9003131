"""Contexts that share their sums: none up to the bound, equal neighbouring blocks beyond it."""

from __future__ import annotations

import pytest
import torch

from inspector.engine.plan import make_plan, random_part
from inspector.engine.resampling import counts_together, resampling_counts
from inspector.statistics.grouping import MOST_GROUPS, drawn_together, groups_of, sample_plan
from inspector.statistics.second_pass import SecondPass
from tests.statistics.made import ALL, SAES, data, first_pass, second_pass


def mask_of(*contexts: int, n: int = 2000) -> torch.Tensor:
    mask = torch.zeros(n, 4, dtype=torch.bool)
    mask[list(contexts), 2] = True
    return mask


def test_up_to_the_bound_every_context_is_its_own_group() -> None:
    chosen = list(range(3, 3 + 2 * MOST_GROUPS, 2))
    groups = groups_of(mask_of(*chosen))
    assert groups.first.tolist() == chosen
    assert groups.of_context[chosen].tolist() == list(range(MOST_GROUPS))
    assert int((groups.of_context >= 0).sum()) == MOST_GROUPS


def test_beyond_it_neighbours_join_in_blocks_that_differ_by_one_context_at_most() -> None:
    chosen = list(range(1, 1 + 1300))
    groups = groups_of(mask_of(*chosen))
    own = groups.of_context[chosen]
    assert bool((own.diff() >= 0).all()) and own.unique().tolist() == list(range(MOST_GROUPS))
    assert set(torch.bincount(own).tolist()) == {2, 3}
    assert [chosen[own.tolist().index(group)] for group in range(MOST_GROUPS)] == groups.first.tolist()
    assert groups_of(torch.zeros(3, 4, dtype=torch.bool)).first.tolist() == []


def test_blocks_change_no_score_and_hold_the_sums_of_their_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 held-out contexts in 5 blocks. 1e-7: float32 decomposition of other batches; intervals are of the blocks."""
    of = data()
    maps = first_pass(of, ALL).fit()
    single = second_pass(of, SecondPass(maps, of.plan), ALL)
    monkeypatch.setattr("inspector.statistics.grouping.MOST_GROUPS", 5)
    blocks = second_pass(of, SecondPass(maps, of.plan), [[c] for c in reversed(range(len(of.x)))])
    n = len(single.n)
    assert n > 10 and len(blocks.n) == 5 and blocks.n_contexts == single.n_contexts == n
    of_block = [[i for i in range(n) if i * 5 // n == block] for block in range(5)]
    assert blocks.contexts.tolist() == [int(single.contexts[each[0]]) for each in of_block]
    for name in ("n", "x_sum", "x_sq", "h_sq"):
        expected = torch.stack([getattr(single, name)[each].sum(dim=0) for each in of_block])
        torch.testing.assert_close(getattr(blocks, name), expected, rtol=1e-9, atol=1e-9)
    for score in ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled", "r2_mean_dims"):
        for name in SAES:
            few, many = (
                getattr(sums, score)(name, torch.ones(1, len(sums.n), dtype=torch.float64)) for sums in (blocks, single)
            )
            assert float(few) == pytest.approx(float(many), abs=1e-7)  # SAEs see other batches: float32
    counts = resampling_counts(5, seed=0, n_resamples=2)
    by_context = counts[:, [i * 5 // n for i in range(n)]]
    torch.testing.assert_close(blocks.fvu("wide", counts), single.fvu("wide", by_context), rtol=1e-7, atol=1e-7)


def test_what_is_kept_does_not_grow_with_the_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    of = data()
    maps = first_pass(of, ALL).fit()

    def kept(most: int) -> int:
        monkeypatch.setattr("inspector.statistics.grouping.MOST_GROUPS", most)
        second = SecondPass(maps, of.plan)
        second_pass(of, second, ALL)
        return sum(values.numel() for name, values in second.state()[0].items() if name != "seen" and "top" not in name)

    assert kept(4) * 2 == kept(8)


def test_sums_that_were_stored_go_on_in_the_same_bits() -> None:
    of = data()
    maps = first_pass(of, ALL).fit()
    through, before, after = SecondPass(maps, of.plan), SecondPass(maps, of.plan), SecondPass(maps, of.plan)
    groups = [list(range(start, start + 3)) for start in range(0, 30, 3)]
    whole = second_pass(of, through, groups)
    for group in groups[:6]:
        batch, made = of.batch(group)
        before.update(batch, made)
    cpu = torch.device("cpu")
    tensors, facts = before.state()
    after.restore({name: values.clone() for name, values in tensors.items()}, facts, cpu)
    resumed = second_pass(of, after, groups[6:])
    assert resumed.n_contexts == whole.n_contexts
    assert torch.equal(resumed.contexts, whole.contexts)
    assert all(torch.equal(after.state()[0][name], values) for name, values in through.state()[0].items())
    other = SecondPass({"narrow": maps["narrow"]}, of.plan)
    with pytest.raises(ValueError, match="of another pass"):
        other.restore(tensors, facts, cpu)
    empty = SecondPass(maps, of.plan)
    empty.restore(*SecondPass(maps, of.plan).state(), cpu)
    assert empty.finish() is None


def test_contexts_of_one_document_share_their_sums_wherever_they_lie() -> None:
    documents = torch.tensor([0, 1, 0, 2, 1, 3, 0])
    groups = groups_of(mask_of(0, 2, 3, 4, 6, n=7), documents)
    assert groups.of_context.tolist() == [0, -1, 0, 1, 2, -1, 0]
    assert groups.first.tolist() == [0, 3, 4]
    blocks = groups_of(mask_of(0, 2, 3, 4, 6, n=7), documents, most=2)
    assert blocks.of_context.tolist() == [0, -1, 0, 0, 1, -1, 0] and blocks.first.tolist() == [0, 4]
    assert drawn_together(mask_of(0, 2, 3, 4, 6, n=7), documents, [6, 4, 0]) == [0, 1, 0]


def test_an_interval_draws_documents_and_is_as_wide_as_they_differ() -> None:
    """Twenty documents of five equal contexts: drawn one by one their mean's standard error is too small by sqrt(5)."""
    documents = [i // 5 for i in range(100)]
    values = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[documents]
    together, alone = (
        (counts @ values) / counts.sum(dim=1)
        for counts in (counts_together(documents, seed=0), resampling_counts(100, seed=0))
    )
    assert float(together[0]) == pytest.approx(float(values.mean()), rel=1e-12)
    # 1000 draws know a standard deviation to 2.2%; three of those, twice.
    assert float(together[1:].std() / alone[1:].std()) == pytest.approx(5**0.5, rel=0.14)
    assert len(counts_together([i // 10 for i in range(90)], seed=0)) == 1, "nine documents give no interval"


# ---- which tokens a costly measurement takes ----


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
