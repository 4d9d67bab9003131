"""Waiting for what the app in a pseudo-terminal does, never for a time: a busy machine takes as long as it takes."""

from __future__ import annotations

from benchmarks.terminal import Terminal

LIMIT = 120.0
"""Seconds after which something is taken not to come; on a quiet machine it takes a tenth of one."""


def ended(view: Terminal) -> int | None:
    """The exit code of the app, read until it ends; None if it does not."""
    view.wait_until(lambda _: view.process.poll() is not None, LIMIT)
    return view.process.poll()


def redraw(view: Terminal) -> int:
    """Have the whole screen sent again, through the command palette; the bytes that it takes.

    The palette comes after all keys that were typed before, and is gone before the screen is whole again.
    """
    view.send(":")
    assert view.wait_for("Search for commands", LIMIT), view.lines
    view.send("redraw whole")
    assert view.wait_until(_offers_it_alone, LIMIT), view.lines
    before = len(view.raw)
    view.send("\r")
    assert view.wait_until(lambda lines: not _shows(lines, "redraw whole"), LIMIT), view.lines
    view.read_until_silent(1.0, LIMIT)
    return len(view.raw) - before


def _offers_it_alone(lines: list[str]) -> bool:
    found = _shows(lines, "redraw whole") and _shows(lines, "Redraw the whole screen")
    return found and not _shows(lines, "Next colour mode")


def _shows(lines: list[str], text: str) -> bool:
    return any(text in line for line in lines)
