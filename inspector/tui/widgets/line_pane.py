"""The base of the panes that draw finished lines: header, detail, plots, footer.

A pane builds `Line`s (see `inspector.tui.lines`) from its data for its present size; a rebuild repaints only the lines
that differ. Colours come from component classes, so a theme changes them all. Style names are a component class without
its prefix, then optional text styles: 'linear', 'muted', 'strong bold', 'series-2 reverse'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from inspector.tui.lines import Line, cut_line, width_of
from inspector.tui.view_state import N_SERIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events


class LinePane(Widget):
    """Draws what `build` returns, one line of the terminal each."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "pane--muted",
        "pane--strong",
        "pane--accent",
        "pane--title",
        "pane--title-focused",
        "pane--linear",
        "pane--nonlinear",
        "pane--good",
        "pane--warning",
        "pane--error",
        "pane--key",
        "pane--marker",
        *(f"pane--series-{i}" for i in range(N_SERIES)),
    }

    DEFAULT_CSS = """
    LinePane { height: 1fr; background: $background; color: $foreground; }
    LinePane > .pane--muted { color: $foreground-muted; }
    LinePane > .pane--strong { color: $foreground; text-style: bold; }
    LinePane > .pane--accent { color: $accent; text-style: bold; }
    LinePane > .pane--title { background: $panel; color: $foreground-muted; }
    LinePane > .pane--title-focused { background: $panel; color: $accent; text-style: bold; }
    LinePane > .pane--linear { color: $linear-error; }
    LinePane > .pane--nonlinear { color: $nonlinear-error; }
    LinePane > .pane--good { color: $success; }
    LinePane > .pane--warning { color: $warning; }
    LinePane > .pane--error { color: $error; text-style: bold; }
    LinePane > .pane--key { color: $accent; text-style: bold; }
    LinePane > .pane--marker { color: $accent; text-style: bold; }
    LinePane > .pane--series-0 { color: $series-1; }
    LinePane > .pane--series-1 { color: $series-2; }
    LinePane > .pane--series-2 { color: $series-3; }
    LinePane > .pane--series-3 { color: $series-4; }
    LinePane > .pane--series-4 { color: $series-5; }
    LinePane > .pane--series-5 { color: $series-6; }
    LinePane > .pane--series-6 { color: $series-7; }
    LinePane > .pane--series-7 { color: $series-8; }
    LinePane > .pane--series-8 { color: $series-9; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: list[Line] = []
        self._looks: dict[str, Style] = {}

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The lines for this many columns and lines; too long ones are cut, missing ones left empty."""
        raise NotImplementedError

    def rebuild(self) -> None:
        """Draw the present data; lines that are as before are not repainted."""
        width, height = self.size
        if not width or not height:
            return
        before = self._lines
        lines = [list(line) if width_of(line) <= width else cut_line(line, width) for line in self.build(width, height)]
        lines = lines[:height]
        lines += [[] for _ in range(height - len(lines))]
        self._lines = lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

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

    def look(self, name: str) -> Style:
        """The style of a name; '' is the pane's own."""
        if name not in self._looks:
            style = self.rich_style
            for place, word in enumerate(name.split()):
                if word.startswith("link="):
                    style += Style(link=word.removeprefix("link="))
                    continue
                if f"pane--{word}" not in self.COMPONENT_CLASSES:
                    style += Style.parse(word)
                    continue
                component = self.get_component_rich_style(f"pane--{word}")
                # A second component lends its colour only: what stands on a title keeps the title's background.
                style += component if place == 0 else Style(color=component.color, bold=component.bold)
            self._looks[name] = style
        return self._looks[name]

    def render_line(self, y: int) -> Strip:
        """One finished line, padded with the pane's own style."""
        width = self.size.width
        line = self._lines[y] if y < len(self._lines) else []
        segments = [Segment(text, self.look(name)) for text, name in line]
        used = sum(cell_len(text) for text, _ in line)
        if used < width:
            segments.append(Segment(" " * (width - used), self.look("")))
        return Strip(segments, max(used, width))

    def notify_style_update(self) -> None:
        """The theme or a pseudo class changed."""
        super().notify_style_update()
        self._looks.clear()

    def on_resize(self, _: events.Resize) -> None:
        """Build for the new size."""
        self.rebuild()

    def on_focus(self) -> None:
        """The title says who has the focus."""
        self.rebuild()

    def on_blur(self) -> None:
        """The title says who has the focus."""
        self.rebuild()
