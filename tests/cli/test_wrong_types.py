"""Results whose checksum is right and whose content is not: one clear error with the documented code, or none."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.disk.folders import RESULTS
from inspector.disk.sealed import digest
from inspector.store import results
from tests.cli.conftest import Run
from tests.store.objects import result

WRONG: tuple[Any, ...] = (None, 3, "x", [], {}, [[1]], True, 1e308, "\x1b[2J", {"a": {"b": 1}}, [None])


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))


def places(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of everything in an object, leaves and branches."""
    if above:
        yield above
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*above, key))


def forged(folder: Path, content: dict[str, Any], at: tuple[str | int, ...], value: Any) -> None:
    """Write a result with another value in one place, and the checksum that belongs to it."""
    content = copy.deepcopy(content)
    inside: Any = content
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = value
    (folder / f"{content['id']}.json").write_text(results.to_json({**content, "sha256": digest(content)}) + "\n")


def whole() -> dict[str, Any]:
    """A result as it was written, with a figure of its own."""
    scores = {"r2_pooled": 0.5, "r2_mean_dims": 0.25, "r2_uncentred": 0.5, "fvu": 0.2}
    saes = [{**entry, **scores, "sae": name} for name, entry in zip("ab", result()["saes"], strict=True)]
    record = results.save(result(saes=saes), "dm-inspect run error-vector")
    content: dict[str, Any] = json.loads((RESULTS.path() / f"{record.id}.json").read_bytes())
    del content["sha256"]
    return content


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (("result", "warnings"), "x", "Expected 'array', got 'str' at 'result.warnings'"),
        (("result", "saes", 0, "n_test"), "many", "Expected 'int | null', got 'str' at 'result.saes[0].n_test'"),
        (("result", "provenance", "model"), ["x"], "got 'array'"),
        (("command",), 3, "got 'int'"),
    ],
)
def test_what_has_the_wrong_type_is_named_with_its_place(
    run: Run, at: tuple[str | int, ...], value: Any, said: str
) -> None:
    content = whole()
    forged(RESULTS.path(), content, at, value)
    path = RESULTS.path() / f"{content['id']}.json"
    done = run("results", "show", content["id"])
    assert done.code == 4 and done.out == ""
    assert done.err.startswith(f"error: {path} is no result: ") and said in done.err
    assert done.err.endswith(". Remove it and measure again.\n")


def test_no_wrong_value_anywhere_is_an_unexpected_error(run: Run) -> None:
    """Seeded; every place once, whatever a figure, a fact, a claim or a table makes of it."""
    content = whole()
    chance = random.Random(13)
    refused = 0
    for at in places(content):
        forged(RESULTS.path(), content, at, chance.choice(WRONG))
        for words in (
            *(("results", "list"), ("results", "show", content["id"]), ("results", "claims")),
            *(("results", "compare", content["id"], content["id"]),),
            ("results", "export", content["id"], "--format", "csv"),
        ):
            done = run(*words)
            assert done.code in (0, 4), (at, words, done.err)
            refused += done.code == 4
    assert refused > 50
