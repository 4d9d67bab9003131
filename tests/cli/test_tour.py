"""`dm-inspect tour`: what the screens say of their numbers, from a shell; and how each part of the app is reached."""

from __future__ import annotations

import json

import pytest

from inspector.cli.main import dm_inspect
from inspector.drawing.glossary import NUMBERS, TOUR
from inspector.tui.actions import ACTIONS
from tests.cli.conftest import Run


def test_the_sentences_come_first_and_every_number_has_its_formula_and_what_misleads(run: Run) -> None:
    outcome = run("tour")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("\n".join(TOUR) + "\n\n")
    for name, words in NUMBERS.items():
        assert f"\n{name}: {words[0]}\n  {words[1]}\n  {words[2]}\n" in outcome.out


def test_one_number_alone_and_as_data(run: Run) -> None:
    assert run("tour", "fvu").out.startswith("fvu: FVU\n  Σ‖x - x_hat‖²")
    told = json.loads(run("tour", "fvu", "nonlinear", "--json").out)
    assert [row["number"] for row in told["numbers"]] == ["fvu", "nonlinear"]
    assert list(told["numbers"][0]) == ["number", "name", "formula", "misleading"]
    assert list(told["numbers"][0].values()) == ["fvu", *NUMBERS["fvu"]]
    assert told["tour"] == list(TOUR)


def test_an_unknown_number_gets_the_nearest(run: Run) -> None:
    outcome = run("tour", "nonlinaer")
    assert (outcome.code, outcome.out) == (2, "")
    assert "No number is called 'nonlinaer'. Nearest: nonlinear" in outcome.err


REACHED = {
    "worst-tokens": ("w", "worst"),
    "anatomy": ("a", "anatomy"),
    "beside": ("D", "beside"),
    "latent": ("L", "latent"),
    "note": ("*", "notes list"),
    "notes": ("B", "notes list"),
    "switch": ("S", "places"),
    "tour": ("i", "tour"),
    "prompt": ("p", "tokens"),
    "texts": ("P", "tokens"),
}
"""By the id of its action, from which the palette is made too: the key on the Stream, and the command."""


@pytest.mark.parametrize("action", REACHED)
def test_each_is_reached_by_one_key_and_by_a_command_with_json(action: str, run: Run) -> None:
    key, command = REACHED[action]
    (found,) = (each for each in ACTIONS if each.id == f"stream.{action}")
    assert key in found.keys and found.title
    outcome = run(*command.split(), "--help")
    assert outcome.code == 0 and "--json" in outcome.out
    assert command.partition(" ")[0] in dm_inspect.list_commands(None)  # type: ignore[arg-type]  # it reads no context
