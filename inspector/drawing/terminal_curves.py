"""Lines, stacked bands and token traces as terminal cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from inspector.drawing.figures import Axis, Bands, Curve, Numbers, Series, TokenTrace
from inspector.drawing.frame import Frame, framed
from inspector.drawing.lines import cut, padded
from inspector.drawing.palette import FILLS, MARKS, MISSING, CellStyle, FigurePalette, Line, Run
from inspector.drawing.safe_text import cell_width, visible
from inspector.drawing.scales import SAID, Scale, axis_text, is_thicket, scale_of, thinned

DOTTED_EVERY = 4
"""A dotted line sets one dot in so many."""
HATCH = 3
"""Every so many cells one belongs to a negative band, in diagonals."""
CLOUD_CELLS = 5
"""Cells of a plot per point below which points are dots instead of marks."""
MARK_EVERY = 6
"""Columns between the marks of a line that has a point in nearly every column."""


def curve_lines(figure: Curve, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Lines with their points, and intervals as strokes through them; a crowd of points is a cloud of dots."""
    # What the axes take is not known yet: seven columns, and five lines for a short legend.
    legend = legend_lines(_names(figure.series, palette, room=(width - 7, height - 5)), width, palette)
    x = scale_of((at for series in figure.series for at in series.x), figure.x, margin=0.03)
    y = scale_of(_all_y(figure.series), figure.y)
    own = [at for series in figure.series for at in series.x]
    frame = framed(figure.x, figure.y, x, y, width, height - len(legend) - 1, palette, x_own=own)
    draw_series(frame, figure.series)
    return [y_label(figure.y, palette), *legend, *frame.cells.lines()]


def band_lines(figure: Bands, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Bands on top of each other, negative ones hatched; beyond what was measured only every other cell is filled."""
    shift = len(figure.bands)
    names: list[Run] = []
    for index in reversed(range(shift)):
        band = figure.bands[index]
        below = sum(value < 0.0 for value in band.values if value is not None)
        said = f" (hatched: negative at {below} of {len(band.values)})" if below else ""
        names.append((f"{_fill(index) * 2} {visible(band.name)}{said}", palette.of_series(index)))
    if any(figure.extrapolated):
        names.append(("every other cell: extrapolated", palette.quiet))
    names += [(text, palette.strong) for text, _ in _names(figure.points, palette, first=shift)]
    legend = legend_lines(names, width, palette)
    edges = _edges(figure)
    x = scale_of((*figure.at, *(at for series in figure.points for at in series.x)), figure.x, margin=0.0)
    y = scale_of((*(edge for row in edges for edge in row), *_all_y(figure.points)), figure.y, zero=True)
    frame = framed(figure.x, figure.y, x, y, width, height - len(legend) - 1, palette)
    _fill_bands(frame, figure, edges)
    draw_series(frame, figure.points, first=shift, style=palette.strong)
    return [y_label(figure.y, palette), *legend, *frame.cells.lines()]


def trace_lines(figure: TokenTrace, width: int, height: int, palette: FigurePalette) -> list[Line]:
    """Lines over token numbers, and below them the tokens that there is room for."""
    at = tuple(float(figure.first_position + index) for index in range(len(figure.tokens)))
    series = tuple(Series(name=each.name, x=at, y=each.values) for each in figure.series)
    legend = legend_lines(_names(series, palette), width, palette)
    x_axis = Axis(label="position")
    x = scale_of(at, x_axis, margin=0.0)
    y = scale_of(_all_y(series), figure.value)
    frame = framed(x_axis, figure.value, x, y, width, height - len(legend) - 2, palette)
    draw_series(frame, series)
    return [y_label(figure.value, palette), *legend, *frame.cells.lines(), _tokens_below(figure, frame, at)]


def y_label(axis: Axis, palette: FigurePalette) -> Line:
    """What runs up, as the line above the plot."""
    return [(visible(axis_text(axis)), palette.plain)]


def legend_lines(names: Sequence[Run], width: int, palette: FigurePalette) -> list[Line]:
    """Names beside each other, in as many lines as they need."""
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


def draw_series(frame: Frame, all_series: Sequence[Series], *, first: int = 0, style: CellStyle | None = None) -> None:
    """Lines, then intervals, then points over both; a number that is not defined is a cross at the bottom.

    Args:
        frame: to draw in.
        all_series: what to draw.
        first: number of the first series, for its colour and mark.
        style: of the marks; None: each in its series' own.
    """
    clouds, canvas = frame.canvas(), frame.canvas()
    all_series = [thinned(series, frame.x, 2 * frame.columns) for series in all_series]
    for index, series in enumerate(all_series, first):
        points = [frame.dot(x, y) for x, y in zip(series.x, series.y, strict=True)]
        if series.style == "line":
            canvas.path(points, index)
        elif _is_cloud(series, frame.columns, frame.lines):
            for point in points:
                if point is not None:
                    clouds.dot(*point, index)
        elif series.style == "dotted":
            _dotted(points, canvas.dot, index)
        for x, low, high in zip(series.x, series.low, series.high, strict=False):
            ends = frame.dot(x, low), frame.dot(x, high)
            if ends[0] is not None and ends[1] is not None:
                for dot in range(ends[1][1], ends[0][1] + 1):
                    canvas.dot(ends[0][0], dot, index)
    frame.paint(clouds)
    frame.paint(canvas)  # over the clouds: a line through one stays a line
    for index, series in enumerate(all_series, first):
        _marks(frame, series, index, style or frame.palette.of_series(index))


def _is_cloud(series: Series, columns: int, lines: int) -> bool:
    """Whether its points are so many that marks would cover each other: then each is a dot."""
    return series.style == "points" and len(series.x) > columns * lines // CLOUD_CELLS


def _marks(frame: Frame, series: Series, index: int, style: CellStyle) -> None:
    cloud = _is_cloud(series, frame.columns, frame.lines)
    crowded = series.style != "points" and len(series.x) > frame.columns // MARK_EVERY
    last = -math.inf
    for x, y in zip(series.x, series.y, strict=True):
        if y is None or not math.isfinite(y):
            across = frame.x.place(x)
            if across is not None and 0 <= across <= 1:
                column = frame.left + round(across * (2 * frame.columns - 1)) // 2
                frame.cells.put(column, frame.lines - 1, MISSING, style)
            continue
        cell = None if cloud else frame.cell(x, y)
        if cell is None or (crowded and cell[0] < last + MARK_EVERY + index % MARK_EVERY):
            continue
        last = cell[0]
        frame.cells.put(*cell, MARKS[index % len(MARKS)], style)


def _dotted(points: Sequence[tuple[int, int] | None], dot: Callable[[int, int, int], None], index: int) -> None:
    for left, right in pairwise(points):
        if left is None or right is None:
            continue
        steps = max(abs(right[0] - left[0]), abs(right[1] - left[1]), 1)
        for step in range(steps + 1):
            x = left[0] + round((right[0] - left[0]) * step / steps)
            if x % DOTTED_EVERY == 0:
                dot(x, left[1] + round((right[1] - left[1]) * step / steps), index)


def _names(
    all_series: Sequence[Series], palette: FigurePalette, *, first: int = 0, room: tuple[int, int] | None = None
) -> list[Run]:
    """Each series with its sign.

    Args:
        all_series: what is drawn.
        palette: styles.
        first: number of the first.
        room: columns and lines there will be, about; None: so many that every point has its mark.
    """
    names = []
    for index, series in enumerate(all_series, first):
        if room is not None and _is_cloud(series, *room):
            names.append((f"⠂⠄⠂ {visible(series.name)}", palette.of_series(index)))
            continue
        dots = "⠄⠄" if series.style == "dotted" else "" if series.style == "points" else "⠒⠒"
        sign = f"{dots[:1]}{MARKS[index % len(MARKS)]}{dots[1:]}"
        names.append((f"{sign} {visible(series.name)}", palette.of_series(index)))
    if room is not None and any(is_thicket(series, 2 * room[0]) for series in all_series):
        names.append((SAID, palette.quiet))
    if any(y is None for series in all_series for y in series.y):
        names.append((f"{MISSING} undefined", palette.quiet))
    return names


def _all_y(all_series: Iterable[Series]) -> Iterator[float | None]:
    for series in all_series:
        yield from series.y
        yield from series.low
        yield from series.high


def _edges(figure: Bands) -> list[list[float]]:
    """For every x the edges from 0 up; an undefined band is 0 thick here and said in the legend's numbers."""
    rows = []
    for index in range(len(figure.at)):
        edges = [0.0]
        for band in figure.bands:
            edges.append(edges[-1] + (band.values[index] or 0.0))
        rows.append(edges)
    return rows


def _fill_bands(frame: Frame, figure: Bands, edges: Sequence[Sequence[float]]) -> None:
    for column in range(frame.columns):
        share = (column + 0.5) / frame.columns
        found = _between(frame.x, figure, edges, share)
        if found is None:
            continue
        at, beyond = found
        for line in range(frame.lines):
            if beyond and (column + line) % 2:
                continue
            middle = frame.y.low + (1 - (line + 0.5) / frame.lines) * (frame.y.high - frame.y.low)
            index = _band_at(at, middle, hatched=(column - line) % HATCH == 0)
            if index is not None:
                frame.cells.put(frame.left + column, line, _fill(index), frame.palette.of_series(index))


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


def _tokens_below(figure: TokenTrace, frame: Frame, at: Numbers) -> Line:
    """The tokens that there is room for, each with a stroke at its own place."""
    line: Line = [(" " * frame.left, frame.palette.plain)]
    free = 0
    for token, position in zip(figure.tokens, at, strict=True):
        place = None if position is None else frame.x.place(position)
        if place is None:
            continue
        text = "╵" + visible(token.strip(" ") or token)
        column = round(place * (2 * frame.columns - 1)) // 2
        if column < free or column + cell_width(text) > frame.columns:
            continue
        line.append((padded("", column - free) + text, frame.palette.quiet))
        free = column + cell_width(text)
    return line
