"""Figures with something measured along both axes, in a terminal: lines, stacked bands, token traces, grids of dots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from inspector.drawing.figures import Axis, Bands, Curve, Dot, DotGrid, Series, TokenTrace
from inspector.drawing.lines import cut, joined
from inspector.drawing.palette import FILLS, LEVEL_MARKS, MARKS, MISSING, CellStyle, FigurePalette, Line, Run
from inspector.drawing.plot import Plot, Point
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import SAID, Scale, Ticks, axis_text, ends_of, is_thicket, number_text, scale_of, thinned

SMALLEST = 5
"""Lines of a plot's inside, however little room there is."""
DOTTED_EVERY = 4
"""A dotted line sets one dot in so many."""
HATCH = 3
"""Every so many cells one belongs to a negative band, in diagonals."""
CLOUD_CELLS = 5
"""Cells of a plot per point below which points are dots instead of marks."""
FEW_LINES = 2
"""Lines along a text that can be told apart on one pair of axes."""
MARK_EVERY = 6
"""Columns between the marks of a line that has a point in nearly every column."""


def curve_lines(figure: Curve, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Lines with their points, and intervals as strokes through them; a crowd of points is a cloud of dots."""
    # What the axes take is not known yet: seven columns, and five lines for a short legend.
    legend = legend_lines(_names(figure.series, palette, room=(width - 7, height - 5)), width, palette)
    places = [at for series in figure.series for at in series.x]
    x, y = scale_of(places, figure.x, margin=0.03, named=True), scale_of(ends_of(figure.series), figure.y)
    plot = framed(x, y, width, height - len(legend) - 1, palette)
    draw_series(plot, figure.series, palette)
    return [y_label(figure.y, palette), *legend, *plot.drawn()]


def band_lines(figure: Bands, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Bands on top of each other, negative ones hatched; beyond what was measured only every other cell is filled."""
    shift = len(figure.bands)
    names: list[Run] = []
    for index in reversed(range(shift)):
        band = figure.bands[index]
        below = sum(value < 0.0 for value in band.values if value is not None)
        said = f" (hatched: negative at {below} of {len(band.values)})" if below else ""
        names.append((f"{_fill(index) * 2} {visible(band.name)}{said}", palette.of_series(index, band.name, shift)))
    if any(figure.extrapolated):
        names.append(("every other cell: extrapolated", palette.quiet))
    names += [(text, palette.strong) for text, _ in _names(figure.points, palette, first=shift)]
    legend = legend_lines(names, width, palette)
    edges = _edges(figure)
    x = scale_of((*figure.at, *(at for series in figure.points for at in series.x)), figure.x, margin=0.0)
    y = scale_of((*(edge for row in edges for edge in row), *ends_of(figure.points)), figure.y, zero=True)
    plot = framed(x, y, width, height - len(legend) - 1, palette)
    _fill_bands(plot, figure, edges, palette)
    draw_series(plot, figure.points, palette, first=shift, style=palette.strong)
    return [y_label(figure.y, palette), *legend, *plot.drawn()]


def trace_lines(figure: TokenTrace, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Lines over token numbers, and above them the tokens that there is room for; many lines under each other."""
    at = tuple(float(figure.first_position + index) for index in range(len(figure.tokens)))
    series = tuple(Series(name=each.name, x=at, y=each.values) for each in figure.series)
    axis = Axis(label="position")
    x, y = scale_of(at, axis, margin=0.0), scale_of(ends_of(series), figure.value)
    tokens = [(place, f"╷{token.strip(' ') or token}") for place, token in zip(at, figure.tokens, strict=True)]
    if len(series) <= FEW_LINES:
        legend = legend_lines(_names(series, palette), width, palette)
        plot = framed(x, y, width, height - len(legend) - 1, palette, above=tokens)
        draw_series(plot, series, palette)
        return [y_label(figure.value, palette), *legend, *plot.drawn()]
    # Six lines of braille on one pair of axes are a mass: each has its own, on one scale.
    lines = [y_label(figure.value, palette)]
    for index, one in enumerate(series):
        plot = framed(x, y, width, height // len(series) - 1, palette, above=tokens if index == 0 else ())
        draw_series(plot, (one,), palette, first=index, of=len(series))
        name = _names((one,), palette, first=index, of=len(series))
        lines += [*legend_lines(name, width, palette), *plot.drawn()]
    return lines


def grid_lines(figure: DotGrid, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """A dot per place with its value beside it, where there is room; what found none is counted below."""
    x = scale_of((dot.x for dot in figure.dots), figure.x, margin=0.08, named=True)
    y = scale_of((dot.y for dot in figure.dots), figure.y, margin=0.08, named=True)
    low, high = ends(dot.value for dot in figure.dots)
    plot = framed(x, y, width, height - 3, palette)
    for dot in figure.dots:
        sign = "●" if dot.value is not None else MISSING
        plot.marks([(dot.x, dot.y)], sign, _on_ground(dot, low, high, palette))
    cells = plot.cells()
    unsaid = 0
    for dot in figure.dots:
        cell = plot.cell((dot.x, dot.y))
        if cell is not None and dot.value is not None:
            text, style = number_text(dot.value), palette.of_value(dot.value, low, high)
            unsaid += not _say(plot, cells, cell, text, style)
    drawn = [joined(row, palette.plain) for row in cells]
    lines = [y_label(figure.y, palette), *drawn, ramp_line(figure.value, low, high, palette)]
    if any(dot.value is None for dot in figure.dots):
        lines.append([(f"{MISSING} undefined", palette.quiet)])
    if unsaid:
        lines.append([(f"no room for {unsaid} of {len(figure.dots)} numbers", palette.quiet)])
    return lines


def _say(plot: Plot, cells: list[list[Run]], cell: tuple[int, int], text: str, style: CellStyle) -> bool:
    """Write a number beside its dot, on the first side with free cells; whether there was one."""
    column, line = plot.left + cell[0], cell[1]
    middle, stop = column - len(text) // 2, plot.left + plot.columns
    for x, y in ((column + 1, line), (column - len(text), line), (middle, line - 1), (middle, line + 1)):
        if plot.left <= x and x + len(text) <= stop and 0 <= y < plot.lines:
            around = range(max(x - 1, plot.left), min(x + len(text) + 1, stop))  # two numbers never read as one
            if all(cells[y][at][0] == " " or (at, y) == (column, line) for at in around):
                cells[y][x : x + len(text)] = [(character, style) for character in text]
                return True
    return False


def _on_ground(dot: Dot, low: float, high: float, palette: FigurePalette) -> CellStyle:
    """The value's colour as a foreground, never so dark that the dot is lost."""
    plain = palette.plain
    cell = plain if dot.value is None or not palette.coloured else palette.of_value(dot.value, low, high)
    return replace(cell, bold=False) if cell.background == plain.background else plain


def framed(x: Scale, y: Scale, width: int, height: int, palette: FigurePalette, *, above: Ticks = ()) -> Plot:
    """An empty plot with ticks on both axes; the label of y stands in the line above, which the caller writes.

    Args:
        x: what runs to the right.
        y: what runs up; it names measured places only if no two of them share a line.
        width: columns in all.
        height: lines in all.
        palette: styles.
        above: texts at the upper edge, and where.
    """
    lines = max(height - 3 - bool(above), SMALLEST)
    if len({int((y.place(value) or 0.0) * lines) for value, _ in y.own}) < len(y.own):
        y = replace(y, own=())
    x_ticks, y_ticks = x.ticks((width - 5) // 9), y.ticks(min(lines // 2, 7))
    return Plot(width, lines, palette, x, y, x_ticks=x_ticks, y_ticks=y_ticks, x_label=axis_text(x.axis), above=above)


def y_label(axis: Axis, palette: FigurePalette) -> Line:
    """What runs up, as the line above the plot."""
    return [(visible(axis_text(axis)), palette.plain)]


def legend_lines(names: Sequence[Run], width: int, palette: FigurePalette) -> list[Line]:
    """Names beside each other, in as many lines as they need: plotext's own legend is a box that covers the plot."""
    lines: list[Line] = []
    used = 0
    for text, style in names:
        text = cut(text, width)
        if lines and used + 3 + cell_width(text) <= width:
            lines[-1] += [("   ", palette.plain), (text, style)]
            used += 3 + cell_width(text)
        else:
            lines.append([(text, style)])
            used = cell_width(text)
    return lines


def ramp_line(value: Axis, low: float, high: float, palette: FigurePalette) -> Line:
    """What the colours mean: the label, the smallest value, the ramp, the largest."""
    line: Line = [(f"{visible(axis_text(value))}  {number_text(low)} ", palette.plain)]
    if palette.coloured:
        # A level without a ground of its own but with a colour of its own, where colours are few: a square shows it.
        plain = palette.plain
        line += [
            ("■■" if style.background == plain.background and style.foreground != plain.foreground else "  ", style)
            for style in palette.ramp
        ]
    else:
        line.append((LEVEL_MARKS, palette.plain))
    return [*line, (f" {number_text(high)}", palette.plain)]


def ends(values: Iterable[float | None]) -> tuple[float, float]:
    """The smallest and the largest defined number."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def draw_series(
    plot: Plot,
    all_series: Sequence[Series],
    palette: FigurePalette,
    *,
    first: int = 0,
    style: CellStyle | None = None,
    of: int = 0,
) -> None:
    """Lines, then intervals, then points over both; a number that is not defined is a cross at the bottom.

    Args:
        plot: to draw in.
        all_series: what to draw.
        palette: styles.
        first: number of the first series, for its colour and mark.
        style: of the marks; None: each in its series' own.
        of: how many series there are in all; 0: these.
    """
    of = of or first + len(all_series)
    shown = [thinned(series, plot.x, 2 * plot.columns) for series in all_series]
    clouds = [_is_cloud(series, plot.columns, plot.lines) for series in shown]
    # Clouds come first: a line through one stays a line.
    for index in sorted(range(len(shown)), key=lambda index: not clouds[index]):
        series = shown[index]
        colour = palette.of_series(first + index, series.name, of)
        points = list(zip(series.x, series.y, strict=True))
        if series.style == "line":
            plot.path(points, colour)
        elif clouds[index]:
            plot.dots(points, colour)
        elif series.style == "dotted":
            plot.dots(_dotted(points, plot), colour)
        intervals = zip(series.x, series.low, series.high, strict=False)
        plot.strokes([((at, low), (at, high)) for at, low, high in intervals], colour)
    for index, (series, cloud) in enumerate(zip(shown, clouds, strict=True), first):
        colour = style or palette.of_series(index, series.name, of)
        points = list(zip(series.x, series.y, strict=True))
        plot.marks([(at, plot.y.low) for at, y in points if y is None or not math.isfinite(y)], MISSING, colour)
        if not cloud:
            if series.style != "points" and len(points) > plot.columns // MARK_EVERY:
                points = _sparse(points, plot, MARK_EVERY + index % MARK_EVERY)
            plot.marks(points, MARKS[index % len(MARKS)], colour)


def _is_cloud(series: Series, columns: int, lines: int) -> bool:
    """Whether its points are so many that marks would cover each other: then each is a dot."""
    return series.style == "points" and len(series.x) > columns * lines // CLOUD_CELLS


def _sparse(points: Sequence[Point], plot: Plot, apart: int) -> list[Point]:
    """Points so many columns apart; neighbouring series have other columns."""
    kept: list[Point] = []
    last = -math.inf
    for point in points:
        cell = plot.cell(point)
        if cell is not None and cell[0] >= last + apart:
            last = cell[0]
            kept.append(point)
    return kept


def _dotted(points: Sequence[Point], plot: Plot) -> list[Point]:
    """Points along the straight lines between points, so that one dot in so many is set."""
    dots: list[Point] = []
    for left, right in pairwise(plot.place(point) for point in points):
        if left is not None and right is not None:
            steps = max(int(abs(right[0] - left[0]) * 2 * plot.columns / DOTTED_EVERY), 1)
            for step in range(steps + 1):
                across, up = (a + (b - a) * step / steps for a, b in zip(left, right, strict=True))
                dots.append((plot.x.value(across), plot.y.value(up)))
    return dots


def _names(
    all_series: Sequence[Series],
    palette: FigurePalette,
    *,
    first: int = 0,
    room: tuple[int, int] | None = None,
    of: int = 0,
) -> list[Run]:
    """Each series with its sign.

    Args:
        all_series: what is drawn.
        palette: styles.
        first: number of the first.
        room: columns and lines there will be, about; None: so many that every point has its mark.
        of: as of `draw_series`.
    """
    names = []
    of = of or first + len(all_series)
    for index, series in enumerate(all_series, first):
        style = palette.of_series(index, series.name, of)
        if room is not None and _is_cloud(series, *room):
            names.append((f"⠂⠄⠂ {visible(series.name)}", style))
            continue
        dots = "⠄⠄" if series.style == "dotted" else "" if series.style == "points" else "⠒⠒"
        sign = f"{dots[:1]}{MARKS[index % len(MARKS)]}{dots[1:]}"
        names.append((f"{sign} {visible(series.name)}", style))
    if room is not None and any(is_thicket(series, 2 * room[0]) for series in all_series):
        names.append((SAID, palette.quiet))
    if any(y is None for series in all_series for y in series.y):
        names.append((f"{MISSING} undefined", palette.quiet))
    return names


def _edges(figure: Bands) -> list[list[float]]:
    """For every x the edges from 0 up; an undefined band is 0 thick here and said in the legend's numbers."""
    thick = [[band.values[index] or 0.0 for band in figure.bands] for index in range(len(figure.at))]
    return [list(accumulate(each, initial=0.0)) for each in thick]


def _fill_bands(plot: Plot, figure: Bands, edges: Sequence[Sequence[float]], palette: FigurePalette) -> None:
    """Every cell with the sign of the band that is seen there."""
    cells: list[list[Point]] = [[] for _ in figure.bands]
    for column in range(plot.columns):
        across = (column + 0.5) / plot.columns
        found = _between(plot.x, figure, edges, across)
        if found is None:
            continue
        at, beyond = found
        for line in range(plot.lines):
            value = plot.y.value(1 - (line + 0.5) / plot.lines)
            index = _band_at(at, value, hatched=(column - line) % HATCH == 0)
            if index is not None and not (beyond and (column + line) % 2):
                cells[index].append((plot.x.value(across), value))
    for index, points in enumerate(cells):
        plot.marks(points, _fill(index), palette.of_series(index, figure.bands[index].name, len(cells)))


def _band_at(edges: Sequence[float], value: float, *, hatched: bool) -> int | None:
    """Which band is seen at a height. A negative one is a hatch over what it takes away from; where one above it starts
    lower than the one below ends, the lower one is seen.
    """
    bands = range(len(edges) - 1)
    if hatched:
        for index in bands:
            if edges[index + 1] <= value < edges[index]:
                return index
    return next((index for index in bands if edges[index] <= value < edges[index + 1]), None)


def _between(
    x: Scale, figure: Bands, edges: Sequence[Sequence[float]], share: float
) -> tuple[list[float], bool] | None:
    """Edges at a share of the axis, straight between the neighbours, and whether it is extrapolated."""
    places = [x.place(value) for value in figure.at]
    for index in range(len(places) - 1):
        left, right = places[index], places[index + 1]
        if left is None or right is None or not left <= share <= right:
            continue
        part = 0.0 if right == left else (share - left) / (right - left)
        at = [a + part * (b - a) for a, b in zip(edges[index], edges[index + 1], strict=True)]
        return at, bool(figure.extrapolated) and figure.extrapolated[index + 1]
    return None


def _fill(index: int) -> str:
    return FILLS[index % len(FILLS)]
