"""The lines around the panes: footer, titles, the line of a running job, the banner of a failed load gate.

Textual's own Footer mounts a widget per key and lays the line out again whenever the focus moves; here a changed line
is one repaint of the cells that differ, and its keys are the few that matter in the focused pane, in the order of
use.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from textual.keys import _character_to_key

from inspector.drawing.glossary import all_of, click, does, hover
from inspector.drawing.safe_text import visible
from inspector.tui.job_lines import indicator
from inspector.tui.lines import Line, cut, spread, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.screen import Screen

    from inspector.events import GateLine, JobInfo

Hint = tuple[str, str]
"""Keys and what they do: ('m', 'mode')."""


ARROWS = {"↑": "up", "↓": "down", "←": "left", "→": "right", "Esc": "escape"}
_KEY = re.compile("Esc|Enter|Tab|Space|.")


def hint_line(hints: Sequence[Hint], last: Hint, width: int) -> Line:
    """As many hints as fit, from the first on, and always the last. A click on one is its key."""
    tail = _hint(*last)
    line: Line = []
    for keys, what in hints:
        piece: Line = [*_hint(keys, what), ("   ", "")]
        if width_of(line) + width_of(piece) + width_of(tail) > width:
            break
        line += piece
    return [*line, *tail]


def _hint(keys: str, what: str) -> Line:
    """Each key of '[ ]' or '↑↓' is clicked for itself, the word for the first; a range such as 1-9 for none."""
    if re.fullmatch(r"\d-\d", keys):
        return all_of([(keys, "key"), (f" {what}", "muted")], hover(f"These keys, or a click on the {what} itself"))
    pieces: Line = [(key, f"key {pressed(key)}" if key != " " else "") for key in _KEY.findall(keys)]
    return [*pieces, (f" {what}", f"muted {pressed(_KEY.findall(keys)[0])}")]


def pressed(key: str) -> str:
    """The word for a piece's look that presses a key, as a footer writes it, where it is clicked."""
    name = ARROWS.get(key) or (key.lower() if len(key) > 1 else _character_to_key(key))
    return click(f"app.simulate_key({name!r})")


class FooterPane(LinePane):
    """One line of hints."""

    DEFAULT_CSS = """
    FooterPane { height: 1; dock: bottom; background: $panel; padding: 0 1; }
    """

    def tip(self, meta: Mapping[str, Any]) -> str:
        """What the key below the mouse does, in the words of the help."""
        found = re.search(r"simulate_key\('(\w+)'\)", str(meta.get("@click", "")))
        if found is None:
            return super().tip(meta)
        active = self.screen.active_bindings.get(found[1])
        return active.binding.description if active is not None else ""

    def show(self, hints: Sequence[Hint], last: Hint = ("?", "help")) -> None:
        """Draw these."""
        self.draw(lambda width, _: [hint_line(hints, last, width)])


def title_bar(start: Line, end: str, focused: bool, width: int) -> Line:
    """A name on the left, where it is from on the right; cut is first the end, then the name."""
    look = "title-focused" if focused else "title"
    first: Line = [("▌" if focused else " ", look), *((text, f"{look} {style}".strip()) for text, style in start)]
    room = width - width_of(first) - 3
    tail: Line = [(f"{cut(end, room)} ", "title")] if room >= 8 and end else []
    return spread(first, tail, width)


class TitleBar(LinePane):
    """One line above a pane."""

    DEFAULT_CSS = """
    TitleBar { height: 1; background: $panel; }
    """

    def show(self, start: Line | str, end: str = "", focused: bool = False) -> None:
        """Draw a name or its pieces, and what stands at the right end.

        Args:
            start: The name.
            end: The right end.
            focused: Whether the pane below has the focus.
        """
        name: Line = [(start, "")] if isinstance(start, str) else start
        self.draw(lambda width, _: [title_bar(name, end, focused, width)])


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

    def show(self, failures: tuple[GateLine, ...]) -> None:
        """Draw these in the room that there is for them."""
        lines = banner_height(len(failures), self.app.size.height)
        self.display = lines > 0
        self.styles.height = max(lines, 1)
        self.draw(lambda width, height: banner_lines(failures, width, height) if failures else [])


async def show_banner(screen: Screen[object], failures: tuple[GateLine, ...]) -> None:
    """Put the banner over a screen that has none, if it is still there."""
    if screen.is_attached and not screen.query(Banner):
        banner = Banner()
        for child in screen.children:
            if child.styles.dock == "top":  # two that are docked to one edge cover each other
                child.styles.dock = "none"
        await screen.mount(banner, before=0)
        banner.show(failures)


class JobBar(LinePane):
    """Hidden while there is nothing to tell. A report changes a few cells of it, twice a second at most."""

    DEFAULT_CSS = """
    JobBar { height: 1; display: none; background: $surface; padding: 0 1; }
    """

    def show(self, unfinished: tuple[JobInfo, ...]) -> None:
        """Draw the first of these; the others wait."""
        self.display = bool(unfinished)
        jobs = does("app.open_screen('jobs')", "What runs and what waits")
        self.draw(lambda width, _: [all_of(indicator(job, len(unfinished) - 1, width), jobs) for job in unfinished[:1]])
