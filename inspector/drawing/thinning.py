"""What becomes of more points than a picture has room for: a line of them is drawn through medians, never cut short."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from inspector.drawing.figures import Series
from inspector.drawing.scales import Scale

THICKET = 4
"""Points of a line per place across above which medians are drawn."""
SAID = "lines of many points: medians by column"


def is_thicket(series: Series, places: int) -> bool:
    """Whether a line has so many points that it would fill the plot up and down instead of running through it."""
    return series.style == "line" and not series.low and len(series.x) > THICKET * places


def thinned(series: Series, x: Scale, places: int) -> Series:
    """A thicket as the line through the medians of the points that share a place; else as it is.

    Args:
        series: any.
        x: the axis.
        places: how many an axis has: columns of dots, or so many that the eye keeps apart.
    """
    if not is_thicket(series, places):
        return series
    groups: dict[int, list[tuple[float, float]]] = {}
    for at, value in zip(series.x, series.y, strict=True):
        place = x.place(at)
        if place is not None and value is not None and math.isfinite(value):
            groups.setdefault(round(place * (places - 1)), []).append((at, value))
    kept = [
        (statistics.median(at for at, _ in group), statistics.median(value for _, value in group))
        for _, group in sorted(groups.items())
    ]
    return replace(series, x=tuple(at for at, _ in kept), y=tuple(value for _, value in kept))
