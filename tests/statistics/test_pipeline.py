"""What the passes conclude: intervals around values, nothing that nobody needed, controls in place."""

from __future__ import annotations

import pytest
import torch

from inspector.engine import scores
from inspector.spec import SaeRef
from inspector.statistics.first_pass import Fit
from inspector.statistics.measured import Scores, Statistics
from inspector.statistics.pipeline import conclude
from inspector.statistics.profiles import ERROR_COVARIANCE, ERROR_MAP, NORM_MAP, Need
from inspector.statistics.second_pass import SecondPass
from tests.statistics.made import ALL, SAES, Data, data, first_pass, second_pass

EVERYTHING: tuple[Need, ...] = (NORM_MAP, ERROR_MAP, ERROR_COVARIANCE)


def concluded(
    of: Data, needs: tuple[Need, ...] = EVERYTHING, *, n_resamples: int = 200, fvu_on: str = "test"
) -> Statistics:
    fit = Fit.of(first_pass(of, ALL), intercept=True)
    maps = fit.maps
    refs = {
        name: SaeRef(sae_id=name, release="made", layer=0, hook_name="hook", d_in=6, d_sae=8, nominal_l0=3)
        for name in SAES
    }
    return conclude(
        refs=refs,
        fit=fit,
        held_out=second_pass(of, SecondPass(maps, of.plan), ALL),
        everything=second_pass(of, SecondPass(maps, of.plan, scored="all"), ALL) if fvu_on == "all" else None,
        needs=needs,
        seed=0,
        n_resamples=n_resamples,
    )


def test_every_score_lies_in_its_interval() -> None:
    statistics = concluded(data())
    for sae in statistics.saes:
        for name in ("fvu", "fvu_nonlinear", "r2_norm", "r2_pooled", "r2_mean_dims"):
            value, interval = getattr(sae.scores, name), sae.intervals[name]
            assert value is not None and interval is not None
            assert interval[0] < value < interval[1], name
    assert (statistics.n_train, statistics.n_test) == (data().plan.n_train, data().plan.n_test)


def test_training_scores_are_those_of_the_training_tokens() -> None:
    """In closed form from moments there, from the tokens here."""
    of = data()
    maps = first_pass(of, ALL).fit()
    for sae in concluded(of).saes:
        x, x_hat = of.rows(of.plan.train, sae.ref.sae_id)
        linear = maps[sae.ref.sae_id].error_map.predict(x)
        assert sae.train.fvu == pytest.approx(scores.fvu(x, x_hat), abs=1e-6)
        assert sae.train.fvu_nonlinear == pytest.approx(scores.fvu_nonlinear(x, x_hat, linear), abs=1e-6)
        assert sae.train.r2_pooled == pytest.approx(scores.r2_pooled(x - x_hat, linear), abs=1e-6)


def test_what_nobody_needs_is_not_measured() -> None:
    (narrow, _) = concluded(data(), (NORM_MAP,)).saes
    assert narrow.scores.r2_norm is not None and narrow.scores.fvu is not None
    assert (narrow.scores.fvu_nonlinear, narrow.scores.r2_pooled, narrow.gaussian_r2_norm) == (None, None, None)
    (narrow, _) = concluded(data(), (ERROR_MAP,)).saes
    assert narrow.scores.r2_norm is None and narrow.scores.r2_pooled is not None


def test_no_resamples_no_intervals() -> None:
    (narrow, _) = concluded(data(), n_resamples=0).saes
    assert set(narrow.intervals.values()) == {None}


def test_d04_fvu_on_all_tokens_leaves_r2_on_the_held_out_ones() -> None:
    of = data()
    for everything, tested in zip(concluded(of, fvu_on="all").saes, concluded(of).saes, strict=True):
        assert everything.scores.fvu == pytest.approx(
            scores.fvu(*of.rows(of.plan.included, tested.ref.sae_id)), abs=1e-6
        )
        assert everything.scores.fvu != tested.scores.fvu
        assert everything.scores.r2_norm == tested.scores.r2_norm
        assert everything.scores.r2_pooled == tested.scores.r2_pooled


def test_s10_the_affine_control_is_zero_and_the_shuffled_expectation_negative() -> None:
    statistics = concluded(data())
    assert statistics.affine_fvu is not None and statistics.affine_fvu > 0.01
    assert statistics.affine_fvu_nonlinear == pytest.approx(0.0, abs=1e-10)
    assert statistics.shuffled_r2 == -7 / statistics.n_train


def test_s13_undefined_scores_are_none() -> None:
    of = data()
    perfect = Data(x=of.x, x_hat={name: of.x.clone() for name in SAES}, plan=of.plan)
    (narrow, _) = concluded(perfect).saes
    nothing = Scores(fvu=0.0, fvu_nonlinear=narrow.scores.fvu_nonlinear)
    assert narrow.scores == nothing and abs(narrow.scores.fvu_nonlinear or 0) < 1e-12
    assert narrow.gaussian_r2_norm is None and narrow.intervals["r2_norm"] is None


def test_s06_shuffled_errors_are_not_predicted() -> None:
    """The case that must fail: errors of other tokens. Held-out R2 is about -p/n, an honest one is above 0.3."""
    of = data(split="token")
    honest = concluded(of)
    x, generator = of.x, torch.Generator().manual_seed(3)
    flat = {name: (x - x_hat).flatten(0, 1) for name, x_hat in of.x_hat.items()}
    order = torch.randperm(len(x.flatten(0, 1)), generator=generator)
    shuffled = Data(x=x, x_hat={name: x - error[order].view_as(x) for name, error in flat.items()}, plan=of.plan)
    for sae, real in zip(concluded(shuffled).saes, honest.saes, strict=True):
        assert real.scores.r2_pooled is not None and real.scores.r2_pooled > 0.3
        assert sae.scores.r2_pooled == pytest.approx(honest.shuffled_r2, abs=0.015)
        assert sae.scores.r2_norm == pytest.approx(honest.shuffled_r2, abs=0.03)
