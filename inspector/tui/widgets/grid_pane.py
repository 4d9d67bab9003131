"""Widths by L0s of one hook as cells with a cursor: what is loaded, on disk, chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.message import Message

from inspector.tui.lines import Line, width_of
from inspector.tui.suite_list import l0_text
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from textual import events

    from inspector.spec import SaeRef
    from inspector.tui.suite_list import Hook

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
