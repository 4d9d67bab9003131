"""The rows of the worst tokens as lines: columns that fit, headings, and what is known of one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inspector.drawing.glossary import does
from inspector.drawing.safe_text import visible
from inspector.reports.worst_tokens import PERCENT, VALUES, heading, shown_value
from inspector.tui.lines import Line, cut, left
from inspector.tui.lines import number as number_text

if TYPE_CHECKING:
    from inspector.reports.worst_tokens import Listing

SIZES = {"token": 16, "class": 20, "context": 8, "position": 9, "n": 8, "part": 8, "first": 8, "last": 8, "x_norm": 8}
NARROW = {100: {"class": 15}, 76: {"class": 15, "token": 12}}
"""Below so many columns words are cut, so that more numbers fit."""
NUMBER = 8
"""Columns of a number of VALUES, at least: its heading, the arrow of the sort and a space."""
INTERVAL, INTERVAL_SIZE = "95%", 15
"""A column behind the one that is sorted by, where rows are means."""
ABOUT = 7
"""Lines of `about_lines`."""
LABEL, STEP = 7, 10
"""Columns of the table in it: before the numbers, and of each."""


def group_name(group: str) -> str:
    """Of the rows, as the title says it."""
    return {"place": "places", "token": "token ids", "class": "classes", "position": "positions"}.get(group, "outliers")


def title_of(name: str) -> str:
    """Heading of a column, without the bars of a norm, for which there is no room."""
    if name == INTERVAL:
        return "[95%]"
    return f"{heading(name).strip('‖') if name != 'x_norm' else '‖x‖'}{' %' if name in PERCENT else ''}"


def columns_for(shown: Listing, by: str, width: int) -> list[tuple[str, int]]:
    """Names and sizes of the columns that fit: the first, the one that is sorted by, then the others in their order."""
    names = list(shown.shown)
    if by in VALUES and (f"{by}_half" in shown.columns or f"{by}_low" in shown.columns):
        names.insert(names.index(by) + 1, INTERVAL)
    sizes = SIZES | next((NARROW[most] for most in sorted(NARROW) if width < most), {}) | {INTERVAL: INTERVAL_SIZE}
    size = {name: sizes.get(name, max(NUMBER, len(title_of(name)) + 2)) for name in names}
    size[by] = max(size[by], len(title_of(by)) + 2)  # its arrow
    fitting, used = set(), 0
    for name in sorted(names, key=lambda name: (name != names[0], name not in (by, INTERVAL), names.index(name))):
        if used + size[name] <= width or name == names[0]:
            fitting.add(name)
            used += size[name]
    return [(name, size[name]) for name in names if name in fitting]


def cell(name: str, value: Any) -> str:
    """As it is shown."""
    value = shown_value(name, value)
    return visible(value) if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else number_text(value)


def row_line(shown: Listing, number: int, by: str, width: int, *, coloured: bool = True) -> Line:
    """One row: words to the left, numbers to the right, both parts of the error in their colours."""
    line: Line = []
    for name, size in columns_for(shown, by, width):
        if name == INTERVAL:
            low, high = ends_of(by, shown, number)
            text = "" if low is None or high is None else f"[{cell(by, low)}, {cell(by, high)}]"
        else:
            text = cell(name, shown.columns[name][number])
        look = name if coloured and name in ("nonlinear", "linear") else ""
        line.append((_placed(name, text, size), f"{look} bold".strip() if name == by else look))
    return line


def head_line(shown: Listing, by: str, descending: bool, width: int) -> Line:
    """Headings, the one that is sorted by with an arrow."""
    line: Line = [("  ", "")]
    for name, size in columns_for(shown, by, width - 4):
        title = f"{'▼' if descending else '▲'}{title_of(name)}" if name == by else title_of(name)
        do = "" if name == INTERVAL else does(f"screen.sort_by('{name}')", "Sort by this; again: the other way round")
        line.append((_placed(name, title, size), f"{'accent' if name == by else 'muted'} {do}".strip()))
    return line


def _placed(name: str, text: str, size: int) -> str:
    return left(text, size - 1) + " " if name in ("token", "class") else f"{text:>{size - 1}} "


def ends_of(name: str, shown: Listing, number: int) -> tuple[float | None, float | None]:
    """The 95% interval of a mean; None where there is none."""
    halves = shown.columns.get(f"{name}_half")
    if halves is None:
        ends = (shown.columns.get(f"{name}_{end}") for end in ("low", "high"))
        low, high = (None if each is None else each[number] for each in ends)
        return low, high
    mean, half = shown.columns[name][number], halves[number]
    return (None, None) if half is None else (mean - half, mean + half)


def about_lines(shown: Listing, number: int, tokens: Listing | None, width: int) -> list[Line]:
    """Spreads and intervals of a row; of a place, those of its token id.

    Args:
        shown: the rows.
        number: of the row.
        tokens: the rows by token id; None: there are none.
        width: columns.
    """
    row = shown.row(number)
    is_place = "train" in row
    lines: list[Line] = []
    if "context" in row:
        first = f"'{visible(row['token'])}'  {row['class']}, id {row['token_id']} · "
        first += f"{'' if is_place else 'its worst place: '}context {row['context'] + 1}, position {row['position']}"
        if is_place:
            first += f" · {'fitted' if row['train'] else 'held out'} · ‖x‖ {cell('x_norm', row['x_norm'])}"
        lines.append([(cut(first, width), "strong")])
    of, at = shown, number
    if is_place:
        ids = tokens.columns["token_id"] if tokens is not None else []
        if tokens is None or row["token_id"] not in ids:
            return lines
        of, at = tokens, ids.index(row["token_id"])
    whole = of.row(at)
    counted = f"{'all places of this id: ' if is_place else ''}{whole['n']:,} {'tokens' if whole['n'] > 1 else 'token'}"
    counted += f" in {whole['n_blocks']} of 16 blocks of documents" if "n_blocks" in whole else ""
    lines.append([(counted, "muted")])
    names = [name for name in VALUES if name in whole][: max((width - LABEL) // STEP, 1)]
    lines.append([(" " * LABEL, ""), *((f"{title_of(name):>{STEP}}", "muted") for name in names)])
    ends = {name: ends_of(name, of, at) for name in names}
    for label, values in (
        ("mean", {name: whole[name] for name in names}),
        ("spread", {name: whole[f"{name}_sd"] for name in names}),
        ("95% ≥", {name: ends[name][0] for name in names}),
        ("95% ≤", {name: ends[name][1] for name in names}),
    ):
        if label in ("mean", "spread") or any(value is not None for value in values.values()):
            cells = ((f"{cell(name, value):>{STEP}}", "") for name, value in values.items())
            lines.append([(f"{label:<{LABEL}}", "muted"), *cells])
    return lines
