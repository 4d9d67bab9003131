"""One line that says what the colours of the token pane mean, with the numbers at which they change."""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from inspector.drawing.levels import LegendData, legend_runs
from inspector.tui.widgets.token_lines import rich_style


class Legend(Widget):
    """Feed it TokenPane.LegendChanged.legend. One line high; blank until then."""

    DEFAULT_CSS = """
    Legend { height: 1; width: 1fr; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        """A blank legend."""
        super().__init__(id=id, classes=classes)
        self.data: LegendData | None = None

    def show(self, data: LegendData) -> None:
        """Explain these colours."""
        if data != self.data:
            self.data = data
            self.tooltip = data.mode.meaning
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The legend's one line."""
        width = self.size.width
        if self.data is None or y > 0:
            return Strip.blank(width, self.rich_style)
        runs = legend_runs(self.data, width)
        segments = [Segment(text, rich_style(cell)) for text, cell in runs]
        used = sum(cell_len(text) for text, _ in runs)
        segments.append(Segment(" " * (width - used), rich_style(self.data.palette.plain)))
        return Strip([segment for segment in segments if segment.text], width)
