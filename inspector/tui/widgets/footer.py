"""The last line: the keys that matter in the focused pane, as many as fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.tui.lines import Line, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

Hint = tuple[str, str]
"""Keys and what they do: ('m', 'mode')."""


def hint_line(hints: Sequence[Hint], last: Hint, width: int) -> Line:
    """As many hints as fit, from the first on, and always the last."""
    tail: Line = [(last[0], "key"), (f" {last[1]}", "muted")]
    line: Line = []
    for keys, what in hints:
        piece: Line = [(keys, "key"), (f" {what}", "muted"), ("   ", "")]
        if width_of(line) + width_of(piece) + width_of(tail) > width:
            break
        line += piece
    return [*line, *tail]


class FooterPane(LinePane):
    """One line of hints."""

    DEFAULT_CSS = """
    FooterPane { height: 1; dock: bottom; background: $panel; padding: 0 1; }
    """

    def __init__(self, hints: Sequence[Hint] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._hints = hints
        self._last: Hint = ("?", "help")

    def show(self, hints: Sequence[Hint], last: Hint = ("?", "help")) -> None:
        """Draw these."""
        self._hints, self._last = hints, last
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The line."""
        return [hint_line(self._hints, self._last, width)]
