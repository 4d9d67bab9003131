"""Lines to read, scrolled when there are more than fit: what is said about an experiment, a job and its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from inspector.tui.lines import Line, cut_line, width_of
from inspector.tui.widgets.line_pane import LinePane


class Prose(LinePane, can_focus=True):
    """Told how to make its lines for a width; says at its right edge whether there is more above or below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_by(1)", "down", show=False),
        Binding("up,k", "scroll_by(-1)", "up", show=False),
        Binding("pagedown,right_curly_bracket", "page(1)", "page down", show=False),
        Binding("pageup,left_curly_bracket", "page(-1)", "page up", show=False),
        Binding("home", "edge(0)", "top", show=False),
        Binding("end", "edge(1)", "bottom", show=False),
    ]
    DEFAULT_CSS = """
    Prose { background: $surface; padding: 0 0 0 1; }
    """

    def __init__(self, *, follow: bool = False, id: str | None = None) -> None:
        """A pane without lines.

        Args:
            follow: Stay at the end when lines are added, as a log does, unless the reader went up.
            id: As Textual has it.
        """
        super().__init__(id=id)
        self._make: Callable[[int], Sequence[Line]] = lambda _: ()
        self._top = 0
        self._count = 0
        self._follow = follow
        self._at_end = follow

    def show(self, make: Callable[[int], Sequence[Line]], *, keep_place: bool = True) -> None:
        """Draw these.

        Args:
            make: Columns to lines.
            keep_place: Stay where it was scrolled to; otherwise the top, or the end of what is followed.
        """
        self._make = make
        if not keep_place:
            self._top, self._at_end = 0, self._follow
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The lines from the top one on."""
        lines = self._make(max(width - 2, 1))
        self._count = len(lines)
        last = max(0, len(lines) - height)
        self._top = last if self._at_end else min(self._top, last)
        shown = [list(line) for line in lines[self._top : self._top + height]]
        for row, sign in ((0, "▲" if self._top else ""), (len(shown) - 1, "▼" if self._top < last else "")):
            if sign:
                line = cut_line(shown[row], width - 2)
                shown[row] = [*line, (" " * (width - 1 - width_of(line)), ""), (sign, "muted")]
        return shown

    def action_scroll_by(self, step: int) -> None:
        """A line."""
        last = max(0, self._count - self.size.height)
        self._top = min(max(self._top + step, 0), last)
        self._at_end = self._follow and self._top == last
        self.rebuild()

    def action_page(self, step: int) -> None:
        """A page, less a line."""
        self.action_scroll_by(step * max(1, self.size.height - 1))

    def action_edge(self, last: int) -> None:
        """The first or the last line."""
        self.action_scroll_by(self._count if last else -self._count)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel."""
        event.stop()
        self.action_scroll_by(2)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel."""
        event.stop()
        self.action_scroll_by(-2)
