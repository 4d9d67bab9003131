"""One line above a pane that has no title of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.tui.lines import Line, cut, spread, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence


class TitleBar(LinePane):
    """A name on the left, where it is from on the right."""

    DEFAULT_CSS = """
    TitleBar { height: 1; background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[Line, str, bool] = ([], "", False)

    def show(self, start: Line, end: str, focused: bool) -> None:
        """Draw this.

        Args:
            start: The name, in pieces; cut if there is no room.
            end: The right end; cut before the name is.
            focused: Whether the pane below has the focus.
        """
        self._shown = (start, end, focused)
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The line."""
        start, end, focused = self._shown
        look = "title-focused" if focused else "title"
        first: Line = [("▌" if focused else " ", look), *((text, f"{look} {style}".strip()) for text, style in start)]
        room = width - width_of(first) - 3
        tail: Line = [(f"{cut(end, room)} ", "title")] if room >= 8 and end else []
        return [spread(first, tail, width)]
