"""The app itself: themes, poor terminals, what is sent, and what happens when something breaks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
from rich.text import Text
from textual.widgets._toast import Toast

from inspector.errors import UsageError
from inspector.tui.app import is_remote, prepare_environment
from inspector.tui.inspector_app import InspectorApp
from inspector.tui.saved_state import UiState, save_state
from inspector.tui.screens.experiments import ExperimentsScreen
from inspector.tui.screens.questions import farewell
from inspector.tui.session import SessionView
from tests.fake_session import FakeClient, FakeSession
from tests.tui.driving import driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


async def no_session() -> FakeClient:
    raise AssertionError("nobody connects in this test")


def test_over_ssh_there_are_fewer_frames_unless_the_user_wants_more() -> None:
    local: dict[str, str] = {}
    prepare_environment(local)
    assert local == {"TEXTUAL_FPS": "120", "TEXTUAL_ANIMATIONS": "none"}
    remote = {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}
    prepare_environment(remote)
    assert remote["TEXTUAL_FPS"] == "15"
    wished = {"SSH_TTY": "/dev/pts/1", "TEXTUAL_FPS": "30"}
    prepare_environment(wished)
    assert wished["TEXTUAL_FPS"] == "30"
    assert not is_remote({"SSH_CONNECTION": ""})


def test_an_unknown_theme_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no theme .okabo.\. Nearest: okabe"):
        InspectorApp("demo", no_session, theme="okabo", remember=False)


def test_the_last_theme_comes_back_and_one_that_is_gone_does_not() -> None:
    save_state(UiState(theme="light"))
    assert InspectorApp("demo", no_session).theme == "light"
    assert InspectorApp("demo", no_session, theme="dark").theme == "dark"
    save_state(UiState(theme="deleted-since"))
    assert InspectorApp("demo", no_session).theme == "okabe"


@pytest.mark.parametrize("theme", ["okabe", "dark", "light", "sixteen"])
async def test_every_theme_draws_the_whole_screen(theme: str) -> None:
    async with driven(theme=theme) as app:
        assert app.app.theme == theme
        for strip in app.app.screen._compositor.render_strips():
            assert all(segment.style is not None for segment in strip)


@pytest.mark.parametrize(
    "environment",
    [
        {"NO_COLOR": "1"},
        {"TERM": "xterm", "COLORTERM": ""},
        {"TERM": "screen-256color", "COLORTERM": ""},
        {"TERM": "linux"},
    ],
    ids=lambda environment: " ".join(f"{k}={v}" for k, v in environment.items()),
)
async def test_poor_terminals_get_the_same_screen(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with driven(FakeSession(hostile_share=0.3, epochs=1)) as app:
        for key in ("right", "2", "m", "x", "escape", "question_mark", "escape", "d", "d"):
            await app.press(key)
        assert "demo" in app.screen_text()[0]
        if "NO_COLOR" in environment:
            assert app.home.tokens.marks


class Recorded(InspectorApp):
    """Believes that it has a terminal, and keeps what it would send there."""

    is_headless = False  # type: ignore[assignment]

    def recorded(self) -> list[str]:
        if not hasattr(self, "_sent"):
            self._sent: list[str] = []
            driver = self._driver
            assert driver is not None
            driver.write = self._sent.append  # type: ignore[method-assign]
        return self._sent


async def test_what_was_sent_bit_by_bit_adds_up_to_what_is_on_the_screen() -> None:
    async with driven(app_class=Recorded, size=(110, 32)) as app:
        recorder = app.app
        assert isinstance(recorder, Recorded)
        sent = recorder.recorded()
        recorder.action_redraw()
        await app.settle()
        for key in (
            "right",
            "down",
            "3",
            "2",
            "m",
            "tab",
            "d",
            "d",
            "shift+tab",
            "n",
            "x",
            "right",
            "escape",
            "greater_than_sign",
        ):
            await app.press(key)
        await app.settle()
        terminal = pyte.Screen(110, 32)
        pyte.Stream(terminal).feed("".join(sent))
        assert [line.rstrip() for line in terminal.display] == [line.rstrip() for line in app.screen_text()]


async def test_nothing_is_sent_while_nothing_happens() -> None:
    async with driven(app_class=Recorded) as app:
        recorder = app.app
        assert isinstance(recorder, Recorded)
        await app.settle()
        sent = recorder.recorded()
        await app.pilot.pause(1.0)
        assert sent == []
        for opens in ("colon", "S", "slash", "p", "asterisk"):  # what is typed into has a cursor that stands still
            await app.press(opens)
            n = len(sent)
            assert n and (await app.pilot.pause(3.0), sent[n:]) == (None, []), opens
            await app.press("escape")


def test_an_unexpected_error_is_one_line_and_a_log(state_home: Path) -> None:
    """A wide one: the message has two lines, of which the first is shown."""

    async def fail() -> list[object]:
        app = InspectorApp("demo", no_session, remember=False)
        closed: list[bool] = []
        app._close_messages_no_wait = lambda: closed.append(True)  # type: ignore[method-assign]
        try:
            raise ZeroDivisionError("division by zero\nand more")
        except ZeroDivisionError as error:
            app._exception = error
            app._fatal_error()
        assert closed == [True]
        return list(app._exit_renderables)

    (line,) = asyncio.run(fail())
    log = state_home / "dm-inspect" / "log" / "view.log"
    assert isinstance(line, Text)
    assert line.plain == (
        f"dm-inspect stopped unexpectedly: ZeroDivisionError: division by zero. The log is {log}; please report it."
    )
    assert "raise ZeroDivisionError" in log.read_text()


async def test_a_worker_that_breaks_ends_the_program() -> None:
    """Textual's pilot raises what ended the app."""

    async def broken() -> FakeClient:
        raise KeyError("a bug")

    app = InspectorApp("demo", broken, remember=False)
    with pytest.raises(KeyError, match="a bug"):
        async with app.run_test() as pilot:
            for _ in range(1200):
                await pilot.pause(0.1)
                if app.return_code is not None:
                    break
    assert app.return_code == 1


async def test_no_session_at_all_is_a_failure_with_its_code() -> None:
    async def refuse() -> FakeClient:
        raise UsageError("There is no session 'x'. Known: none.")

    app = InspectorApp("demo", refuse, remember=False)
    async with app.run_test() as pilot:
        for _ in range(1200):
            await pilot.pause(0.1)
            if app.home is not None and app.home.session.stage == "failed":
                break
        assert app.home is not None
        assert app.home.session.stage == "failed"
        await pilot.press("q")
    assert app.return_code == 2


async def test_a_notice_stands_beside_the_command_and_stays_on_its_screen() -> None:
    async with driven(FakeSession(hostile_share=0.0, epochs=1, target=("--widths", "256")), notifications=True) as app:
        await app.press("e")
        await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen))
        await app.settle()
        await app.press("y")
        await app.until(lambda: app.app.screen.query(Toast))
        command = next(y for y, line in enumerate(app.screen_text()) if line.startswith(" $ dm-inspect run"))
        assert all(toast.region.bottom <= command for toast in app.app.screen.query(Toast))
        places = [(toast.region.y, app.app.size.width - toast.region.right) for toast in app.app.screen.query(Toast)]
        assert all(y <= 3 and beside <= 6 for y, beside in places), places
        await app.press("?", "escape")
        await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen))
        assert len(app.app._notifications) == 1, "help over a screen is no other screen"
        await app.press("escape")
        await app.until(lambda: app.app.screen is app.home and not app.home.query(Toast))
        assert len(app.app._notifications) == 0


def test_leaving_says_that_the_session_stays_and_how_to_come_back() -> None:
    session = FakeSession(target=("--widths", "256"))
    view = SessionView()
    assert farewell(view, survives=True) == ""
    view = view.told(session.ready(), 0.0)
    assert farewell(view, survives=True).splitlines() == [
        "The session stays for a while: `dm-inspect --model demo --widths 256` comes back, "
        "`dm-inspect sessions list` shows it.",
        "jobs: 0 (`dm-inspect jobs list`); results: 0 (`dm-inspect results list`)",
    ]
    ended = "The session has ended; `dm-inspect --model demo --widths 256` starts it again."
    assert farewell(replace(view, stage="lost"), survives=True).startswith(ended)
    assert farewell(view, survives=False).startswith(ended)


async def test_quitting_prints_what_stays() -> None:
    async with driven(FakeSession(hostile_share=0.0, epochs=1, target=("--widths", "256"))) as app:
        await app.press("q")
        assert [str(said).split(":")[0] for said in app.app._exit_renderables] == ["The session stays for a while"]


async def test_a_notice_loses_no_end_of_a_long_path_on_80_columns() -> None:
    async with driven(size=(80, 24), notifications=True) as app:
        for length in (43, 44, 45, 46):
            app.app.clear_notifications()
            app.app.notify("@" * length, markup=False)
            await app.until(lambda n=length: "".join(app.screen_text()).count("@") == n)  # type: ignore[misc]
