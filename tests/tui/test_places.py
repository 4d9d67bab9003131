"""What is gone to by name or by mouse, what is said beside, and what stays on the terminal when the view is left."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import cast

import pytest
from textual.command import CommandPalette
from textual.widgets import Input
from textual.widgets._tooltip import Tooltip

from inspector.drawing.glossary import NUMBERS, TOUR
from inspector.drawing.tokens import MODES
from inspector.errors import TargetError
from inspector.session import discovery
from inspector.session.protocol import Failed, Move
from inspector.spec import TargetSpec
from inspector.tui import places
from inspector.tui.actions import ACTIONS
from inspector.tui.inspector_app import InspectorApp
from inspector.tui.places import Host, read_offers, read_places
from inspector.tui.saved_state import load_state
from inspector.tui.screens import anatomy, experiments, latent, results, worst
from inspector.tui.screens.base import OpenTarget
from inspector.tui.screens.experiments import ExperimentsScreen
from inspector.tui.screens.help import HELP, HelpScreen
from inspector.tui.screens.latent import LatentScreen
from inspector.tui.screens.questions import TourScreen
from inspector.tui.screens.suites import SuitesScreen
from inspector.tui.screens.texts import TextsScreen
from inspector.tui.suite_list import Suites, hooks_of
from inspector.tui.widgets.bars import FooterPane
from inspector.tui.widgets.detail import DetailPane
from inspector.tui.widgets.session_panes import LoadPane
from tests.fake_session import FakeClient, FakeSession
from tests.tui.driving import Driven, driven
from tests.tui.test_suite_list import ref


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No session, no state and no result of anybody else."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(short_path / "run"))


def place_of(app: Driven, text: str, line: int = -1) -> tuple[int, int]:
    """Column and line of a text on the screen."""
    lines = app.screen_text()
    at = range(len(lines))[line] if line != 0 else next(y for y, each in enumerate(lines) if text in each)
    return lines[at].index(text), at


async def test_a_click_on_the_footer_is_its_key_and_hovering_says_what_it_does() -> None:
    async with driven() as app:
        x, y = place_of(app, "? help")
        await app.pilot.hover(offset=(x, y))
        tip = app.home.query_one(FooterPane).tooltip
        assert str(tip) == "Help for this pane"
        await app.pilot.click(offset=(x, y))
        await app.until(lambda: isinstance(app.app.screen, HelpScreen))
        await app.press("escape")
        x, y = place_of(app, "experiments")
        await app.pilot.click(offset=(x, y))
        await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen))


async def test_widths_and_the_layer_in_the_header_are_clicked() -> None:
    async with driven() as app:
        assert app.home.state.choice is not None
        x, y = place_of(app, "2 512", 0)
        await app.pilot.click(offset=(x, y))
        await app.settle()
        assert app.home.state.choice.labels[app.home.state.choice.active] == "512"
        x, y = place_of(app, "layer 3", 0)
        await app.pilot.click(offset=(x, y))
        await app.until(lambda: isinstance(app.app.screen, SuitesScreen))


async def test_latents_widths_context_and_mode_are_clicked_and_say_before_what_they_do() -> None:
    async with driven() as app:
        await app.until(app.home.state.active_latents)
        await app.settle()
        state = app.home.state
        second = state.active_latents()[1]
        x, y = place_of(app, f"{second} +", 0)
        await app.pilot.hover(offset=(x, y))
        assert str(app.home.query_one("#detail", DetailPane).tooltip) == "What makes this latent active"
        await app.pilot.click(offset=(x, y))
        await app.until(lambda: isinstance(app.app.screen, LatentScreen) and app.app.screen.index == second)
        await app.press("escape")
        await app.until(lambda: app.app.screen is app.home)
        x, y = place_of(app, "● 256", 0)
        await app.pilot.click(offset=(x, y))
        await app.settle()
        assert state.choice is not None and state.choice.labels[state.choice.active] == "256"
        mode = state.mode
        await app.pilot.click(offset=place_of(app, "tokens · 256", 0))
        await app.settle()
        assert state.mode is not mode
        await app.pilot.click(offset=place_of(app, "context ", 0))
        await app.until(lambda: isinstance(app.app.screen, TextsScreen))


async def test_help_is_searched_by_words() -> None:
    async with driven() as app:
        await app.press("?", "/", *"nonl")
        await app.until(lambda: isinstance(app.app.screen, HelpScreen))
        await app.until(lambda: "Next colour mode" not in "\n".join(app.screen_text()))
        assert "the nonlinear error" in "\n".join(app.screen_text())
        await app.press("escape")
        await app.until(lambda: "Next colour mode" in "\n".join(app.screen_text()))
        await app.press("escape")
        assert app.app.screen is app.home


async def test_a_load_that_fails_offers_what_opens_here_and_how_its_files_come_over(tmp_path: Path) -> None:
    opened: list[TargetSpec] = []
    session = FakeSession(fail_loading=Failed(exit_code=3, message="The hub cannot be reached. Check the network."))
    async with driven(session, wait=False) as app:

        async def connect_to(target: TargetSpec) -> FakeClient:
            opened.append(target)
            return FakeClient(FakeSession(hostile_share=0.0, epochs=1))

        await app.until(lambda: app.home.session.stage == "failed")
        app.app.connect_to = connect_to
        app.app.asked = TargetSpec(model="gemma-2-9b", layers=(20,), l0=60.0, cache_dir=str(tmp_path), offline=True)
        await app.press("r")
        pane = app.home.query_one(LoadPane)
        await app.until(lambda: pane.offers.here)
        await app.settle()
        text = "\n".join(app.screen_text())
        assert "1  demo " in text and "   hf download google/gemma-2-9b " in text
        assert pane.offers.commands[1].startswith("hf download google/gemma-scope-9b-pt-res layer_20/")
        assert str(tmp_path) in text
        await app.press("y")
        assert app.app.clipboard.splitlines() == list(pane.offers.commands)
        home = app.home
        await app.pilot.click(offset=place_of(app, "1  demo ", 0))
        await app.until(lambda: app.home is not home)
        assert opened == [TargetSpec(model="demo", cache_dir=str(tmp_path), offline=True)], (
            "on the same machine, from the same cache"
        )


def test_models_in_the_cache_are_offered_with_the_hook_that_has_saes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str, _cache_dir: str | None) -> None:
        if name != "google/gemma-2-2b":
            raise TargetError("It is not there. Fetch it.")

    def read(target: TargetSpec) -> Suites:
        hooks = ("blocks.5.hook_resid_post",) * 2 + ("blocks.12.hook_resid_post",) * 2
        refs = [ref(f"s{number}", 16384, 8.0 + number, hook, on_disk=number > 0) for number, hook in enumerate(hooks)]
        return Suites(target=target, hooks=hooks_of(refs))

    monkeypatch.setattr("inspector.sources.model_files.find_model", find)
    monkeypatch.setattr("inspector.tui.suite_list.read_suites", read)
    asked: list[object] = []

    class Nowhere:
        home = None
        target = TargetSpec(model="gemma-2-9b", layers=(20,), cache_dir=str(tmp_path))
        post_message = asked.append

    (offer,) = [each for each in read_offers(cast("Host", Nowhere())).here if "/" in each.name]
    assert (offer.name, offer.about) == (
        "google/gemma-2-2b",
        "in the cache, 2 SAEs, 2.0 MB of blocks.12.hook_resid_post",
    )
    offer.go()
    (message,) = asked
    assert isinstance(message, OpenTarget)
    assert (message.target.hook, message.target.saes) == ("blocks.12.hook_resid_post", ("s2", "s3"))


async def test_hovering_over_a_number_shows_its_formula_and_what_would_mislead() -> None:
    async with driven(tooltips=True) as app:
        x, y = place_of(app, "R²", 0)
        await app.pilot.hover(offset=(x, y))
        tip = app.app.screen.get_child_by_type(Tooltip)
        await app.until(lambda: tip.display)
        shown = "\n".join(app.screen_text())
        assert "R² of the linear map: 1 - Σ" in shown
        assert "not the" in shown
    assert all(len(row) == 3 and all(row) for row in NUMBERS.values())


def known(app: InspectorApp) -> list[str]:
    return [place.name for place in read_places(app)]


async def test_the_palette_finds_modes_models_experiments_and_contexts_by_name() -> None:
    async with driven() as app:
        names = known(app.app)
        assert {f"Colour mode: {mode.title}" for mode in MODES} <= set(names)
        assert "Model: gemma-2-9b" in names
        assert any(name.startswith("Hook: blocks.3.hook_resid_post") for name in names)
        assert any(name.endswith("(error-vector)") for name in names)
        for typed, found in (("nonl", "onlinear"), ("model", "Model: demo"), ("error-vec", "(error-vector)")):
            await app.press(":")
            await app.until(lambda: isinstance(app.app.screen, CommandPalette))
            app.app.screen.query_one(Input).value = typed
            await app.until(lambda text=found: any(text in line for line in app.screen_text()))  # type: ignore[misc]
            await app.press("escape")
            await app.until(lambda: app.app.screen is app.home)
        await app.press("S")
        await app.until(lambda: isinstance(app.app.screen, CommandPalette))
        await app.until(lambda: any("Hook: blocks." in line for line in app.screen_text()))
        app.app.screen.query_one(Input).value = "context 17"
        await app.until(lambda: any("Text: context 17" in line for line in app.screen_text()))
        await app.press("enter", "enter")
        await app.until(lambda: app.app.screen is app.home and app.home.state.place.context == 16)


async def test_a_key_cancels_the_search_before_and_not_the_reading_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slowly(app: Host) -> list[places.Place]:
        go.wait(60)
        return read_places(app)

    monkeypatch.setattr(places, "read_places", slowly)
    async with driven() as app:
        provider = places.Switch(app.app.screen)
        provider._post_init()

        async def found(typed: str) -> list[str]:
            return [str(hit.text) async for hit in provider._search(typed)]

        first = asyncio.ensure_future(found("l"))
        await app.pilot.pause(0.05)
        first.cancel()
        go.set()
        assert "Hook: blocks.2.hook_resid_post · layer 2" in await found("layer 2")


async def test_the_switcher_shows_what_a_session_holds_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    record = discovery.SessionRecord(
        id="abc", pid=1, model="gemma-2-2b", layers=None, hook="blocks.12.hook_resid_post", device="cpu", started=1.0,
        program_version="0", protocol_version=1, state="ready", log="", device_bytes=2_000_000_000,
    )  # fmt: skip

    def stop(name: str | None) -> discovery.SessionRecord:
        ended.append(str(name))
        return record

    monkeypatch.setattr(discovery, "list_sessions", lambda: [record])
    monkeypatch.setattr(discovery, "stop_session", stop)
    async with driven() as app:
        known = {place.name: place for place in read_places(app.app)}
        assert "2.0 GB of the device" in known["Session: gemma-2-2b · blocks.12.hook_resid_post"].about
        going = known["End session: gemma-2-2b · blocks.12.hook_resid_post"].go()
        assert going is not None
        await going
        assert ended == ["abc"]


async def test_another_hook_is_opened_whole_and_the_session_is_asked_to_keep_its_model() -> None:
    asked: list[TargetSpec] = []
    refusal = Failed(exit_code=3, message="There is no such hook. Choose another.")
    session = FakeSession(hostile_share=0.0, epochs=1)
    async with driven(session) as app:

        async def connect_to(target: TargetSpec) -> FakeClient:
            asked.append(target)
            return FakeClient(FakeSession(hostile_share=0.0, epochs=1))

        app.app.connect_to = connect_to
        home = app.home
        await app.press("s")
        await app.until(lambda: isinstance(app.app.screen, SuitesScreen))
        screen = app.app.screen
        assert isinstance(screen, SuitesScreen)
        await app.until(lambda: screen.suites is not None)
        await app.settle()
        session.failures[Move] = refusal
        await app.press("up", "enter")
        await app.until(lambda: app.asked(Move))
        await app.settle()
        assert asked == []
        assert app.home is home, "what no session could load leaves this one as it is"
        del session.failures[Move]
        await app.press("s")
        await app.until(lambda: isinstance(app.app.screen, SuitesScreen))
        await app.settle()
        await app.press("up", "enter")
        await app.until(lambda: app.home is not home)
        (target,) = asked
        (_, move) = [message for message in home._talk.client.received if isinstance(message, Move)]  # type: ignore[union-attr]
        assert move.target == target
        assert target.hook is not None
        assert (target.saes, target.widths) == ((), None), "the whole hook"


def test_every_key_of_a_footer_can_be_clicked() -> None:
    from inspector.tui.widgets.bars import hint_line

    bound = {key for action in ACTIONS for key in action.keys}
    line = hint_line([(key, "x") for key in sorted(bound) if len(key) == 1], ("?", "help"), 500)
    assert all("click=" in look for text, look in line if text.strip() and not text.startswith("   "))


# ---- the tour, and what numbers are ---------------------------------------------------------------------------------


async def test_the_first_start_says_what_the_colours_are_once_and_stands_in_no_keys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for first in (True, False):
        async with driven(remember=True) as app:
            if first:
                await app.until(lambda: isinstance(app.app.screen, TourScreen))
                await app.settle()
                shown = set(" ".join(app.screen_text()).split())
                assert all(set(sentence.split()) <= shown for sentence in TOUR)
                assert load_state().tour
                await app.press("m")
                assert app.app.screen is app.home, "another key ends it"
                assert app.home.state.mode.id == "total", "and does what it does"
            assert app.app.screen is app.home
            await app.press("i")
            assert isinstance(app.app.screen, TourScreen)
            await app.press("escape")
            assert app.app.screen is app.home


def test_every_number_that_a_help_lists_is_in_the_glossary_and_the_other_way_round() -> None:
    helps = [*HELP.values(), *(module.HELP for module in (anatomy, experiments, latent, results, worst))]
    assert {name for each in helps for name in each.numbers} == set(NUMBERS)


async def test_help_says_formula_and_what_would_mislead() -> None:
    async with driven() as app:
        await app.press("question_mark")
        assert isinstance(app.app.screen, HelpScreen)
        text = app.app.screen._text().plain
    assert "FVU of a token   ‖nonlinear_error‖² / ‖x‖² of this token alone.\nNot centred and without the linear" in text
