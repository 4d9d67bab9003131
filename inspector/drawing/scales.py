"""Where a value stands on an axis, which values an axis names, and what becomes of more points than it has places."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from inspector.drawing.figures import Axis, Cell, Series
from inspector.drawing.safe_text import visible

UNDEFINED = "undefined"
Ticks = Sequence[tuple[float, str]]
"""Values and what is said there."""
MOST_OWN_TICKS = 8
"""Measured places that an axis names instead of round numbers."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An interval of an axis; position 0 is its low end, 1 its high end."""

    low: float
    high: float
    log: bool = False
    axis: Axis = field(default=Axis(label=""), compare=False)
    """What is measured along it."""
    own: Ticks = ()
    """The measured places, where they are few: an axis says more by naming the widths and L0s that there are than round
    numbers between them."""

    def place(self, value: float) -> float | None:
        """Position of a value, outside 0 to 1 if it lies outside; None where there is no logarithm."""
        if not math.isfinite(value) or (self.log and value <= 0.0):
            return None
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return 0.5 if high == low else (at - low) / (high - low)

    def value(self, place: float) -> float:
        """What stands at a position; inverse of `place`."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)

    def round_values(self, at_most: int) -> list[float]:
        """Round values inside, ascending; powers of ten or their 1-2-5 on a logarithmic axis."""
        return _log_ticks(self.low, self.high, at_most) if self.log else _even_ticks(self.low, self.high, at_most)

    def ticks(self, at_most: int) -> Ticks:
        """The measured places or, of those there are too many, so many round values; with what is said there."""
        values = self.round_values(max(at_most, 2))
        return self.own or list(zip(values, tick_texts(values), strict=True))


def scale_of(
    values: Iterable[float | None], axis: Axis, *, margin: float = 0.04, zero: bool = False, named: bool = False
) -> Scale:
    """A scale that holds all values.

    Args:
        values: None and not-finite ones do not count; on a logarithmic axis neither do those up to 0.
        axis: says whether it is logarithmic.
        margin: free share on either side.
        zero: let a linear scale reach 0.
        named: let the axis name the values themselves, if they are few.
    """
    known = [value for value in values if value is not None and math.isfinite(value) and (value > 0.0 or not axis.log)]
    if not known:
        known = [1.0, 10.0] if axis.log else [0.0, 1.0]
        margin, named = 0.0, False
    low, high = min(known), max(known)
    if zero and not axis.log:
        low, high = min(low, 0.0), max(high, 0.0)
    if axis.log:
        grow = 2.0 if low == high else (high / low) ** margin
        low, high = low / grow, high * grow
    elif low == high:
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    else:
        grow = (high - low) * margin
        low, high = low if zero and low == 0.0 else low - grow, high if zero and high == 0.0 else high + grow
    return Scale(low=low, high=high, log=axis.log, axis=axis, own=_own_ticks(known, axis) if named else ())


def ends_of(all_series: Iterable[Series]) -> Iterator[float | None]:
    """Every number of the series that a scale has to hold, ends of intervals included."""
    for series in all_series:
        yield from (*series.y, *series.low, *series.high)


def _even_ticks(low: float, high: float, at_most: int) -> list[float]:
    if high <= low or at_most < 1:
        return [low]
    rough = (high - low) / max(at_most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0, 50.0):
        step = power * factor
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= at_most:
            return [index * step for index in range(first, last + 1)]
    return [low]


def _log_ticks(low: float, high: float, at_most: int) -> list[float]:
    if high < 2.5 * low:  # no room for 1-2-5: as on an even axis, which it nearly is
        return _even_ticks(low, high, at_most)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [
            value
            for power in range(first, last + 1)
            for step in steps
            if low * (1 - 1e-9) <= (value := step * 10.0**power) <= high * (1 + 1e-9)
        ]
        if len(found) <= at_most:
            return found if len(found) > 1 or at_most < 2 else [low, high]
    every = math.ceil(len(found) / at_most)
    return found[::every]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Short numbers for all of them, with as many digits as tell them apart."""
    for digits in (3, 4, 5, 6, 8):
        texts = [tick_text(value, digits) for value in ticks]
        if len(set(texts)) == len(texts):
            break
    return texts


def _own_ticks(values: Sequence[float], axis: Axis) -> Ticks:
    """The places themselves, ascending; empty where they are many.

    Places whose texts are equal (an L0 of 15.98 and one of 16.0) are one tick.
    """
    found: dict[str, float] = {}
    for value in sorted(set(values)):
        found.setdefault(_width_text(value) if axis.unit == "latents" else tick_text(value), value)
        if len(found) > MOST_OWN_TICKS:
            return ()
    return [(value, text) for text, value in found.items()] if len(found) > 1 else ()


def _width_text(value: float) -> str:
    """A width as the field says it: 1k for 1024, 16k for 16384, 1m for 1048576."""
    if value < 1000:
        return f"{value:g}"
    return f"{value // 1000:g}k" if value < 1_000_000 else f"{value // 1_000_000:g}m"


def tick_text(value: float, digits: int = 3) -> str:
    """A short number: 0.25, 16k, 1.5m, 1e-05."""
    size = abs(value)
    if size == 0.0:
        return "0"
    for limit, letter in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if size >= limit and size < limit * 1000:
            return f"{value / limit:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def number_text(value: float | None, digits: int = 3) -> str:
    """A value as it stands beside a mark: three significant digits, 'undefined' if there is none."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if value == 0.0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    before = max(0, math.floor(math.log10(abs(value))) + 1)
    return f"{value:.{max(digits - before, 0) if before else digits}f}"


def axis_text(axis: Axis) -> str:
    """Its label with the unit, and that it is logarithmic."""
    extra = [part for part in (axis.unit, "log" if axis.log else "") if part]
    return f"{axis.label} ({', '.join(extra)})" if extra else axis.label


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


def format_cell(value: Cell, digits: int) -> str:
    """Text of one cell: thousands separated, floats with `digits` decimals, None as 'undefined'.

    A float too small for its decimals is shown in scientific notation, not as 0.
    """
    if value is None:
        return UNDEFINED
    if isinstance(value, str):
        return visible(value) if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    fixed = f"{value:,.{digits}f}"
    return f"{value:.1e}" if value != 0.0 and float(fixed.replace(",", "")) == 0.0 else fixed
