"""A list with a cursor: one line per entry, scrolled so that the cursor is seen; the screen says what a line is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from inspector.tui.lines import Line, cut_line, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events


class RowList(LinePane, can_focus=True):
    """Entries by number; posts `Moved` when the cursor moves and `Chosen` on Enter or a second click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,right_curly_bracket", "page(1)", "page down", show=False),
        Binding("pageup,left_curly_bracket", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(0)", "first", show=False),
        Binding("end,G", "edge(1)", "last", show=False),
        Binding("enter", "choose", "choose", show=False),
    ]
    DEFAULT_CSS = """
    RowList { background: $surface; }
    """

    class Moved(Message):
        """The cursor is on another entry."""

        def __init__(self, row: int) -> None:
            super().__init__()
            self.row = row

    class Chosen(Message):
        """This entry is meant."""

        def __init__(self, row: int) -> None:
            super().__init__()
            self.row = row

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cursor = 0
        self._count = 0
        self._top = 0
        self._row: Callable[[int, int], Line] = lambda _row, _width: []
        self._head: Callable[[int], Line] | None = None
        self._empty: Sequence[Line] = ()

    def show(
        self,
        count: int,
        row: Callable[[int, int], Line],
        *,
        cursor: int | None = None,
        head: Callable[[int], Line] | None = None,
        empty: Sequence[Line] = (),
    ) -> None:
        """Draw so many entries.

        Args:
            count: of entries.
            row: (number, columns) to the entry's line.
            cursor: where it stands; None: as before, as far as there are entries.
            head: columns to a line above the entries; None: there is none.
            empty: drawn where there is no entry.
        """
        self._count, self._row, self._head, self._empty = count, row, head, empty
        wanted = self.cursor if cursor is None else cursor
        self.cursor = min(max(wanted, 0), max(count - 1, 0))
        self.rebuild()

    @property
    def count(self) -> int:
        """Entries."""
        return self._count

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The entries around the cursor."""
        lines: list[Line] = [self._head(width)] if self._head is not None and self._count else []
        if not self._count:
            return self._empty
        room = max(height - len(lines), 1)
        self._top = min(max(self._top, self.cursor - room + 1), self.cursor)
        self._top = min(self._top, max(self._count - room, 0))
        for number in range(self._top, min(self._top + room, self._count)):
            line = cut_line(self._row(number, width - 2), width - 2)
            lines.append(self._with_cursor(line, width) if number == self.cursor else [("  ", ""), *line])
        return lines

    def _with_cursor(self, line: Line, width: int) -> Line:
        """Marked by a sign, and reversed while the list has the focus."""
        extra = "reverse" if self.has_focus else "bold"
        # What is muted would be lost on the reversed ground.
        looks = [(text, look.replace("muted", "").strip()) for text, look in line]
        marked: Line = [("▸ ", f"marker {extra}"), *((text, f"{look} {extra}".strip()) for text, look in looks)]
        return [*marked, (" " * max(width - width_of(marked), 0), extra)]

    def move_to(self, row: int) -> None:
        """Put the cursor on an entry."""
        row = min(max(row, 0), max(self._count - 1, 0))
        if row != self.cursor:
            self.cursor = row
            self.rebuild()
            self.post_message(self.Moved(row))

    def action_move(self, step: int) -> None:
        """The next or previous entry."""
        self.move_to(self.cursor + step)

    def action_page(self, step: int) -> None:
        """A page of entries."""
        self.move_to(self.cursor + step * max(self.size.height - 2, 1))

    def action_edge(self, last: int) -> None:
        """The first or the last entry."""
        self.move_to(self._count - 1 if last else 0)

    def action_choose(self) -> None:
        """This one."""
        if self._count:
            self.post_message(self.Chosen(self.cursor))

    def on_click(self, event: events.Click) -> None:
        """A click puts the cursor there; on the cursor it chooses."""
        row = self._top + event.y - (1 if self._head is not None else 0)
        if not 0 <= row < self._count or event.y < (1 if self._head is not None else 0):
            return
        if row == self.cursor:
            self.action_choose()
        else:
            self.move_to(row)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves the cursor."""
        event.stop()
        self.move_to(self.cursor + 1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves the cursor."""
        event.stop()
        self.move_to(self.cursor - 1)
