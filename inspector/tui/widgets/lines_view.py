"""A scrollable pane of finished lines of `inspector.drawing`: figures, tables, prose. Only visible lines are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.tui.widgets.token_lines import rich_style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from inspector.drawing.palette import Line, TokenPalette


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
        self._lines: Sequence[Line] = ()
        self._palette = build_palette(DEFAULT_ENDPOINTS, "truecolor")

    @property
    def room(self) -> tuple[int, int]:
        """Columns and lines there are for drawing; the last column stays free of text, for the eye."""
        return max(self.scrollable_content_region.width - 1, 0), self.scrollable_content_region.height

    @property
    def lines(self) -> Sequence[Line]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[Line], palette: TokenPalette, *, keep_place: bool = False) -> None:
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
