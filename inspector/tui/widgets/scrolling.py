"""Panes that scroll: a list with a cursor, and lines to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.tui.lines import Line, cut_line, width_of
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.token_lines import rich_style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.drawing.palette import Line as DrawnLine
    from inspector.drawing.palette import TokenPalette


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


class LinesView(ScrollView, can_focus=True):
    """Shows what it is told; posts `Resized` when there is another room to draw for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,right_curly_bracket", "page(1)", "page down", show=False),
        Binding("pageup,left_curly_bracket", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(-1)", "top", show=False),
        Binding("end,G", "edge(1)", "bottom", show=False),
    ]
    DEFAULT_CSS = """
    LinesView {
        padding: 0 0 0 1; height: 1fr; width: 1fr;
        overflow-x: hidden; overflow-y: auto; scrollbar-gutter: stable; scrollbar-size-vertical: 1;
        scrollbar-color: $border-blurred; scrollbar-color-hover: $border; scrollbar-color-active: $border;
        scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
        background: $surface;
    }
    """

    class Resized(Message):
        """The pane has another size: what is drawn for it has to be drawn again."""

        def __init__(self, pane: LinesView) -> None:
            super().__init__()
            self.pane = pane

        @property
        def control(self) -> LinesView:
            """The pane."""
            return self.pane

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[DrawnLine] = ()
        self._palette = build_palette(DEFAULT_ENDPOINTS, "truecolor")

    @property
    def room(self) -> tuple[int, int]:
        """Columns and lines there are for drawing; the last column stays free of text, for the eye."""
        return max(self.scrollable_content_region.width - 1, 0), self.scrollable_content_region.height

    @property
    def lines(self) -> Sequence[DrawnLine]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[DrawnLine], palette: TokenPalette, *, keep_place: bool = False) -> None:
        """Draw these lines.

        Args:
            lines: finished, drawn for `room`.
            palette: whose plain style surrounds them.
            keep_place: stay where it was scrolled to.
        """
        self._lines, self._palette = lines, palette
        size = Size(self.scrollable_content_region.width, len(lines))
        if size != self.virtual_size:
            # Without a layout pass, which would draw the whole screen again.
            self.set_reactive(ScrollView.virtual_size, size)
            if self.is_attached:
                self._scroll_update(size)
        if not keep_place:
            self.scroll_to(y=0, animate=False, force=True, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One finished line."""
        width = self.size.width
        plain = rich_style(self._palette.plain)
        row = y + self.scroll_offset.y
        line = self._lines[row] if row < len(self._lines) else []
        segments = [Segment(text, rich_style(style)) for text, style in line]
        used = sum(segment.cell_length for segment in segments)
        if used < width:
            segments.append(Segment(" " * (width - used), plain))
        strip = Strip(segments, max(used, width))
        return strip if used <= width else strip.crop(0, width)

    def on_resize(self, _: events.Resize) -> None:
        """Tell that there is another room."""
        self.post_message(self.Resized(self))

    def action_move(self, step: int) -> None:
        """A line."""
        self.scroll_relative(y=step, animate=False, force=True, immediate=True)

    def action_page(self, step: int) -> None:
        """A page, less a line."""
        lines = max(self.scrollable_content_region.height - 1, 1)
        self.scroll_relative(y=step * lines, animate=False, force=True, immediate=True)

    def action_edge(self, step: int) -> None:
        """First or last line."""
        self.scroll_to(y=0 if step < 0 else len(self._lines), animate=False, force=True, immediate=True)


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
