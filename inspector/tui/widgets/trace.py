"""Norm against token for every enabled width, live (the paper's Figs. 5 and 12), around the cursor.

The window of tokens follows the cursor in steps, not token by token: within a step only the marker moves, which is what
keeps a key press cheap over a slow line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from inspector.drawing.plot import Canvas
from inspector.tui.documents import main_measure
from inspector.tui.lines import Line, number, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from inspector.drawing.tokens import TokenMode
    from inspector.session.protocol import Pairs
    from inspector.tui.documents import ScoredText
    from inspector.tui.selection import SaeChoice

AXIS = 7
"""Columns of the y axis: six for a number, one for the line."""
ZOOMS = (1, 2, 4)
"""Tokens per column."""
MARKER = "▲"
SMALLEST = 4
"""Lines of one of several plots under each other."""
LEAD = 4
"""Excluded tokens shown before the first that counts."""


@dataclass(frozen=True, kw_only=True)
class TraceData:
    """What is plotted."""

    text: ScoredText
    choice: SaeChoice
    mode: TokenMode
    position: int


def follow(start: int, position: int, shown: int, length: int) -> int:
    """First token of the window, so that `position` is in it: as before if it still is, else moved by about half a
    window.

    Args:
        start: The window's first token so far.
        position: Where the cursor is.
        shown: Tokens the window shows, at least 1.
        length: Tokens of the text.
    """
    last = max(0, length - shown)
    start = min(max(start, 0), last)
    if start <= position < start + shown:
        return start
    return min(max(position - (shown // 4 if position >= start + shown else shown * 3 // 4), 0), last)


def round_up(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 if there is no positive value."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
        if value <= step * power * (1 + 1e-9):
            return step * power
    return 10 * power


def scale_of(low: float, high: float) -> tuple[float, float]:
    """Round ends of the y axis for values from `low` to `high`; from 0, unless that wastes a quarter of the plot."""
    if not (high > 0 and low > high / 4):
        step = round_up(high / 4)
        return 0.0, max(1, math.ceil(high / step - 1e-9)) * step if high > 0 else 1.0
    step = round_up((high - low) / 4) if high > low else round_up(high / 4)
    bottom = math.floor(low / step + 1e-9) * step
    return bottom, max(math.ceil(high / step - 1e-9) * step, bottom + step)


def points(
    values: Sequence[float],
    split: Sequence[str],
    start: int,
    per_column: int,
    canvas: Canvas,
    scale: tuple[float, float],
) -> list[tuple[int, int] | None]:
    """Dots of one series; None where a token is excluded or its value unknown. Off the scale: at its edge.

    With more than two tokens per column a dot stands for the largest of its tokens.
    """
    bottom, top = scale
    per_dot = max(1, per_column // 2)
    step = max(1, 2 // per_column)
    out: list[tuple[int, int] | None] = []
    for index in range(canvas.width // step):
        first = start + index * per_dot
        group = [
            values[p]
            for p in range(first, min(first + per_dot, len(values)))
            if split[p] != "x" and values[p] == values[p]  # an outlier is off the scale
        ]
        if not group:
            out.append(None)
            continue
        height = min(max((max(group) - bottom) / (top - bottom), 0.0), 1.0)
        out.append((index * step, round((canvas.height - 1) * (1 - height))))
    return out


class TracePane(LinePane, can_focus=True):
    """The plot with its axes; posts `Chosen` when a token in it is clicked."""

    @dataclass
    class Chosen(Message):
        """A token was clicked."""

        position: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._data: TraceData | None = None
        self._start = 0
        self._zoom = 0
        self._drawn: tuple[object, list[Line]] = (None, [])
        self.apart = False
        """Whether each width has a plot of its own, all on one scale, and the cursor a line through them."""

    def show(self, data: TraceData | None) -> None:
        """Draw this."""
        if data is not None and (self._data is None or data.text.key != self._data.text.key):
            self._start = max(0, next(data.text.document.included(), 0) - LEAD)
        self._data = data
        self.rebuild()

    def zoom(self, step: int) -> None:
        """More (+1) or fewer (-1) tokens per column; no more once the whole text is there."""
        start, stop = self.window
        if step > 0 and self._data is not None and stop - start >= len(self._data.text):
            return
        self._zoom = min(max(self._zoom + step, 0), len(ZOOMS) - 1)
        self.rebuild()

    @property
    def data(self) -> TraceData | None:
        """What is drawn."""
        return self._data

    @property
    def window(self) -> tuple[int, int]:
        """Half-open range of the tokens shown."""
        shown = max(1, self.size.width - AXIS - 1) * ZOOMS[self._zoom]
        length = len(self._data.text) if self._data is not None else 0
        return self._start, min(self._start + shown, length)

    def build(self, width: int, height: int) -> Sequence[Line]:
        """Title, plot, axis with the marker."""
        data = self._data
        if data is None:
            return [self.title_line([("norm against token", "")], [], width), [(" no tokens yet", "muted")]]
        measure = main_measure(data.mode)
        legend = legend_pieces(data)
        name = measure.title if measure.id != "total" else "norm of the SAE error"
        title = self.title_line([(f"{name} against token", "")], legend, width)
        columns, lines = width - AXIS - 1, height - 2
        if columns < 8 or lines < 1:
            return [title]
        shown = columns * ZOOMS[self._zoom]
        self._start = follow(self._start, data.position, shown, len(data.text))
        column = (data.position - self._start) // ZOOMS[self._zoom]
        body = self._body(data, columns, lines)
        if self.apart:
            body = [crossed(line, AXIS + column) for line in body]
        return [title, *body, axis_line(self._start, column, columns, ZOOMS[self._zoom], data)]

    def _body(self, data: TraceData, columns: int, lines: int) -> list[Line]:
        """The plot itself; kept until something else than the cursor changes."""
        measure = main_measure(data.mode)
        room = (columns, lines, self.apart)
        key = (id(data.text), len(data.text), data.choice, measure.id, self._start, self._zoom, room)
        if self._drawn[0] == key:
            return self._drawn[1]
        shown = data.choice.shown if measure.per_sae else data.choice.shown[:1]
        low, high = data.text.extent([row for _, row in shown], measure)
        if high != high:
            body: list[Line] = [[(" " * (AXIS - 1) + "│", "muted")] for _ in range(lines)]
            body[(lines - 1) // 2].append(("  no linear map yet: total and loss are known, press m", "warning"))
        else:
            # Side by side they would be a mass: under each other as far as each has room to rise and fall in.
            plots = [(pair,) for pair in shown] if self.apart and lines // len(shown) >= SMALLEST else [shown]
            sizes = [lines * (i + 1) // len(plots) - lines * i // len(plots) for i in range(len(plots))]
            body = []
            for series, size in zip(plots, sizes, strict=True):
                body += self._plot(data, series, columns, size, scale_of(low, high))
        self._drawn = (key, body)
        return body

    def _plot(
        self,
        data: TraceData,
        shown: Sequence[tuple[int, int]],
        columns: int,
        lines: int,
        scale: tuple[float, float],
    ) -> list[Line]:
        """Some widths on one pair of axes."""
        measure, choice = main_measure(data.mode), data.choice
        canvas = Canvas(columns, lines)
        # The active width is a line, the others are marks on top: five lines through noisy values hide each other.
        for index, row in sorted(shown, key=lambda pair: pair[0] != choice.active):
            values = data.text.values(row, measure)
            series = choice.series(index)
            dots = points(values, data.text.document.split, self._start, ZOOMS[self._zoom], canvas, scale)
            if index == choice.active or not measure.per_sae or len(shown) == 1:
                canvas.path(dots, series)
            else:
                canvas.marks(dots, series, mark_width(index) if self._zoom == 0 else 1)
        factor = 100.0 if measure.percent else 1.0
        beyond = self._beyond(data, shown, columns, scale[1], factor)
        labels = ticks(*scale, lines)
        body: list[Line] = []
        for y in range(lines):
            label = tick(labels[y] * factor) if y in labels else ""
            line: Line = [(f"{label:>{AXIS - 1}}", "muted"), ("┤" if label else "│", "muted")]
            cells = canvas.cells(y)
            if y == 0 and self.apart and measure.per_sae and len(shown) == 1:
                index = shown[0][0]
                cells = named(cells, choice.labels[index], choice.series(index))
            line += merge_cells(beyond_cells(cells, beyond) if y == 0 else cells)
            body.append(line)
        return body

    def _beyond(
        self, data: TraceData, shown_saes: Sequence[tuple[int, int]], columns: int, top: float, factor: float
    ) -> list[tuple[int, str, int]]:
        """Outliers above the axis, of the active width or of the only one: column, value and series, largest first."""
        measure, per_column = main_measure(data.mode), ZOOMS[self._zoom]
        index, row = (data.choice.active, data.choice.row) if len(shown_saes) > 1 else shown_saes[0]
        values = data.text.values(row, measure)
        shown = range(self._start, self._start + columns * per_column)
        found = [p for p in data.text.document.outliers() if p in shown and values[p] > top]
        series = data.choice.series(index)
        found.sort(key=lambda p: -values[p])
        return [((p - self._start) // per_column, number(values[p] * factor, 3), series) for p in found]

    def on_click(self, event: events.Click) -> None:
        """A click on the plot moves the cursor there."""
        column = event.x - AXIS
        start, stop = self.window
        position = start + column * ZOOMS[self._zoom]
        if event.y >= 1 and column >= 0 and position < stop:
            self.post_message(self.Chosen(position))


def crossed(line: Line, column: int) -> Line:
    """With the cursor's line, where nothing is drawn."""
    before, out = 0, Line()
    for text, look in line:
        at = column - before
        if 0 <= at < len(text) and text[at] == " ":
            out += [(text[:at], look), ("│", "marker"), (text[at + 1 :], look)]
        else:
            out.append((text, look))
        before += len(text)
    if before <= column:
        out += [(" " * (column - before), ""), ("│", "marker")]
    return [piece for piece in out if piece[0]]


def named(cells: Sequence[tuple[str, int | None]], name: str, series: int) -> list[tuple[str, int | None]]:
    """A line of cells that begins with a name."""
    text = f" {name} "
    return [*((character, series) for character in text), *cells[len(text) :]]


def ticks(bottom: float, top: float, lines: int) -> dict[int, float]:
    """Round numbers of the axis and the line each stands in: both ends, and one in about every four lines between."""
    step = round_up((top - bottom) / max(1, lines // 4) * (1 - 1e-9))
    n = math.ceil((top - bottom) / step - 0.5)  # so that the last step is never shorter than half of one
    values = [*(bottom + step * k for k in range(n)), top]
    return {round((lines - 1) * (top - value) / (top - bottom)): value for value in values}


def beyond_cells(
    cells: Sequence[tuple[str, int | None]], beyond: Sequence[tuple[int, str, int]]
) -> list[tuple[str, int | None]]:
    """The top line with the values of what is above it, beside its place: where there is room, largest first."""
    out, taken = list(cells), set[int]()
    for column, value, series in beyond:
        text = f"↑{value}"
        first = column + 1 if column + 1 + len(text) <= len(out) else column - len(text)
        places = range(first, first + len(text))
        if first < 0 or taken.intersection(range(first - 1, first + len(text) + 1)):
            continue
        taken.update(places)
        for place, character in zip(places, text, strict=True):
            out[place] = (character, series)
    return out


def merge_cells(cells: Sequence[tuple[str, int | None]]) -> Line:
    """Neighbouring cells of one series as one piece."""
    line: Line = []
    for text, series in cells:
        look = "" if series is None else f"series-{series}"
        if line and (line[-1][1] == look or text == " "):
            line[-1] = (line[-1][0] + text, line[-1][1])
        else:
            line.append((text, look))
    return line


def tick(value: float) -> str:
    """A number of an axis: 40, 22.5, 0.15."""
    text = number(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text else text


def mark_width(index: int) -> int:
    """Dots of a mark: neighbouring widths differ, so that they can be told apart without colour."""
    return 2 - index % 2


def sample(choice: SaeChoice, index: int) -> str:
    """Three columns that show how a width is drawn."""
    canvas = Canvas(3, 1)
    if index == choice.active:
        canvas.path([(0, 1), (5, 1)], 0)
    else:
        canvas.marks([(0, 1), (4, 1)], 0, mark_width(index))
    return "".join(text for text, _ in canvas.cells(0))


def legend_pieces(data: TraceData) -> Line:
    """Each width with its line style and colour, and its value at the cursor."""
    if not main_measure(data.mode).per_sae:
        return []
    measure, line = main_measure(data.mode), Line()
    for index, row in data.choice.shown:
        look = f"series-{data.choice.series(index)}"
        value = data.text.values(row, measure)[data.position] * (100.0 if measure.percent else 1.0)
        line += [
            (sample(data.choice, index), look),
            (f" {data.choice.labels[index]}", f"{look}{' bold' if index == data.choice.active else ''}"),
            (f" {number(value):<5} ", "muted"),
        ]
    return line


def axis_line(start: int, marker: int, columns: int, per_column: int, data: TraceData) -> Line:
    """Positions below the plot, with the marker under the cursor's token."""
    value = f"{MARKER}{data.position}"
    if marker + len(value) > columns:
        value = MARKER
    cells = [" "] * columns
    spacing = 20 * per_column
    for position in range(-(-start // spacing) * spacing, start + columns * per_column, spacing):
        column = (position - start) // per_column
        label = f"╵{position}"
        covered = column <= marker + len(value) and marker <= column + len(label)
        if column + len(label) <= columns and not covered:
            cells[column : column + len(label)] = label
    text = "".join(cells)
    line: Line = [(" " * (AXIS - 1) + "└", "muted")]
    if 0 <= marker < columns:
        line += [(text[:marker], "muted"), (value, "marker"), (text[marker + len(value) :], "muted")]
    else:
        line.append((text, "muted"))
    assert width_of(line) == AXIS + columns
    return line


LABEL, CELL = 6, 5


def pair_lines(pairs: Pairs | None, choice: SaeChoice | None, width: int, height: int) -> list[Line]:
    """The upper triangle: rows predict columns. What does not fit is left out from the widest on."""
    if choice is None:
        return [[("no SAEs yet", "muted")]]
    if len(choice.enabled) < 2:
        return [[("enable two widths:", "muted")], [("press their number keys", "muted")]]
    if pairs is None or not pairs.sae_ids:
        return [[("…", "muted")]]
    place = {choice.saes[row].sae_id: index for index, row in choice.shown}
    order = [(i, place[sae_id]) for i, sae_id in enumerate(pairs.sae_ids) if sae_id in place]
    columns = order[1:][: max(1, (width - LABEL) // CELL)]
    rows = order[:-1][: max(1, height - 1)]
    heading: Line = [(" " * LABEL, "")]
    heading += [(f"{choice.labels[index]:>{CELL}}", f"series-{choice.series(index)}") for _, index in columns]
    lines: list[Line] = [heading]
    for number_in_order, (i, index) in enumerate(rows):
        line: Line = [(f"{choice.labels[index]:<{LABEL}}", f"series-{choice.series(index)}")]
        for column_in_order, (j, _) in enumerate(columns, 1):
            line.append((f"{_r2(pairs.r2[i][j]) if column_in_order > number_in_order else '':>{CELL}}", ""))
        lines.append(line)
    if len(lines) < height:
        lines.append([(f"on {pairs.n_tokens:,} held-out tokens", "muted")])
    return lines


def _r2(value: float | None) -> str:
    """.81 of 0.81; 1.0 of 1; '-' of nothing."""
    if value is None or value != value:
        return "-"
    text = f"{value:.2f}"
    return "1.0" if text == "1.00" else text.replace("0.", ".", 1)


class PairsPane(LinePane):
    """Takes the session's pairs."""

    DEFAULT_CSS = """
    PairsPane { width: 38; }
    """

    def show(self, pairs: Pairs | None, choice: SaeChoice | None) -> None:
        """Draw this."""

        def lines(width: int, height: int) -> list[Line]:
            title = self.title_line([("R² of norms, row → column", "")], [], width)
            return [title, *([(" ", ""), *line] for line in pair_lines(pairs, choice, width - 2, height - 1))]

        self.draw(lines)
