"""Bars, groups of bars with marks, and violins in a terminal; all lie on their side, so that names can be read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from inspector.drawing.figures import Axis, Bars, GroupedBars, Mark, Violin
from inspector.drawing.lines import cut, cut_start
from inspector.drawing.palette import FILLS, MARKS, CellStyle, FigurePalette, Line, Run
from inspector.drawing.plot import Place, Plot, Ticks
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import Scale, axis_text, number_text, scale_of
from inspector.drawing.terminal_curves import legend_lines, placed, round_ticks

EIGHTHS = " ▏▎▍▌▋▊▉"
VIOLIN_LINES = 3
MOST_OF_NAME = 0.35
"""Share of the width that names may take."""
NARROWEST = 14
"""Columns of bars, axis and gaps together, below which intervals are no longer written."""
ROOM_FOR_NUMBERS, ROOM_FOR_MARKS = 70, 110
"""Columns from which a violin's numbers, and the values of marks, stand beside the plot."""


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """One line: a bar, or the name of a group, which has no value text."""

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    marks: tuple[tuple[str, float | None], ...] = ()
    """(character, value)."""
    fill: str = ""
    """'': the name of a group."""
    style: CellStyle


def bars_lines(figure: Bars, width: int, palette: FigurePalette) -> list[Line]:
    """One line per label: name, bar, value, interval."""
    bars = [
        _Bar(name=label, value=value, low=_at(figure.low, i), high=_at(figure.high, i), fill="█",
             style=palette.of_series(0))
        for i, (label, value) in enumerate(zip(figure.labels, figure.values, strict=True))
    ]  # fmt: skip
    return _chart(bars, figure.value, width, palette)


def grouped_lines(figure: GroupedBars, width: int, palette: FigurePalette) -> list[Line]:
    """A heading per group, under it one line per bar; marks stand across the bars where they lie."""
    signs = _mark_signs(mark for series in figure.bars for mark in series.marks)
    bars = []
    for g, group in enumerate(figure.groups):
        bars.append(_Bar(name=group, style=palette.strong))
        bars += [
            _Bar(
                name=f"  {visible(series.name)}",
                value=series.values[g],
                low=_at(series.low, g),
                high=_at(series.high, g),
                marks=tuple((signs[mark.name], mark.values[g]) for mark in series.marks),
                fill=FILLS[index % len(FILLS)],
                style=palette.of_series(index),
            )
            for index, series in enumerate(figure.bars)
        ]
    names: list[Run] = [
        (f"{FILLS[i % len(FILLS)] * 2} {visible(series.name)}", palette.of_series(i))
        for i, series in enumerate(figure.bars)
    ]
    names += [(f"{sign} {visible(name)}", palette.plain) for name, sign in signs.items()]
    return [*legend_lines(names, width, palette), *_chart(bars, figure.value, width, palette)]


def violin_lines(figure: Violin, width: int, palette: FigurePalette) -> list[Line]:
    """Per label three lines of mirrored density with its median, its range and count beside it."""
    shown = [[value for value in sample if math.isfinite(value)] for sample in figure.samples]
    scale = scale_of((value for sample in shown for value in sample), figure.value)
    lines = VIOLIN_LINES * len(figure.labels)
    middles = [_height(VIOLIN_LINES * index + VIOLIN_LINES // 2, lines) for index in range(len(shown))]
    beside: list[tuple[float, str]] = []
    for sample, all_values, middle in zip(shown, figure.samples, middles, strict=True):
        if sample and width >= ROOM_FOR_NUMBERS:
            missing = len(all_values) - len(sample)
            beside += [
                (middle + 1 / lines, f"{number_text(min(sample))} to {number_text(max(sample))}"),
                (middle, f"median {number_text(statistics.median(sample))}"),
                (middle - 1 / lines, f"n {len(sample)}" + (f", {missing} undefined" if missing else "")),
            ]
    names = list(zip(middles, figure.labels, strict=True))
    plot = _lying(names, beside, figure.value, scale, lines, width, palette)
    for index, (sample, middle) in enumerate(zip(shown, middles, strict=True)):
        if not sample:
            plot.text((0.0, middle), "no defined number", palette.quiet)
            continue
        plot.strokes(_density(sample, scale, 2 * plot.columns, middle, lines), palette.of_series(index))
        place = scale.place(statistics.median(sample))
        assert place is not None, "finite, and the scale holds it"
        plot.marks([(place, middle)], "┃", palette.strong)
    return plot.drawn()


def _density(sample: Sequence[float], scale: Scale, dots: int, middle: float, lines: int) -> list[tuple[Place, Place]]:
    """A Gaussian kernel estimate, mirrored, as strokes; width by Silverman's rule, from the smallest value to the
    largest.
    """
    places = sorted(place for value in sample if (place := scale.place(value)) is not None)
    spread = statistics.pstdev(places) if len(places) > 1 else 0.0
    width = max(0.9 * spread * len(places) ** -0.2, 0.75 / dots)
    across = [(dot + 0.5) / dots for dot in range(int(places[0] * dots), int(places[-1] * dots) + 1)]
    heights = [sum(math.exp(-0.5 * ((at - place) / width) ** 2) for place in places) for at in across]
    tallest = max(heights) or 1.0
    reach = [(VIOLIN_LINES / 2 - 0.2) / lines * height / tallest for height in heights]
    return [((at, middle - up), (at, middle + up)) for at, up in zip(across, reach, strict=True)]


def _chart(bars: Sequence[_Bar], axis: Axis, width: int, palette: FigurePalette) -> list[Line]:
    scale = scale_of(_numbers(bars), axis, zero=not axis.log, margin=0.02)
    heights = [_height(index, len(bars)) for index in range(len(bars))]
    own = [(height, bar) for height, bar in zip(heights, bars, strict=True) if bar.fill]
    longest = max((min(cell_width(visible(bar.name)), int(width * MOST_OF_NAME)) for _, bar in own), default=0)
    room = width - longest - NARROWEST
    texts = [_value_text(bar, marks=width >= ROOM_FOR_MARKS) for _, bar in own]
    if any(cell_width(text) > room for text in texts):
        texts = [number_text(bar.value) for _, bar in own]  # the intervals are drawn all the same
    beside = [(height, text) for (height, _), text in zip(own, texts, strict=True)]
    plot = _lying([(height, bar.name) for height, bar in own], beside, axis, scale, len(bars), width, palette)
    for height, bar in own:
        _draw_bar(plot, bar, scale, height, palette)
    lines = plot.drawn()
    for index, bar in enumerate(bars):
        if not bar.fill:
            lines[index] = [(cut(visible(bar.name), width), palette.strong)]
    return lines


def _draw_bar(plot: Plot, bar: _Bar, scale: Scale, height: float, palette: FigurePalette) -> None:
    """The bar to an eighth of a cell, over it its interval, and marks over both."""
    cells: list[tuple[str, CellStyle | None]] = [("", None)] * plot.columns

    def column(value: float | None) -> int | None:
        place = None if value is None else scale.place(value)
        return None if place is None else min(max(int(place * plot.columns), 0), plot.columns - 1)

    zero = scale.place(max(0.0, scale.low) if not scale.log else scale.low)
    assert zero is not None, "a scale of bars holds 0 or its own low end"
    place = None if bar.value is None else scale.place(bar.value)
    if place is not None:
        start, end = sorted((zero * plot.columns, place * plot.columns))
        whole = int(end)
        cells[round(start) : whole] = [(bar.fill, bar.style)] * (whole - round(start))
        rest = EIGHTHS[int((end - whole) * 8)]
        if place > zero and rest != " " and whole < plot.columns and bar.fill == "█":
            cells[whole] = (rest, bar.style)
    first, last, tip = column(bar.low), column(bar.high), column(bar.value)
    if first is not None and last is not None:
        cells[first : last + 1] = [("─", palette.strong)] * (last + 1 - first)
        if tip is not None and first <= tip <= last:
            cells[tip] = ("┼", palette.strong)  # the end of the bar, which the interval covers
        cells[first], cells[last] = ("├", palette.strong), ("┤" if first < last else "│", palette.strong)
    for sign, value in bar.marks:
        at = column(value)
        if at is not None:
            cells[at] = (sign, palette.strong)
    at = 0
    for style, group in groupby(cells, key=lambda cell: cell[1]):
        texts = [text for text, _ in group]
        if style is not None:
            plot.text(((at + 0.5) / plot.columns, height), "".join(texts), style)
        at += len(texts)


def _lying(
    names: Ticks, beside: Ticks, axis: Axis, scale: Scale, lines: int, width: int, palette: FigurePalette
) -> Plot:
    """An empty plot with names at the left, an axis of values below, and texts at the right."""
    names = [(height, cut_start(visible(name), int(width * MOST_OF_NAME))) for height, name in names]
    room = width - sum(max((cell_width(text) for _, text in ticks), default=0) for ticks in (names, beside))
    return Plot(
        width,
        lines,
        palette,
        x=placed(scale, round_ticks(scale, max(2, room // 8))),
        y=names,
        x_label=axis_text(axis),
        beside=beside,
        names=True,
    )


def _height(index: int, lines: int) -> float:
    """The middle of a line, counted from the top."""
    return 1 - (index + 0.5) / lines


def _value_text(bar: _Bar, *, marks: bool) -> str:
    text = number_text(bar.value)
    if bar.low is not None and bar.high is not None:
        text += f" [{number_text(bar.low)}, {number_text(bar.high)}]"
    return text + "".join(f" {sign} {number_text(value)}" for sign, value in bar.marks if marks)


def _numbers(bars: Sequence[_Bar]) -> Iterable[float | None]:
    for bar in bars:
        yield from (bar.value, bar.low, bar.high)
        yield from (value for _, value in bar.marks)


def _mark_signs(marks: Iterable[Mark]) -> dict[str, str]:
    """A sign for every name of a mark: diamonds first, since bars use none."""
    signs = "◆◇" + MARKS
    names = list(dict.fromkeys(mark.name for mark in marks))
    return {name: signs[index % len(signs)] for index, name in enumerate(names)}


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None
