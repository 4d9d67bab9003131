"""What is remembered between runs, and that nothing in the file can stop the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.tui.state import UiState, load_state, save_state, state_directory


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


def test_unknown_keys_are_ignored() -> None:
    state_directory().mkdir(parents=True)
    (state_directory() / "view.json").write_text('{"version": 1, "theme": "dark", "novelty": 1}')
    assert load_state() == UiState(theme="dark")


def test_a_home_that_cannot_be_written_is_no_error(home: Path) -> None:
    (home / "dm-inspect").write_text("a file where the folder should be")
    save_state(UiState(theme="dark"))
    assert load_state() == UiState()
