"""The message of a pane that has nothing to draw: empty, loading or failed. Centred and still, never a spinner."""

from __future__ import annotations

from textwrap import wrap
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

State = Literal["empty", "loading", "failed"]
MAX_WIDTH = 72


def state_line(y: int, size: Size, text: tuple[str, str], *, title_style: Style, detail_style: Style) -> Strip:
    """Line y of a message centred in a pane.

    Args:
        y: Line in the pane.
        size: Of the pane.
        text: (title, detail); both already safe to show. The detail is wrapped, and cut if there is no room.
        title_style: Of the first line.
        detail_style: Of the others and of the space around.
    """
    title, detail = text
    room = max(min(size.width - 4, MAX_WIDTH), 1)
    lines = wrap(title, room)
    n_title = len(lines)
    if detail:
        lines += ["", *wrap(detail, room)]
    lines = lines[: size.height]
    row = y - max((size.height - len(lines)) // 2, 0)
    if not 0 <= row < len(lines):
        return Strip([Segment(" " * size.width, detail_style)], size.width)
    style = title_style if row < n_title else detail_style
    line = lines[row]
    left = max((size.width - cell_len(line)) // 2, 0)
    padded = set_cell_size(" " * left + line, size.width)
    return Strip([Segment(padded, style)], size.width)
