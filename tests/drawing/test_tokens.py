"""Documents of tokens with their scores, and what a colour can mean."""

from __future__ import annotations

from math import isnan, nan

import pytest

from inspector.drawing.tokens import FVU, MEASURES, MODES, SHARE, TokenDocument, TokenScalars, next_mode
from tests.drawing.documents import columns, document, floats


def test_scalars_are_those_of_the_token_and_the_sae() -> None:
    doc = document(["a", "b"], linear=[3.0, 6.0], nonlinear=[4.0, 8.0], excluded=1, n_saes=2)
    token = doc.scalars(1, 1)
    assert token == (1.5, 10.0, 16.0, 10.0, 6.0, 8.0)
    assert list(doc.included()) == [1]
    assert len(doc) == 2


def test_columns_of_different_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="SAE 0, column 0 has 3 values but there are 1 token_ids"):
        TokenDocument(
            source="context",
            token_ids=[1],
            tokens=["a"],
            split=["h"],
            loss=floats([1]),
            x_norm=floats([1]),
            saes=(columns(3),),
        )


def test_extending_appends_every_column_and_repairs_the_loss_before() -> None:
    doc = document(["a", "b"], linear=[3.0, 3.0], nonlinear=[4.0, 4.0], source="generated")
    doc.extend(
        start=2,
        token_ids=[9],
        tokens=["c"],
        split=["h"],
        loss=floats([float("nan")]),
        x_norm=floats([7.0]),
        saes=[columns(1, linear=[6.0], nonlinear=[8.0])],
        loss_before=0.25,
    )
    assert doc.tokens == ["a", "b", "c"]
    assert doc.loss[1] == 0.25
    assert doc.scalars(2, 0).sae_error_norm == 10.0


@pytest.mark.parametrize(("start", "n_saes"), [(1, 1), (3, 1), (2, 0)])
def test_tokens_that_do_not_follow_are_refused(start: int, n_saes: int) -> None:
    doc = document(["a", "b"])
    with pytest.raises(ValueError, match="but 2 tokens for 1 are there"):
        doc.extend(
            start=start,
            token_ids=[9],
            tokens=["c"],
            split=["h"],
            loss=floats([0]),
            x_norm=floats([0]),
            saes=[columns(1)] * n_saes,
        )
    assert len(doc) == 2


def scalars(*, linear: float = 3.0, nonlinear: float = 4.0, x_norm: float = 10.0) -> TokenScalars:
    return TokenScalars(
        loss=1.5, x_norm=x_norm, l0=16.0, sae_error_norm=5.0, linear_error_norm=linear, nonlinear_error_norm=nonlinear
    )


def test_each_measure_of_a_token_with_sides_3_4_5() -> None:
    values = {measure.id: measure.value(scalars()) for measure in MEASURES}
    assert values == pytest.approx(
        {"total": 5.0, "linear": 3.0, "nonlinear": 4.0, "share": 16 / 25, "fvu": 16 / 100, "loss": 1.5}
    )


def test_what_cannot_be_known_is_nan() -> None:
    assert isnan(SHARE.value(scalars(linear=nan, nonlinear=nan)))
    assert isnan(SHARE.value(scalars(linear=0.0, nonlinear=0.0)))
    assert isnan(FVU.value(scalars(x_norm=0.0)))


def test_share_reaches_both_ends() -> None:
    assert SHARE.value(scalars(nonlinear=0.0)) == 0.0
    assert SHARE.value(scalars(linear=0.0)) == 1.0


def test_every_mode_says_what_it_means_and_shows_something() -> None:
    assert len({mode.id for mode in MODES}) == len(MODES) == 7
    for mode in MODES:
        assert mode.meaning.endswith(".")
        assert mode.size is not None or mode.share is not None


def test_modes_go_around() -> None:
    mode = MODES[0]
    for expected in [*MODES[1:], MODES[0]]:
        mode = next_mode(mode)
        assert mode is expected
    assert next_mode(MODES[0], -1) is MODES[-1]
