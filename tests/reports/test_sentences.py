"""Ids in what is said to users: each has its sentence, and each sentence is of an id that is said."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import inspector
from inspector.reports.comparison import differing
from inspector.reports.sentences import SENTENCES, footnotes
from inspector.tui.screens import export


def said() -> set[str]:
    """Ids in strings of the program that are no docstrings and no comments on fields."""
    found: set[str] = set()
    for path in Path(inspector.__file__).parent.rglob("*.py"):
        if path.name == "sentences.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
                found |= set(re.findall(r"\b[SDE]-\d{2}\b", node.value))
    return found


def test_every_id_that_is_said_has_its_sentence() -> None:
    assert said() == set(SENTENCES)


def test_a_footnote_is_of_each_id_once_in_the_order_of_the_text() -> None:
    notes = footnotes("not affine in x (S-09), so 0 for any affine map (S-10).", "(S-09) again")
    assert [label for label, _ in notes] == ["S-09", "S-10"]
    assert notes[0][1].startswith("nonlinear_error is minus what is left of x_hat")


def test_numbers_that_made_two_results_differ_are_rounded() -> None:
    assert list(differing({"median": 7.305834475879744}, {"median": 1.5})) == [("median", "7.3058", "1.5000")]


def test_a_figure_without_the_extra_is_marked_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.util, "find_spec", lambda _: None)
    export.cannot.cache_clear()
    assert [kind for kind, _ in export.FORMATS if export.cannot(kind)] == ["svg", "pdf", "png", "html"]
    assert export.cannot("png") == "pip install 'dm-inspect[figures]'"
    monkeypatch.undo()
    export.cannot.cache_clear()
