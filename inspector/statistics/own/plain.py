"""Intervals of plain numbers, for experiments that keep their bootstrap draws. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence

LEVEL = 0.95


def interval(draws: Sequence[float | None], *, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of a score's bootstrap draws, the first entry being the score as measured.

    None without draws or if any is undefined, as everywhere: a percentile of the rest would be of other data.
    """
    values = [value for value in draws[1:] if value is not None and value == value]
    if len(values) < 2 or len(values) != len(draws) - 1:
        return None
    ordered = sorted(values)
    tail = (1.0 - level) / 2.0
    return _quantile(ordered, tail), _quantile(ordered, 1.0 - tail)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics, as numpy and torch do."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
