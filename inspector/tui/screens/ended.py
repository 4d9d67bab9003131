"""The session has ended: why, the last lines of its log, and the key that starts it again.

Over whatever screen is there; what it shows stays, and is still there when the new session has loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, cut
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

TAIL_BYTES = 16 * 1024
TAIL_LINES = 8
LONGEST = 76


def log_tail(path: str, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def ended_lines(why: str, log_path: str, tail: Sequence[str], width: int) -> list[Line]:
    """The panel: what happened, the log's end, the keys."""
    from textwrap import wrap

    lines: list[Line] = [[("the session has ended", "error")]]
    lines += [[(part, "strong")] for part in wrap(visible(why), max(20, width))]
    if tail:
        lines += [[], [("the end of its log  ", "muted"), (cut(visible(log_path), max(0, width - 20)), "muted")]]
        lines += [[("│ ", "muted"), (cut(visible(line), max(0, width - 2)), "")] for line in tail]
    elif log_path:
        lines += [[], [(cut(f"its log {visible(log_path)} cannot be read", width), "muted")]]
    lines += [[], [("r", "key"), (" starts it again, here and as it was   ", "muted"), ("Esc", "key")]]
    lines[-1] += [(" look at what is there   ", "muted"), ("q", "key"), (" quit", "muted")]
    return lines


class EndedPanel(LinePane):
    """The lines, as many as there is room for."""

    def __init__(self, why: str, log_path: str, tail: Sequence[str]) -> None:
        super().__init__()
        self._told = (why, log_path, tail)

    def build(self, width: int, height: int) -> Sequence[Line]:
        """In a low window the oldest lines of the log go first."""
        why, log_path, tail = self._told
        lines = ended_lines(why, log_path, tail, width)
        while tail and len(lines) > height:
            tail = tail[1:]
            lines = ended_lines(why, log_path, tail, width)
        return lines


class EndedScreen(ModalScreen[bool]):
    """True: start it again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r,enter", "answer(True)", "start again", show=False, id="ended.restart"),
        Binding("escape", "answer(False)", "look at what is there", show=False, id="ended.look"),
        Binding("q", "app.quit", "quit", show=False, id="ended.quit"),
    ]
    DEFAULT_CSS = """
    EndedScreen { align: center bottom; background: $background 0%; }
    EndedScreen > EndedPanel {
        width: 100%; max-height: 100%; padding: 0 2; background: $surface;
        border-top: heavy $error;
    }
    """

    def __init__(self, why: str, log_path: str, tail: Sequence[str]) -> None:
        super().__init__()
        self._told = (why, log_path, tail)

    def compose(self) -> ComposeResult:
        """The panel at the bottom."""
        panel = EndedPanel(*self._told)
        why, log_path, tail = self._told
        panel.styles.height = len(ended_lines(why, log_path, tail, max(20, self.app.size.width - 4))) + 1
        yield panel

    def action_answer(self, again: bool) -> None:
        """A key was pressed."""
        self.dismiss(again)
