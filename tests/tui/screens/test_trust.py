"""What says whether the numbers can be trusted, and whether there is anybody to ask: gate, policy, a dead session."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.events import GateLine
from inspector.session.protocol import Failed, GetContext, GetJobs, SetPolicy
from inspector.tui.lines import text_of, width_of
from inspector.tui.screens.questions import EndedScreen, log_tail
from inspector.tui.themes import palette_of
from inspector.tui.widgets.bars import Banner, banner_lines
from tests.fake_session import FakeSession
from tests.tui.driving import driven

FAILURES = [
    GateLine(name="fvu", sae_id="1k/16", measured="1.31", expected="below 1", why="It is worse than the mean."),
    GateLine(name="l0", sae_id=None, measured="204", expected="16 within 25%", why="Thresholds may be halved."),
]


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def plain(**options: object) -> FakeSession:
    return FakeSession(**{"hostile_share": 0.0, "epochs": 1, **options})  # type: ignore[arg-type]


# ---- the gate -------------------------------------------------------------------------------------------------------


async def test_a_failed_gate_stands_above_every_screen_and_on_an_alarming_ground() -> None:
    async with driven(plain(gate_failures=FAILURES)) as app:
        for keys in ((), ("e",), ("J",), ("escape", "r"), ("escape", "s"), ("escape", "z"), ("escape", "?")):
            for key in keys:
                await app.press("question_mark" if key == "?" else key)
            await app.until(lambda: "LOAD GATE FAILED" in app.screen_text()[0])
            lines = app.screen_text()
            assert "fvu of 1k/16: 1.31, expected below 1. It is worse than the mean." in lines[1]
            assert "l0: 204, expected 16 within 25%." in lines[2]
            banner = app.app.screen.query_one(Banner)
            assert banner.look("alarm").bgcolor == _colour(app.app.theme_variables["error"])
            assert "FAILED" not in lines[3], "one banner, and the screen's own first line below it"


def _colour(text: str) -> object:
    from textual.color import Color

    return Color.parse(text).rich_color


async def test_a_gate_that_passed_has_no_banner() -> None:
    async with driven() as app:
        assert not app.home.query(Banner)
        await app.press("e")
        assert not app.app.screen.query(Banner)


@pytest.mark.parametrize(("width", "height"), [(60, 1), (80, 1), (120, 3), (120, 2)])
def test_the_banner_fills_its_lines_and_counts_what_it_cannot_show(width: int, height: int) -> None:
    lines = banner_lines(FAILURES, width, height)
    assert len(lines) == height
    assert all(width_of(line) == width for line in lines)
    if height == 2:
        assert "(and 1 more)" in text_of(lines[1])
    assert "FAILED" in text_of(lines[0])


# ---- special tokens -------------------------------------------------------------------------------------------------


async def test_one_key_counts_special_tokens_and_shows_the_numbers_with_and_without() -> None:
    async with driven(plain(), notifications=True) as app:
        await app.until(lambda: "R² 0.15" in app.screen_text()[1])
        assert app.home.state.text is not None
        assert app.home.state.text.document.split[0] == "x"
        await app.press("x")
        await app.until(lambda: "special tokens counted" in app.screen_text()[1])
        assert "R² 0.58 (0.15)" in app.screen_text()[1]
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.policy == "included")
        assert app.home.state.text.document.split[0] != "x"
        assert app.home.state.place.position == 32, "the cursor stays"
        await app.press("x")
        await app.until(lambda: "special" not in app.screen_text()[1])
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.policy == "excluded")
        assert [message.policy for message in app.asked(SetPolicy)] == ["included", "excluded"]  # type: ignore[attr-defined]


async def test_excluded_tokens_are_dimmed_and_do_not_move_the_colour_scale() -> None:
    async with driven(plain()) as app:
        text = app.home.state.text
        assert text is not None
        document, choice = text.document, app.home.state.choice
        assert choice is not None
        extent = text.extent([choice.row], app.home.state.mode.size)  # type: ignore[arg-type]
        values = text.values(choice.row, app.home.state.mode.size)  # type: ignore[arg-type]
        counted = [values[p] for p in range(len(document)) if document.split[p] != "x"]
        assert extent == (min(counted), max(counted))
        assert len(counted) < len(document)
        palette = palette_of(app.app)
        assert palette.excluded != palette.plain


# ---- the session dies -----------------------------------------------------------------------------------------------


async def test_a_session_that_dies_shows_its_last_words_and_one_key_brings_everything_back(tmp_path: Path) -> None:
    log = tmp_path / "session.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "Fatal: \x1b[2Jno memory\n")
    async with driven(plain(log_path=str(log))) as app:
        await app.press("greater_than_sign")
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.document.context == 1)
        await app.press("right", "2", "m")
        before = (app.home.state.place, app.home.state.choice, app.home.state.mode, app.app.theme)
        app.client.lose("The session ended: killed.")
        await app.until(lambda: isinstance(app.app.screen, EndedScreen))
        await app.settle()
        text = "\n".join(app.screen_text())
        assert "the session has ended" in text
        assert "killed." in text
        assert "line 99" in text
        assert "Fatal: ␛[2Jno memory" in text
        assert "\x1b" not in text
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2 and app.home.session.stage == "ready")
        await app.until(lambda: app.asked(GetJobs))
        assert app.app.screen is app.home
        assert (app.home.state.place, app.home.state.choice, app.home.state.mode, app.app.theme) == before
        assert [message.context for message in app.asked(GetContext)] == [1]  # type: ignore[attr-defined]


async def test_the_panel_stands_over_any_screen_and_can_be_put_away() -> None:
    async with driven(plain()) as app:
        await app.press("e")
        app.client.lose("Gone.")
        await app.until(lambda: isinstance(app.app.screen, EndedScreen))
        await app.press("escape")
        assert "the session has ended" in app.screen_text()[0]
        await app.press("escape")
        assert app.app.screen is app.home
        assert "Gone." in app.screen_text()[1]
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2 and app.home.session.stage == "ready")


async def test_special_tokens_stay_counted_when_the_session_is_a_new_one() -> None:
    async with driven(plain()) as app:
        await app.press("x")
        await app.until(lambda: app.home.session.policy == "included")
        app.client.lose("Gone.")
        await app.until(lambda: isinstance(app.app.screen, EndedScreen))
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2 and app.asked(SetPolicy))


async def test_a_session_started_again_that_cannot_load_says_why() -> None:
    fake = plain()
    async with driven(fake) as app:
        app.client.lose("Gone.")
        await app.until(lambda: isinstance(app.app.screen, EndedScreen))
        fake.fail_loading = Failed(exit_code=3, message="The weights are gone. Fetch them again.")
        await app.press("r")
        await app.until(lambda: app.home.session.stage == "lost")
        app.client.lose("The session ended.")
        await app.until(lambda: any("The weights are gone." in line for line in app.screen_text()))


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert log_tail(str(tmp_path / "none")) == []
    (tmp_path / "log").write_bytes(b"\xff\xfe\n\nlast\n")
    assert log_tail(str(tmp_path / "log"))[-1] == "last"
