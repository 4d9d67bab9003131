"""Results of several layers side by side."""

from __future__ import annotations

from typing import Any

from inspector.cli.report import side_by_side
from inspector.drawing.figures import Curve, Table


def result(model: str, layer: int | None, *rows: tuple[str, int, float, float | None]) -> dict[str, Any]:
    return {
        "provenance": {"model": model},
        "saes": [
            {
                "sae": sae, "layer": layer, "hook_name": "h", "d_sae": d_sae, "nominal_l0": None, "l0": l0,
                "n_train": 9, "n_test": 9, "score": score, "flag": True, "words": "text",
            }
            for sae, d_sae, l0, score in rows
        ],
    }  # fmt: skip


def test_one_model_has_a_row_per_sae_and_a_line_per_width() -> None:
    first = result("m", 0, ("a", 32, 4.0, 0.1), ("b", 32, 8.0, 0.2), ("c", 32, 2.0, 0.9), ("d", 64, 4.0, 0.3))
    second = result("m", 1, ("e", 32, 5.0, None), ("f", 64, 4.0, 0.4))
    table, curve = side_by_side("Score", [first, second])
    assert isinstance(table, Table) and isinstance(curve, Curve)
    assert [column.title for column in table.columns] == ["layer", "SAE", "latents", "L0", "score"]
    assert table.rows[0] == (0, "a", 32, 4.0, 0.1)
    assert table.rows[4] == (1, "e", 32, 5.0, None)
    assert {series.name: (series.x, series.y) for series in curve.series} == {
        "32": ((0.0, 1.0), (0.1, None)),  # of three at layer 0 the one of the middle L0
        "64": ((0.0, 1.0), (0.3, 0.4)),
    }


def test_several_models_are_named() -> None:
    found = [result(name, layer, ("a", 32, 4.0, 0.1)) for name in ("m", "n") for layer in (0, 1)]
    table, curve = side_by_side("Score", found)
    assert isinstance(table, Table) and isinstance(curve, Curve)
    assert [row[:2] for row in table.rows] == [("m", 0), ("m", 1), ("n", 0), ("n", 1)]
    assert [series.name for series in curve.series] == ["m 32", "n 32"]


def test_what_is_measured_of_no_sae_has_no_table() -> None:
    assert side_by_side("Score", [{"provenance": {}, "saes": []}] * 2) == ()


def test_a_hook_without_a_layer_has_no_curve() -> None:
    (table,) = side_by_side("Score", [result("m", None, ("a", 32, 4.0, 0.1)), result("n", None, ("a", 32, 4.0, 0.2))])
    assert isinstance(table, Table)
    assert [row[1] for row in table.rows] == ["h", "h"]
