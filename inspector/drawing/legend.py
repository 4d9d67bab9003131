"""What the colours of a token strip mean, as one line of styled text: shared by screen, export and command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspector.drawing.level_scale import LevelScale
from inspector.drawing.palette import OUTLIER_MARK, CellStyle, TokenPalette
from inspector.drawing.token_modes import Measure, TokenMode

Run = tuple[str, CellStyle]
"""Text and how it looks."""


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
    return _clip(runs, width)


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


def _clip(runs: list[Run], width: int) -> list[Run]:
    kept: list[Run] = []
    for text, style in runs:
        if len(text) > width:
            return [*kept, (text[:width], style)] if width > 0 else kept
        kept.append((text, style))
        width -= len(text)
    return kept
