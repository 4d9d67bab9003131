"""The slope of nonlinear FVU on width, against numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inspector.experiments.fvu_nonlinear import flatness_note, width_slope

WIDTHS, L0S = (256, 512, 1024, 2048), (8.0, 16.0, 32.0)


def suite(power: float, noise: float = 0.02) -> list[Any]:
    """SAEs whose fvu_nonlinear is width^power / sqrt(L0), whose L0 grows with the width, as in published suites."""
    rng = np.random.default_rng(0)
    return [
        SimpleNamespace(
            ref=SimpleNamespace(d_sae=width),
            l0=l0 * width**0.2,
            scores=SimpleNamespace(
                fvu_nonlinear=width**power * (l0 * width**0.2) ** -0.5 * np.exp(noise * rng.standard_normal())
            ),
        )
        for width in WIDTHS
        for l0 in L0S
    ]


def test_it_is_numpys_with_l0_held_fixed() -> None:
    saes = suite(-0.1)
    logs = np.log([[sae.ref.d_sae, sae.l0, np.e, sae.scores.fvu_nonlinear] for sae in saes])
    weights = np.linalg.lstsq(logs[:, :3], logs[:, 3], rcond=None)[0]
    found = width_slope(saes, "fvu_nonlinear")
    assert found is not None
    assert found[0] == pytest.approx(weights[0], rel=1e-9)
    assert found[1][0] < -0.1 < found[1][1] < 0.0


def test_a_flat_suite_is_flat_though_its_l0_grows_with_width() -> None:
    saes = suite(0.0)
    naive = np.polyfit(np.log([sae.ref.d_sae for sae in saes]), np.log([s.scores.fvu_nonlinear for s in saes]), 1)[0]
    assert naive == pytest.approx(-0.1, abs=0.02)  # what comparing widths at unequal L0 would say
    found = width_slope(saes, "fvu_nonlinear")
    assert found is not None and found[1][0] < 0.0 < found[1][1]


def test_undefined_scores_are_left_out_and_two_widths_are_too_few() -> None:
    saes = suite(0.0)
    saes[0].scores.fvu_nonlinear = None
    assert width_slope(saes, "fvu_nonlinear") is not None
    assert width_slope(saes[:6], "fvu_nonlinear") is None


def test_the_note_says_it_in_percent() -> None:
    result = {"width_slope": -0.1, "width_slope_fvu": -0.2}
    assert flatness_note(result, {"suite": {"width_slope": [-0.12, -0.08]}}) == (
        "Slope of log nonlinear FVU on log width at fixed L0: -0.100 [-0.120, -0.080], so -6.7% per doubling; of log "
        "FVU: -0.200."
    )
    assert flatness_note({}, {}) == ""
