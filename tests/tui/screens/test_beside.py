"""Two SAEs side by side, from the keyboard, against an invented session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspector.drawing.tokens import NONLINEAR, TOTAL
from inspector.tui.screens.beside import BesideScreen, joint, other_row, short, summary
from inspector.tui.selection import SaeChoice
from tests.fake_session import FakeSession
from tests.tui.driving import Driven, driven
from tests.tui.texts import scored_text


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


async def opened(app: Driven) -> BesideScreen:
    await app.press("D")
    await app.until(lambda: isinstance(app.app.screen, BesideScreen))
    await app.settle()
    screen = app.app.screen
    assert isinstance(screen, BesideScreen)
    return screen


async def test_both_panes_show_the_tokens_each_by_its_own_sae_on_one_scale() -> None:
    async with driven() as app:
        screen = await opened(app)
        first, second = screen.panes
        assert (first.sae, second.sae) == tuple(screen.rows) and first.sae == app.home.state.row
        assert first.document is second.document is app.home.state.text.document  # type: ignore[union-attr]
        assert first.ranges == second.ranges != {}
        assert (first.cursor, second.cursor) == (32, 32)
        lines = app.screen_text()
        assert lines[0].startswith(" dm-inspect  1k/16 and 4k/16 · SAE error norm")
        assert "1k/16 · layer_3/resid/width_1024/l0_16" in lines[1] and "4k/16 · layer_3" in lines[1]


async def test_the_cursors_go_together_and_enter_takes_it_to_the_stream() -> None:
    async with driven() as app:
        screen = await opened(app)
        await app.press("right", "down", "tab", "right")
        first, second = screen.panes
        assert first.cursor == second.cursor > 33
        position = first.cursor
        await app.press("enter")
        assert app.app.screen is app.home
        assert app.home.state.place.position == app.home.tokens.cursor == position


async def test_the_difference_is_what_the_numbers_say_and_n_walks_over_the_largest() -> None:
    async with driven() as app:
        screen = await opened(app)
        text = screen.text
        a, b = (np.array(text.values(row, TOTAL), dtype=float) for row in screen.rows)
        by = (b - a) / np.maximum(a, b)
        await app.press("D")
        pane = screen.panes[0]
        assert np.allclose(np.array(pane.document.saes[0].sae_error_norm), by, atol=1e-6)  # type: ignore[union-attr]
        assert screen.query_one("#second").region.width == 0, "one pane says it"
        assert "1k/16 is larger ◂ ▸ 4k/16 is larger" in app.screen_text()[-7]
        kept = sorted(text.document.included(), key=lambda p: (-abs(by[p]), p))
        for position in kept[:3]:
            await app.press("n")
            assert pane.cursor == position
        assert any(f"{100 * by[kept[2]]:+.0f}%" in line for line in app.screen_text()[-6:])
        await app.press("D", "N")
        assert screen.panes[1].cursor == kept[1]


async def test_any_two_saes_and_the_next_context(state_home: Path) -> None:
    async with driven() as app:
        screen = await opened(app)
        choice = screen.choice
        await app.press("b")
        assert short(choice.saes[screen.rows[1]]) == "4k/32"
        await app.press("a", "A", "A")
        assert screen.rows[0] == choice.row - 1
        for _ in choice.saes:
            await app.press("a")
            assert screen.rows[0] != screen.rows[1]
        await app.press("greater_than_sign")
        await app.until(lambda: screen.text.document.context == 1)
        assert screen.panes[0].document is screen.panes[1].document is screen.text.document
        await app.press("m", "m")
        assert screen.measure.id == "linear"
        await app.press("C")
        (table,) = (state_home / "dm-inspect" / "exports").glob("two-saes-context-2.tsv")
        assert len(table.read_text().splitlines()) == 1 + 2 * 256
        await app.press("escape")
        assert app.app.screen is app.home


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
async def test_it_fits_every_window(size: tuple[int, int]) -> None:
    async with driven(size=size) as app:
        screen = await opened(app)
        lines = app.screen_text()
        assert screen.query_one("#second").region.width == (0 if size[0] < 100 else pytest.approx(size[0] // 2, abs=1))
        assert lines[-1].rstrip().endswith("Esc back")
        assert screen.panes[0].region.height >= 5


async def test_one_key_the_palette_and_the_help_lead_there() -> None:
    async with driven() as app:
        assert "Two SAEs side by side, token by token" in {c.title for c in app.app.get_system_commands(app.home)}
        await opened(app)
        await app.press("question_mark")
        assert any("coloured by one SAE on the left" in line for line in app.screen_text())


def test_the_other_sae_is_a_wider_one_that_is_shown() -> None:
    choice = SaeChoice.of(FakeSession().saes)
    assert choice.saes[other_row(choice)].d_sae == 4096
    assert choice.saes[other_row(choice.press(4))].d_sae == 256
    assert other_row(SaeChoice.of(FakeSession(widths=(256,)).saes)) != SaeChoice.of(FakeSession(widths=(256,)).saes).row


def test_one_scale_holds_both() -> None:
    assert joint({"total": (1.0, 5.0), "fvu": (0.0, 1.0)}, {"total": (2.0, 9.0)}) == {"total": (1.0, 9.0)}


def test_a_text_is_summed_up_as_numpy_does() -> None:
    text = scored_text(12)
    found = summary(text, (0, 1), NONLINEAR)
    kept = list(text.document.included())
    a, b = (np.array(text.values(row, NONLINEAR), dtype=float)[kept] for row in (0, 1))
    assert (found.n, found.n_second_less) == (len(kept), int((b < a).sum()))
    assert found.means == pytest.approx((a.mean(), b.mean()))
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])  # float64 sums on both sides
    assert summary(scored_text(1), (0, 1), NONLINEAR).n == 0, "its only token is excluded"


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_no_number_below_the_tokens_is_cut(size: tuple[int, int]) -> None:
    async with driven(size=size) as app:
        await app.press("D")
        await app.until(lambda: isinstance(app.app.screen, BesideScreen))
        await app.settle()
        *_, head, first, second, apart, told, _ = app.screen_text()
        assert head.split()[-6:] == ["total", "linear", "nonlin", "share", "FVU", "L0"]
        assert len(first.split()) == len(second.split()) == 7 and len(apart.split()) == 7
        assert "…" not in head + first + second + apart + told


@pytest.mark.parametrize("theme", ["okabe", "sixteen"])
async def test_a_small_window_has_the_large_plot_and_what_stands_over_the_tokens_hides_no_more_than_itself(
    theme: str,
) -> None:
    async with driven(size=(60, 16), theme=theme) as app:
        tokens = app.screen_text()[4]
        await app.press("asterisk")
        assert "note on" in app.screen_text()[13] and app.screen_text()[4] == tokens
        await app.press("escape", "p")
        assert app.screen_text()[4] == tokens
        await app.press("escape", "z")
        assert "norm of the SAE error against token" in app.screen_text()[0]
