"""Every screen still looks as it was kept; `python -m tests.tui.matrix` keeps what it looks like now."""

from __future__ import annotations

import difflib

import pytest

from tests.tui.matrix import FOLDER, SCREENS, SIZES, STATES, THEMES, Run, look, runs

RUNS = runs()
OFTEN = {
    "loaded": ((60, 16), (80, 24), (120, 40)),
    "empty": ((60, 16),),
    "failed": ((80, 24),),
    "loading": ((120, 40),),
}
"""Sizes that are looked at each time, 35 seconds of computing; `make soak` looks at all."""


def marked(run: Run) -> object:
    often = run.size in OFTEN[run.state]
    return pytest.param(run, id=run.name(run.screens[0]), marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize("run", [marked(run) for run in RUNS])
async def test_the_screens_look_as_they_were_kept(run: Run) -> None:
    for name, taken in (await look(run)).items():
        kept = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
        differs = difflib.unified_diff(kept.splitlines(), taken.text().splitlines(), "kept", "now", lineterm="", n=0)
        assert taken.text() == kept, "\n".join([f"{name} looks different:", *differs])


def test_every_size_has_every_theme_state_and_screen_and_no_file_is_left_over() -> None:
    together = {(run.size, run.theme) for run in RUNS}
    assert together == {(size, theme) for size in SIZES for theme in THEMES}
    assert {(run.size, run.state) for run in RUNS} == {(size, state) for size in SIZES for state in STATES}
    loaded = {(run.size, screen) for run in RUNS if run.state == "loaded" for screen in run.screens}
    assert loaded == {(size, screen) for size in SIZES for screen in SCREENS}
    assert {path.stem for path in FOLDER.iterdir()} == {run.name(screen) for run in RUNS for screen in run.screens}
