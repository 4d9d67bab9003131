"""What is remembered between runs, and that nothing in the file can stop the program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inspector.tui.saved_state import N_VIEWS, SavedView, UiState, load_state, save_state, state_directory


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_what_is_saved_is_loaded() -> None:
    assert load_state() == UiState()
    save_state(UiState(theme="light", marks=True))
    assert load_state() == UiState(theme="light", marks=True)
    assert [path.name for path in state_directory().iterdir()] == ["view.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00",
        '{"version": 99, "theme": "light"}',
        '{"theme": "light"}',
        '{"version": 1, "theme": 3}',
        '{"version": 1, "marks": "x"}',
    ],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(content: str) -> None:
    state_directory().mkdir(parents=True)
    (state_directory() / "view.json").write_text(content)
    assert load_state() == UiState()


VIEW = SavedView(context=3, position=40, sae_ids=("a", "b"), enabled=(256, 512), active=512, mode="total")


def test_where_somebody_was_is_kept_by_target_and_the_oldest_goes_first() -> None:
    state = UiState(theme="light")
    for number in range(N_VIEWS + 5):
        state = state.with_view(f"target {number}", replace(VIEW, context=number))
    state = state.with_view("target 10", VIEW)
    save_state(state)
    loaded = load_state()
    assert loaded == state
    assert len(loaded.views) == N_VIEWS
    assert (next(iter(loaded.views)), list(loaded.views)[-1]) == ("target 5", "target 10")
    assert loaded.views["target 10"] == VIEW


@pytest.mark.parametrize(
    "view", ["null", "[]", '{"context": -1}', '{"context": "x"}', '{"sae_ids": [1]}', '{"enabled": "x"}', '{"mode": 3}']
)
def test_a_view_that_makes_no_sense_costs_only_itself(view: str) -> None:
    state_directory().mkdir(parents=True)
    good = '{"context": 1, "position": 2}'
    (state_directory() / "view.json").write_text(
        f'{{"version": 1, "theme": "dark", "views": {{"bad": {view}, "good": {good}}}}}'
    )
    assert load_state() == UiState(theme="dark", views={"good": SavedView(context=1, position=2)})


def test_unknown_keys_are_ignored() -> None:
    state_directory().mkdir(parents=True)
    (state_directory() / "view.json").write_text('{"version": 1, "theme": "dark", "novelty": 1}')
    assert load_state() == UiState(theme="dark")


def test_a_home_that_cannot_be_written_is_no_error(home: Path) -> None:
    (home / "dm-inspect").write_text("a file where the folder should be")
    save_state(UiState(theme="dark"))
    assert load_state() == UiState()
