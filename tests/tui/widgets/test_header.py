"""The two header lines at several widths, to the character."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.session.protocol import Failed, LoadProgress, Welcome
from inspector.tui.lines import text_of, width_of
from inspector.tui.selection import CursorPlace, SaeChoice
from inspector.tui.session import SessionView
from inspector.tui.widgets.session_panes import (
    first_line,
    positions_text,
    second_line,
    short_count,
    short_name,
    site_name,
)
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
        (78, "demo · layer 3 · resid_post             1 256● 2○ 3 1k◉ 4○ 5 4k●  L0≈16 (16.0)"),
        (58, "demo · layer 3 · resid_post   1● 2○ 3◉ 4○ 5●  L0≈16 (16.0)"),
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
