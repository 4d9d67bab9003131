"""The Stream screen from the keyboard, against an invented session."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from textual.events import MouseMove, Paste
from textual.widgets import Input

from inspector.drawing.tokens import MODES
from inspector.session.protocol import AnalysePrompt, Cancel, Failed, Find, Generate, GetContext, GetDetail, GetPairs
from inspector.tui.screens.enlarged import EnlargedTrace
from inspector.tui.screens.help import HelpScreen
from inspector.tui.screens.texts import PromptArea, PromptScreen, TextsScreen
from inspector.tui.widgets.detail import DetailPane
from inspector.tui.widgets.entry import CommandBar
from inspector.tui.widgets.token_lines import rich_style
from inspector.tui.widgets.trace import TracePane
from tests.fake_session import WORDS, FakeSession
from tests.tui.driving import Driven, driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def plain(**options: object) -> FakeSession:
    return FakeSession(**{"hostile_share": 0.0, "epochs": 1, **options})  # type: ignore[arg-type]


# ---- what is there --------------------------------------------------------------------------------------------------


async def test_the_first_text_comes_by_itself_with_the_cursor_on_the_first_token_that_counts() -> None:
    async with driven() as app:
        assert app.home.state.place.position == app.home.tokens.cursor == 32
        await app.until(lambda: "'" in app.screen_text()[2])  # the details of the token under the cursor
        lines = app.screen_text()
        assert lines[0] == (
            " dm-inspect  demo · layer 3 · resid_post                     "
            "  widths 1 256●  2 512○  3 1k◉  4 2k○  5 4k●  L0≈16 (16.0) "
        )
        assert lines[2].startswith("▌tokens · 1k · linear and nonlinear error  fake/module_0.py tok…   '")
        assert lines[-1].startswith(
            " ←→ token   m mode   1-5 width   [ ] L0   n worst   / find   p prompt   g generate"
        )


async def test_before_the_session_answers_the_screen_says_what_is_going_on() -> None:
    async with driven(plain(load_seconds=30.0), wait=False) as app:
        await app.until(lambda: app.home.session.stage == "loading")
        lines = app.screen_text()
        assert lines[0].startswith(" dm-inspect  demo ")
        assert any(re.match(r"   loading demo   \d+ s", line) for line in lines)
        assert lines[-1].rstrip() == " q quit   ? help"


async def test_better_scores_of_the_same_text_keep_the_cursor() -> None:
    async with driven(plain(epochs=3, epoch_seconds=0.15)) as app:
        await app.press("right", "right")
        assert app.home.state.place.position == 34
        await app.until(lambda: app.home.state.text is not None and app.home.state.text.document.epoch == 3)
        assert app.home.state.place.position == app.home.tokens.cursor == 34
        assert app.home.tokens.document is app.home.state.text.document  # type: ignore[union-attr]


# ---- cursor and detail ----------------------------------------------------------------------------------------------


async def test_a_run_of_steps_asks_for_its_first_token_at_once_and_for_its_last_when_it_has_ended() -> None:
    async with driven() as app:
        await app.until(lambda: app.asked(GetDetail) and app.home.state.detail is not None)
        await app.settle()
        before = len(app.asked(GetDetail))
        for position in (33, 34, 35, 36, 37, 34):
            app.home.tokens.move_to(position)
        await app.until(lambda: any(m.position == 34 for m in app.asked(GetDetail)[before:]))  # type: ignore[attr-defined]
        await app.settle()
        asked = app.asked(GetDetail)[before:]
        assert 1 <= len(asked) <= 2
        last = asked[-1]
        assert isinstance(last, GetDetail)
        assert (last.source, last.context, last.position) == ("context", 0, 34)
        assert last.sae_id == app.home.state.choice.sae.sae_id  # type: ignore[union-attr]


async def test_an_error_about_a_token_is_shown_in_its_pane() -> None:
    failure = Failed(exit_code=5, message="There is no memory left for the splice. Use a smaller batch.")
    async with driven(plain(failures={GetDetail: failure})) as app:
        await app.until(lambda: app.home.state.problem)
        assert any("There is no memory left" in line for line in app.screen_text())


async def test_walking_past_the_end_of_a_context_leads_to_the_next_and_back() -> None:
    async with driven(plain(context_length=40)) as app:
        await app.press("end")
        assert app.home.state.place.position == 39
        await app.press("right")
        await app.until(lambda: app.home.state.place.context == 1)
        assert app.home.state.place.position == 0
        await app.press("left")
        await app.until(lambda: app.home.state.place.context == 0)
        assert app.home.state.place.position == 39


async def test_contexts_page_round_and_round() -> None:
    async with driven(plain(n_contexts=3)) as app:
        for key, context in ((">", 1), (".", 2), (".", 0), ("<", 2), (",", 1)):
            await app.press({">": "greater_than_sign", "<": "less_than_sign", ",": "comma", ".": "full_stop"}[key])
            await app.until(
                lambda context=context: (
                    app.home.state.place.context == context and app.home.state.text.document.context == context
                )
            )
        assert "context 2/3" in app.screen_text()[1]


# ---- widths, L0, modes ----------------------------------------------------------------------------------------------


async def test_number_keys_enable_and_colour() -> None:
    async with driven() as app:
        await app.press("2")
        choice = app.home.state.choice
        assert choice is not None
        assert (choice.active, sorted(choice.enabled)) == (1, [0, 1, 2, 4])
        assert app.home.tokens.sae == choice.row
        assert "2 512◉" in app.screen_text()[0]
        await app.press("2")
        assert "2 512○" in app.screen_text()[0]
        await app.press("9")
        assert app.home.state.choice.enabled == {0, 2, 4}  # type: ignore[union-attr]


async def test_brackets_step_the_l0() -> None:
    async with driven() as app:
        await app.press("right_square_bracket")
        assert app.home.state.choice is not None
        assert app.home.state.choice.sae.sae_id == "layer_3/resid/width_1024/l0_32"
        assert app.home.tokens.sae == app.home.state.choice.row
        assert "L0≈32" in app.screen_text()[0]
        await app.press("left_square_bracket", "left_square_bracket", "left_square_bracket")
        assert app.home.state.choice.sae.nominal_l0 == 8


async def test_pairs_are_asked_for_what_is_enabled() -> None:
    async with driven() as app:
        await app.until(lambda: app.home.state.pairs is not None)
        await app.press("2")
        await app.until(lambda: len(app.home.state.pairs.sae_ids) == 4)  # type: ignore[union-attr]
        assert app.asked(GetPairs)[-1].sae_ids == [f"layer_3/resid/width_{w}/l0_16" for w in (256, 512, 1024, 4096)]  # type: ignore[union-attr]


async def test_modes_go_round_in_both_directions() -> None:
    async with driven() as app:
        seen = []
        for _ in MODES:
            seen.append(app.home.state.mode.id)
            await app.press("m")
        assert seen == [mode.id for mode in MODES]
        assert app.home.state.mode is MODES[0]
        await app.press("M")
        assert app.home.state.mode is app.home.tokens.mode is MODES[-1]
        assert "tokens · loss" in app.screen_text()[2]


# ---- worst tokens and search ----------------------------------------------------------------------------------------


async def test_n_walks_over_the_worst_tokens_and_on_to_the_next_context() -> None:
    async with driven() as app:
        text = app.home.state.text
        assert text is not None
        ranked = text.ranked(app.home.state.row, app.home.state.mode)
        for position in ranked:
            await app.press("n")
            assert app.home.state.place.position == position
        await app.press("n")
        await app.until(lambda: app.home.state.place.context == 1)
        assert app.home.state.place.position == app.home.state.text.ranked(app.home.state.row, app.home.state.mode)[0]  # type: ignore[union-attr]
        await app.press("N")
        await app.until(lambda: app.home.state.place.context == 0)
        assert app.home.state.place.position == ranked[-1]


async def find(app: Driven, text: str) -> None:
    await app.press("slash")
    app.app.screen.query_one(Input).value = text
    await app.press("enter")


async def test_find_goes_to_the_first_hit_and_n_to_the_next_until_escape() -> None:
    async with driven() as app:
        await find(app, "Dark matter")
        await app.until(lambda: app.home.state.search is not None and app.home.state.search.hit is not None)
        hits = app.home.state.search.hits  # type: ignore[union-attr]
        tokens = [WORDS[i] if i < len(WORDS) else "" for i in app.client.session.token_ids(hits[0].context)]
        assert "".join(tokens[hits[0].position : hits[0].position + 2]) == " dark matter"
        await app.until(
            lambda: (app.home.state.place.context, app.home.state.place.position) == (hits[0].context, hits[0].position)
        )
        assert app.screen_text()[2].startswith(f"▌find 'Dark matter' 1/{len(hits)}")
        assert hits[0].context > 0
        assert [hit.start for hit in app.home.tokens._hits] == [hits[0].position], "marked in another context, too"
        await app.press("n")
        await app.until(
            lambda: (app.home.state.place.context, app.home.state.place.position) == (hits[1].context, hits[1].position)
        )
        await app.press("escape")
        assert app.home.state.search is None
        assert app.home.tokens.has_focus


async def test_what_is_nowhere_is_said_to_be_nowhere() -> None:
    async with driven(notifications=True) as app:
        await find(app, "zzz")
        await app.until(lambda: app.asked(Find) and app.home.state.search is None)
        assert [n.message for n in app.app._notifications] == ["'zzz' is in none of the contexts."]


async def test_escape_closes_the_line_and_nothing_is_asked() -> None:
    async with driven() as app:
        await app.press("slash")
        assert app.home.query_one(CommandBar).display
        await app.press("q", "escape")
        assert not app.home.query_one(CommandBar).display
        assert app.asked(Find) == []
        assert app.home.tokens.has_focus


# ---- prompts and generation -----------------------------------------------------------------------------------------


async def test_a_prompt_is_scored_and_escape_leads_back() -> None:
    async with driven() as app:
        await app.press("right", "right", "p")
        await app.until(lambda: isinstance(app.app.screen, PromptScreen))
        await app.press(*"self", "space", *"dark")
        assert any("Enter score its tokens   ctrl+j new line   Esc close" in line for line in app.screen_text())
        await app.press("enter")
        await app.until(lambda: app.home.state.place.source == "prompt")
        assert app.asked(AnalysePrompt)[0].text == "self dark"  # type: ignore[union-attr]
        assert app.home.state.text.document.tokens == ["<bos>", " self", " dark"]  # type: ignore[union-attr]
        assert app.screen_text()[1].rstrip().endswith("your text 1/1")
        await app.press("escape")
        await app.until(lambda: app.home.state.place.source == "context")
        assert app.home.state.place.position == 34


PASTED = "def f(x):\n\treturn \x1b[31mx\x1b]0;owned\x07\n\n# \u202e\x0c end\u2028\n  last "


async def test_a_pasted_text_is_scored_whole_and_no_control_character_reaches_the_terminal() -> None:
    async with driven() as app:
        await app.press("p")
        await app.until(lambda: isinstance(app.app.screen, PromptScreen))
        app.app.screen.query_one(PromptArea).post_message(Paste(PASTED.replace("\n", "\r")))
        await app.settle()
        shown = "\n".join(app.screen_text())
        assert "return ␛[31mx␛]0;owned␇" in shown and "⇄␌ end↵" in shown
        assert not any(
            unicodedata.category(character) in ("Cc", "Cf", "Co", "Zl") for character in shown if character != "\n"
        )
        await app.press("enter")
        await app.until(lambda: app.asked(AnalysePrompt))
        assert app.asked(AnalysePrompt)[0].text == PASTED  # type: ignore[union-attr]


async def test_the_editor_has_lines_and_a_history() -> None:
    async with driven() as app:
        for text in ("one", "two"):
            await app.press("p")
            await app.until(lambda: isinstance(app.app.screen, PromptScreen))
            await app.press(*text, "ctrl+j", *"end", "enter")
            await app.until(lambda text=text: app.home.state.own.history()[-1:] == [f"{text}\nend"])
        await app.press("p")
        await app.until(lambda: isinstance(app.app.screen, PromptScreen))
        area = app.app.screen.query_one(PromptArea)
        await app.press("n", "up")
        assert area.whole == "two\nend"
        await app.press("up", "up")
        assert area.whole == "one\nend"
        await app.press("down", "down", "down")
        assert area.whole == "n", "what was begun is still there"
        await app.press("escape")
        assert app.app.screen is app.home and len(app.asked(AnalysePrompt)) == 2


async def test_texts_are_listed_beside_the_contexts_and_gone_to() -> None:
    async with driven() as app:
        app.home.state.analyse("self dark")
        await app.home.settle()
        await app.until(lambda: app.home.state.place.source == "prompt")
        await app.press("g")
        await app.until(lambda: app.home.state.text.document.source == "generated" and app.home.state.text.finished)  # type: ignore[union-attr]
        await app.press("escape", "P")
        await app.until(lambda: isinstance(app.app.screen, TextsScreen))
        shown = "\n".join(app.screen_text())
        assert "contexts   300 of 256 tokens, from fake" in shown
        assert "yours      'self dark'" in shown and "generated  after '<bos> self'" in shown
        await app.press("down", "enter")
        await app.until(lambda: app.home.state.place.source == "prompt")
        await app.press("P")
        await app.until(lambda: isinstance(app.app.screen, TextsScreen))
        await app.press("x")
        await app.until(lambda: len(app.home.state.own.all) == 1)
        assert app.home.state.place.source == "context"


async def test_generation_streams_after_the_tokens_up_to_the_cursor() -> None:
    session = plain(tokens_per_second=200.0, messages_per_second=20.0, pause_at=80)
    async with driven(session) as app:
        ids = app.home.state.text.document.token_ids[:33]  # type: ignore[union-attr]
        await app.press("g")
        await app.until(lambda: app.home.state.place.source == "generated" and len(app.home.state.text) > 40)  # type: ignore[arg-type]
        assert app.asked(Generate)[0].prompt_ids == ids  # type: ignore[union-attr]
        text = app.home.state.text
        assert text is not None
        assert not text.finished
        assert app.screen_text()[2].startswith("▌generating · ")
        session.goes_on.set()
        await app.until(lambda: text.finished)
        assert len(text) == 33 + 200
        assert app.home.tokens.cursor == app.home.state.place.position == 232, "the cursor runs along"
        assert text.document.token_ids[:33] == ids
        await app.press("escape")
        await app.until(lambda: app.home.state.place.source == "context")


async def test_escape_stops_a_generation_and_what_came_stays() -> None:
    async with driven(plain(tokens_per_second=60.0, messages_per_second=20.0, pause_at=80)) as app:
        await app.press("g")
        await app.until(lambda: app.home.state.place.source == "generated" and len(app.home.state.text) > 40)  # type: ignore[arg-type]
        await app.press("escape")
        await app.until(lambda: app.home.state.text.finished)  # type: ignore[union-attr]
        assert len(app.asked(Cancel)) == 1
        assert 40 < len(app.home.state.text) < 233  # type: ignore[arg-type]
        assert app.home.state.place.source == "generated"


async def test_a_cursor_that_is_moved_away_stays_where_it_was_put() -> None:
    session = plain(tokens_per_second=100.0, messages_per_second=20.0, pause_at=80)
    async with driven(session) as app:
        await app.press("g")
        await app.until(lambda: app.home.state.place.source == "generated" and len(app.home.state.text) > 40)  # type: ignore[arg-type]
        await app.press("home")
        length = len(app.home.state.text)  # type: ignore[arg-type]
        session.goes_on.set()
        await app.until(lambda: len(app.home.state.text) > length + 20)  # type: ignore[arg-type]
        assert app.home.state.place.position == app.home.tokens.cursor == 0


# ---- other panes and screens ----------------------------------------------------------------------------------------


async def test_tab_visits_the_panes_and_the_footer_follows() -> None:
    async with driven() as app:
        footers = []
        for _ in range(3):
            await app.press("tab")
            footers.append((app.home.focused.id, app.screen_text()[-1].split("   ")[0].strip()))  # type: ignore[union-attr]
        assert footers == [("detail", "1-5 width"), ("trace", "+ - zoom"), ("tokens", "←→ token")]


async def test_d_hides_the_detail_pane_and_shows_it_again() -> None:
    async with driven() as app:
        assert app.home.query_one("#detail").region.width == 54
        await app.press("d")
        assert app.home.query_one("#detail").region.width == 0
        assert app.home.tokens.region.width == 120
        await app.press("d")
        assert app.home.query_one("#detail").region.width == 54


async def test_a_narrow_window_shows_the_predictions_and_d_swaps_them_for_the_plot() -> None:
    async with driven(size=(80, 24)) as app:
        low = app.home.query_one("#detail-low", DetailPane)
        assert low.region.size == (80, 8)
        await app.until(lambda: any("next token" in line for line in app.screen_text()))
        for heading in ("model", "Sae", "+linear", "+nonlin"):
            assert any(f" {heading} " in line for line in app.screen_text()), heading
        await app.press("d")
        assert app.home.query_one(TracePane).region.height == 8
        assert low.region.height == 0


async def test_in_the_smallest_window_d_shows_the_details_over_the_tokens_whose_keys_go_on() -> None:
    async with driven(size=(60, 16)) as app:
        assert "1 256●  2 512○  3 1k◉  4 2k○  5 4k●" in app.screen_text()[0], "widths keep their names"
        await app.press("d")
        over = app.home.query_one("#detail-over", DetailPane)
        assert over.region.size == (60, 13)
        await app.until(lambda: any("next token" in line for line in app.screen_text()))
        assert "position 32" in app.screen_text()[2]
        await app.press("right")
        assert "position 33" in app.screen_text()[2]
        assert app.screen_text()[-1].rstrip().endswith("? help")
        await app.press("escape")
        assert over.region.height == 0 and app.home.state.place.position == 33
        await app.press("d", "d")
        assert over.region.height == 0


async def test_help_is_about_the_focused_pane() -> None:
    async with driven() as app:
        for pane, title in (
            ("tokens", "Tokens"),
            ("detail", "The token under the cursor"),
            ("trace", "Norm against token"),
        ):
            await app.press("question_mark")
            assert isinstance(app.app.screen, HelpScreen)
            assert any(title in line for line in app.screen_text()), pane
            await app.press("escape", "tab")
            assert app.app.screen is app.home


async def test_the_enlarged_plot_takes_its_token_back() -> None:
    async with driven() as app:
        await app.press("z")
        assert isinstance(app.app.screen, EnlargedTrace)
        await app.press("right", "right", "m", "enter")
        assert app.app.screen is app.home
        assert app.home.state.place.position == app.home.tokens.cursor == 34
        await app.press("z", "right", "escape")
        assert app.home.state.place.position == 34


async def test_the_enlarged_plot_has_one_plot_per_width_and_does_not_zoom_past_the_text() -> None:
    async with driven(plain(context_length=150)) as app:
        await app.press("z")
        lines = app.screen_text()
        names = [line[8:11].strip() for line in lines if line[6:8] == "┤ "]
        assert [name for name in names if name in ("256", "1k", "4k")] == ["256", "1k", "4k"]
        column = lines[-2].index("▲")
        assert sum(line[column] == "│" for line in lines[1:-2]) > 20, "the cursor is a line through all of them"
        pane = app.app.screen.query_one(TracePane)
        await app.press("minus")
        window = pane.window
        assert window == (0, 150)
        await app.press("minus", "minus")
        assert pane.window == window and pane._zoom == 1, "there is nothing more to show"
        await app.press("s")
        assert not pane.apart


async def test_the_palette_offers_every_action_theme_and_sae() -> None:
    from inspector.tui.actions import ACTIONS

    async with driven() as app:
        titles = [command.title for command in app.app.get_system_commands(app.home)]
        missing = {a.title for a in ACTIONS if not a.id.startswith("stream.width-")} - set(titles) - {"All commands"}
        assert missing == set()
        assert "Width 6: enable and colour by it; again: disable it" not in titles
        assert "SAE: layer_3/resid/width_256/l0_8" in titles
        assert "Theme: Okabe" in titles


async def test_an_sae_can_be_chosen_by_name() -> None:
    async with driven() as app:
        await app.home.choose_sae(0)
        assert app.home.state.choice is not None
        assert (app.home.state.choice.active, app.home.state.choice.sae.sae_id) == (0, "layer_3/resid/width_256/l0_8")


async def test_copying_puts_a_table_on_the_clipboard_and_in_a_file(state_home: Path) -> None:
    async with driven() as app:
        await app.press("c")
        copied = app.app.clipboard
        assert copied.splitlines()[1].startswith("0\t32\t")
        assert len(copied.splitlines()) == 1 + 3
        assert (state_home / "dm-inspect" / "exports" / "token.tsv").read_text() == copied
        await app.press("C")
        table = (state_home / "dm-inspect" / "exports" / "context-1.tsv").read_text()
        assert len(table.splitlines()) == 1 + 3 * 256
        assert app.app.clipboard == copied, "too long for a terminal's clipboard: only the file"


async def test_marks_and_themes_change_at_once() -> None:
    async with driven(theme="okabe") as app:
        before = app.home.tokens.marks
        await app.press("u")
        assert app.home.tokens.marks is not before
        palette = app.home.tokens.palette
        await app.press("t")
        assert app.app.theme != "okabe"
        assert app.home.tokens.palette is not palette
        assert app.home.tokens.marks is not before, "a theme does not undo what the user chose"


# ---- when things go wrong -------------------------------------------------------------------------------------------


async def test_a_target_that_cannot_be_loaded_can_be_retried_or_left_with_its_exit_code() -> None:
    message = "Model directory '/nowhere' does not exist. Give a directory with a config.json."
    async with driven(plain(fail_loading=Failed(exit_code=3, message=message)), wait=False) as app:
        await app.until(lambda: app.home.session.stage == "failed")
        text = "\n".join(app.screen_text())
        assert "the session could not load its target" in text
        assert "'/nowhere'" in text
        assert "/nowhere/session.log" in text
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2 and app.home.session.stage == "failed")
        await app.press("q")
    assert app.app.return_code == 3


async def test_a_session_that_ends_leaves_the_picture_and_can_be_reconnected() -> None:
    async with driven() as app:
        await app.press("right")
        app.client.lose("The session ended.")
        await app.until(lambda: app.home.session.stage == "lost")
        await app.until(lambda: any("the session has ended" in line for line in app.screen_text()))
        await app.press("escape")
        assert app.screen_text()[1].startswith(" The session ended.  r reconnects")
        await app.press("right", "2", "g")
        assert app.home.state.place.position == 34
        await app.press("r")
        await app.until(lambda: len(app.clients) == 2 and app.home.session.stage == "ready")
        await app.until(lambda: app.asked(GetContext))
        assert app.home.state.place.position == 34
        assert app.home.state.choice.active == 1  # type: ignore[union-attr]


async def test_a_fit_that_fails_is_told_and_the_picture_stays() -> None:
    failure = Failed(exit_code=4, message="The activations hold a NaN. Check the model's dtype.")
    async with driven(plain(fail_fit=failure), notifications=True) as app:
        await app.until(lambda: app.home.session.stopped)
        await app.until(lambda: failure.message in [n.message for n in app.app._notifications])
        await app.press("right")
        assert app.screen_text()[1].startswith(" fit stopped")
        assert (app.home.session.stage, app.home.state.place.position) == ("ready", 33)
        assert app.app.return_code is None


async def test_a_request_that_fails_is_told_and_nothing_else_changes() -> None:
    failure = Failed(exit_code=4, message="The prompt is empty. Type some text.")
    async with driven(plain(failures={AnalysePrompt: failure}), notifications=True) as app:
        await app.press("p")
        await app.until(lambda: isinstance(app.app.screen, PromptScreen))
        await app.press("a", "enter")
        await app.until(lambda: len(app.app._notifications))
        assert [n.message for n in app.app._notifications] == [failure.message]
        assert app.home.state.place.source == "context"


async def test_quitting_returns_zero_and_leaves_the_session() -> None:
    async with driven() as app:
        await app.press("q")
    assert app.app.return_code == 0
    assert not app.client.view.stopped


# ---- any window -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 16), (70, 20), (80, 24), (100, 24), (120, 40), (300, 80)])
async def test_every_size_shows_header_tokens_legend_and_footer(size: tuple[int, int]) -> None:
    async with driven(size=size) as app:
        lines = app.screen_text()
        assert len(lines) == size[1]
        assert "demo" in lines[0]
        assert lines[-1].rstrip().endswith("? help")
        assert app.home.tokens.region.height >= 8
        assert app.home.query_one("#legend").region.height == 1


async def test_too_small_a_window_says_which_size_is_needed_and_recovers() -> None:
    async with driven(size=(59, 16)) as app:
        assert app.screen_text()[0].rstrip() == "This window is 59x16. dm-inspect needs 60x16. q quits."
        await app.pilot.resize_terminal(60, 16)
        await app.pilot.pause()
        assert "demo" in app.screen_text()[0]


async def test_resizing_all_the_time_while_generating_breaks_nothing() -> None:
    async with driven(plain(tokens_per_second=100.0, messages_per_second=20.0)) as app:
        await app.press("g")
        for size in [(120, 40), (20, 5), (80, 24), (1, 1), (300, 80), (61, 17), (99, 30), (100, 20), (120, 40)] * 2:
            await app.pilot.resize_terminal(*size)
            await app.press("right", "n", "d")
        await app.until(lambda: app.home.state.text is not None and len(app.home.state.text) > 40)


@pytest.mark.parametrize(
    "session", [FakeSession(hostile_share=1.0), FakeSession(widths=(256,), l0s=(16,)), FakeSession(epochs=0)]
)
async def test_hostile_tokens_a_single_sae_and_no_map_are_all_browsable(session: FakeSession) -> None:
    async with driven(session, wait=False) as app:
        await app.until(lambda: app.home.state.text is not None)
        for key in (
            "right",
            "down",
            "1",
            "2",
            "m",
            "m",
            "m",
            "n",
            "right_square_bracket",
            "x",
            "escape",
            "d",
            "plus",
            "minus",
            "C",
        ):
            await app.press(key)
        for line in app.screen_text():
            assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in line)


# ---- selecting and copying ------------------------------------------------------------------------------------------


async def drag(app: Driven, start: tuple[int, int], end: tuple[int, int]) -> None:
    """The left button down at one cell of the tokens, moved to another, and up."""
    await app.pilot.mouse_down(app.home.tokens, offset=start)
    await app.pilot._post_mouse_events([MouseMove], app.home.tokens, offset=end, button=1)
    await app.pilot.mouse_up(app.home.tokens, offset=end)
    await app.settle()


@pytest.mark.parametrize("theme", ["okabe", "dark", "light", "sixteen"])
async def test_what_is_dragged_over_is_seen_and_ctrl_c_copies_it_and_stays(theme: str) -> None:
    async with driven(theme=theme) as app:
        pane = app.home.tokens
        pane.set_marks(False)
        style = rich_style(pane.palette.selected)

        def shown() -> str:
            looks = [(part.text, part.style) for part in pane.render_line(4) if part.style]
            return "".join(text for text, look in looks if (look.color, look.bgcolor) == (style.color, style.bgcolor))

        assert shown() == ""
        await drag(app, (5, 3), (20, 4))
        text = app.home.get_selected_text()
        assert text and "\n" in text
        assert text.rpartition("\n")[2].strip() in shown()
        await app.press("ctrl+c")
        assert app.app.clipboard == text
        assert app.app.return_code is None and app.app.screen is app.home


async def test_ctrl_c_without_a_selection_says_what_quits() -> None:
    async with driven(notifications=True) as app:
        await app.press("ctrl+c")
        assert [n.message for n in app.app._notifications] == [
            "Nothing is selected. Drag over text to copy it; q quits."
        ]
        assert app.app.return_code is None
        await app.press("ctrl+q")
    assert app.app.return_code == 0


# ---- what colours mean ----------------------------------------------------------------------------------------------


async def test_colours_mean_the_same_in_every_context_until_v_and_then_the_legend_says_so() -> None:
    async with driven() as app:

        def legend() -> str:
            return app.home.query_one("#legend").render_line(0).text

        first = legend()
        assert "context" not in first
        await app.press("greater_than_sign")
        await app.until(lambda: app.home.state.place.context == 1)
        assert legend() == first
        await app.press("v")
        assert "this context" in legend() and legend() != first
        await app.press("v", "3")
        assert "context" not in legend()
        await app.press("1")
        assert legend() != first, "another SAE has other edges"
