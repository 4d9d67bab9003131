"""From a number to one of a few levels, with edges a reader can say aloud.

The edges come from robust quantiles of the included tokens of the documents shown so far, over all SAEs together: if
every SAE had its own scale, a wider SAE could not look better than a narrow one. They are refreshed when the number of
documents has doubled, so colours settle instead of flickering. The legend says the edges beside the colours, for
screen, export and command line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from inspector.drawing.lines import clipped
from inspector.drawing.palette import OUTLIER_MARK, CellStyle, Run, TokenPalette
from inspector.drawing.tokens import MEASURES, Measure, TokenDocument, TokenMode

LOW_QUANTILE, HIGH_QUANTILE = 0.2, 0.97
"""A fifth of the tokens stays plain, so that the others stand out; the upper tail of error norms is long and few."""
SHARE_QUANTILE = 0.03
"""A share has two interesting ends: its edges cover the bulk between this quantile and its mirror."""
TOKENS_PER_DOCUMENT = 64
"""Sampled from each document and SAE, evenly spaced. With 40 SAEs and all measures about 10 ms of Python."""
MAX_SAMPLE = 8192
TINY = 1e-6
"""Values below this are nothing, and values that differ by less than this part of themselves are the same."""
_NICE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class LevelScale:
    """Edges between levels, ascending: a value below edges[0] has level 0, from edges[-1] on the highest level."""

    edges: tuple[float, ...]

    @property
    def n_levels(self) -> int:
        """Number of levels: one more than there are edges."""
        return len(self.edges) + 1

    def level(self, value: float) -> int | None:
        """Level of a value; None for NaN."""
        return None if value != value else bisect_right(self.edges, value)

    def labels(self, *, percent: bool = False) -> tuple[str, ...]:
        """The edges as short numbers, all with the same decimals, multiplied by 100 if percent."""
        factor = 100.0 if percent else 1.0
        values = [edge * factor for edge in self.edges]
        for decimals in range(5):
            if all(abs(round(value, decimals) - value) <= 1e-6 * abs(value) for value in values):
                return tuple(f"{value:.{decimals}f}" for value in values)
        return tuple(f"{value:.2g}" for value in values)


def nice_scale(values: Sequence[float], n_levels: int, *, upper_limit: float | None = None) -> LevelScale:
    """Equal steps of a round width that cover the bulk of the values.

    Args:
        values: Sample of a measure that is never negative; NaN and infinities are ignored. Empty: as if from 0 to 1.
        n_levels: At least 2.
        upper_limit: What a measure with two interesting ends never exceeds (1 for a share). Without it the first edge
            is near the low quantile and the last near the high one; with it the levels split the bulk evenly.
    """
    known = sorted(value for value in values if isfinite(value)) or [0.0, 1.0]
    n_edges = n_levels - 1
    if upper_limit is None:
        low, high = _spread(_quantile(known, LOW_QUANTILE), _quantile(known, HIGH_QUANTILE))
        step = _nice_step((high - low) / max(n_edges - 1, 1), 1.0)
        grid = step if n_edges > 1 else _nice_step(step / 5, 1.0)
    else:
        low, high = _spread(_quantile(known, SHARE_QUANTILE), _quantile(known, 1 - SHARE_QUANTILE))
        step = _nice_step(min(high - low, upper_limit) / n_levels, 0.01)
        grid = min(step, upper_limit / 20)
    while True:
        reach = step * (n_edges - 1)
        first = max(round((low + high - reach) / 2 / grid), 1) * grid
        if upper_limit is not None:
            first = min(first, (ceil((upper_limit - reach) / grid - 1e-9) - 1) * grid)
        if first > 1e-9 * step:
            return LevelScale(edges=tuple(float(f"{first + index * step:.10g}") for index in range(n_edges)))
        step = _nice_step(step * 0.79, 0.01)  # Too wide to fit below the limit.


def _spread(low: float, high: float) -> tuple[float, float]:
    """Two ends well apart, also of values that are all the same or all nothing."""
    if high < TINY:
        return 0.0, 1.0
    return (low, high) if high - low > TINY * high else (0.5 * high, 1.5 * high)


def _nice_step(raw: float, unit: float) -> float:
    """The round number nearest to raw in ratio: two digits at most, and if it is above the unit a multiple of it.

    A legend reads 18 20 22 rather than 18.0 19.5 21.0.
    """
    magnitude = 10.0 ** floor(log10(raw))
    candidates = [nice * magnitude for nice in _NICE]
    short = [nice for nice in candidates if nice <= unit or abs(nice / unit - round(nice / unit)) < 1e-6]
    return min(short, key=lambda nice: abs(log10(nice / raw)))


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics."""
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


class ScaleBook:
    """The scales of all measures, learnt from the documents shown."""

    def __init__(self) -> None:
        """Start empty: every scale covers 0 to 1 until a document was observed."""
        self._epoch = 0
        self._samples: dict[str, _Sample] = {measure.id: _Sample() for measure in MEASURES}
        self._scales: dict[tuple[str, int], tuple[_Sample, int, LevelScale]] = {}
        self._seen: set[tuple[str, int, int]] = set()

    def observe(self, document: TokenDocument) -> None:
        """Learn from the included tokens of a document; the same document and epoch counts once.

        Scores from a newer linear map replace what older maps said.
        """
        key = (document.source, document.context, document.epoch)
        if document.source == "context":
            if key in self._seen:
                return
            self._seen.add(key)
        if document.epoch < self._epoch:
            return
        positions = list(document.included())
        positions = positions[:: max(1, len(positions) // TOKENS_PER_DOCUMENT)]
        if not positions or not document.saes:
            return
        if document.epoch > self._epoch:
            self._epoch = document.epoch
            for measure in MEASURES:
                if measure.needs_map:
                    self._samples[measure.id] = _Sample()
        for sae in range(len(document.saes)):
            rows = [document.scalars(position, sae) for position in positions]
            for measure in MEASURES:
                if measure.per_sae or sae == 0:
                    self._samples[measure.id].add([measure.value(row) for row in rows])
        for sample in self._samples.values():
            sample.documents += 1

    def scale(self, measure: Measure, n_levels: int) -> LevelScale:
        """The scale of a measure with this many levels. Cheap: computed when the documents observed have doubled."""
        sample = self._samples[measure.id]
        key = (measure.id, n_levels)
        known = self._scales.get(key)
        if known is not None and known[0] is sample:
            documents = known[1]
            if sample.documents == documents or sample.documents < 2 * documents:
                return known[2]
        scale = nice_scale(sample.values, n_levels, upper_limit=measure.upper_limit)
        self._scales[key] = (sample, sample.documents, scale)
        return scale


class _Sample:
    """A bounded, evenly thinned sample."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.documents = 0
        self._stride = 1
        self._skip = 0

    def add(self, values: Sequence[float]) -> None:
        """Take every stride-th finite value; thin out when full."""
        for value in values:
            if not isfinite(value):
                continue
            if self._skip:
                self._skip -= 1
                continue
            self._skip = self._stride - 1
            self.values.append(value)
        while len(self.values) > MAX_SAMPLE:
            self.values = self.values[::2]
            self._stride *= 2


@dataclass(frozen=True, kw_only=True)
class LegendData:
    """What a legend has to explain."""

    mode: TokenMode
    palette: TokenPalette
    size_scale: LevelScale | None
    """None if the mode has no size."""
    share_scale: LevelScale | None
    """None if the mode has no share."""
    marks: bool
    """Whether marks are drawn after the tokens."""
    outliers: bool = False
    """Whether there are tokens that outweigh all others, which no level says."""


def legend_runs(legend: LegendData, width: int) -> list[Run]:
    """The legend as runs of text, at most `width` cells: swatches with the edges between them.

    Every edge is kept. When there is little room the gaps go first, then the swatches' second cell, the heading and
    long words, and at last all words.
    """
    for gap, swatch, words in ((" ", 2, 2), ("", 2, 2), ("", 1, 2), ("", 1, 1), ("", 1, 0)):
        runs = _runs(legend, words=words, swatch=swatch, gap=gap)
        if sum(len(text) for text, _ in runs) <= width:
            return runs
    return clipped(runs, width)


def _runs(legend: LegendData, *, words: int, swatch: int, gap: str) -> list[Run]:
    mode, palette, marks = legend.mode, legend.palette, legend.marks
    plain = palette.plain
    runs: list[Run] = []
    if mode.size is not None and legend.size_scale is not None:
        heading = "‖error‖ " if mode.share is not None else f"{mode.size.title}  "
        levels = range(palette.n_sizes)
        swatches = [
            ((palette.mark(mode, level, None) if marks else " ") * swatch, palette.style(mode, level, None))
            for level in levels
        ]
        runs += [(heading if words > 1 else "", plain), *_scale(legend.size_scale, mode.size, swatches, gap, plain)]
    if mode.share is not None and legend.share_scale is not None:
        if mode.size is not None:
            letter = "a" if palette.depth == "none" else " "  # Underlines need something to be under.
            swatches = [(letter * swatch, palette.style(mode, palette.n_sizes - 1, k)) for k in range(palette.n_shares)]
            before, after = ((" │ ", ""), (" │ lin ", " nonlin"), (" │ linear ", " nonlinear"))[words]
        else:
            swatches = [
                ((palette.mark(mode, None, k) if marks else " ") * swatch, style)
                for k, style in enumerate(palette.shares)
            ]
            before, after = (f"{mode.share.title}  ", "") if words else ("", "")
        runs += [(before, plain), *_scale(legend.share_scale, mode.share, swatches, gap, plain), (after, plain)]
    if legend.outliers and words:
        runs += [("  ", plain), (f"outlier{OUTLIER_MARK}" if marks else "outlier", palette.outlier)]
    return [run for run in runs if run[0]]


def _scale(scale: LevelScale, measure: Measure, swatches: Sequence[Run], gap: str, plain: CellStyle) -> list[Run]:
    """Swatches with the edges between them, then the unit."""
    labels = scale.labels(percent=measure.percent)
    runs: list[Run] = [swatches[0]]
    for label, swatch in zip(labels, swatches[1:], strict=True):
        runs += [(gap + label + gap, plain), swatch]
    return [*runs, (f" {measure.unit}" if measure.unit else "", plain)]
