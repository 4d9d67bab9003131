"""One result as text: its tables, how many tokens stand behind them, its controls, and what made it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inspector.drawing.figures import Table
from inspector.drawing.safe_text import visible
from inspector.drawing.text import format_cell, render_table

if TYPE_CHECKING:
    from inspector.experiment import Experiment

LINE = 118
"""Prose is broken here; tables are as wide as they are."""


def report(experiment: Experiment, result: Mapping[str, Any]) -> str:
    """The whole text, ending in an empty line so that several follow each other readably."""
    made = result["provenance"]
    heading = f"{experiment.title} · {visible(str(made['model']))} · {visible(str(made['hook_name']))}"
    parts = [heading, _wrapped(experiment.question), ""]
    for figure in experiment.draw(result):  # type: ignore[arg-type]  # ResultObject, as the runner made it
        if isinstance(figure, Table):
            note = "\n".join(_wrapped(line) for line in figure.note.splitlines())
            parts.append(
                render_table(Table(title=figure.title, columns=figure.columns, rows=figure.rows)) + f"\n{note}\n"
            )
    parts += [_wrapped(line) for line in _facts(experiment, result)]
    return "\n".join(parts) + "\n\n"


def _facts(experiment: Experiment, result: Mapping[str, Any]) -> Iterator[str]:
    made = result["provenance"]
    first = result["saes"][0]
    ratio = f", {made['n_train_per_d']:.0f} per dimension" if "n_train_per_d" in made else ""
    yield f"tokens: {first['n_train']:,} fitted{ratio}; {first['n_test']:,} held out; split by {made['split']}"
    for name, control in result["controls"].items():
        shown = ", ".join(f"{key} {_range(value)}" for key, value in control.items() if key != "definition")
        yield f"control {name.replace('_', ' ')}: {shown}. {control.get('definition', '')}".rstrip()
    yield f"contradicted by: {experiment.contradicted_by}"
    yield (
        f"made by: dm-inspect {made['program_version']}, profile {result['profile']}, seed {made['seed']}, "
        f"fingerprint {str(made['fingerprint'])[:12]}"
    )


def _range(value: Any) -> str:
    """A number, or the smallest and largest of one per SAE."""
    if not isinstance(value, Mapping):
        return _number(value)
    numbers = [number for number in value.values() if number is not None]
    if not numbers:
        return "undefined"
    low, high = _number(min(numbers)), _number(max(numbers))
    return low if low == high else f"{low} to {high}"


def _number(value: Any) -> str:
    return format_cell(value, 4) if isinstance(value, int | float | str | None) else str(value)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
