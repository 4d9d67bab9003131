"""How wide and how colourful the place is that a command prints to."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

from inspector.drawing.palette import Depth

WIDEST = 160


@dataclass(frozen=True, kw_only=True)
class Look:
    """What printed figures are laid out for; the default is a file."""

    width: int | None = None
    """Columns; None: no terminal, lines as long as they are."""
    depth: Depth = "none"


def look_of_stdout() -> Look:
    """The terminal at stdout as its environment describes it; a pipe or a file gets neither colours nor a width."""
    if not sys.stdout.isatty():
        return Look()
    return Look(width=min(shutil.get_terminal_size().columns, WIDEST), depth=_depth())


def _depth() -> Depth:
    """The same reading as that of `dm-inspect info`."""
    from inspector.cli.info import colour_depth

    said = colour_depth()
    return "truecolor" if said == "24-bit" else "256" if said == "256" else "16" if said == "16" else "none"
