"""The small parts of the pass over single tokens: groups, classes, sums, and scores from sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inspector.engine.plan import Plan
from inspector.engine.resampling import Estimate
from inspector.statistics import token_fits, token_pass
from inspector.statistics import token_norms as scores
from inspector.statistics.grouping import groups_of
from inspector.statistics.token_fits import ClassSums, TokenClasses
from inspector.statistics.token_norms import ONE, Column, Products
from inspector.statistics.token_numbers import Rests, SaeNumbers, Size, Target, from_table, table_of, width_of


def test_sums_and_products_are_those_of_each_group() -> None:
    groups = groups_of(torch.tensor([[1, 1], [0, 0], [1, 0]], dtype=torch.bool))
    assert (groups.n, groups.n_contexts) == (2, 2)
    runs = groups.runs(torch.tensor([0, 0, 2]))
    assert (runs.groups.tolist(), runs.lengths) == ([0, 1], [2, 1])
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 7.0, 11.0])
    sums, products = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 3, 3, dtype=torch.float64)
    for _ in range(2):
        runs.add(sums, torch.stack([a, b], dim=1).double())
        token_pass._add_products(products, [a, b], runs)
    assert sums.tolist() == [[6.0, 24.0], [6.0, 22.0]]
    assert products.tolist() == [
        [[4.0, 6.0, 24.0], [6.0, 10.0, 38.0], [24.0, 38.0, 148.0]],
        [[2.0, 6.0, 22.0], [6.0, 18.0, 66.0], [22.0, 66.0, 242.0]],
    ]


def test_a_table_of_numbers_is_read_as_it_was_written() -> None:
    """Every number has a column of its own, whatever class it is in; Size has those of Target as well."""
    assert (width_of(Target), width_of(Size), width_of(Rests)) == (4, 8, 6)
    k = width_of(SaeNumbers)
    numbers = from_table(SaeNumbers, iter(torch.arange(3 * k).view(k, 3).double()))
    assert torch.equal(table_of(numbers), torch.arange(3 * k).view(k, 3).double().T)
    assert isinstance(numbers.sae_error, Size) and isinstance(numbers.centred.cosine, torch.Tensor)


def test_classes_of_tokens_are_ids_and_of_rare_ones_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_fits, "LEAST_SEEN", 2)
    ids = torch.tensor([[7, 7, 3, 9], [7, 5, 3, 99]])
    included = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    train = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    classes = TokenClasses(ids, Plan(included=included, train=train, n_train=5, n_test=2))
    assert classes.n_ids == 4  # 3, 5, 7, 9: what is not included has no class
    assert classes.by_id(torch.tensor([3, 5, 7, 9])).tolist() == [0, 1, 2, 3]
    assert classes.n_frequent == 2
    frequent = classes.by_frequency(torch.tensor([3, 5, 7, 9])).tolist()
    assert sorted([frequent[0], frequent[2]]) == [0, 1] and frequent[1] == frequent[3] == 2
    monkeypatch.setattr(token_fits, "MOST_CLASSES", 1)
    assert TokenClasses(ids, Plan(included=included, train=train, n_train=5, n_test=2)).n_frequent == 1


def test_a_class_without_tokens_has_the_mean_of_all() -> None:
    sums = ClassSums.zeros(classes=3, q=1)
    sums.update(torch.tensor([0, 0, 2]), torch.tensor([[1.0], [3.0], [10.0]], dtype=torch.float64))
    assert sums.means(torch.tensor([4.0], dtype=torch.float64))[:, 0].tolist() == [2.0, 4.0, 10.0]


def test_an_estimate_without_draws_or_with_an_undefined_one_has_no_interval() -> None:
    assert scores.estimate(np.array([0.5])) == Estimate(value=0.5)
    assert scores.estimate(np.array([0.5, np.nan, 0.2])) == Estimate(value=0.5)
    assert scores.estimate(np.array([np.nan, 0.1, 0.2])) == Estimate(value=None)
    found = scores.estimate(np.array([0.5, *np.linspace(0, 1, 41)]))
    assert found.interval == pytest.approx((0.025, 0.975))


def test_constant_numbers_have_no_score() -> None:
    table = np.array([[4.0, 8.0, 10.0], [8.0, 16.0, 20.0], [10.0, 20.0, 30.0]])  # 1; 2 at each token; 1, 2, 3, 4
    products = Products(columns=(ONE, Column("flat"), Column("y")), train=table, test=table[None])
    counts = np.ones((1, 1))
    assert scores.estimate(scores.correlation(products, "flat", "y", counts)).value is None
    assert scores.estimate(scores.regress(products, "flat", ["y"], counts).r2).value is None
    assert scores.estimate(scores.deviation(products, "flat", counts)).value is None
    from_flat = scores.regress(products, "y", ["flat"], counts)
    assert from_flat.r2[0] == pytest.approx(0.0) and from_flat.intercept == pytest.approx(2.5)
    assert np.isnan(scores.nan_if_constant(products, "flat", from_flat.r2)[0])
    assert scores.correlation_of([1.0, 1.0], [1.0, 2.0]) is None and scores.correlation_of([], []) is None
    assert np.isnan(scores.slope_on([3.0, 3.0], np.ones((2, 1)))[0])
    assert scores.slope_on([3.0, 4.0], np.ones((2, 1)))[0] == 0.0
