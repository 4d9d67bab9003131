"""How many digits of a number are shown: as many as its interval supports. Results keep all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MOST_DECIMALS = 6
"""Beyond, a column is wider than it is read."""


def supported_decimals(intervals: Iterable[Sequence[float] | None], otherwise: int) -> int:
    """Decimals of a number with an interval: two significant digits of half its width, of the narrowest if several.

    Args:
        intervals: [low, high] each; None and those without width say nothing.
        otherwise: where none says anything.
    """
    halves = [half for ends in intervals if ends is not None and (half := abs(ends[1] - ends[0]) / 2) > 0.0]
    if not halves:
        return otherwise
    return min(max(1 - math.floor(math.log10(min(halves))), 0), MOST_DECIMALS)
