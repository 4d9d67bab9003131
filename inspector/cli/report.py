"""One result as text: its tables and figures, how many tokens stand behind them, its controls, and what made it."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.claims.drawing import claims_lines
from inspector.drawing.figures import Axis, Cell, Column, Curve, Figure, Series, Table
from inspector.drawing.lines import to_ansi
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_figure, render_table
from inspector.experiment import ALL_TOKENS, SAE_KEYS, SPREAD_KEYS
from inspector.experiments import find
from inspector.options import width_label
from inspector.reports.result import all_verdicts, facts, figures_of, reading

if TYPE_CHECKING:
    from inspector.experiment import Experiment
    from inspector.store.results import Stored

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


Result = Mapping[str, Any]
"""An object as `--json` prints it; user data, hence Any."""


def side_by_side(title: str, results: Sequence[Result]) -> tuple[Figure, ...]:
    """Every SAE of every result in one table, and the first score against the layer.

    Args:
        title: of the experiment.
        results: of one experiment, in the order they were measured.

    Returns:
        Nothing where nothing is measured per SAE. A score that one result lacks is missing there.
    """
    rows = [(result, row) for result in results for row in result["saes"]]
    scores = list(dict.fromkeys(key for _, row in rows for key, value in row.items() if _is_score(key, value)))
    if not rows or not scores:
        return ()
    models = [str(result["provenance"].get("model") or "") for result, _ in rows]
    several = len(set(models)) > 1
    columns = [Column(title="model")] if several else []
    columns += [Column(title=name) for name in ("layer", "SAE", "latents")] + [Column(title="L0", digits=1)]
    columns += [Column(title=score, digits=4) for score in scores]
    lines: list[tuple[Cell, ...]] = []
    for model, (_, row) in zip(models, rows, strict=True):
        place = row["hook_name"] if row["layer"] is None else row["layer"]
        head: list[Cell] = [model] if several else []
        lines.append((*head, place, row["sae"], row["d_sae"], row["l0"], *(row.get(score) for score in scores)))
    table = Table(title=f"{title}: all layers", columns=tuple(columns), rows=tuple(lines))
    curve = _by_layer(title, models, [row for _, row in rows], scores[0])
    return (table, curve) if curve.series else (table,)


def _by_layer(title: str, models: Sequence[str], rows: Sequence[Mapping[str, Any]], score: str) -> Curve:
    """One line per model and width; of several SAEs of a width at a layer the one of the middle L0."""
    series = []
    for model in dict.fromkeys(models):
        own = [row for name, row in zip(models, rows, strict=True) if name == model and row["layer"] is not None]
        for width in sorted({row["d_sae"] for row in own}):
            points = []
            for layer in sorted({row["layer"] for row in own if row["d_sae"] == width}):
                same = [row for row in own if row["d_sae"] == width and row["layer"] == layer]
                points.append(sorted(same, key=lambda row: float(row["l0"]))[len(same) // 2])
            if len(points) > 1:
                label = width_label(width)
                series.append(
                    Series(
                        name=f"{model} {label}" if len(set(models)) > 1 else label,
                        x=tuple(float(row["layer"]) for row in points),
                        y=tuple(row.get(score) for row in points),
                    )
                )
    return Curve(title=f"{title} by layer", x=Axis(label="layer"), y=Axis(label=score), series=tuple(series))


def _is_score(key: str, value: object) -> bool:
    if key in (*SAE_KEYS, *SPREAD_KEYS) or key.endswith(ALL_TOKENS):
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    parts += [_wrapped(f"{label}: {text}", look) for label, text in facts(experiment, result)]
    if command:
        parts.append(f"repeat with: {visible(command)}")
    return "\n".join(parts) + "\n\n"


def markdown(stored: Sequence[Stored]) -> str:
    """A page of results as Markdown: the claims, then every result as a file gets it from `results show`.

    Raises:
        DataError: a result lacks what its figures need.
    """
    palette = build_palette(DEFAULT_ENDPOINTS, "none")
    claims = to_ansi(claims_lines(all_verdicts(stored), LINE, palette), "none", palette.plain)
    targets = dict.fromkeys(f"{each.record.model}, {each.record.hook_name}" for each in stored if each.record.model)
    parts = [f"# What sparse autoencoders leave unexplained\n\n{visible('; '.join(targets))}\n"]
    parts.append(f"## The paper's claims\n\n{_fenced(claims)}")
    for each in stored:
        experiment = find(each.record.experiment)
        with reading(each.result):
            text = report(experiment, each.result, command=each.record.command)
        parts.append(f"## {experiment.title}\n\n{_fenced(text)}")
    return "\n".join(parts)


def _fenced(text: str) -> str:
    """Text that is to be shown as it is; the fence is longer than any that it holds, for tokens may be one."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text.rstrip()}\n{fence}\n"


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
