"""Results of several layers or models side by side: one table and one curve per experiment, after the last of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspector.drawing.figures import Axis, Cell, Column, Curve, Figure, Series, Table
from inspector.experiment import ALL_TOKENS, SAE_KEYS, SPREAD_KEYS
from inspector.spec import width_label

Result = Mapping[str, Any]
"""An object as `--json` prints it; user data, hence Any."""


def side_by_side(title: str, results: Sequence[Result]) -> tuple[Figure, ...]:
    """Every SAE of every result in one table, and the first score against the layer.

    Args:
        title: of the experiment.
        results: of one experiment, in the order they were measured.

    Returns:
        Nothing where nothing is measured per SAE. A score that one result lacks is missing there.
    """
    rows = [(result, row) for result in results for row in result["saes"]]
    scores = list(dict.fromkeys(key for _, row in rows for key, value in row.items() if _is_score(key, value)))
    if not rows or not scores:
        return ()
    models = [str(result["provenance"].get("model") or "") for result, _ in rows]
    several = len(set(models)) > 1
    columns = [Column(title="model")] if several else []
    columns += [Column(title=name) for name in ("layer", "SAE", "latents")] + [Column(title="L0", digits=1)]
    columns += [Column(title=score, digits=4) for score in scores]
    lines: list[tuple[Cell, ...]] = []
    for model, (_, row) in zip(models, rows, strict=True):
        place = row["hook_name"] if row["layer"] is None else row["layer"]
        head: list[Cell] = [model] if several else []
        lines.append((*head, place, row["sae"], row["d_sae"], row["l0"], *(row.get(score) for score in scores)))
    table = Table(title=f"{title}: all layers", columns=tuple(columns), rows=tuple(lines))
    curve = _by_layer(title, models, [row for _, row in rows], scores[0])
    return (table, curve) if curve.series else (table,)


def _by_layer(title: str, models: Sequence[str], rows: Sequence[Mapping[str, Any]], score: str) -> Curve:
    """One line per model and width; of several SAEs of a width at a layer the one of the middle L0."""
    series = []
    for model in dict.fromkeys(models):
        own = [row for name, row in zip(models, rows, strict=True) if name == model and row["layer"] is not None]
        for width in sorted({row["d_sae"] for row in own}):
            points = []
            for layer in sorted({row["layer"] for row in own if row["d_sae"] == width}):
                same = [row for row in own if row["d_sae"] == width and row["layer"] == layer]
                points.append(sorted(same, key=lambda row: float(row["l0"]))[len(same) // 2])
            if len(points) > 1:
                label = width_label(width)
                series.append(
                    Series(
                        name=f"{model} {label}" if len(set(models)) > 1 else label,
                        x=tuple(float(row["layer"]) for row in points),
                        y=tuple(row.get(score) for row in points),
                    )
                )
    return Curve(title=f"{title} by layer", x=Axis(label="layer"), y=Axis(label=score), series=tuple(series))


def _is_score(key: str, value: object) -> bool:
    if key in (*SAE_KEYS, *SPREAD_KEYS) or key.endswith(ALL_TOKENS):
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)
