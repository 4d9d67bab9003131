"""Who is fitted, who is scored, who is left out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from inspector.engine.plan import make_plan, random_part

TOKENS = torch.randint(3, 100, (20, 64), generator=torch.Generator().manual_seed(0))
TOKENS[:, 0] = 1
TOKENS[4, 30] = 2


def test_special_tokens_early_positions_and_the_last_one_are_excluded() -> None:
    plan = make_plan(TOKENS, {1, 2}, (8, None), 600, "context", 0)
    expected = torch.zeros(20, 64, dtype=torch.bool)
    expected[:, 8:63] = True
    expected[4, 30] = False
    assert torch.equal(plan.included, expected)
    assert plan.n_train + plan.n_test == 20 * 55 - 1
    assert plan.n_train == int(plan.train.sum()) and plan.n_test == int(plan.test.sum())


def test_d01_the_last_position_is_excluded_whatever_the_range_says() -> None:
    for end in (None, 64, 100):
        assert not make_plan(TOKENS, (), (0, end), 500, "context", 0).included[:, 63].any()
    assert make_plan(TOKENS, (), (0, 10), 100, "context", 0).included.sum() == 200


def test_a_context_is_never_on_both_sides() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 3)
    assert not (plan.train.any(dim=1) & plan.test.any(dim=1)).any()
    assert abs(plan.n_train - 600) <= 55 / 2 + 1
    assert plan.notes == ()


def test_a_document_is_never_on_both_sides() -> None:
    documents = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 8, 8, 8, 9, 9, 9])
    for seed in range(5):
        plan = make_plan(TOKENS, {1}, (8, None), 600, "context", seed, documents.tolist())
        fitted, held_out = documents[plan.train.any(dim=1)], documents[plan.test.any(dim=1)]
        assert not set(fitted.tolist()) & set(held_out.tolist())
        assert plan.n_train and plan.n_test and abs(plan.n_train - 600) <= 4 * 55 / 2
        assert plan.notes == ()
    by_context = make_plan(TOKENS, {1}, (8, None), 600, "context", 0)
    assert torch.equal(make_plan(TOKENS, {1}, (8, None), 600, "context", 0, range(20)).train, by_context.train)


def test_one_document_is_split_by_context_and_that_is_said() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 0, [0] * 20)
    assert torch.equal(plan.train, make_plan(TOKENS, {1}, (8, None), 600, "context", 0).train)
    assert "All contexts are of one document" in plan.notes[-1]


def test_a_token_split_meets_the_goal_exactly_and_mixes_contexts() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 600, "token", 3)
    assert plan.n_train == 600
    assert (plan.train.any(dim=1) & plan.test.any(dim=1)).all()
    assert not (plan.train & ~plan.included).any()


@pytest.mark.parametrize("split", ["context", "token"])
def test_the_seed_decides_and_nothing_else(split: str) -> None:
    plans = [make_plan(TOKENS, {1}, (8, None), 600, split, seed) for seed in (5, 5, 6)]  # type: ignore[arg-type]
    assert torch.equal(plans[0].train, plans[1].train)
    assert not torch.equal(plans[0].train, plans[2].train)


def test_the_split_of_seed_zero_stays_what_it_is() -> None:
    """Stored results are repeated by their seed: another order would change them all."""
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 0)
    assert plan.train.any(dim=1).nonzero()[:, 0].tolist() == SEED_ZERO


SEED_ZERO = [1, 2, 3, 6, 8, 11, 13, 15, 17, 18, 19]


def test_too_large_a_goal_becomes_the_papers_share_with_a_note() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 150_000, "context", 0)
    assert 0.55 < plan.n_train / (plan.n_train + plan.n_test) < 0.65
    (note,) = plan.notes
    assert note == (
        "150,000 training tokens were asked for, but only 1,100 tokens are there: "
        "60.8% of them are fitted, the paper's share."
    )


def test_the_papers_own_numbers_need_no_note() -> None:
    tokens = torch.full((300, 1024), 5)
    plan = make_plan(tokens, {1}, (200, None), 150_000, "token", 0)
    assert (plan.n_train, plan.n_test, plan.notes) == (150_000, 96_900, ())


def test_at_least_one_context_is_held_out_and_one_fitted() -> None:
    two = TOKENS[:2]
    for goal in (1, 10_000):
        plan = make_plan(two, {1}, (8, None), goal, "context", 0)
        assert plan.n_train == 55 and plan.n_test == 55
    one = make_plan(TOKENS[:1], {1}, (8, None), 10, "context", 0)
    assert one.n_train == 0 and one.n_test == 55
    assert "cannot be split by context" in one.notes[-1]


DOCUMENTS = [7, 7, 3, 3, 3, 9, 0, 0, 1, 2, 4, 5, 5, 6, 6, 6, 8, 8, 3, 7]
"""Eleven documents of one to four contexts; those of 3 and of 7 do not lie together."""


def test_contexts_of_one_document_stay_on_one_side() -> None:
    for seed in range(8):
        plan = make_plan(TOKENS, {1}, (8, None), 600, "context", seed, DOCUMENTS)
        fitted = {DOCUMENTS[i] for i in plan.train.any(dim=1).nonzero()[:, 0].tolist()}
        held_out = {DOCUMENTS[i] for i in plan.test.any(dim=1).nonzero()[:, 0].tolist()}
        assert fitted and held_out and not fitted & held_out
        assert fitted | held_out == set(DOCUMENTS)
        assert abs(plan.n_train - 600) <= 4 * 55 / 2, "nearest to the goal, to half of the largest document"
        assert plan.documents is not None and plan.notes == ()
        firsts = list(dict.fromkeys(DOCUMENTS))
        assert plan.documents.tolist() == [firsts.index(each) for each in DOCUMENTS]
    by_context = make_plan(TOKENS, {1}, (8, None), 600, "context", 0)
    fitted = {DOCUMENTS[i] for i in by_context.train.any(dim=1).nonzero()[:, 0].tolist()}
    held_out = {DOCUMENTS[i] for i in by_context.test.any(dim=1).nonzero()[:, 0].tolist()}
    assert fitted & held_out, "the case must fail without documents"


def test_documents_of_one_context_each_change_nothing() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 0, list(range(20)))
    assert plan.train.any(dim=1).nonzero()[:, 0].tolist() == SEED_ZERO
    assert plan.documents is None and plan.notes == ()


def test_one_document_is_split_by_context_with_a_note() -> None:
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 0, [5] * 20)
    assert plan.train.any(dim=1).nonzero()[:, 0].tolist() == SEED_ZERO
    (note,) = plan.notes
    assert note.startswith("All contexts are of one document: contexts are held out instead of documents")
    assert make_plan(TOKENS, {1}, (8, None), 600, "token", 0, [5] * 20).notes == (), "tokens are not held out by it"


def test_documents_too_large_to_be_held_out_whole_are_divided_with_a_note() -> None:
    """One has 19 of 20 contexts: whole, it would be all that is fitted or all that is held out."""
    plan = make_plan(TOKENS, {1}, (8, None), 600, "context", 0, [0] * 19 + [1])
    assert plan.train.any(dim=1).nonzero()[:, 0].tolist() == SEED_ZERO and plan.documents is None
    (note,) = plan.notes
    assert "where 600 are meant to be: contexts are held out instead" in note


def test_a_random_part_takes_one_context_of_each_document_before_a_second() -> None:
    documents = torch.tensor([0] * 6 + [1, 2, 2, 3])
    indices = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    parts = [random_part(indices, n, 0, documents) for n in range(1, 11)]
    for n, part in enumerate(parts, 1):
        assert part == sorted(part) and len(part) == n
        assert len({int(documents[context]) for context in part}) == min(n, 4)
    assert all(set(fewer) < set(more) for fewer, more in pairwise(parts))
    alone = torch.arange(10)  # documents of one context each change nothing
    assert [random_part(indices, n, 3, alone) for n in range(11)] == [random_part(indices, n, 3) for n in range(11)]
