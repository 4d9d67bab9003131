"""Bars, groups of bars with marks, and violins as terminal cells; all lie on their side, so that names can be read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inspector.drawing.braille import Canvas
from inspector.drawing.figures import Axis, Bars, GroupedBars, Mark, Violin
from inspector.drawing.lines import Cells, cut, cut_start, padded
from inspector.drawing.palette import FILLS, MARKS, CellStyle, FigurePalette, Line, Run
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import Scale, axis_text, number_text, scale_of, tick_texts
from inspector.drawing.terminal_curves import legend_lines

EIGHTHS = " ▏▎▍▌▋▊▉"
VIOLIN_LINES = 3
MOST_OF_NAME = 0.35
"""Share of the width that names may take."""


@dataclass(frozen=True, kw_only=True)
class _Bar:
    name: str
    value: float | None
    low: float | None
    high: float | None
    marks: tuple[tuple[str, float | None], ...]
    """(character, value)."""
    fill: str
    style: CellStyle


def bars_lines(figure: Bars, width: int, palette: FigurePalette) -> list[Line]:
    """One line per label: name, bar, value, interval."""
    bars = [
        _Bar(name=label, value=value, low=_at(figure.low, i), high=_at(figure.high, i), marks=(), fill="█",
             style=palette.of_series(0))
        for i, (label, value) in enumerate(zip(figure.labels, figure.values, strict=True))
    ]  # fmt: skip
    return _chart([("", bars)], figure.value, width, palette)


def grouped_lines(figure: GroupedBars, width: int, palette: FigurePalette) -> list[Line]:
    """A heading per group, under it one line per bar; marks stand across the bars where they lie."""
    signs = _mark_signs(mark for series in figure.bars for mark in series.marks)
    groups = []
    for g, group in enumerate(figure.groups):
        bars = [
            _Bar(
                name=series.name,
                value=series.values[g],
                low=_at(series.low, g),
                high=_at(series.high, g),
                marks=tuple((signs[mark.name], mark.values[g]) for mark in series.marks),
                fill=FILLS[index % len(FILLS)],
                style=palette.of_series(index),
            )
            for index, series in enumerate(figure.bars)
        ]
        groups.append((group, bars))
    names: list[Run] = [
        (f"{FILLS[i % len(FILLS)] * 2} {visible(series.name)}", palette.of_series(i))
        for i, series in enumerate(figure.bars)
    ]
    names += [(f"{sign} {visible(name)}", palette.plain) for name, sign in signs.items()]
    return [*legend_lines(names, width, palette), *_chart(groups, figure.value, width, palette)]


def violin_lines(figure: Violin, width: int, palette: FigurePalette) -> list[Line]:
    """Per label three lines of mirrored density with its median, quartiles as numbers beside it."""
    shown = [[value for value in sample if math.isfinite(value)] for sample in figure.samples]
    scale = scale_of((value for sample in shown for value in sample), figure.value)
    names = [visible(label) for label in figure.labels]
    left = min(max(map(cell_width, names), default=0), int(width * MOST_OF_NAME)) + 1
    right = 22 if width >= 70 else 0
    columns = max(width - left - right - 1, 10)
    cells = Cells(left + columns + right + 1, VIOLIN_LINES * len(names), palette.plain)
    for index, (name, sample, all_values) in enumerate(zip(names, shown, figure.samples, strict=True)):
        top, middle = index * VIOLIN_LINES, index * VIOLIN_LINES + VIOLIN_LINES // 2
        cells.put(0, middle, cut_start(name, left - 1), palette.plain)
        style = palette.of_series(index)
        if not sample:
            cells.put(left, middle, "no defined number", palette.quiet)
            continue
        canvas = _density(sample, scale, columns)
        for line in range(VIOLIN_LINES):
            for column, (text, series) in enumerate(canvas.cells(line)):
                if series is not None:
                    cells.put(left + column, top + line, text, style)
        median = statistics.median(sample)
        place = scale.place(median)
        assert place is not None, "finite, and the scale holds it"
        cells.put(left + round(place * (columns - 1)), middle, "┃", palette.strong)
        if right:
            cells.put(left + columns + 1, middle, f"median {number_text(median)}", palette.plain)
            missing = len(all_values) - len(sample)
            count = f"n {len(sample)}" + (f", {missing} undefined" if missing else "")
            cells.put(left + columns + 1, middle + 1, count, palette.quiet)
            spread = f"{number_text(min(sample))} to {number_text(max(sample))}"
            cells.put(left + columns + 1, middle - 1, cut(spread, right - 1), palette.quiet)
    return [*cells.lines(), *_value_axis(figure.value, scale, left, columns, palette)]


def _density(sample: Sequence[float], scale: Scale, columns: int) -> Canvas:
    """A Gaussian kernel estimate, mirrored; width by Silverman's rule, from the smallest to the largest value."""
    canvas = Canvas(columns, VIOLIN_LINES)
    places = sorted(place for value in sample if (place := scale.place(value)) is not None)
    spread = statistics.pstdev(places) if len(places) > 1 else 0.0
    width = max(0.9 * spread * len(places) ** -0.2, 0.75 / (2 * columns))
    first, last = round(places[0] * (canvas.width - 1)), round(places[-1] * (canvas.width - 1))
    heights = {}
    for dot in range(first, last + 1):
        at = dot / (canvas.width - 1)
        heights[dot] = sum(math.exp(-0.5 * ((at - place) / width) ** 2) for place in places)
    tallest = max(heights.values())
    half = canvas.height // 2
    for dot, height in heights.items():
        reach = round(height / tallest * (half - 1))
        for up in range(-reach - 1, reach + 1):
            canvas.dot(dot, half + up, 0)
    return canvas


def _chart(groups: Sequence[tuple[str, Sequence[_Bar]]], axis: Axis, width: int, palette: FigurePalette) -> list[Line]:
    bars = [bar for _, own in groups for bar in own]
    scale = scale_of(_numbers(bars), axis, zero=not axis.log, margin=0.02)
    indent = 2 if any(name for name, _ in groups) else 0
    left = min(max((cell_width(visible(bar.name)) for bar in bars), default=0), int(width * MOST_OF_NAME)) + indent + 1
    texts = [_value_text(bar, marks=width >= 110) for bar in bars]
    right = max(map(cell_width, texts), default=0) + 1
    columns = max(width - left - right, 10)
    lines: list[Line] = []
    said = iter(texts)
    for name, own in groups:
        if name:
            lines.append([(cut(visible(name), width), palette.strong)])
        for bar in own:
            cells = Cells(left + columns + right, 1, palette.plain)
            cells.put(indent, 0, cut_start(visible(bar.name), left - indent - 1), palette.plain)
            _draw_bar(cells, bar, scale, left, columns, palette)
            cells.put(left + columns + 1, 0, next(said), palette.plain if bar.value is not None else palette.quiet)
            lines += cells.lines()
    return [*lines, *_value_axis(axis, scale, left, columns, palette)]


def _draw_bar(cells: Cells, bar: _Bar, scale: Scale, left: int, columns: int, palette: FigurePalette) -> None:
    zero = scale.place(max(0.0, scale.low) if not scale.log else scale.low)
    assert zero is not None, "a scale of bars holds 0 or its own low end"
    place = None if bar.value is None else scale.place(bar.value)
    if place is not None:
        start, end = sorted((zero * columns, place * columns))
        whole = int(end)
        for column in range(round(start), whole):
            cells.put(left + column, 0, bar.fill, bar.style)
        rest = EIGHTHS[int((end - whole) * 8)]
        if place > zero and rest != " " and whole < columns and bar.fill == "█":
            cells.put(left + whole, 0, rest, bar.style)
    low, high = (None if value is None else scale.place(value) for value in (bar.low, bar.high))
    if low is not None and high is not None:
        first, last = (min(max(int(each * columns), 0), columns - 1) for each in (low, high))
        for column in range(first, last + 1):
            sign = "│" if first == last else "├" if column == first else "┤" if column == last else "─"
            if place is not None and first < last and column == min(int(place * columns), columns - 1):
                sign = "┼"  # the end of the bar, which the interval covers
            cells.put(left + column, 0, sign, palette.strong)
    for sign, value in bar.marks:
        at = None if value is None else scale.place(value)
        if at is not None:
            cells.put(left + min(max(int(at * columns), 0), columns - 1), 0, sign, palette.strong)


def _value_axis(axis: Axis, scale: Scale, left: int, columns: int, palette: FigurePalette) -> list[Line]:
    cells = Cells(left + columns + 8, 3, palette.plain)
    cells.put(left, 0, "─" * columns, palette.quiet)
    free = 0
    ticks = scale.ticks(max(2, columns // 8))
    for value, text in zip(ticks, tick_texts(ticks), strict=True):
        place = scale.place(value)
        if place is None or not -1e-9 <= place <= 1 + 1e-9:
            continue
        column = left + min(int(place * columns), columns - 1)
        start = max(column - cell_width(text) // 2, 0)
        cells.put(column, 0, "┬", palette.quiet)
        if start >= free:
            cells.put(start, 1, text, palette.quiet)
            free = start + cell_width(text) + 1
    label = cut(visible(axis_text(axis)), left + columns)
    cells.put(max(left + (columns - cell_width(label)) // 2, 0), 2, label, palette.plain)
    return cells.lines()


def _value_text(bar: _Bar, *, marks: bool) -> str:
    text = number_text(bar.value)
    if bar.low is not None and bar.high is not None:
        text += f" [{number_text(bar.low)}, {number_text(bar.high)}]"
    if marks:
        text += "".join(f" {sign} {number_text(value)}" for sign, value in bar.marks)
    return padded(text, cell_width(text))


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
