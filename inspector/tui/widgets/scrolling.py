"""Panes that scroll: a list with a cursor, a grid of SAEs with one, and lines to read.

Textual's OptionList and DataTable hold finished prompts and cells, and lay all of them out again when one changes.
These lines depend on the width and change twice a second while a job runs; only those that differ are repainted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from inspector.tui.lines import Line, cut_line, width_of, wrapped_line
from inspector.tui.suite_list import l0_text
from inspector.tui.widgets.line_pane import LinePane, LineScroll
from inspector.tui.widgets.token_lines import rich_style

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from inspector.drawing.palette import CellStyle, TokenPalette
    from inspector.drawing.palette import Line as DrawnLine
    from inspector.spec import SaeRef
    from inspector.tui.suite_list import Hook

MOVES: tuple[BindingType, ...] = (
    Binding("down,j", "move(1)", "down", show=False),
    Binding("up,k", "move(-1)", "up", show=False),
    Binding("pagedown,right_curly_bracket", "page(1)", "page down", show=False),
    Binding("pageup,left_curly_bracket", "page(-1)", "page up", show=False),
    Binding("home,g", "edge(-1)", "first", show=False),
    Binding("end,G", "edge(1)", "last", show=False),
)


class RowList(LinePane, can_focus=True):
    """Entries by number; posts `Moved` when the cursor moves and `Chosen` on Enter or a second click."""

    BINDINGS: ClassVar[list[BindingType]] = [*MOVES, Binding("enter", "choose", "choose", show=False)]
    DEFAULT_CSS = """
    RowList { background: $surface; }
    """

    @dataclass
    class Moved(Message):
        """The cursor is on another entry."""

        row: int

    @dataclass
    class Chosen(Message):
        """This entry is meant."""

        row: int

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

    def build(self, width: int, height: int) -> Sequence[Line]:
        """The entries around the cursor."""
        lines: list[Line] = [self._head(width)] if self._head is not None and self._count else []
        if not self._count:
            return [part for line in self._empty for part in wrapped_line(list(line), width - 2)]
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

    def action_edge(self, step: int) -> None:
        """The first or the last entry."""
        self.move_to(0 if step < 0 else self._count - 1)

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


class LinesView(LineScroll, can_focus=True):
    """Lines to read: figures and tables of `inspector.drawing`, or lines in the looks of `LinePane`.

    Finished lines are drawn for `room`, by a thread; `Resized` tells that there is another one. What is quick to make
    is given as a function of the width, and made again by the pane itself. Only visible lines are built.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*MOVES]
    DEFAULT_CSS = """
    LinesView { overflow-y: auto; scrollbar-gutter: stable; }
    """

    @dataclass
    class Resized(Message):
        """The pane has another size: what is drawn for it has to be drawn again."""

        pane: LinesView

    def __init__(self, *, follow: bool = False, id: str | None = None) -> None:
        """A pane without lines.

        Args:
            follow: Stay at the end when lines are added, as a log does, unless the reader went up.
            id: As Textual has it.
        """
        super().__init__(id=id)
        self._lines: Sequence[Line | DrawnLine] = ()
        self._make: Callable[[int], Sequence[Line]] | None = None
        self._plain: CellStyle | None = None
        self._follow = follow

    @property
    def room(self) -> tuple[int, int]:
        """Columns and lines there are for drawing; the last column stays free of text, for the eye."""
        return max(self.scrollable_content_region.width - 1, 0), self.scrollable_content_region.height

    @property
    def lines(self) -> Sequence[Line | DrawnLine]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[DrawnLine], palette: TokenPalette, *, keep_place: bool = False) -> None:
        """Draw finished lines.

        Args:
            lines: drawn for `room`.
            palette: whose plain style surrounds them.
            keep_place: stay where it was scrolled to.
        """
        self._make, self._plain = None, palette.plain
        self._put(lines, keep_place)

    def show_made(self, make: Callable[[int], Sequence[Line]], *, keep_place: bool = True) -> None:
        """Draw lines that fit themselves.

        Args:
            make: Columns to lines.
            keep_place: Stay where it was scrolled to; otherwise the top, or the end of what is followed.
        """
        self._make, self._plain = make, None
        self._put(make(max(self.room[0], 1)), keep_place)

    def _put(self, lines: Sequence[Line | DrawnLine], keep_place: bool) -> None:
        at_end = self._follow and (not keep_place or self.scroll_offset.y >= self.max_scroll_y)
        self._lines = lines
        self.set_lines(len(lines))
        if at_end:
            self.scroll_to_line(len(lines))
        elif not keep_place:
            self.scroll_to_line(0)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line, padded."""
        width, row = self.size.width, y + self.scroll_offset.y
        plain = rich_style(self._plain) if self._plain is not None else self.look("")
        line = self._lines[row] if row < len(self._lines) else []
        segments = [
            Segment(text, self.look(style) if isinstance(style, str) else rich_style(style)) for text, style in line
        ]
        used = sum(segment.cell_length for segment in segments)
        segments.append(Segment(" " * max(width - used, 0), plain))
        return Strip(segments, max(used, width)).crop(0, width)

    def on_resize(self, _: events.Resize) -> None:
        """Draw for the new room, or have it drawn."""
        if self._make is not None:
            self.show_made(self._make)
        else:
            self.post_message(self.Resized(self))

    def action_move(self, step: int) -> None:
        """A line."""
        self.scroll_to_line(self.scroll_offset.y + step)

    def action_page(self, step: int) -> None:
        """A page, less a line."""
        self.action_move(step * max(self.room[1] - 1, 1))

    def action_edge(self, step: int) -> None:
        """First or last line."""
        self.scroll_to_line(0 if step < 0 else len(self._lines))


LABEL = 7
"""Columns of a width before its cells."""


class GridPane(LinePane, can_focus=True):
    """Takes a hook; posts `Moved` and `Chosen`. The cursor stays in the row and column, as far as there are any."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "move(0, 1)", "next L0", show=False),
        Binding("left,h", "move(0, -1)", "previous L0", show=False),
        Binding("down,j", "move(1, 0)", "wider", show=False),
        Binding("up,k", "move(-1, 0)", "narrower", show=False),
        Binding("home", "move(0, -999)", "first L0", show=False),
        Binding("end", "move(0, 999)", "last L0", show=False),
        Binding("enter", "choose", "open", show=False),
    ]
    DEFAULT_CSS = """
    GridPane { background: $surface; padding: 0 1; }
    """

    class Moved(Message):
        """The cursor is on another SAE."""

    class Chosen(Message):
        """Enter."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._hook: Hook | None = None
        self._chosen: Collection[str] = ()
        self._loaded: Collection[str] = ()
        self._cursor = (0, 0)
        self._top = 0
        self._places: dict[tuple[int, int], tuple[int, int, int]] = {}
        """(row, column) of a cell to (line, first column, last column) on the pane."""

    def show(self, hook: Hook | None, chosen: Collection[str], loaded: Collection[str]) -> None:
        """Draw this.

        Args:
            hook: whose SAEs.
            chosen: ids that are chosen.
            loaded: ids that the session has loaded.
        """
        if hook is not self._hook:
            self._top = 0
        self._hook, self._chosen, self._loaded = hook, chosen, loaded
        self._clamp()
        self.rebuild()

    @property
    def ref(self) -> SaeRef | None:
        """The SAE under the cursor."""
        if self._hook is None or not self._hook.rows:
            return None
        row, column = self._cursor
        return self._hook.rows[row].cells[column]

    def go_to(self, ref: SaeRef) -> None:
        """Put the cursor on an SAE of this hook."""
        for row, each in enumerate(self._hook.rows if self._hook is not None else ()):
            for column, cell in enumerate(each.cells):
                if cell.sae_id == ref.sae_id:
                    self._cursor = (row, column)
        self.rebuild()

    def _clamp(self) -> None:
        if self._hook is None or not self._hook.rows:
            self._cursor = (0, 0)
            return
        row = min(max(self._cursor[0], 0), len(self._hook.rows) - 1)
        self._cursor = (row, min(max(self._cursor[1], 0), len(self._hook.rows[row].cells) - 1))

    def build(self, width: int, height: int) -> Sequence[Line]:
        """A block of lines per width: its label, then its L0s, as many beside each other as fit."""
        if self._hook is None:
            return []
        texts = [[self._text(ref) for ref in row.cells] for row in self._hook.rows]
        size = max((cell_len(text) for row in texts for text in row), default=1) + 2
        across = max((width - LABEL) // size, 1)
        lines: list[Line] = []
        places: dict[tuple[int, int], tuple[int, int, int]] = {}
        for r, row in enumerate(self._hook.rows):
            for first in range(0, len(row.cells), across):
                line: Line = [(f"{row.label if not first else '':<{LABEL}}", "strong")]
                for c in range(first, min(first + across, len(row.cells))):
                    at = width_of(line)
                    places[r, c] = (len(lines), at, at + size - 2)
                    line += [(f"{texts[r][c]:<{size - 2}}", self._look(r, c)), ("  ", "")]
                lines.append(line)
        cursor_line = places.get(self._cursor, (0, 0, 0))[0]
        self._top = min(max(self._top, cursor_line - height + 1), cursor_line, max(len(lines) - height, 0))
        self._places = {cell: (line - self._top, start, stop) for cell, (line, start, stop) in places.items()}
        return lines[self._top :]

    def _text(self, ref: SaeRef) -> str:
        """Chosen, loaded, L0, on disk: signs and not colours alone."""
        chosen = "■" if ref.sae_id in self._chosen else " "
        loaded = "●" if ref.sae_id in self._loaded else " "
        return f"{chosen}{loaded}{l0_text(ref)}{'*' if ref.on_disk else ''}"

    def _look(self, row: int, column: int) -> str:
        assert self._hook is not None, "cells are of a hook"
        ref = self._hook.rows[row].cells[column]
        look = "accent" if ref.sae_id in self._chosen else "good" if ref.sae_id in self._loaded else ""
        look = look or ("" if ref.on_disk else "muted")
        if (row, column) != self._cursor:
            return look
        return f"{look.replace('muted', '')} {'reverse' if self.has_focus else 'bold underline'}".strip()

    def action_move(self, down: int, across: int) -> None:
        """Another SAE; up and down it goes to the place below or above, where L0s break into several lines."""
        before = self._cursor
        if self._hook is None:
            return
        if across:
            self._cursor = (before[0], before[1] + across)
        else:
            line, start, _ = self._places.get(before, (0, 0, 0))
            beyond = [
                (abs(at - line), abs(first - start), cell)
                for cell, (at, first, _) in self._places.items()
                if (at - line) * down > 0
            ]
            self._cursor = min(beyond)[2] if beyond else before
        self._clamp()
        if self._cursor != before:
            self.rebuild()
            self.post_message(self.Moved())

    def action_choose(self) -> None:
        """Enter."""
        if self.ref is not None:
            self.post_message(self.Chosen())

    def on_click(self, event: events.Click) -> None:
        """A click puts the cursor there."""
        x = event.x - 1  # the pane's padding
        for cell, (line, start, stop) in self._places.items():
            if line == event.y and start <= x < stop and cell != self._cursor:
                self._cursor = cell
                self.rebuild()
                self.post_message(self.Moved())
                return
