"""Token tables as tab-separated text, in the columns of `dm-inspect tokens`, and the files they fall back to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from inspector.store.exports import not_a_formula
from inspector.tui.state import state_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from inspector.session.protocol import SaeInfo
    from inspector.tui.documents import ScoredText

COLUMNS = (
    "context",
    "position",
    "token_id",
    "token",
    "split",
    "loss",
    "x_norm",
    "sae",
    "l0",
    "sae_error_norm",
    "linear_error_norm",
    "nonlinear_error_norm",
)
SPLITS = {"t": "train", "h": "test", "x": "excluded", "o": "excluded"}
MAX_CLIPBOARD = 60_000
"""Bytes. Terminals drop longer OSC 52 sequences (74,994 in the oldest limit, after base64: 56 kB), silently."""


def table(text: ScoredText, positions: Iterable[int], rows: Sequence[int], saes: Sequence[SaeInfo]) -> str:
    """Long form: a line for each token and SAE, and a line of names. An unknown number is an empty field.

    The token is escaped as in JSON, so that no text can break a line, and as in a CSV, so that none is a formula.
    """
    document = text.document
    lines = ["\t".join(COLUMNS)]
    for position in positions:
        for row in rows:
            scalars = document.scalars(position, row)
            fields = (
                str(document.context),
                str(position),
                str(document.token_ids[position]),
                not_a_formula(json.dumps(document.tokens[position])[1:-1]),
                SPLITS.get(document.split[position], ""),
                _field(scalars.loss),
                _field(scalars.x_norm),
                not_a_formula(saes[row].sae_id),
                _field(scalars.l0),
                _field(scalars.sae_error_norm),
                _field(scalars.linear_error_norm),
                _field(scalars.nonlinear_error_norm),
            )
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"


def _field(value: float) -> str:
    return f"{value:.7g}" if value == value else ""


def write_export(name: str, text: str) -> Path:
    """Save under the state directory's exports; OSError if that cannot be done."""
    directory = state_directory() / "exports"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / name
    temporary = path.with_name(f".{name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
