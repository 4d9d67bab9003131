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
from inspector.drawing.text import format_cell, render_table
from inspector.reports.drawn import figures_of

if TYPE_CHECKING:
    from inspector.experiment import Experiment

LINE = 118
"""Prose is broken here; tables are as wide as they are where no terminal limits them."""
HEIGHT = 20
"""Lines of a plot."""
PAPER = "paper_"
"""Fields of a result that begin so are the paper's own numbers."""


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
    parts += _figures(figures_of(experiment, result), look)
    parts += [_wrapped(line, look) for line in _facts(experiment, result)]
    if command:
        parts.append(f"repeat with: {visible(command)}")
    return "\n".join(parts) + "\n\n"


def _figures(figures: Sequence[Figure], look: Look) -> Iterator[str]:
    """Each figure, and its note where no figure before has said the same."""
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


def _facts(experiment: Experiment, result: Mapping[str, Any]) -> Iterator[str]:
    made = result["provenance"]
    if result["saes"]:
        first = result["saes"][0]
        ratio = f", {made['n_train_per_d']:.0f} per dimension" if "n_train_per_d" in made else ""
        yield f"tokens: {first['n_train']:,} fitted{ratio}; {first['n_test']:,} held out; split by {made['split']}"
    paper = {key.removeprefix(PAPER): value for key, value in result["result"].items() if key.startswith(PAPER)}
    if paper:
        yield "the paper: " + ", ".join(f"{name.replace('_', ' ')} {_listed(value)}" for name, value in paper.items())
    for name, control in result["controls"].items():
        shown = ", ".join(f"{key} {_range(value)}" for key, value in control.items() if key != "definition")
        yield f"control {name.replace('_', ' ')}: {shown}. {control.get('definition', '')}".rstrip()
    for warning in result["warnings"]:
        yield f"warning: {visible(warning)}"
    yield f"contradicted by: {experiment.contradicted_by}"
    yield (
        f"made by: dm-inspect {made['program_version']}, profile {result['profile']}, seed {made.get('seed', 'none')}, "
        f"fingerprint {str(made['fingerprint'])[:12]}"
    )


def _range(value: Any) -> str:
    """A number, or the smallest and largest of one per SAE."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return _number(value)
    leaves = list(_leaves(value))
    names = [leaf for leaf in leaves if isinstance(leaf, str)]
    numbers = [leaf for leaf in leaves if isinstance(leaf, int | float)]
    if names:
        return ", ".join(map(_number, dict.fromkeys(names)))
    if not numbers:
        return "undefined" if leaves else "none"
    low, high = _number(min(numbers)), _number(max(numbers))
    return low if low == high else f"{low} to {high}"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _listed(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(item, int | float) for item in value):
        return f"{value[0]:g} to {value[1]:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(str(key))} {_listed(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_listed, value))
    return f"{value:g}" if isinstance(value, int | float) else visible(str(value))


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_cell(value, 4) if isinstance(value, int | float | str | None) else visible(str(value))


def _wrapped(text: str, look: Look) -> str:
    width = min(look.width or LINE, LINE)
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
