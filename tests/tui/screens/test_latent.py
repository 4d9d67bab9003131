"""The Latent screen on an invented session: the cursor's latent, neighbours, numbers, examples that lead to texts."""

from __future__ import annotations

import unicodedata
from array import array
from pathlib import Path

import msgspec
import pytest

from inspector.drawing.lines import text_of
from inspector.drawing.palette import Depth
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import cell_width
from inspector.session.cards import LatentCard, LatentExample, Neighbour
from inspector.session.frames import pack
from inspector.session.protocol import Failed, GetDetail, GetLatent, LatentView
from inspector.tui.screens.latent import LatentScreen, examples_table, latent_page
from tests.fake_session import HOSTILE, FakeSession
from tests.tui.driving import Driven, driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def opened(app: Driven) -> LatentScreen:
    await app.press("L")
    await app.until(lambda: isinstance(app.app.screen, LatentScreen))
    screen = app.app.screen
    assert isinstance(screen, LatentScreen)
    await app.until(lambda: screen.view is not None or screen.problem)
    await app.settle()
    return screen


def asked(app: Driven) -> list[int]:
    return [message.index for message in app.asked(GetLatent) if isinstance(message, GetLatent)]


async def test_it_opens_at_the_strongest_latent_of_the_cursor_and_walks_the_others() -> None:
    async with driven() as app:
        await app.until(lambda: app.home.state.detail is not None)
        detail = app.home.state.detail
        assert detail is not None
        first, second = (latent.index for latent in detail.latents[:2])
        screen = await opened(app)
        assert screen.index == first
        assert f"latent {first:,}" in app.screen_text()[0]
        await app.press("right_square_bracket")
        await app.until(lambda: screen.view is not None and screen.view.index == second)
        await app.press("left_square_bracket")
        await app.until(lambda: screen.view is not None and screen.view.index == first)


async def test_in_a_narrow_window_it_asks_which_latents_are_active() -> None:
    async with driven(size=(60, 16)) as app:
        assert app.asked(GetDetail) == []
        screen = await opened(app)
        assert len(app.asked(GetDetail)) == 1
        assert screen.view is not None


async def test_neighbours_numbers_and_back() -> None:
    async with driven() as app:
        screen = await opened(app)
        first = screen.index
        assert first is not None
        await app.press("2")
        await app.until(lambda: screen.view is not None)
        neighbour = (first + 62) % 1024
        assert screen.index == neighbour
        await app.press("i", "2", "4", "enter")
        await app.until(lambda: screen.view is not None and screen.index == 24)
        await app.settle()
        assert "words about ␛[31m24 (score 0.75)" in "\n".join(app.screen_text())
        await app.press("b")
        await app.until(lambda: screen.view is not None and screen.index == neighbour)
        assert asked(app) == [first, neighbour, 24, neighbour]


async def test_what_is_no_latent_is_refused_without_asking() -> None:
    async with driven(notifications=True) as app:
        await opened(app)
        before = asked(app)
        await app.press("i", "9", "9", "9", "9", "9", "enter")
        assert [note.message for note in app.app._notifications] == ["99999 is no latent. They are 0 to 1,023."]
        assert asked(app) == before


async def test_a_dead_latent_and_a_failure_are_said() -> None:
    async with driven() as app:
        await opened(app)
        await app.press("i", "1", "3", "enter")
        await app.settle()
        assert "It is active at none of the 76,800 tokens searched." in "\n".join(app.screen_text())
    failing = FakeSession(hostile_share=0.0, epochs=1)
    failing.failures[GetLatent] = Failed(exit_code=5, message="Out of memory. Close something.")
    async with driven(failing) as app:
        screen = await opened(app)
        assert screen.view is None
        assert "Out of memory. Close something." in "\n".join(app.screen_text())
        await app.press("down", "enter", "2", "c", "b")


async def test_enter_shows_the_example_in_the_stream() -> None:
    async with driven(size=(100, 20)) as app:
        screen = await opened(app)
        await app.press("down", "down", "down", "down", "down")
        assert screen.view is not None
        example = screen.view.examples[5]
        assert f"▸ context {example.context + 1}, position {example.position}" in "\n".join(app.screen_text())
        await app.press("enter")
        await app.until(lambda: app.app.screen is app.home and app.home.state.place.context == example.context)
        await app.settle()
        assert (app.home.state.place.source, app.home.state.place.position) == ("context", example.position)


async def test_the_examples_are_copied_as_a_table() -> None:
    async with driven() as app:
        screen = await opened(app)
        await app.press("c")
        lines = app.app.clipboard.splitlines()
        assert screen.view is not None
        assert len(lines) == 1 + sum(len(example.tokens) for example in screen.view.examples)
        assert lines[1].split("\t")[:3] == [screen.view.sae_id, str(screen.view.index), "1"]


SESSION = FakeSession()


def card(**changes: object) -> LatentCard:
    values: dict[str, object] = {
        "histogram": [], "drawn": [], "n_drawn": 0, "top": [], "bottom": [], "why_no_logits": "", "error_share": None,
        "error_share_others": None, "error_share_random": 0.01, "across": [],
    }  # fmt: skip
    return LatentCard(**{**values, **changes})  # type: ignore[arg-type]


def small(**changes: object) -> LatentView:
    example = LatentExample(context=6, position=41, start=40, tokens=["the", " dark", "\n", "x"],
                            activations=pack(array("f", [0.0, 8.0, 2.0, 0.0])))  # fmt: skip
    values: dict[str, object] = {
        "sae_id": "s", "index": 7, "density": 0.0025, "n_tokens": 12345, "max_activation": 8.0, "examples": [example],
        "neighbours": [Neighbour(index=3, cosine=0.75), Neighbour(index=400, cosine=-0.5)],
        "card": card(),
    }  # fmt: skip
    return LatentView(**{**values, **changes})  # type: ignore[arg-type]


def shown(view: LatentView, width: int = 60, cursor: int = 0) -> list[str]:
    return text_of(latent_page(view, cursor, width, build_palette(DEFAULT_ENDPOINTS, "none")).lines).splitlines()


def test_a_latent_to_the_cell() -> None:
    assert shown(small(explanation="darkness", score=0.75, link="https://example.org/7")) == [
        "active at 0.25% of 12,345 tokens · largest activation 8.00",
        "https://example.org/7",
        "darkness (score 0.75)",
        "",
        "nearest decoder directions, by number key",
        "  1: 3 +.75   2: 400 -.50   ",
        "",
        "▸ context 7, position 41 · 8.00",
        "  the[ dark█]⏎▃x",
        "",
    ]


def test_what_is_missing_is_said() -> None:
    text = shown(small(examples=[], neighbours=[], density=0.0, max_activation=0.0))
    assert text[1] == "no explanation is stored: `dm-inspect interp` makes them"
    assert text[-1] == "It is active at none of the 12,345 tokens searched."
    assert "a dense latent" in shown(small(density=0.2))[0]
    assert "(not scored)" in "\n".join(shown(small(explanation="darkness")))


def test_the_cursor_marks_one_example_and_its_place_is_known() -> None:
    view = SESSION.latent(GetLatent(sae_id=SESSION.saes[0].sae_id, index=4))
    few = msgspec.structs.replace(view.card, drawn=view.card.drawn[:1])
    view = msgspec.structs.replace(view, examples=view.examples[:3], card=few)
    page = latent_page(view, 1, 120, build_palette(DEFAULT_ENDPOINTS, "none"))
    texts = ["".join(text for text, _ in line) for line in page.lines]
    assert [texts[start][:11] for start in page.starts[:-1]] == [
        "  context 5",
        "▸ context 1",
        "  context 1",
        "  context 6",
    ]
    assert "drawn at random, from 24" in texts[page.starts[3] - 2] and "90% are weaker" in texts[page.starts[3]]
    assert page.starts[-1] == len(page.lines)


@pytest.mark.parametrize("depth", ["truecolor", "16", "none"])
@pytest.mark.parametrize("width", [40, 77, 160])
def test_hostile_tokens_fit_and_are_symbols(depth: Depth, width: int) -> None:
    example = LatentExample(context=0, position=0, start=0, tokens=list(HOSTILE),
                            activations=pack(array("f", [1.0] * len(HOSTILE))))  # fmt: skip
    view = small(examples=[example], explanation="\x1b[2J", link="https://\x1b]0;x\x07")
    for line in latent_page(view, 0, width, build_palette(DEFAULT_ENDPOINTS, depth)).lines:
        text = "".join(piece for piece, _ in line)
        assert cell_width(text) <= width
        assert not any(unicodedata.category(character)[0] == "C" for character in text)


def test_the_tables_stand_above_the_examples_where_there_is_room_and_else_below() -> None:
    view = SESSION.latent(GetLatent(sae_id=SESSION.saes[0].sae_id, index=4))
    for width, above in ((120, True), (80, False)):
        lines = shown(view, width)
        (favoured,) = (number for number, line in enumerate(lines) if "favours and disfavours" in line)
        (strong,) = (number for number, line in enumerate(lines) if "How strong it is" in line)
        first = next(number for number, line in enumerate(lines) if line.startswith("▸ context"))
        assert (strong < first, strong == favoured) == (above, above)
        assert "2.00% of the SAE's squared error" in lines[1]


def test_the_table_has_a_line_per_token() -> None:
    assert examples_table(small()).splitlines() == [
        "sae\tlatent\texample\tcontext\tposition\ttoken\tactivation",
        "s\t7\t1\t6\t40\tthe\t0",
        "s\t7\t1\t6\t41\t dark\t8",
        "s\t7\t1\t6\t42\t\\n\t2",
        "s\t7\t1\t6\t43\tx\t0",
    ]
