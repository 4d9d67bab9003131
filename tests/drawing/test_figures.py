"""The table and the curves of a suite, from rows as they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.drawing.figures import Axis, Score, Series, curve_by_width, sae_table, supported_decimals, with_interval
from inspector.options import width_label

ROWS: list[dict[str, Any]] = [
    {"sae": "a", "d_sae": 16384, "nominal_l0": None, "l0": 30.5, "r2": 0.4},
    {"sae": "b", "d_sae": 16384, "nominal_l0": 11, "l0": 10.0, "r2": None},
    {"sae": "c", "d_sae": 1048576, "nominal_l0": 20, "l0": 20.0, "r2": -3.0},
]
INTERVALS = {"a": {"r2": [0.3, 0.5]}, "b": {"r2": None}, "c": {"r2": [-4.0, -2.0]}}
R2 = Score(key="r2", title="R²")


def test_the_table_shows_every_sae_and_no_number_it_does_not_have() -> None:
    table = sae_table("T", ROWS, INTERVALS, (R2,), "note")
    assert [column.title for column in table.columns] == ["SAE", "latents", "nominal L0", "L0", "R²", "95% low", "high"]
    assert table.rows == (
        ("a", 16384, "?", 30.5, 0.4, 0.3, 0.5),
        ("b", 16384, 11, 10.0, None, None, None),
        ("c", 1048576, 20, 20.0, -3.0, -4.0, -2.0),
    )
    assert table.note == "note"


def test_without_any_interval_there_is_no_column_for_it() -> None:
    assert len(sae_table("T", ROWS, {}, (R2,)).columns) == 5


def test_curves_are_sorted_by_l0_within_a_width_and_nothing_is_clipped() -> None:
    curve = curve_by_width("T", ROWS, INTERVALS, R2, width_label)
    assert curve.x == Axis(label="L0", log=True)
    assert curve.series == (
        Series(name="16k", x=(10.0, 30.5), y=(None, 0.4), low=(None, 0.3), high=(None, 0.5)),
        Series(name="1m", x=(20.0,), y=(-3.0,), low=(-4.0,), high=(-2.0,)),
    )


@pytest.mark.parametrize(
    ("ends", "decimals"),
    [((0.70, 0.80), 3), ((0.512, 0.534), 3), ((0.5304, 0.5316), 5), ((12.0, 96.0), 0), ((0.5, 0.5), 4), (None, 4)],
)
def test_a_number_has_the_decimals_its_interval_supports(ends: tuple[float, float] | None, decimals: int) -> None:
    """Two significant digits of half the width: 0.75 with 0.05 is 0.750."""
    assert supported_decimals([ends], 4) == decimals
    assert supported_decimals([ends, None], 4) == decimals


@pytest.mark.parametrize(
    ("value", "ends", "text"),
    [
        (0.53127, (0.52, 0.54), "0.531 [0.520, 0.540]"),
        (0.53127, (0.3, 0.7), "0.53 [0.30, 0.70]"),
        (1234.5, (1000.0, 1400.0), "1234 [1000, 1400]"),
        (0.53127, None, "0.531"),
        (0.53127, (0.5, 0.5), "0.531 [0.5, 0.5]"),
    ],
)
def test_a_number_beside_its_interval_has_as_many_digits_as_that_supports(
    value: float, ends: tuple[float, float] | None, text: str
) -> None:
    assert with_interval(value, ends) == text
    assert with_interval(value, ends, "+").replace("+", "") == text
