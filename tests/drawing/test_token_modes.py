from __future__ import annotations

from math import isnan, nan

import pytest

from inspector.drawing.token_document import TokenScalars
from inspector.drawing.token_modes import FVU, MEASURES, MODES, SHARE, mode_named, next_mode
from inspector.errors import UsageError


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


def test_an_unknown_mode_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no colour mode 'linaer'\. Nearest: linear"):
        mode_named("linaer")
