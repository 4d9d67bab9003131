"""Bookmarks and notes in the app: the key on every screen, the list, and where Enter goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.store.notes import Notes, of_latent, of_result, of_token
from inspector.store.results import save
from inspector.tui.screens.latent import LatentScreen
from inspector.tui.screens.notes import NotesScreen
from inspector.tui.screens.questions import NoteEntry
from inspector.tui.screens.results import ResultsScreen
from inspector.tui.screens.stream import StreamScreen
from tests.store.objects import HOSTILE
from tests.tui.driving import Driven, driven
from tests.tui.stored_results import norm_result, store

__all__ = ["store"]


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


async def opened(app: Driven) -> NotesScreen:
    await app.press("B")
    await app.until(lambda: isinstance(app.app.screen, NotesScreen))
    screen = app.app.screen
    assert isinstance(screen, NotesScreen)
    await app.until(lambda: screen.notes is not None)
    await app.settle()
    return screen


async def note(app: Driven, words: str) -> None:
    await app.press("asterisk")
    await app.until(lambda: isinstance(app.app.screen, NoteEntry))
    await app.press(*words, "enter")
    await app.until(lambda: not isinstance(app.app.screen, NoteEntry))


async def test_one_key_on_the_stream_on_a_latent_and_on_a_result(store: Path) -> None:
    record = save(norm_result(), "dm-inspect run norm-prediction")
    async with driven() as app:
        await app.press("right")
        await note(app, "one")
        place = app.home.state.place
        await app.press("L")
        await app.until(lambda: isinstance(app.app.screen, LatentScreen) and app.app.screen.view is not None)
        await note(app, "two")
        await app.press("escape", "r")
        await app.until(lambda: isinstance(app.app.screen, ResultsScreen) and app.app.screen.record is not None)
        await note(app, "")
        found = Notes().all()
    assert [(each.subject.kind, each.words) for each in found] == [("token", "one"), ("latent", "two"), ("result", "")]
    about = found[0].subject.about
    assert (about["context"], about["position"]) == (place.context, place.position)
    assert about["numbers"]["nonlinear"] > 0 and about["before"]
    assert found[2].subject == of_result(record)


async def test_the_same_token_again_shows_what_was_written_and_changes_it() -> None:
    async with driven() as app:
        await note(app, "a")
        await app.press("asterisk")
        await app.until(lambda: isinstance(app.app.screen, NoteEntry))
        entry = app.app.screen
        await app.until(lambda: entry.query_one("Input").value == "a")  # type: ignore[attr-defined]
        await app.press("b", "enter")
        await app.until(lambda: not isinstance(app.app.screen, NoteEntry))
        assert [(each.number, each.words) for each in Notes().all()] == [(1, "ab")]
        await app.press("asterisk", "escape")
        await app.until(lambda: isinstance(app.app.screen, StreamScreen))
        assert len(Notes().all()) == 1


async def test_enter_goes_to_what_a_note_is_about(store: Path) -> None:
    record = save(norm_result(), "dm-inspect run norm-prediction")
    Notes().put(of_token("demo", "fake", "context", 4, 20, []), "there")
    Notes().put(of_latent("demo", "layer_3/resid/width_1024/l0_16", 37, []), "")
    Notes().put(of_result(record), HOSTILE)
    Notes().put(of_token("another", "", "context", 4, 20, []), "")
    async with driven() as app:
        screen = await opened(app)
        assert "4 kept" in app.screen_text()[0] and "\x1b" not in "".join(app.screen_text())
        await app.press("enter")  # of another model: stays
        assert app.app.screen is screen
        await app.press("down", "enter")
        await app.until(lambda: isinstance(app.app.screen, ResultsScreen))
        await app.press("escape", "down", "enter")
        await app.until(lambda: isinstance(app.app.screen, LatentScreen) and app.app.screen.index == 37)
        await app.press("escape", "down", "enter")
        await app.until(lambda: isinstance(app.app.screen, StreamScreen) and app.home.state.place.position == 20)
        assert app.home.state.place.context == 4


async def test_removed_brought_back_and_written_as_a_page(state_home: Path) -> None:
    Notes().put(of_token("demo", "fake", "context", 4, 20, []), "there")
    async with driven() as app:
        screen = await opened(app)
        await app.press("x")
        await app.until(lambda: screen.notes == [])
        assert Notes().all() == [] and "no note yet" in "\n".join(app.screen_text())
        await app.press("u")
        await app.until(lambda: screen.notes)
        await app.press("m")
        page = state_home / "dm-inspect" / "exports" / "notes.md"
        await app.until(page.exists)
        assert page.read_text().startswith("# Notes\n\n## 1. token: `context 5, position 20`\n\nthere\n")


async def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "file" / "below"))
    async with driven(notifications=True) as app:
        await app.press("asterisk")
        await app.until(lambda: isinstance(app.app.screen, NoteEntry))
        await app.press("a", "enter")
        await app.until(lambda: isinstance(app.app.screen, StreamScreen))
        await app.until(lambda: any("cannot be made" in each.message for each in app.app._notifications))
