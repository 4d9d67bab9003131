"""--seed and -p resamples= are obeyed by every experiment, and what was used stands in the result."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from inspector.errors import UsageError
from inspector.experiment import parse_params
from inspector.experiments import choose, find, ids
from inspector.sources.target import open_target
from tests.experiments.own import Toy, finish, write_files
from tests.toy import remember_passes

TRAINED = "error-saes"
"""Trains SAEs: its own tests hold its seeds."""
ALL = [each for each in ids() if each != TRAINED]
NOT_DRAWN = {"width_slope", "width_slope_fvu"}
"""Intervals over the SAEs, by Student's t."""
SMALL = {
    "features": "600", "dims": "12", "samples": "1500", "draws": "4000", "contexts": "10", "tokens": "1500",
    "start": "100", "length": "20",
}  # fmt: skip


def measured(toy: Toy, **params: str) -> dict[str, dict[str, Any]]:
    return {each["experiment"]: each for each in toy.run(*ALL, **SMALL, **params)}


def numbers(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["saes"], found["result"], found["intervals"]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Toy]:
    """One target with seed 0, and the same with seed 1."""
    root = tmp_path_factory.mktemp("seeds")
    spec = write_files(root)
    first, second = (finish(open_target(replace(spec, seed=seed))) for seed in (0, 1))
    for each in (first, second):
        remember_passes(each.model)
    return Toy(root, first), Toy(root, second)


@pytest.fixture(scope="module")
def runs(toys: tuple[Toy, Toy]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "first": measured(toys[0]),
        "again": measured(toys[0]),
        "other": measured(toys[1]),
        "more": measured(toys[0], resamples="60"),
        "none": measured(toys[0], resamples="0"),
    }


@pytest.mark.parametrize("experiment", ALL)
def test_the_same_seed_gives_the_same_and_another_another(runs: Any, experiment: str) -> None:
    first, again, other = (runs[name][experiment] for name in ("first", "again", "other"))
    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)
    assert (first["provenance"]["seed"], other["provenance"]["seed"]) == (0, 1)


@pytest.mark.parametrize("experiment", ALL)
def test_resamples_move_intervals_and_nothing_else(runs: Any, experiment: str) -> None:
    first, more, none = (runs[name][experiment] for name in ("first", "more", "none"))
    assert first["intervals"] != more["intervals"]
    assert first["saes"] == more["saes"] or experiment == "ce-splice"  # within_marks is of the interval
    recorded = [found["provenance"]["params"]["resamples"] for found in (first, more, none)]
    assert recorded == [40, 60, 0]
    assert "60 draws" in more["definition"] and "40 draws" in first["definition"]
    drawn = [ends for own in none["intervals"].values() for name, ends in own.items() if name not in NOT_DRAWN]
    assert drawn.count(None) == len(drawn)


@pytest.mark.parametrize("experiment", ["ce-splice", "probe-vs-latents", "dark-matter-breakdown"])
def test_the_bootstrap_itself_follows_the_seed(
    toys: tuple[Toy, Toy], monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    """The measurement is the same: only what `compute` draws from it differs."""
    kept: dict[str, Any] = {}
    chosen = find(experiment)
    honest = chosen.compute
    assert honest is not None

    def compute(statistics: Any, params: Any) -> Any:
        kept["of"] = statistics, params
        return honest(statistics, params)

    monkeypatch.setattr("inspector.runner.choose", lambda _: [replace(chosen, compute=compute)])
    toys[0].run(experiment, **{key: value for key, value in SMALL.items() if _knows(experiment, key)})
    statistics, params = kept["of"]
    own = statistics.own[experiment]
    moved = replace(statistics, own={experiment: replace(own, seed=own.seed + 1)})
    first, again, other = (_ends(honest(each, params)) for each in (statistics, statistics, moved))
    assert first == again != other


def _ends(outcome: Any) -> Any:
    return outcome.intervals, getattr(outcome.result, "floor_interval", None)


def _knows(experiment: str, key: str) -> bool:
    return key in {each.name for each in fields(find(experiment).params)}


@pytest.mark.parametrize("experiment", ids())
def test_every_number_has_bounds(experiment: str) -> None:
    chosen = choose([experiment])
    for each in fields(chosen[0].params):
        if not str(each.type).startswith(("int", "float")):
            continue
        assert {"least", "most"} <= set(each.metadata), each.name
        assert each.metadata["least"] <= each.default <= each.metadata["most"]
        beyond = str(int(each.metadata["most"]) + 1)
        with pytest.raises(UsageError, match=r"outside its bounds\. Write a number from"):
            parse_params(chosen, {each.name: beyond})
        for wrong in ("nan", "inf", "-1"):
            with pytest.raises(UsageError):
                parse_params(chosen, {each.name: wrong})
