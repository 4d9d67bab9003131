"""What the colours of a token strip mean, as one line of styled text: shared by screen, export and command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspector.drawing.level_scale import LevelScale
from inspector.drawing.palette import CellStyle, TokenPalette
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


def legend_runs(legend: LegendData, width: int) -> list[Run]:
    """The legend as runs of text, at most `width` cells: swatches with the edges between them.

    Every edge is kept; what goes when there is little room are the gaps, the swatches' second cell, then the words.
    """
    for gap, swatch, words in ((" ", 2, True), ("", 2, True), ("", 1, True), ("", 1, False)):
        runs = _runs(legend, words=words, swatch=swatch, gap=gap)
        if sum(len(text) for text, _ in runs) <= width:
            return runs
    return _clip(runs, width)


def _runs(legend: LegendData, *, words: bool, swatch: int, gap: str) -> list[Run]:
    mode, palette = legend.mode, legend.palette
    plain = palette.plain
    runs: list[Run] = []
    if mode.size is not None and legend.size_scale is not None:
        runs.append((_heading(mode.size, short=mode.share is not None) if words else "", plain))
        styles = [palette.style(mode, level, None) for level in range(palette.n_sizes)]
        glyphs = [palette.mark(mode, level, None) if legend.marks else " " for level in range(palette.n_sizes)]
        runs += _scale(legend.size_scale.labels(percent=mode.size.percent), styles, [glyph * swatch for glyph in glyphs], gap, plain)
        runs.append((_unit(mode.size), plain))
    if mode.share is not None and legend.share_scale is not None:
        both = mode.size is not None
        if both:
            runs.append((" │ linear " if words else " │ ", plain))
            top = palette.n_sizes - 1
            styles = [palette.style(mode, top, level) for level in range(palette.n_shares)]
            glyphs = ["a" if palette.depth == "none" else " "] * palette.n_shares
        else:
            runs.append((f"{mode.share.title}  " if words else "", plain))
            styles = list(palette.shares)
            glyphs = [palette.mark(mode, None, level) if legend.marks else " " for level in range(len(styles))]
        runs += _scale(legend.share_scale.labels(percent=mode.share.percent), styles, [glyph * swatch for glyph in glyphs], gap, plain)
        runs.append((_unit(mode.share), plain))
        if both and words:
            runs.append((" nonlinear", plain))
    return [run for run in runs if run[0]]


def _heading(measure: Measure, *, short: bool) -> str:
    return "|error| " if short else f"{measure.title}  "


def _unit(measure: Measure) -> str:
    return f" {measure.unit}" if measure.unit else ""


def _scale(
    labels: Sequence[str], styles: Sequence[CellStyle], swatches: Sequence[str], gap: str, plain: CellStyle
) -> list[Run]:
    runs: list[Run] = []
    for level, (style, swatch) in enumerate(zip(styles, swatches, strict=True)):
        if level:
            runs.append((gap + labels[level - 1] + gap, plain))
        runs.append((swatch, style))
    return runs


def _clip(runs: list[Run], width: int) -> list[Run]:
    kept: list[Run] = []
    for text, style in runs:
        if len(text) > width:
            return [*kept, (text[:width], style)] if width > 0 else kept
        kept.append((text, style))
        width -= len(text)
    return kept
