"""The Worst tokens screen on stored results: what it shows, sorts, filters and groups, and where Enter goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inspector.reports.worst_tokens import GROUPS, listing
from inspector.session.protocol import StartJob
from inspector.store.notes import Notes
from inspector.store.results import save
from inspector.tui.screens.questions import NoteEntry
from inspector.tui.screens.stream import StreamScreen
from inspector.tui.screens.worst import WorstScreen
from inspector.tui.worst_list import about_lines, columns_for, head_line, row_line
from tests.store.objects import worst_result
from tests.tui.driving import Driven, driven
from tests.tui.stored_results import store

__all__ = ["store"]
SAE = "layer_3/resid/width_1k/l0_16"


def text_of(line: Any) -> str:
    return "".join(text for text, _ in line)


def here(n: int = 6, sae: str = "layer_3/resid/width_1024/l0_16", **changes: Any) -> dict[str, Any]:
    """Of the invented session's text and of the SAE that it begins with."""
    made = worst_result(n, **changes)
    made["provenance"] |= {"model": "demo", "text": "fake", "n_contexts": 300, "context_length": 256}
    made["result"]["sae"] = sae
    made["result"]["classes"]["sae"] = [sae, sae, "other"]
    return made


async def opened(app: Driven) -> WorstScreen:
    await app.press("w")
    await app.until(lambda: isinstance(app.app.screen, WorstScreen))
    screen = app.app.screen
    assert isinstance(screen, WorstScreen)
    await app.until(lambda: screen._read)
    await app.settle()
    return screen


def shown(app: Driven) -> list[str]:
    """Tokens or classes on the screen, as they stand."""
    return [line[2:].split("  ")[0] for line in app.screen_text()[3:9] if line.strip()]


async def test_places_worst_first_with_what_counts_above_and_the_token_below(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        await opened(app)
        text = app.screen_text()
        assert "worst tokens  SAE layer_3/resid/width_1024/l0_16" in text[0]
        assert "6 tokens · positions 8 to 20 · 3 contexts · 2 outliers apart" in text[1]
        assert text[2].split() == [
            "token", "class", "context", "position", "▼nonlinear", "linear", "error", "share", "%", "fvu", "%", "loss",
        ]  # fmt: skip
        assert text[3].split()[-8:] == ["1", "10", "6.00", "1.00", "6.00", "50.0", "25.0", "0.00"]  # context from 1
        assert "\x1b" not in "".join(text) and "␛[2J" in text[3]
        below = "\n".join(text[-9:])
        assert "context 1, position 10 · held out · ‖x‖ 8.00" in below
        assert "all places of this id: 7 tokens in 7 of 16 blocks of documents" in below


async def test_columns_sort_and_words_filter_as_they_are_typed(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        await app.press("right")
        await app.until(lambda: screen.sorting == ("linear", True) and shown(app)[0] == "' os'")
        await app.press("v")
        await app.until(lambda: screen.sorting == ("linear", False) and shown(app)[-1] == "' os'")
        await app.press("slash", "i", "m", "p")
        await app.until(lambda: shown(app) == ["' import'"])
        await app.press("enter", "escape")  # the first Escape lets the filter go
        await app.until(lambda: len(shown(app)) == 6)
        assert app.app.screen is screen
        await app.press("escape")
        await app.until(lambda: isinstance(app.app.screen, StreamScreen))


async def test_tab_groups_and_a_class_opens_its_places(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        for group in (*GROUPS[1:], GROUPS[0]):
            await app.press("tab")
            await app.until(lambda group=group: screen.group == group)  # type: ignore[misc]
        await app.press("tab", "tab")
        await app.until(lambda: shown(app) == ["all", "word start"])
        await app.press("down", "enter")
        await app.until(lambda: screen.group == "place" and screen.typed == "word start" and len(shown(app)) == 3)


async def test_a_click_on_a_heading_sorts_by_it(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        for descending in (True, False):
            head = app.screen_text()[2]
            await app.pilot.click(offset=(head.index("linear", head.index("nonlinear") + 9), 2))
            await app.until(lambda wanted=descending: screen.sorting == ("linear", wanted))  # type: ignore[misc]


async def test_enter_goes_to_the_place_in_the_stream(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        await opened(app)
        await app.press("down", "down", "enter")
        await app.until(lambda: isinstance(app.app.screen, StreamScreen) and app.home.state.place.position == 12)
        assert app.home.state.place.context == 1


@pytest.mark.parametrize("change", ["model", "text", "n_contexts", "hook_name", "null"])
async def test_results_of_another_text_are_not_shown(store: Path, change: str) -> None:
    made = here()
    made["provenance"][change] = 7 if change == "n_contexts" else "affine" if change == "null" else "another"
    save(made, "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        assert screen.stored is None and "Nothing is measured yet." in "\n".join(app.screen_text())


async def test_the_sae_of_the_stream_before_a_newer_result_of_another(store: Path) -> None:
    save(here(fingerprint="a" * 16), "dm-inspect run worst-tokens")
    save(here(fingerprint="b" * 16, sae="layer_3/resid/width_256/l0_8"), "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        assert screen.stored is not None and screen.stored.record.id == "worst-tokens-aaaaaaaaaa"


async def test_nothing_measured_m_starts_the_job_once_and_its_rows_appear(store: Path) -> None:
    async with driven() as app:
        screen = await opened(app)
        text = "\n".join(app.screen_text())
        assert "measures every token of this text" in text and "dm-inspect run worst-tokens" in text
        await app.press("m")
        await app.press("m")
        jobs = [message for message in app.asked(StartJob) if isinstance(message, StartJob)]
        assert [job.experiments for job in jobs] == [["worst-tokens"]]
        save(here(), "dm-inspect run worst-tokens")
        screen.look_again()
        await app.until(lambda: screen.stored is not None)
        await app.press("m")  # this SAE is measured
        assert len(app.asked(StartJob)) == 1


async def test_a_damaged_result_is_told(store: Path) -> None:
    made = here()
    made["result"]["places"]["loss"] = []
    save(made, "dm-inspect run worst-tokens")
    async with driven() as app:
        screen = await opened(app)
        assert "Measure it again" in screen.problem and "Measure it again" in "\n".join(app.screen_text())


async def test_a_row_is_noted_with_its_numbers(store: Path) -> None:
    save(here(), "dm-inspect run worst-tokens")
    async with driven() as app:
        await opened(app)
        await app.press("down", "down", "asterisk")
        await app.until(lambda: isinstance(app.app.screen, NoteEntry))
        await app.press(*"why", "enter")
        await app.until(lambda: Notes().all())
        (note,) = Notes().all()
        assert (note.words, note.subject.title) == ("why", "' the' in context 2, position 12")
        assert note.subject.about["numbers"]["nonlinear"] == 4.0


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
async def test_it_fits_every_window(store: Path, size: tuple[int, int]) -> None:
    save(here(200), "dm-inspect run worst-tokens")
    async with driven(size=size) as app:
        screen = await opened(app)
        assert "▼nonlinear" in app.screen_text()[2] and "token" in app.screen_text()[2]
        assert screen.query_one("#worst-about").display == (size[1] >= 18)
        await app.press("end")
        await app.until(lambda: screen.rows.cursor == 199)


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_the_column_that_is_sorted_by_is_always_there() -> None:
    for group in GROUPS:
        rows = listing(worst_result(), group)  # type: ignore[arg-type]
        for by in rows.shown:
            for width in (30, 56, 76, 116, 200):
                names = [name for name, _ in columns_for(rows, by, width)]
                assert names[0] == rows.shown[0]
                if width >= 56:
                    assert by in names
                line = text_of(row_line(rows, 0, by, width))
                assert len(text_of(head_line(rows, by, True, width + 4))) == len(line) + 2 <= width + 2 or width < 56


def test_means_stand_beside_their_intervals() -> None:
    rows = listing(worst_result(), "class")  # type: ignore[arg-type]
    assert [name for name, _ in columns_for(rows, "share", 76)][-3:] == ["linear", "share", "95%"]
    assert "[100, 100]" in text_of(row_line(rows, 0, "share", 76))


def test_a_token_seen_too_seldom_has_no_interval_and_says_how_often() -> None:
    made = worst_result()
    for name in ("nonlinear_half", "loss_half", "share_half", "linear_half", "total_half", "fvu_half"):
        made["result"]["tokens"][name] = [None] * 6
    rows = listing(made, "token")  # type: ignore[arg-type]
    lines = [text_of(line) for line in about_lines(rows, 0, rows, 90)]
    assert "its worst place: context 1, position 10" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["7", "nonlinear", "mean", "spread"]
