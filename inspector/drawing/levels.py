"""From a number to one of a few levels, with edges a reader can say aloud.

A colour means the same in every context. The share of nonlinear error has one scale for ever, centred on a half: a
token is painted nonlinear when more than half of its error is. A size has one scale per SAE and text, from quantiles
that the session measured on ordinary held-out tokens; the loss has one in nats. Only where a reader asks for it, or
nothing has been measured yet, are the edges those of the context on the screen, and then the legend says so. The
legend says the edges beside the colours, for screen, export and command line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from inspector.drawing.lines import clipped
from inspector.drawing.palette import OUTLIER_MARK, CellStyle, Run, TokenPalette
from inspector.drawing.tokens import OUTLIER, Measure, TokenDocument, TokenMode

LOW_QUANTILE, HIGH_QUANTILE = 0.2, 0.97
"""A fifth of the tokens stays plain, so that the others stand out; the upper tail of error norms is long and few."""
SHARE_QUANTILE = 0.03
"""A share has two interesting ends: its edges cover the bulk between this quantile and its mirror."""
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


def nice_scale(low: float, high: float, n_levels: int) -> LevelScale:
    """Equal steps of a round width: the first edge near `low`, the last near `high`.

    Args:
        low: what the bulk of a measure that is never negative begins at.
        high: where it ends; not above `low`, or nothing at all: edges around it.
        n_levels: At least 2.
    """
    low, high = _spread(low, high)
    n_edges = n_levels - 1
    step = _nice_step((high - low) / max(n_edges - 1, 1), 1.0)
    grid = step if n_edges > 1 else _nice_step(step / 5, 1.0)
    return _stepped(low, high, n_edges, step, grid, None)


def relative_scale(values: Iterable[float], n_levels: int, upper_limit: float | None = None) -> LevelScale:
    """The scale of these values alone.

    Args:
        values: of a measure that is never negative; NaN and infinities are ignored. None: as if from 0 to 1.
        n_levels: At least 2.
        upper_limit: What a measure with two interesting ends never exceeds (1 for a share): its levels split the bulk
            evenly. Without it the edges run from the low quantile to the high one.
    """
    known = sorted(value for value in values if isfinite(value)) or [0.0, 1.0]
    if upper_limit is None:
        return nice_scale(_quantile(known, LOW_QUANTILE), _quantile(known, HIGH_QUANTILE), n_levels)
    low, high = _spread(_quantile(known, SHARE_QUANTILE), _quantile(known, 1 - SHARE_QUANTILE))
    step = _nice_step(min(high - low, upper_limit) / n_levels, 0.01)
    return _stepped(low, high, n_levels - 1, step, min(step, upper_limit / 20), upper_limit)


def _stepped(low: float, high: float, n_edges: int, step: float, grid: float, limit: float | None) -> LevelScale:
    """Edges of this step on this grid, around the middle of two ends, above 0 and below the limit."""
    while True:
        reach = step * (n_edges - 1)
        first = max(round((low + high - reach) / 2 / grid), 1) * grid
        if limit is not None:
            first = min(first, (ceil((limit - reach) / grid - 1e-9) - 1) * grid)
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


Ranges = Mapping[str, tuple[float, float]]
"""By measure: the low and the high quantile over ordinary tokens of the whole text."""


def scale_of(
    measure: Measure, n_levels: int, ranges: Ranges, document: TokenDocument | None, sae: int, *, relative: bool
) -> tuple[LevelScale, bool]:
    """The scale of a measure, and whether it is that of one document alone.

    Args:
        measure: whose.
        n_levels: as many as the palette has.
        ranges: measured on the text, of the SAE that is shown; empty: nothing yet.
        document: what is shown.
        sae: an index into its `saes`.
        relative: whether the reader wants the edges of this document.
    """
    if not relative and measure.edges is not None:
        return LevelScale(edges=measure.edges(n_levels)), False
    if not relative and measure.id in ranges:
        return nice_scale(*ranges[measure.id], n_levels), False
    positions = document.included() if document is not None and document.saes else ()
    values = [measure.of(document, sae, position) for position in positions] if document is not None else []
    return relative_scale(values, n_levels, measure.upper_limit), True


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
    relative: bool = False
    """Whether the edges are those of this context alone."""


def legend_of(
    mode: TokenMode,
    palette: TokenPalette,
    ranges: Ranges,
    document: TokenDocument | None,
    sae: int,
    *,
    marks: bool,
    relative: bool,
) -> LegendData:
    """What colours mean: the scales of a mode as `scale_of` gives them, and the rest as it is."""
    n_shares = len(palette.shares) if mode.size is None else palette.n_shares
    scales = {
        measure.id: scale_of(measure, n_levels, ranges, document, sae, relative=relative)
        for measure, n_levels in ((mode.size, palette.n_sizes), (mode.share, n_shares))
        if measure is not None
    }
    return LegendData(
        mode=mode,
        palette=palette,
        size_scale=scales[mode.size.id][0] if mode.size is not None else None,
        share_scale=scales[mode.share.id][0] if mode.share is not None else None,
        marks=marks,
        outliers=document is not None and OUTLIER in document.split,
        relative=any(own for _, own in scales.values()),
    )


RELATIVE = ("~ ", "this context ", "relative to this context  ")
"""From short to long: these edges are of what is on the screen and of nothing else."""


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
    runs: list[Run] = [(RELATIVE[words] if legend.relative else "", palette.strong)]
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
            top = palette.n_sizes - 1
            letter = "a" if palette.depth == "none" else " "  # Underlines need something to be under.
            swatches = [
                ((palette.mark(mode, top, k) if marks else letter) * swatch, palette.style(mode, top, k))
                for k in range(palette.n_shares)
            ]
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
