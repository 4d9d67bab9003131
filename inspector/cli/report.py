"""One result as text: its tables and figures, how many tokens stand behind them, its controls, and what made it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspector.cli.colours import Look
from inspector.drawing.ansi import to_ansi
from inspector.drawing.figures import Figure, Table
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_figure
from inspector.drawing.text import render_table
from inspector.reports.drawn import figures_of
from inspector.reports.facts import facts

if TYPE_CHECKING:
    from inspector.experiment import Experiment

LINE = 118
"""Prose is broken here; tables are as wide as they are where no terminal limits them."""
_SPACES = dict.fromkeys(map(ord, "\t\n\r"), " ")
"""A line that is broken anew has none of the old breaks."""
HEIGHT = 20
"""Lines of a plot."""


def report(experiment: Experiment, result: Mapping[str, Any], look: Look | None = None, command: str = "") -> str:
    """The whole text, ending in an empty line so that several follow each other readably.

    Args:
        experiment: draws the result.
        result: as it was measured or read back.
        look: width and colours of the terminal; None: a file.
        command: that repeats it; empty: not said.
    """
    look = look or Look()
    made = result["provenance"]
    where = [visible(str(made[key])) for key in ("model", "hook_name") if made.get(key)]
    parts = [" · ".join([experiment.title, *where]), _wrapped(experiment.question, look), ""]
    parts += drawn(figures_of(experiment, result), look)
    parts += [_wrapped(f"{fact.label}: {fact.text}", look) for fact in facts(experiment, result)]
    if command:
        parts.append(f"repeat with: {visible(command)}")
    return "\n".join(parts) + "\n\n"


def drawn(figures: Sequence[Figure], look: Look) -> Iterator[str]:
    """Each figure as text, and its note where no figure before has said the same."""
    palette = build_palette(DEFAULT_ENDPOINTS, look.depth)
    said: set[str] = set()
    for figure in figures:
        if isinstance(figure, Table) and look.width is None:
            yield render_table(Table(title=figure.title, columns=figure.columns, rows=figure.rows))
        else:
            lines = render_figure(figure, look.width or LINE, HEIGHT, palette, notes=False)
            yield to_ansi(lines, look.depth, palette.plain)
        fresh = [line for line in figure.note.splitlines() if line not in said]
        said.update(fresh)
        if fresh:
            yield "\n".join(_wrapped(visible(line), look) for line in fresh if line) + "\n"


def _wrapped(text: str, look: Look) -> str:
    width = min(look.width or LINE, LINE)
    text = visible(text.translate(_SPACES)) if text else ""
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
