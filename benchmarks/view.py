"""The app as the measures see it: how to reach a coloured stream, and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.terminal import Terminal, python

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.terminal import Home

RIGHT, DOWN, PAGE_DOWN = "\x1b[C", "\x1b[B", "\x1b[6~"
GENERATE, WIDTHS, WORST, QUIT = "g", "12345", "w", "q"
ESCAPE = "\x1b"
APP = ("-m", "inspector")
MAP = "linear map from"
"""In the second line once there is one, followed by its tokens, and by `of` the goal while there are more to come."""


def open_view(
    home: Home,
    target: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    *,
    launch: Sequence[str] = (),
) -> Terminal:
    """The app in a terminal; started as users do, or through `benchmarks.launch` with the options `launch`."""
    start = ("-m", "benchmarks.launch", *launch, "inspector") if launch else APP
    return Terminal(python(*start, *target), home, extra=extra)


def wait_for_colours(view: Terminal, limit: float = 120.0, *, cells: int = 100, second_line: str = MAP) -> float:
    """Read until tokens are coloured and the screen has come to rest; TimeoutError if that does not happen.

    Returns the seconds from the start to the first colours.
    """
    if not view.wait_until(lambda lines: second_line in lines[1] and coloured_cells(view) >= cells, limit):
        shown = "\n".join(line.rstrip() for line in view.lines).strip()
        raise TimeoutError(f"no coloured tokens after {limit:g} s; the screen showed: {shown[-200:] or 'nothing'}")
    seconds = view.chunks[-1].at - view.started
    view.read_until_silent(silence=1.0, limit=15.0)
    return seconds


def wait_for_finished_map(view: Terminal, limit: float = 300.0) -> None:
    """Read until the map is fitted from all tokens it is to have; TimeoutError if that does not happen."""
    if not view.wait_until(lambda lines: MAP in lines[1] and " of " not in lines[1].partition("tokens")[0], limit):
        raise TimeoutError(f"the map was not finished after {limit:g} s: {view.lines[1].strip()}")
    view.read_until_silent(silence=3.0, limit=30.0)


def coloured_cells(view: Terminal) -> int:
    """Cells of the middle of the screen whose background is a colour of its own, not the most frequent two."""
    counts: dict[str, int] = {}
    for row in range(4, view.rows - 12):
        for _, _, background in view.screen.styles(row)[1:70]:
            counts[background] = counts.get(background, 0) + 1
    return sum(sorted(counts.values())[:-2])
