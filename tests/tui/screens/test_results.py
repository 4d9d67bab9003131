"""The Results screen on stored results: what it lists and draws, its keys, and what it does without a session."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from inspector.session.protocol import Failed, StartJob
from inspector.store.results import save
from inspector.tui.result_list import list_height
from inspector.tui.screens import export
from inspector.tui.screens.base import OpenScreen
from inspector.tui.screens.export import Export, ExportScreen
from inspector.tui.screens.result_pages import ClaimsScreen, CompareScreen
from inspector.tui.screens.results import ResultsScreen
from inspector.tui.themes import palette_of
from inspector.tui.widgets.scrolling import LinesView, RowList
from tests.fake_jobs import FakeJobs
from tests.fake_session import FakeSession
from tests.tui.driving import Driven, driven
from tests.tui.stored_results import COMMAND, norm_result, save_at, store

__all__ = ["store"]


def results_of(app: Driven) -> ResultsScreen:
    assert isinstance(app.app.screen, ResultsScreen)
    return app.app.screen


async def opened(app: Driven) -> ResultsScreen:
    """The screen, with its first result drawn."""
    await app.press("r")
    await app.until(lambda: isinstance(app.app.screen, ResultsScreen))
    screen = results_of(app)
    await app.until(lambda: screen.opened is not None and screen.query_one("#figure", LinesView).lines)
    await app.settle()
    return screen


def three(folder: Path) -> None:
    save_at(norm_result("a" * 16, shift=-0.125), "2026-01-02T03:04:05+00:00")
    save_at(norm_result("b" * 16, profile="paper-code"), "2026-01-03T03:04:05+00:00")
    save_at(norm_result("c" * 16), "2026-01-04T03:04:05+00:00")


async def test_the_list_is_newest_first_and_the_first_result_is_drawn(store: Path) -> None:
    three(store)
    async with driven() as app:
        await opened(app)
        text = app.screen_text()
        assert text[0].split() == ["dm-inspect", "results", "3", "stored"]
        assert [line.rstrip() for line in text[1:5]] == [
            "    experiment       model               hook                      profile     measured, UTC",
            "▸   norm-prediction  ␛[2J</script><b>&⇄  blocks.3.hook_resid_post  careful     2026-01-04 03:04",
            "    norm-prediction  ␛[2J</script><b>&⇄  blocks.3.hook_resid_post  paper-code  2026-01-03 03:04",
            "    norm-prediction  ␛[2J</script><b>&⇄  blocks.3.hook_resid_post  careful     2026-01-02 03:04",
        ]
        whole = "\n".join(text)
        assert "Norm prediction" in whole and "1 of 3" in whole
        assert "norm-prediction-cccccccccc" in whole


async def test_beside_the_figure_stands_what_it_means(store: Path) -> None:
    three(store)
    async with driven(size=(140, 60)) as app:
        screen = await opened(app)
        said = "\n".join("".join(text for text, _ in line) for line in screen.query_one("#facts", LinesView).lines)
        joined = " ".join(said.split())
        for part in (
            "C1 cannot tell: The size of the error is linearly predictable.",
            "paper R² 0.70 to 0.95; '> 90%'",
            "here 0.5; of 0.500 [0.450, 0.550]",
            "In the paper: Sec. 4.1, Eq. 10",
            "definition: R² = 1 - a / b.",
            "the paper: range 0.7 to 0.95",
            "control gaussian null: r2_norm 0.0125. As if Gaussian ␛[2J",
            "warning: Something about ␛[2J",
            "contradicted by: ",
            "profile careful, seed 7, fingerprint cccccccccccc",
            f"repeat with, y copies it: {COMMAND}",
        ):
            assert part in joined, part
        assert not set(said) & {"\x1b", "\u202e"}


async def test_brackets_step_through_figures_and_tables(store: Path) -> None:
    three(store)
    async with driven() as app:
        await opened(app)
        seen = []
        for _ in range(4):
            seen.append(app.screen_text()[5].split("about it")[0].split())
            await app.press("right_square_bracket")
        assert seen == [["curve", "1", "of", "3"], ["grid", "2", "of", "3"], ["table", "3", "of", "3"],
                        ["curve", "1", "of", "3"]]  # fmt: skip
        await app.press("left_square_bracket")
        assert app.screen_text()[5].split()[:4] == ["curve", "1", "of", "3"]


async def test_another_result_is_drawn_where_the_cursor_is(store: Path) -> None:
    three(store)
    async with driven() as app:
        screen = await opened(app)
        await app.press("down", "down")
        await app.until(lambda: screen.opened is not None and screen.opened.record.id == "norm-prediction-aaaaaaaaaa")
        await app.settle()
        assert "norm-prediction-aaaaaaaaaa" in app.screen_text()[5]
        await app.press("down")
        assert screen.query_one(RowList).cursor == 2


async def test_tab_walks_the_panes_and_f_hides_the_list(store: Path) -> None:
    three(store)
    async with driven(size=(80, 24)) as app:
        screen = await opened(app)
        assert [screen.query_one(f"#{name}").display for name in ("results-left", "results-right")] == [True, False]
        await app.press("tab")
        assert app.app.focused is not None and app.app.focused.id == "figure"
        await app.press("tab")
        assert app.app.focused.id == "facts"
        assert [screen.query_one(f"#{name}").display for name in ("results-left", "results-right")] == [False, True]
        await app.press("f")
        assert not screen.query_one(RowList).display
        await app.press("escape")
        assert screen.query_one(RowList).display
        await app.press("escape")
        assert app.app.screen is app.home


async def test_two_marked_results_are_compared(store: Path) -> None:
    three(store)
    async with driven() as app:
        screen = await opened(app)
        await app.press("c")
        assert app.app.screen is screen
        await app.press("space", "down", "space", "c")
        await app.until(lambda: isinstance(app.app.screen, CompareScreen))
        page = app.app.screen.query_one(LinesView)
        await app.until(lambda: page.lines)
        await app.settle()
        text = "\n".join("".join(piece for piece, _ in line) for line in page.lines)
        assert "norm-prediction-cccccccccc" in text and "norm-prediction-aaaaaaaaaa" in text
        assert "they differ in: nothing but what was measured" in text
        (line,) = [line for line in text.splitlines() if line.startswith("a ") and "-0.1250" in line]
        assert line.split()[4:7] == ["0.5000", "0.3750", "-0.1250"]
        await app.press("s")
        await app.settle()
        assert app.screen_text()[1].split() == ["norm-prediction-aaaaaaaaaa", "norm-prediction-cccccccccc"]
        await app.press("escape")
        assert app.app.screen is screen


async def board(app: Driven) -> ClaimsScreen:
    await app.press("p")
    await app.until(lambda: isinstance(app.app.screen, ClaimsScreen) and app.app.screen.verdicts)
    await app.settle()
    assert isinstance(app.app.screen, ClaimsScreen)
    return app.app.screen


async def test_claims_are_a_board_whose_enter_measures_what_is_missing(store: Path) -> None:
    three(store)
    async with driven(FakeSession(jobs=FakeJobs(hold=True))) as app:
        screen = await opened(app)
        claims = await board(app)
        text = app.screen_text()
        assert "claims   0 ✓ consistent   0 ✗ contradicts   19 ? cannot tell" in text[0]
        assert text[1].split()[:5] == [
            "▸",
            "?",
            "cannot",
            "tell",
            "C1",
        ]  # outside the range of the paper
        assert claims.missing == () and "Enter its result" in text[-1]
        lacking = next(row for row, verdict in enumerate(claims.verdicts) if "norm-prediction" not in verdict.why
                       and verdict.why.startswith("No result of"))  # fmt: skip
        await app.press(*["down"] * lacking)
        await app.settle()
        assert claims.missing and "Enter run what is missing" in app.screen_text()[-1]
        missing = list(claims.missing)
        await app.press("enter", "enter")
        await app.until(lambda: app.asked(StartJob))
        assert [asked.experiments for asked in app.asked(StartJob)] == [missing], "not twice while it is under way"
        await app.press("home", "enter")
        await app.until(lambda: app.app.screen is screen and screen.record is not None)
        assert screen.record.experiment == "norm-prediction"  # type: ignore[union-attr]


async def test_one_key_on_the_claims_writes_the_report(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three(store)
    written: list[Export] = []

    async def run_export(asked: Export) -> str:
        written.append(asked)
        return ""

    monkeypatch.setattr(export, "run_export", run_export)
    monkeypatch.setattr(export, "cannot", lambda _: "")
    async with driven() as app:
        await opened(app)
        await board(app)
        await app.press("w")
        await app.until(lambda: written)
        assert written[0].path.suffix == ".html" and "norm-prediction-cccccccccc" in written[0].command


async def test_results_are_narrowed_by_words_and_marks_outlive_them(store: Path) -> None:
    three(store)
    async with driven() as app:
        screen = await opened(app)
        everything = len(screen.records)
        await app.press("space", "/", *"bbbb")
        await app.until(lambda: [each.id for each in screen.records] == ["norm-prediction-bbbbbbbbbb"])
        assert [each.id for each in screen.chosen] == screen.marks == ["norm-prediction-cccccccccc"]
        await app.press("enter", "escape")
        await app.until(lambda: len(screen.records) == everything)
        assert app.app.screen is screen, "the first Escape lets the words go"


async def test_a_result_that_is_stored_meanwhile_appears(store: Path) -> None:
    three(store)
    async with driven() as app:
        screen = await opened(app)
        save_at(norm_result("d" * 16), "2026-02-04T03:04:05+00:00")
        await app.until(lambda: len(screen.records) == 4)
        await app.settle()
        assert screen.records[0].id == "norm-prediction-dddddddddd"
        assert screen.record is not None
        assert screen.record.id == "norm-prediction-cccccccccc"  # the cursor stays on its result


async def test_the_app_opens_it_at_an_id(store: Path) -> None:
    three(store)
    async with driven() as app:
        app.home.post_message(OpenScreen("results", ["norm-prediction-aaaaaaaaaa"]))
        await app.until(lambda: isinstance(app.app.screen, ResultsScreen) and results_of(app).opened is not None)
        assert results_of(app).record is not None
        assert results_of(app).record.id == "norm-prediction-aaaaaaaaaa"  # type: ignore[union-attr]
        app.app.screen.post_message(OpenScreen("results", ["norm-prediction-bbbbbbbbbb"]))
        await app.until(lambda: results_of(app).record.id == "norm-prediction-bbbbbbbbbb")  # type: ignore[union-attr]
        assert len(app.app.screen_stack) == 3  # the first picture, the Stream, one Results screen


async def test_it_works_while_the_session_is_loading(store: Path) -> None:
    three(store)
    async with driven(FakeSession(load_seconds=600.0), wait=False) as app:
        await opened(app)
        assert app.home.session.ready is None
        await app.press("escape")
        assert app.app.screen is app.home


async def test_with_no_session_the_key_connects_again_and_the_palette_still_opens_it(store: Path) -> None:
    three(store)
    session = FakeSession(fail_loading=Failed(exit_code=3, message="It is missing. Look for it."))
    async with driven(session, wait=False) as app:
        await app.until(lambda: app.home.session.stage == "failed")
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2)
        assert app.app.screen is app.home
        await app.home.run_action("app.open_screen('results')")
        await app.until(lambda: isinstance(app.app.screen, ResultsScreen))


async def test_nothing_stored_says_what_to_do(store: Path) -> None:
    async with driven(size=(80, 24)) as app:
        await app.press("r")
        await app.until(lambda: isinstance(app.app.screen, ResultsScreen) and results_of(app).shelf is not None)
        await app.settle()
        text = "\n".join(app.screen_text())
        assert "Nothing is measured yet." in text
        assert "dm-inspect run norm-prediction" in text
        for key in ("space", "c", "x", "y", "f", "tab", "right_square_bracket"):
            await app.press(key)
        assert isinstance(app.app.screen, ResultsScreen)


async def test_a_result_that_cannot_be_drawn_says_why(store: Path) -> None:
    broken = norm_result("e" * 16)
    for row in broken["saes"]:
        del row["fvu"]
    save(broken, COMMAND)
    save(norm_result("f" * 16) | {"experiment": "no-such-experiment"}, COMMAND)
    async with driven() as app:
        screen = await opened(app)
        texts = []
        for _ in range(2):
            await app.until(lambda: screen.opened is not None and screen.opened.record == screen.record)
            await app.settle()
            left = [line.split("  ")[0].strip() for line in app.screen_text()]
            texts.append(" ".join(part for part in left if part))
            await app.press("down")
        assert any("lacks what its figures need" in text for text in texts)
        assert any("There is no experiment 'no-such-experiment'" in text for text in texts)


async def test_a_damaged_file_is_named_and_hides_no_other(store: Path) -> None:
    three(store)
    (store / "norm-prediction-0000000000.json").write_text("{")
    async with driven(notifications=True) as app:
        screen = await opened(app)
        assert len(screen.records) == 3
        assert any("is damaged" in note.message for note in app.app._notifications)


async def test_the_command_is_copied(store: Path) -> None:
    three(store)
    async with driven() as app:
        await opened(app)
        await app.press("y")
        assert app.app.clipboard == COMMAND
        assert shlex.split(app.app.clipboard)[:2] == ["dm-inspect", "run"]


async def test_an_export_is_the_command_that_writes_the_file(store: Path, tmp_path: Path) -> None:
    three(store)
    async with driven() as app:
        await opened(app)
        await app.press("x")
        assert isinstance(app.app.screen, ExportScreen)
        dialog = app.app.screen
        from textual.widgets import Input

        dialog.query_one(Input).value = str(tmp_path)
        await app.settle()
        path = tmp_path / "norm-prediction-cccccccccc.csv"
        assert [export.command for export in dialog.planned] == [
            f"dm-inspect results export norm-prediction-cccccccccc --format csv --out {path}"
        ]
        await app.press("enter")
        await app.until(lambda: app.app.screen is not dialog, seconds=120)
        assert path.read_text().splitlines()[0].startswith("experiment,profile,sae,")
        assert len(path.read_text().splitlines()) == 3


async def test_an_export_that_fails_says_why_and_stays(store: Path, short_path: Path) -> None:
    three(store)
    async with driven() as app:
        await opened(app)
        await app.press("x")
        dialog = app.app.screen
        assert isinstance(dialog, ExportScreen)
        from textual.widgets import Input

        dialog.query_one(Input).value = str(short_path / "missing")
        await app.press("down", "down", "enter")
        await app.until(lambda: not dialog.writing, seconds=120)
        shown = "".join("".join(app.screen_text()).split())  # where lines break depends on the folder's name
        assert "doesnotexist.Createit,orchooseanotherplace." in shown


async def test_help_tells_the_keys(store: Path) -> None:
    three(store)
    async with driven(size=(120, 60)) as app:
        await opened(app)
        await app.press("question_mark")
        text = "\n".join(app.screen_text())
        for words in ("Results", "Mark this result", "Compare the two marked results", "is never evidence"):
            assert words in text


@pytest.mark.parametrize("theme", ["light", "sixteen"])
async def test_themes_change_under_it(store: Path, theme: str) -> None:
    three(store)
    async with driven() as app:
        screen = await opened(app)
        app.app.choose_theme(theme)
        await app.settle()
        plain = palette_of(app.app).plain
        assert screen.query_one("#figure", LinesView)._plain == plain


def test_the_list_leaves_room_for_figures() -> None:
    assert [list_height(count, height) for count, height in ((1, 24), (100, 24), (100, 40), (3, 40))] == [2, 7, 10, 4]


async def test_nothing_is_sent_while_nothing_happens(store: Path) -> None:
    """It looks at the folder every two seconds; that costs the terminal nothing."""
    from tests.tui.test_app import Recorded

    three(store)
    async with driven(app_class=Recorded) as app:
        await opened(app)
        recorder = app.app
        assert isinstance(recorder, Recorded)
        sent = recorder.recorded()
        await app.pilot.pause(2.5)
        assert sent == []
        await app.press("down")
        await app.until(lambda: sent)
