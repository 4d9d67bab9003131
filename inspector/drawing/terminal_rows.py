"""Figures with a name per line, in a terminal: bars, groups of bars with marks, violins, heat maps.

Bars and violins lie on their side, so that names can be read.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from inspector.drawing.figures import Axis, Bars, GroupedBars, Heatmap, Mark, Violin
from inspector.drawing.lines import cut, padded
from inspector.drawing.palette import FILLS, LEVEL_MARKS, MARKS, MISSING, CellStyle, FigurePalette, Line, Run, level_of
from inspector.drawing.plot import Plot, Point
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import Scale, Ticks, axis_text, number_text, scale_of
from inspector.drawing.terminal_plots import ends, legend_lines, ramp_line, y_label

EIGHTHS = " ▏▎▍▌▋▊▉"
VIOLIN_LINES = 3
MOST_OF_NAME = 0.35
"""Share of the width that names may take."""
NARROWEST_BARS = 14
"""Columns of bars, axis and gaps together, below which intervals are no longer written."""
NARROWEST_CELL = 5
"""Columns of a heat map's cell that can hold a number: `.812` and a space."""
ROOM_FOR_NUMBERS, ROOM_FOR_MARKS = 70, 110
"""Columns from which a violin's numbers, and the values of marks, stand beside the plot."""


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """What stands in one line: a bar, or the name of a group."""

    name: str
    fill: str = ""
    """'': the name of a group."""
    style: CellStyle
    value: float | None = None
    low: float | None = None
    high: float | None = None
    marks: tuple[tuple[str, float | None], ...] = ()
    """(character, value)."""

    def text(self, *, marks: bool) -> str:
        """Its numbers."""
        text = number_text(self.value)
        if self.low is not None and self.high is not None:
            text += f" [{number_text(self.low)}, {number_text(self.high)}]"
        return text + "".join(f" {sign} {number_text(value)}" for sign, value in self.marks if marks)


def bars_lines(figure: Bars, width: int, palette: FigurePalette) -> list[Line]:
    """One line per label: name, bar, value, interval."""
    style = palette.of_series(0)
    bars = [
        _Bar(name=label, fill="█", style=style, value=value, low=_at(figure.low, i), high=_at(figure.high, i))
        for i, (label, value) in enumerate(zip(figure.labels, figure.values, strict=True))
    ]
    return _chart(bars, figure.value, width, palette)


def grouped_lines(figure: GroupedBars, width: int, palette: FigurePalette) -> list[Line]:
    """A heading per group, under it one line per bar; marks stand across the bars where they lie."""
    signs = _mark_signs(mark for series in figure.bars for mark in series.marks)
    looks = [
        (FILLS[index % len(FILLS)], palette.of_series(index, series.name, len(figure.bars)))
        for index, series in enumerate(figure.bars)
    ]
    bars = []
    for g, group in enumerate(figure.groups):
        bars.append(_Bar(name=group, style=palette.strong))
        bars += [
            _Bar(
                name=f"  {visible(series.name)}",
                fill=fill,
                style=style,
                value=series.values[g],
                low=_at(series.low, g),
                high=_at(series.high, g),
                marks=tuple((signs[mark.name], mark.values[g]) for mark in series.marks),
            )
            for series, (fill, style) in zip(figure.bars, looks, strict=True)
        ]
    names: list[Run] = [(f"{fill * 2} {visible(series.name)}", style)
                        for series, (fill, style) in zip(figure.bars, looks, strict=True)]  # fmt: skip
    names += [(f"{sign} {visible(name)}", palette.plain) for name, sign in signs.items()]
    return [*legend_lines(names, width, palette), *_chart(bars, figure.value, width, palette)]


def violin_lines(figure: Violin, width: int, palette: FigurePalette) -> list[Line]:
    """Per label three lines of mirrored density with its median, its range and count beside it."""
    log = figure.value.log
    shown = [[value for value in sample if math.isfinite(value) and (value > 0.0 or not log)]
             for sample in figure.samples]  # fmt: skip
    scale = scale_of((value for sample in shown for value in sample), figure.value)
    middles = [VIOLIN_LINES * (index + 0.5) for index in range(len(shown))]
    beside: list[tuple[float, str]] = []
    for sample, all_values, middle in zip(shown, figure.samples, middles, strict=True):
        if sample and width >= ROOM_FOR_NUMBERS:
            missing = len(all_values) - len(sample)
            beside += [
                (middle - 1, f"{number_text(min(sample))} to {number_text(max(sample))}"),
                (middle, f"median {number_text(statistics.median(sample))}"),
                (middle + 1, f"n {len(sample)}" + (f", {missing} undefined" if missing else "")),
            ]
    names = list(zip(middles, figure.labels, strict=True))
    plot = _lying(names, beside, scale, VIOLIN_LINES * len(shown), width, palette)
    for index, (sample, middle) in enumerate(zip(shown, middles, strict=True)):
        if sample:
            plot.strokes(_density(sample, plot, middle), palette.of_series(index, figure.labels[index], len(shown)))
            plot.marks([(statistics.median(sample), middle)], "┃", palette.strong)
        else:
            plot.text((0, int(middle)), "no defined number", palette.quiet)
    return plot.drawn()


def heatmap_lines(figure: Heatmap, width: int, palette: FigurePalette) -> list[Line]:
    """Every value in a cell of its colour; where cells are too narrow for numbers, as the height of a block."""
    meant = [(i, j, value) for i, row in enumerate(figure.values) for j, value in enumerate(row)
             if not (figure.triangle and j < i)]  # fmt: skip
    low, high = ends(value for _, _, value in meant)
    names = [cut(visible(tick), max(width // 3, 4), keep_end=True) for tick in figure.y_ticks]
    left = max(map(cell_width, names), default=0) + 2
    rows, n = len(names), max(len(figure.x_ticks), 1)
    size = min(max((width - left) // n, 1), 9)
    plot = Plot(
        left + n * size,
        rows,
        palette,
        Scale(low=0.0, high=float(n)),
        Scale(low=float(rows or 1), high=0.0),
        x_ticks=[(j + 0.5, cut(visible(tick), max(size - 1, 4))) for j, tick in enumerate(figure.x_ticks)],
        y_ticks=[(i + 0.5, name) for i, name in enumerate(names)],
    )
    for i, j, value in meant:
        plot.text((j * size, i), *_cell(value, size, low, high, palette))
    label: Line = [(" " * left + visible(axis_text(figure.x)), palette.plain)]
    undefined: list[Line] = (
        [[(f"{MISSING} undefined", palette.quiet)]] if any(each[2] is None for each in meant) else []
    )
    return [y_label(figure.y, palette), *plot.drawn(), label, *undefined, ramp_line(figure.value, low, high, palette)]


def _cell(value: float | None, size: int, low: float, high: float, palette: FigurePalette) -> tuple[str, CellStyle]:
    if value is None or not math.isfinite(value):
        return padded(MISSING, max(size - 1, 1), right=True) + " " * (size > 1), palette.quiet
    style = palette.of_value(value, low, high)
    if size < NARROWEST_CELL:
        return LEVEL_MARKS[level_of(value, low, high, len(LEVEL_MARKS))] * size, style
    text = number_text(value)
    if cell_width(text) > size - 1:  # 0.812 as .812, and then fewer digits: never a number cut in two
        texts = [number_text(value, digits).replace("0.", ".", 1) for digits in (3, 2, 1)]
        text = next((each for each in texts if cell_width(each) <= size - 1), "#")
    return padded(text, size - 1, right=True) + " ", style


def _density(sample: Sequence[float], plot: Plot, middle: float) -> list[tuple[Point, Point]]:
    """A Gaussian kernel estimate, mirrored, as strokes; width by Silverman's rule, from the smallest value to the
    largest.
    """
    dots = 2 * plot.columns
    places = sorted(place for value in sample if (place := plot.x.place(value)) is not None)
    spread = statistics.pstdev(places) if len(places) > 1 else 0.0
    width = max(0.9 * spread * len(places) ** -0.2, 0.75 / dots)
    across = [(dot + 0.5) / dots for dot in range(int(places[0] * dots), int(places[-1] * dots) + 1)]
    heights = [sum(math.exp(-0.5 * ((at - place) / width) ** 2) for place in places) for at in across]
    tallest = max(heights) or 1.0
    reach = [(VIOLIN_LINES / 2 - 0.2) * height / tallest for height in heights]
    return [((plot.x.value(at), middle + up), (plot.x.value(at), middle - up))
            for at, up in zip(across, reach, strict=True)]  # fmt: skip


def _chart(bars: Sequence[_Bar], axis: Axis, width: int, palette: FigurePalette) -> list[Line]:
    scale = scale_of(_numbers(bars), axis, zero=not axis.log, margin=0.02)
    names = [(index + 0.5, bar.name) for index, bar in enumerate(bars) if bar.fill]
    longest = max((min(cell_width(visible(name)), int(width * MOST_OF_NAME)) for _, name in names), default=0)
    texts = [bar.text(marks=width >= ROOM_FOR_MARKS) for bar in bars if bar.fill]
    if max(map(cell_width, texts), default=0) > width - longest - NARROWEST_BARS:
        texts = [number_text(bar.value) for bar in bars if bar.fill]  # the intervals are drawn all the same
    beside = [(line, text) for (line, _), text in zip(names, texts, strict=True)]
    plot = _lying(names, beside, scale, len(bars), width, palette)
    for index, bar in enumerate(bars):
        if bar.fill:
            _draw_bar(plot, index, bar, palette)
    lines = plot.drawn()
    return [[(cut(visible(bar.name), width), bar.style)] if not bar.fill else line
            for bar, line in zip(bars, lines, strict=False)] + lines[len(bars) :]  # fmt: skip


def _draw_bar(plot: Plot, line: int, bar: _Bar, palette: FigurePalette) -> None:
    """The bar to an eighth of a cell, over it its interval, and marks over both."""
    cells: list[tuple[str, CellStyle | None]] = [("", None)] * plot.columns

    def column(value: float | None) -> int | None:
        place = None if value is None else plot.x.place(value)
        return None if place is None else min(max(int(place * plot.columns), 0), plot.columns - 1)

    zero = plot.x.place(plot.x.low if plot.x.log else max(0.0, plot.x.low))
    assert zero is not None, "a scale of bars holds 0 or its own low end"
    place = None if bar.value is None else plot.x.place(bar.value)
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
    # Runs, because plotext keeps one text of those that begin in the same cell.
    start_column = 0
    for style, group in groupby(cells, key=lambda cell: cell[1]):
        texts = [text for text, _ in group]
        if style is not None:
            plot.text((start_column, line), "".join(texts), style)
        start_column += len(texts)


def _lying(names: Ticks, beside: Ticks, scale: Scale, lines: int, width: int, palette: FigurePalette) -> Plot:
    """An empty plot: names at the left, an axis of values below, texts at the right; lines count from the top."""
    names = [(line, cut(visible(name), int(width * MOST_OF_NAME), keep_end=True)) for line, name in names]
    room = width - sum(max((cell_width(text) for _, text in ticks), default=0) for ticks in (names, beside))
    return Plot(
        width,
        lines,
        palette,
        scale,
        Scale(low=float(lines), high=0.0),
        x_ticks=scale.ticks(room // 8),
        y_ticks=names,
        x_label=axis_text(scale.axis),
        beside=beside,
        names=True,
    )


def _numbers(bars: Sequence[_Bar]) -> Iterable[float | None]:
    for bar in bars:
        yield from (bar.value, bar.low, bar.high, *(value for _, value in bar.marks))


def _mark_signs(marks: Iterable[Mark]) -> dict[str, str]:
    """A sign for every name of a mark: diamonds first, since bars use none."""
    signs = "◆◇" + MARKS
    names = list(dict.fromkeys(mark.name for mark in marks))
    return {name: signs[index % len(signs)] for index, name in enumerate(names)}


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None
