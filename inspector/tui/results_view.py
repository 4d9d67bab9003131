"""The list of stored results: how wide its columns are, so that a line fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inspector.drawing.safe_text import cell_width, visible
from inspector.reports.result import kind
from inspector.store.results import Record


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
