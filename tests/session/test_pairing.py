"""Eq. 13 against NumPy."""

import numpy as np
import pytest
import torch

from inspector.session.pairing import ErrorNorms
from inspector.session.protocol import GetPairs


def test_r2_is_of_held_out_tokens_with_the_slope_of_training_tokens() -> None:
    rng = np.random.default_rng(0)
    first = rng.gamma(3.0, size=400).astype(np.float32)
    second = (0.6 * first + 0.2 * rng.gamma(3.0, size=400)).astype(np.float32)
    train = np.arange(400) < 250
    norms = ErrorNorms(["a", "b"])
    for part in (slice(0, 100), slice(100, 400)):
        norms.add(
            {"a": torch.from_numpy(first[part]), "b": torch.from_numpy(second[part])},
            train=torch.from_numpy(train[part]),
            test=torch.from_numpy(~train[part]),
        )
    x, y = first[train].astype(float), second[train].astype(float)
    slope = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
    held_x, held_y = first[~train].astype(float), second[~train].astype(float)
    expected = 1 - ((held_y - slope * held_x) ** 2).sum() / ((held_y - held_y.mean()) ** 2).sum()
    pairs = norms.pairs(GetPairs(request=3, sae_ids=["a", "b"]))
    assert pairs.request == 3
    assert pairs.n_tokens == 150
    assert pairs.r2[0][0] == pairs.r2[1][1] == 1.0
    assert pairs.r2[1][0] is None
    assert pairs.r2[0][1] == pytest.approx(expected, rel=1e-9)  # both sum in float64


def test_unrelated_errors_are_not_predicted() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 4000, generator=generator)
    norms = ErrorNorms(["a", "b"])
    train = torch.arange(4000) < 2000
    norms.add({"a": values[0], "b": values[1]}, train=train, test=~train)
    # Worse than the mean: the slope is E[ab] / E[aa] = 3/4, what it leaves 7/48, the variance 1/12: R2 = 1 - 7/4.
    r2 = norms.pairs(GetPairs(sae_ids=["a", "b"])).r2[0][1]
    assert r2 is not None
    assert r2 == pytest.approx(-0.75, abs=0.15)  # 2000 held-out tokens: a standard error of 0.05


def test_nothing_is_known_before_anything_was_seen_or_where_nothing_varies() -> None:
    norms = ErrorNorms(["a", "b"])
    assert norms.pairs(GetPairs(sae_ids=["a", "b"])).r2 == [[1.0, None], [None, 1.0]]
    train = torch.tensor([True, True, False, False])
    norms.add({"a": torch.ones(4), "b": torch.ones(4)}, train=train, test=~train)
    assert norms.pairs(GetPairs(sae_ids=["a", "b"])).r2[0][1] is None
