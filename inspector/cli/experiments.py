"""`dm-inspect experiments`: what can be measured, and what each one asks. Loads neither torch nor a model.

Importing twenty files for a list of sentences would cost more than starting Python. So the sentences are kept, with the
size and time of every file they are from, and read again when any of these changes, as Python does with its own
compiled files.
"""

from __future__ import annotations

import json
import os
from binascii import crc32
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector import __version__
from inspector.cli.lazy import Command
from inspector.disk.files import open_file, write_if_possible
from inspector.disk.folders import user_folder
from inspector.experiments import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.experiment import Experiment

KEYS = {"id", "title", "question", "reference", "needs", "contradicted_by"}
LARGEST = 1 << 20
"""Bytes; a longer list was not written by this program."""

Row = dict[str, Any]
"""KEYS: text, and for needs a list of text."""


def listed() -> list[Row]:
    """One row per experiment, sorted by id.

    Raises:
        UsageError: see `inspector.experiments`.
    """
    known = files()
    state = [__version__, *([path, *_state(path)] for path in known.values())]
    path = kept_in()
    kept = _read(path)
    if kept is not None and kept.get("made_from") == state and _is_list(kept.get("rows"), known):
        rows: list[Row] = kept["rows"]
        return rows
    rows = _made(known)
    _write(path, {"made_from": state, "rows": rows})
    return rows


def _made(known: Mapping[str, str]) -> list[Row]:
    from inspector.experiments import find

    return [_row(find(experiment_id, known)) for experiment_id in known]


def _row(experiment: Experiment) -> Row:
    # A measurement that no other experiment shares is one of its needs.
    own = [] if experiment.own_work is None else ["a measurement of its own"]
    return {
        "id": experiment.id,
        "title": experiment.title,
        "question": experiment.question,
        "reference": experiment.reference,
        "needs": [*experiment.needs, *own],
        "contradicted_by": experiment.contradicted_by,
    }


def _state(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def kept_in() -> str:
    """The file."""
    return str(user_folder("cache") / "experiments.json")


def _read(path: str) -> dict[str, Any] | None:
    """What was kept; None if there is nothing or it is not ours."""
    try:
        with open_file(path) as file:
            head, _, body = file.read(LARGEST).partition(b"\n")
        found = json.loads(body) if head == _checksum(body) else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checksum(body: bytes) -> bytes:
    """Finds any changed byte; a hash that also withstands intent takes longer to import than there is time."""
    return b"%08x" % crc32(body)


def is_whole(path: str) -> bool:
    """Whether a list that was kept is what was written."""
    return _read(path) is not None


def _is_list(rows: object, known: Mapping[str, str]) -> bool:
    """Whether the rows are whole and of these experiments; what is shown is checked, as any file is."""
    return (
        isinstance(rows, list)
        and [row.get("id") if isinstance(row, dict) else None for row in rows] == list(known)
        and all(set(row) == KEYS and _is_text(row) for row in rows)
    )


def _is_text(row: Row) -> bool:
    needs = row["needs"]
    texts = [row[key] for key in KEYS - {"needs"}]
    return isinstance(needs, list) and all(isinstance(text, str) for text in [*texts, *needs])


def _write(path: str, content: Mapping[str, Any]) -> None:
    body = json.dumps(content).encode("ascii")
    write_if_possible(Path(path), _checksum(body) + b"\n" + body)


@click.command(cls=Command, epilog="\b\nExample:\n  dm-inspect experiments --json")
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"experiments": [...]}.')
def experiments(as_json: bool) -> None:
    """List the experiments and what each one asks."""
    rows = listed()
    if as_json:
        from inspector.cli.output import print_json_list

        print_json_list("experiments", ({k: v for k, v in row.items() if k != "contradicted_by"} for row in rows))
        return
    from inspector.cli.output import print_text

    for row in rows:
        print_text(row["id"])
        print_text(f"  {row['question']}")
        print_text(f"  Paper: {row['reference']}.")
        print_text(f"  Needs: {', '.join(row['needs'])}.")
        print_text(f"  Contradicted by: {row['contradicted_by']}")
