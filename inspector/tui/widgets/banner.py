"""What stands above everything else on every screen while the numbers cannot be trusted: the load gate failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, cut, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.protocol import GateLine

HEADING = "LOAD GATE FAILED and was accepted: do not trust these numbers"
MAX_FAILURES = 3
"""Shown where there is room; more are counted."""
ROOMY = 30
"""Lines of a window from which each failure has a line of its own."""


def banner_lines(failures: Sequence[GateLine], width: int, height: int) -> list[Line]:
    """The heading and what failed, every line as wide as the window: the ground is the warning.

    Args:
        failures: not empty.
        width: columns.
        height: lines there are for it; 1: everything on one.
    """
    told = [gate_text(failure) for failure in failures]
    if height == 1:
        return [_across(f" ! {HEADING}: {' · '.join(told)}", width)]
    shown = told[: height - 1]
    lines = [_across(f" ! {HEADING}", width)]
    for index, text in enumerate(shown):
        more = len(told) - len(shown) if index == len(shown) - 1 else 0
        lines.append(_across(f"   {text}{f'  (and {more} more)' if more else ''}", width))
    return lines


def gate_text(failure: GateLine) -> str:
    """A check in words: 'fvu of 1k/16: 1.31, expected below 1. The SAE is of another model.'."""
    of = f" of {failure.sae_id}" if failure.sae_id else ""
    return visible(f"{failure.name}{of}: {failure.measured}, expected {failure.expected}. {failure.why}")


def banner_height(n_failures: int, window: int) -> int:
    """Lines it takes in a window of so many lines; 0: nothing failed."""
    if not n_failures:
        return 0
    return 1 + min(n_failures, MAX_FAILURES) if window >= ROOMY else 1


def _across(text: str, width: int) -> Line:
    line: Line = [(cut(text, width), "alarm")]
    return [*line, (" " * (width - width_of(line)), "alarm")]


class Banner(LinePane):
    """The first lines of a screen; hidden while nothing failed."""

    DEFAULT_CSS = """
    Banner { height: 1; display: none; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._failures: tuple[GateLine, ...] = ()

    def show(self, failures: tuple[GateLine, ...]) -> None:
        """Draw these."""
        self._failures = failures
        self.take_room()
        self.rebuild()

    def take_room(self) -> None:
        """Take the room there is for it."""
        lines = banner_height(len(self._failures), self.app.size.height)
        self.display = lines > 0
        if lines and (self.styles.height is None or self.styles.height.value != lines):
            self.styles.height = lines

    def build(self, width: int, height: int) -> Sequence[Line]:
        """Heading and failures."""
        return banner_lines(self._failures, width, height) if self._failures else []
