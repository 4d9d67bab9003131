"""Intervals and slopes of plain numbers, for experiments that keep their bootstrap draws. No torch, no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.95
NORMAL = 1.959964
"""The normal distribution's two-sided 95% quantile."""


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


def slope_beside(
    x: Sequence[float], y: Sequence[float], covariate: Sequence[float]
) -> tuple[float, tuple[float, float]] | None:
    """Least-squares slope of y on x with a covariate and a constant, and its 95% interval; None if undetermined.

    Three columns are solved by hand (normal equations of centred data), because those who list results load no numpy.
    The interval is Student's, over the points: few SAEs make it wide.
    """
    n = len(x)
    cx, cy, cz = ([value - sum(values) / n for value in values] for values in (x, y, covariate)) if n else ([], [], [])
    xx, zz, xz = (sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((cx, cx), (cz, cz), (cx, cz)))
    xy, zy = (sum(a * b for a, b in zip(p, cy, strict=True)) for p in (cx, cz))
    fitted = 3
    if zz <= 1e-12 * max(xx, 1e-300):  # one value only: there is nothing to hold fixed
        zz, xz, zy, fitted = 1.0, 0.0, 0.0, 2
    determinant = xx * zz - xz * xz
    if n <= fitted or xx <= 0.0 or determinant <= 1e-9 * xx * zz:
        return None
    b = (zz * xy - xz * zy) / determinant
    c = (xx * zy - xz * xy) / determinant
    rest = sum((v - b * u - c * w) ** 2 for u, v, w in zip(cx, cy, cz, strict=True))
    half = student(n - fitted) * math.sqrt(max(rest, 0.0) / (n - fitted) * zz / determinant)
    return b, (b - half, b + half)


def student(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t: exact for 1 and 2, to 0.01 from 3 on (Cornish and Fisher's expansion)."""
    if freedom < 3:
        return {1: 12.706205, 2: 4.302653}[freedom]
    z, v = NORMAL, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4
