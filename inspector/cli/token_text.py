"""The per-token table as text for a person: the tokens of one context, and one SAE's share in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspector.drawing.figures import Column, Table
from inspector.drawing.safe_text import visible
from inspector.drawing.text import render_table

Row = Mapping[str, Any]
"""One row of the table in long form; its `token` may hold any character at all."""

COLUMNS = (
    Column(title="position"),
    Column(title="id"),
    Column(title="token"),
    Column(title="split"),
    Column(title="loss", unit="nats", digits=2),
    Column(title="‖x‖", digits=2),
    Column(title="L0"),
    Column(title="‖error‖", digits=2),
    Column(title="‖linear‖", digits=2),
    Column(title="‖nonlinear‖", digits=2),
)
_KEYS = (
    "position", "token_id", "token", "split", "loss", "x_norm", "l0",
    "sae_error_norm", "linear_error_norm", "nonlinear_error_norm",
)  # fmt: skip


def token_table_text(rows: Sequence[Row], sae: str, title: str) -> str:
    """The rows of one SAE, a line per token.

    Args:
        rows: of one context, any number of SAEs.
        sae: the SAE to show.
        title: where the text is from.
    """
    lines = tuple(
        tuple("" if row[key] is None else _quoted(row[key]) if key == "token" else row[key] for key in _KEYS)
        for row in rows
        if row["sae"] == sae
    )
    return render_table(Table(title=visible(f"{title} · SAE {sae}"), columns=COLUMNS, rows=lines))


def _quoted(token: str) -> str:
    """With marks around it: otherwise a leading space, which most tokens have, could not be seen."""
    return f"'{token}'"
