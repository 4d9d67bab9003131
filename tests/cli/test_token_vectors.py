"""`tokens --vectors`: where they go, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from inspector.cli.tokens import KINDS, Kinds, vectors_place
from inspector.errors import UsageError
from inspector.statistics import token_table


def test_kinds_are_the_statistics_own_in_their_order() -> None:
    assert KINDS == token_table.KINDS
    assert Kinds().convert("nonlinear,error,error", None, None) == ("error", "nonlinear")
    for wrong in ("", "errors", "error,,x", "error, x"):
        with pytest.raises(click.BadParameter, match=r"is no kind of vector\. Write x, error, linear, nonlinear"):
            Kinds().convert(wrong, None, None)


def test_vectors_go_to_out_or_beside_its_table() -> None:
    assert vectors_place(Path("a/t.safetensors"), ("error",)) == Path("a/t.safetensors")
    assert vectors_place(Path("a/t.parquet"), ("error",)) == Path("a/t.vectors.safetensors")
    assert vectors_place(Path("a/t.parquet"), None) is None
    assert vectors_place(None, None) is None
    for out, kinds, says in (
        (None, ("error",), "--vectors go into a file"),
        (Path("t.safetensors"), None, "no --vectors say which"),
        (Path("t.csv"), ("error",), "ends in neither .parquet"),
        (Path("t.csv"), None, "ends in neither .parquet"),
    ):
        with pytest.raises(UsageError, match=says):
            vectors_place(out, kinds)
