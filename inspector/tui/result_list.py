"""The list of stored results as lines: its columns, its heading, and what stands there while nothing is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.disk.folders import RESULTS
from inspector.drawing.safe_text import cell_width, visible
from inspector.reports.result import kind, when
from inspector.tui.lines import Line, left, spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.drawing.figures import Figure
    from inspector.store.results import Record

TIME, SHORT_TIME = 18, 13
"""Columns of the time, with and without its year."""


def list_height(count: int, height: int) -> int:
    """Lines of the list, its heading included, in a window this high."""
    return min(count + 1, max(5, height // 4 if height >= 30 else height // 3 - 1))


def row(records: Sequence[Record], number: int, marked: bool, short: bool, width: int) -> Line:
    """One entry.

    Args:
        records: all of the list.
        number: which.
        marked: whether it carries the mark.
        short: whether the time is told without its year.
        width: columns.
    """
    record = records[number]
    sizes = columns(records, width - 2 - (SHORT_TIME if short else TIME))
    texts = (record.experiment, record.model or "-", record.hook_name or "-", kind(record))
    line = _cells(
        "● " if marked else "  ", "accent", [visible(text) for text in texts], ("strong", "", "", "muted"), sizes
    )
    return spread([*line, (when(record, short=short), "muted")], [], width)


def head(records: Sequence[Record], short: bool, width: int) -> Line:
    """Above the entries."""
    sizes = columns(records, width - 4 - (SHORT_TIME if short else TIME))
    line = _cells("    ", "", ("experiment", "model", "hook", "profile"), ("muted",) * 4, sizes)
    return [*line, ("measured, UTC", "muted")]


def _cells(first: str, look: str, texts: Sequence[str], looks: Sequence[str], sizes: Sequence[int]) -> Line:
    cells = zip(texts, sizes, looks, strict=True)
    return [(first, look), *((left(text, size) + "  ", each) for text, size, each in cells if size)]


def text_of(record: Record) -> str:
    """What a filter looks at."""
    return f"{record.id} {record.model} {record.hook_name} {kind(record)}"


def name_of(figure: Figure) -> str:
    """Of a kind of figure."""
    name = type(figure).__name__.lower()
    return {"dotgrid": "grid", "groupedbars": "bars", "tokentrace": "token trace"}.get(name, name)


def nothing(*, read: bool, filtered: bool) -> list[Line]:
    """In place of the entries: they are not read yet, none has the words of the filter, or there are none."""
    if not read:
        return [[], [("  reading the results …", "muted")]]
    if filtered:
        return [[], [("  no result has these words", "muted")]]
    return [
        [],
        [("  Nothing is measured yet.", "strong")],
        [],
        [("  e", "key"), (" on the Stream screen opens the experiments; what they measure appears here.", "muted")],
        [("  The same from a shell: ", "muted"), ("dm-inspect run norm-prediction", "")],
        [("  Results are kept in ", "muted"), (visible(str(RESULTS.path())), "")],
    ]


def columns(records: Sequence[Record], width: int) -> tuple[int, int, int, int]:
    """Columns for experiment, model, hook and profile with its null, so that a line of the list fits; 0: no room."""

    def widest(title: str, texts: Iterator[str], most: int) -> int:
        return min(max(len(title), *(cell_width(visible(text)) for text in texts if text), 1), most)

    experiment = widest("experiment", (each.experiment for each in records), 24)
    profile = widest("profile", (kind(each) for each in records), 22)
    model = widest("model", (each.model for each in records), 24)
    hook = widest("hook", (each.hook_name for each in records), 32)
    over = experiment + model + hook + profile + 4 * 2 - width
    if over > 0:
        cut = min(over, max(hook - 10, 0))
        hook, over = hook - cut, over - cut
    if over > 0:
        cut = min(over, max(model - 6, 0))
        model, over = model - cut, over - cut
    return experiment, model, 0 if over > 0 else max(hook, 0), profile
