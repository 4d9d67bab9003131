"""The base of the panes that draw finished lines: header, detail, plots, footer.

A pane builds `Line`s (see `inspector.tui.lines`) from its data for its present size; a rebuild repaints only the lines
that differ. Style names are looks of the table below, then optional text styles: 'linear', 'muted', 'series-2 reverse'.

Colours are the theme's variables, looked up here once per theme. Component classes, Textual's own way, are computed for
every widget before the first paint: with twenty looks in a dozen panes that took longer than all the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.content import Content
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from inspector.drawing.palette import N_SERIES
from inspector.tui.lines import Line, cut_line, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from textual import events
    from textual.visual import VisualType

LOOKS: dict[str, tuple[str, str, bool]] = {
    "muted": ("foreground-muted", "", False),
    "strong": ("foreground", "", True),
    "accent": ("accent", "", True),
    "title": ("foreground-muted", "panel", False),
    "title-focused": ("accent", "panel", True),
    "linear": ("linear-error", "", False),
    "nonlinear": ("nonlinear-error", "", False),
    "good": ("success", "", False),
    "warning": ("warning", "", False),
    "error": ("error", "", True),
    "alarm": ("background", "error", True),
    "key": ("accent", "", True),
    "marker": ("accent", "", True),
    **{f"series-{i}": (f"series-{i + 1}", "", False) for i in range(N_SERIES)},
}
"""Name: theme variable of the text, of the ground ('': the pane's own), and whether it is bold."""


class Styled(Widget):
    """Draws in the looks of the table above."""

    _looks: dict[str, Style]

    def look(self, name: str) -> Style:
        """The style of a name; '' is the pane's own."""
        if not hasattr(self, "_looks"):
            self._looks = {}
        if name not in self._looks:
            style = self.rich_style
            for place, word in enumerate(name.split()):
                if word in LOOKS:
                    # A second look lends its text only: what stands on a title keeps the title's ground.
                    style += self._of_theme(*LOOKS[word], with_ground=place == 0)
                elif word.startswith("link="):
                    style += Style(link=word.removeprefix("link="))
                elif word.startswith("click="):
                    style += Style.from_meta({"@click": unquote(word.removeprefix("click="))})
                elif word.startswith("tip="):
                    style += Style.from_meta({"tip": unquote(word.removeprefix("tip="))})
                else:
                    style += Style.parse(word)
            self._looks[name] = style
        return self._looks[name]

    def _of_theme(self, text: str, ground: str, bold: bool, *, with_ground: bool) -> Style:
        variables = self.app.theme_variables
        below = Color.parse(variables[ground]) if ground else self.background_colors[1]
        # A variable may be translucent; the terminal knows only solid colours.
        colour = Color.parse(variables[text])
        solid = colour if colour.ansi is not None or colour.a == 1 else below + colour
        return Style(
            color=solid.rich_color,
            bgcolor=below.rich_color if ground and with_ground else None,
            bold=bold or None,
        )

    @property
    def tooltip(self) -> VisualType | None:
        """What Textual shows where the mouse rests: of the piece below it, see `glossary`, else the pane's own."""
        tip = self.tip(self.hover_style.meta)
        return Content(tip) if tip else self._tooltip

    @tooltip.setter
    def tooltip(self, tooltip: VisualType | None) -> None:
        self._tooltip = tooltip

    def tip(self, meta: Mapping[str, Any]) -> str:
        """What is said of a piece with these words in its look; '' for nothing."""
        return str(meta.get("tip", ""))

    def notify_style_update(self) -> None:
        """The theme or a pseudo class changed."""
        super().notify_style_update()
        self._looks = {}


class LinePane(Styled):
    """Draws what it was told by `draw`, or what `build` of a subclass returns, one line of the terminal each."""

    DEFAULT_CSS = """
    LinePane { height: 1fr; background: $background; color: $foreground; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._make: Callable[[int, int], Sequence[Line]] = lambda _width, _height: ()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The lines for this many columns and lines; too long ones are cut, missing ones left empty."""
        return self._make(width, height)

    def draw(self, make: Callable[[int, int], Sequence[Line]]) -> None:
        """Draw this from now on.

        Args:
            make: columns and lines to what stands there; called again for another size.
        """
        self._make = make
        self.rebuild()

    def rebuild(self) -> None:
        """Draw the present data; lines that are as before are not repainted."""
        width, height = self.size
        if not width or not height:
            return
        before = self._lines
        lines = self._lines = self._built(width, height)
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def _built(self, width: int, height: int) -> list[Line]:
        lines = [list(line) if width_of(line) <= width else cut_line(line, width) for line in self.build(width, height)]
        lines = lines[:height]
        return lines + [[] for _ in range(height - len(lines))]

    @property
    def lines(self) -> list[Line]:
        """What is drawn now."""
        return self._lines

    def title_line(self, start: Line, end: Line, width: int) -> Line:
        """A full-width title; it tells by colour and by its mark whether the pane has the focus."""
        look = "title-focused" if self.has_focus else "title"
        mark = "▌" if self.has_focus else " "
        inner = width - 2
        pieces = [(text, f"{look} {extra}".strip()) for text, extra in start]
        tail = [(text, f"title {extra}".strip()) for text, extra in end]
        room = inner - width_of(pieces) - width_of(tail)
        if room < 1:
            pieces, tail, room = cut_line(pieces, inner), [], max(0, inner - width_of(pieces))
        return [(mark, look), *pieces, (" " * room, "title"), *tail, (" ", "title")]

    def render_line(self, y: int) -> Strip:
        """One finished line, padded with the pane's own style."""
        width, height = self.size
        if not self._lines and width and height:
            # Laid out while another screen covered this one: no event told of the size.
            self._lines = self._built(width, height)
        line = self._lines[y] if y < len(self._lines) else []
        segments = [Segment(text, self.look(name)) for text, name in line]
        used = sum(cell_len(text) for text, _ in line)
        if used < width:
            segments.append(Segment(" " * (width - used), self.look("")))
        return Strip(segments, max(used, width))

    def on_resize(self, _: events.Resize) -> None:
        """Build for the new size."""
        self.rebuild()

    def watch_has_focus(self, has_focus: bool) -> None:
        """The title says who has the focus. Not in a handler of Blur, which runs before the focus is gone."""
        super().watch_has_focus(has_focus)
        self.rebuild()


class LineScroll(Styled, ScrollView):
    """The base of panes with more lines than they are high. Scrolls at once: a frame of an animation is a repaint."""

    DEFAULT_CSS = """
    LineScroll {
        padding: 0 0 0 1; height: 1fr; width: 1fr; background: $surface; overflow-x: hidden; overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-color: $border-blurred; scrollbar-color-hover: $border; scrollbar-color-active: $border;
        scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
    }
    """

    def set_lines(self, count: int) -> None:
        """Tell the scroll bar how many lines there are, without a layout pass, which would draw the whole screen."""
        size = Size(self.scrollable_content_region.width, count)
        if size != self.virtual_size:
            self.set_reactive(ScrollView.virtual_size, size)
            if self.is_attached:
                self._scroll_update(size)

    def scroll_to_line(self, line: int) -> None:
        """This line on top."""
        self.scroll_to(y=max(line, 0), animate=False, force=True, immediate=True)
