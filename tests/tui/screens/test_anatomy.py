"""The Anatomy screen on an invented session: two answers, places to go to, widths, failures, hostile tokens."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from inspector.drawing.palette import Depth, figure_palette
from inspector.drawing.palette_build import DEFAULT_ENDPOINTS, build_palette
from inspector.drawing.safe_text import cell_width
from inspector.session.card_tables import anatomy_sections, example_tables, latent_facts, latent_tables, similar_section
from inspector.session.protocol import Failed, GetAnatomy, GetLatent, GetSimilar
from inspector.tui.screens.anatomy import AnatomyScreen
from inspector.tui.screens.latent import LatentScreen, table_lines
from tests.fake_session import FakeSession
from tests.tui.driving import Driven, driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def opened(app: Driven) -> AnatomyScreen:
    await app.press("a")
    await app.until(lambda: isinstance(app.app.screen, AnatomyScreen))
    screen = app.app.screen
    assert isinstance(screen, AnatomyScreen)
    await app.settle()
    return screen


def whole(screen: AnatomyScreen) -> str:
    """The page, seen or not."""
    return "\n".join("".join(text for text, _ in line) for line in screen.page.lines)


async def test_it_asks_about_the_token_under_the_cursor_and_shows_both_answers() -> None:
    async with driven() as app:
        await app.press("right", "right")
        place = app.home.state.place
        screen = await opened(app)
        (asked,), (alike,) = app.asked(GetAnatomy), app.asked(GetSimilar)
        assert isinstance(asked, GetAnatomy) and isinstance(alike, GetSimilar)
        assert (asked.context, asked.position) == (alike.context, alike.position) == (place.context, place.position)
        text = whole(screen)
        for title in (
            "from width to width",
            "to the next token",
            "take it up",
            "few decoder directions",
            "most similar",
        ):
            assert title in text
        assert f"position {place.position}" in app.screen_text()[0]
        assert "searching" not in text


async def test_enter_opens_a_latent_that_takes_it_up_and_then_a_token_that_fails_alike() -> None:
    async with driven() as app:
        screen = await opened(app)
        assert screen.anatomy is not None and screen.anatomy.card.wider is not None and screen.similar is not None
        first = screen.anatomy.card.wider
        await app.press("enter")
        await app.until(lambda: isinstance(app.app.screen, LatentScreen))
        latent = app.app.screen
        assert isinstance(latent, LatentScreen) and latent.index == first.latents[0].index
        (asked,) = app.asked(GetLatent)
        assert isinstance(asked, GetLatent) and asked.sae_id == first.sae_id
        await app.press("right_square_bracket")
        assert latent.index == first.latents[1].index
        await app.press("escape")
        assert app.app.screen is screen
        await app.press(*["down"] * 30)  # past the last place it stays there
        found = screen.similar.card.found[-1]
        assert f"▸ {found.context + 1:>7}  {found.position:>8}" in whole(screen)
        await app.press("enter")
        await app.until(lambda: app.app.screen is app.home and app.home.state.place.context == found.context)
        await app.settle()
        assert app.home.state.place.position == found.position


async def test_the_cursor_is_always_in_sight() -> None:
    async with driven(size=(80, 24)) as app:
        screen = await opened(app)
        for key in [*["down"] * 26, *["up"] * 10]:
            await app.pilot.press(key)
            await app.pilot.pause()
            top, height = screen.page.scroll_offset.y, screen.page.room[1]
            assert top <= screen._starts[screen._cursor] < top + height
            assert whole(screen).count("▸ ") == 1


async def test_another_width_is_asked_for_and_the_widest_has_nothing_wider() -> None:
    async with driven() as app:
        screen = await opened(app)
        await app.press("5")
        asked = app.asked(GetAnatomy)[-1]
        assert isinstance(asked, GetAnatomy) and "4096" in asked.sae_id
        assert "No SAE that is loaded is wider." in whole(screen)
        await app.press("9")
        assert len(app.asked(GetAnatomy)) == 2


async def test_what_one_question_refuses_leaves_the_other_answer() -> None:
    session = FakeSession(hostile_share=0.0, epochs=1)
    session.failures[GetSimilar] = Failed(exit_code=5, message="Out of memory. Close something.")
    async with driven(session) as app:
        screen = await opened(app)
        assert "take it up" in whole(screen) and "Out of memory. Close something." in whole(screen)
    session.failures[GetAnatomy] = Failed(exit_code=4, message="The affine map is not fitted yet. Wait.")
    async with driven(session) as app:
        screen = await opened(app)
        assert "The affine map is not fitted yet. Wait." in whole(screen)
        await app.press("down", "enter", "3", "c")


async def test_every_table_is_copied() -> None:
    async with driven() as app:
        screen = await opened(app)
        await app.press("c")
        assert app.app.clipboard.count("─────") >= len(screen.sections)


SESSION = FakeSession(hostile_share=1.0)


@pytest.mark.parametrize("depth", ["truecolor", "16", "none"])
@pytest.mark.parametrize("width", [40, 78, 160])
def test_hostile_tokens_fit_and_are_symbols(depth: Depth, width: int) -> None:
    sae_id = SESSION.saes[0].sae_id
    styles = figure_palette(build_palette(DEFAULT_ENDPOINTS, depth))
    place = {"source": "context", "context": 3, "position": 60, "sae_id": sae_id}
    card = SESSION.anatomy(GetAnatomy(**place)).card  # type: ignore[arg-type]
    alike = SESSION.similar(GetSimilar(**place)).card  # type: ignore[arg-type]
    view = SESSION.latent(GetLatent(sae_id=sae_id, index=4))
    tables = [section.table for section in [*anatomy_sections(card, sae_id), similar_section(alike, card.token)]]
    for table in [*tables, *latent_tables(view), *example_tables(view)]:
        for line in table_lines(table, width, styles, 0):
            text = "".join(piece for piece, _ in line)
            assert cell_width(text) <= width
            assert not any(unicodedata.category(character)[0] == "C" for character in text)
    assert "\x1b" not in "".join(latent_facts(view))


def test_every_row_that_leads_somewhere_fits_into_eighty_columns() -> None:
    sae_id = SESSION.saes[0].sae_id
    place = {"source": "context", "context": 3, "position": 60, "sae_id": sae_id}
    card = SESSION.anatomy(GetAnatomy(**place)).card  # type: ignore[arg-type]
    styles = figure_palette(build_palette(DEFAULT_ENDPOINTS, "none"))
    sections = [*anatomy_sections(card, sae_id), similar_section(SESSION.similar(GetSimilar(**place)).card, "x")]  # type: ignore[arg-type]
    for section in sections:
        if section.goes:
            assert len(section.goes) == len(section.table.rows)
            lines = table_lines(section.table, 78, styles)
            texts = ["".join(text for text, _ in line) for line in lines[2 : 2 + len(section.goes)]]
            assert not any(text.endswith("…") and "…" not in str(section.table.rows[i][-1])
                           for i, text in enumerate(texts))  # fmt: skip
