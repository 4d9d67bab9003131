"""Every key's effect on what is looked at, without a screen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.session.protocol import Hit
from inspector.spec import SaeRef
from inspector.tui.documents import WORST_PER_CONTEXT, ranking
from inspector.tui.selection import CursorPlace, SaeChoice, Search, match_end, walk_worst


def sae(d_sae: int, nominal_l0: float | None, name: str = "") -> SaeRef:
    return SaeRef(
        release="r",
        d_in=128,
        sae_id=f"w{d_sae}/l0_{nominal_l0}{name}",
        d_sae=d_sae,
        nominal_l0=nominal_l0,
        layer=3,
        hook_name="blocks.3.hook_resid_post",
    )


def suite(widths: tuple[int, ...] = (256, 512, 1024, 2048, 4096), l0s: tuple[float, ...] = (8, 16, 32)) -> SaeChoice:
    return SaeChoice.of([sae(width, l0) for width in widths for l0 in l0s])


def test_a_session_starts_with_narrowest_middle_and_widest_at_the_middle_l0() -> None:
    choice = suite()
    assert choice.enabled == {0, 2, 4}
    assert (choice.active, choice.sae.sae_id) == (2, "w1024/l0_16")
    assert [choice.saes[row].nominal_l0 for row in choice.picked] == [16] * 5
    assert choice.labels == ("256", "512", "1k", "2k", "4k")


def test_one_sae_is_a_choice_of_one() -> None:
    choice = SaeChoice.of([sae(256, None)])
    assert (choice.enabled, choice.active, choice.shown) == ({0}, 0, ((0, 0),))
    assert choice.press(0) is choice
    assert choice.press(3) is choice
    assert choice.step_l0(1) is choice
    assert choice.series(0) == 0


def test_no_sae_is_no_choice() -> None:
    with pytest.raises(ValueError, match="empty"):
        SaeChoice.of([])


def test_a_number_enables_a_width_and_colours_by_it() -> None:
    choice = suite().press(1)
    assert (choice.active, choice.enabled) == (1, {0, 1, 2, 4})


def test_pressing_an_enabled_width_only_activates_it() -> None:
    choice = suite().press(4)
    assert (choice.active, choice.enabled) == (4, {0, 2, 4})


def test_the_active_number_again_disables_it_and_the_nearest_takes_over() -> None:
    choice = suite().press(1).press(1)
    assert (choice.active, choice.enabled) == (0, {0, 2, 4}), "0 and 2 are equally near; the narrower wins"
    assert suite().press(4).press(4).active == 2


def test_the_last_width_stays() -> None:
    choice = replace(suite(), enabled=frozenset({2}))
    assert choice.press(2) is choice


@given(st.lists(st.integers(0, 8), max_size=40))
def test_whatever_is_pressed_something_is_enabled_and_the_active_width_is(keys: list[int]) -> None:
    choice = suite()
    for key in keys:
        choice = choice.press(key)
        assert choice.active in choice.enabled
        assert choice.enabled <= set(range(5))


def test_brackets_step_the_l0_and_the_others_take_the_nearest() -> None:
    saes = [sae(256, 8), sae(256, 20), sae(1024, 7), sae(1024, 16), sae(1024, 33), sae(4096, 30), sae(4096, 64)]
    choice = SaeChoice.of(saes)
    assert choice.sae.nominal_l0 == 16
    assert [saes[row].nominal_l0 for row in choice.picked] == [20, 16, 30]
    denser = choice.step_l0(1)
    assert [saes[row].nominal_l0 for row in denser.picked] == [20, 33, 30]
    sparser = choice.step_l0(-1)
    assert [saes[row].nominal_l0 for row in sparser.picked] == [8, 7, 30]


def test_steps_end_at_either_end() -> None:
    choice = suite().step_l0(1)
    assert choice.step_l0(1) is choice
    assert choice.step_l0(-1) == suite()


def test_equally_near_l0s_give_the_sparser() -> None:
    choice = SaeChoice.of([sae(256, 8), sae(256, 16), sae(1024, 12)])
    assert choice.saes[choice.pick(2).picked[0]].nominal_l0 == 8


def test_unknown_l0s_can_be_stepped_through_and_leave_the_others_alone() -> None:
    choice = SaeChoice.of([sae(256, 8), sae(256, 16), sae(1024, None, "a"), sae(1024, None, "b")])
    before = choice.picked[0]
    stepped = choice.step_l0(-1)
    assert {choice.sae.sae_id, stepped.sae.sae_id} == {"w1024/l0_Nonea", "w1024/l0_Noneb"}
    assert stepped.picked[0] == before


def test_a_saved_choice_comes_back() -> None:
    saved = suite().press(1).press(0).step_l0(1)
    ids = [saved.saes[row].sae_id for row in saved.picked]
    enabled = [saved.widths[index] for index in saved.enabled]
    assert suite().restored(ids, enabled, saved.widths[saved.active]) == saved


def test_what_is_no_longer_there_is_as_at_the_start() -> None:
    choice = suite()
    assert choice.restored(["gone"], [123], 77) == choice
    only = choice.restored([], [4096], 256)
    assert (only.enabled, only.active) == (frozenset({0, 4}), 0), "the width that colours is always drawn"


def test_colours_of_the_widths_use_the_whole_run() -> None:
    assert [suite().series(i) for i in range(5)] == [0, 2, 4, 6, 8]
    nine = suite(tuple(2**k for k in range(4, 13)))
    assert [nine.series(i) for i in range(9)] == list(range(9))
    many = suite(tuple(2**k for k in range(4, 18)))
    assert {many.series(i) for i in range(14)} == set(range(9))


# ---- search ----------------------------------------------------------------------------------------------------------

HITS = (Hit(context=0, position=5), Hit(context=2, position=1), Hit(context=2, position=9))


def test_a_search_begins_at_the_first_place_after_the_cursor_and_goes_round() -> None:
    search = Search(text="a", hits=HITS).walk(1, CursorPlace(context=1))
    assert search.hit == HITS[1]
    assert [search.walk(1, CursorPlace()).index, search.walk(1, CursorPlace()).walk(1, CursorPlace()).index] == [2, 0]
    assert search.walk(-1, CursorPlace()).hit == HITS[0]


def test_the_token_under_the_cursor_counts_as_the_first_place() -> None:
    assert Search(text="a", hits=HITS).walk(1, CursorPlace(context=2, position=9)).index == 2


def test_past_the_last_place_is_the_first() -> None:
    assert Search(text="a", hits=HITS).walk(1, CursorPlace(context=7)).index == 0
    assert Search(text="a", hits=HITS).walk(-1, CursorPlace(context=0)).index == 2


def test_nothing_found_is_walked_nowhere() -> None:
    search = Search(text="a")
    assert search.walk(1, CursorPlace()) is search
    assert search.hit is None
    assert search.summary() == "not found"


def test_the_summary_counts_from_one_and_says_when_there_are_more() -> None:
    assert Search(text="a", hits=HITS, index=1).summary() == "2/3"
    assert Search(text="a", hits=HITS, index=0, truncated=True).summary() == "1/3+"


def test_a_match_ends_with_the_token_that_completes_it() -> None:
    tokens = ["the", " da", "rk", " matter", "!"]
    assert match_end(tokens, 1, "Dark m") == 4
    assert match_end(tokens, 0, "he") == 1
    assert match_end(tokens, 1, "absent") == 2, "not there: the token itself"
    assert match_end(tokens, 4, "!") == 5


# ---- worst tokens ---------------------------------------------------------------------------------------------------


def test_the_ranking_leaves_out_what_is_excluded_or_unknown() -> None:
    values = [9.0, 3.0, math.nan, 7.0, 7.0, 1.0]
    assert ranking(values, "xthttt") == [3, 4, 1, 5]
    assert ranking([1.0] * 30, "t" * 30) == list(range(WORST_PER_CONTEXT))
    assert ranking([], "") == []


def test_n_walks_down_the_ranking_and_capital_n_up() -> None:
    ranked = [7, 2, 9]
    assert walk_worst(ranked, 7, 1) == (0, 2)
    assert walk_worst(ranked, 9, -1) == (0, 2)


def test_from_an_ordinary_token_n_leads_to_the_worst() -> None:
    assert walk_worst([7, 2], 0, 1) == (0, 7)


def test_past_the_ends_of_the_ranking_is_the_neighbouring_context() -> None:
    assert walk_worst([7, 2], 2, 1) == (1, None)
    assert walk_worst([7, 2], 7, -1) == (-1, None)
    assert walk_worst([7, 2], 0, -1) == (-1, None)
    assert walk_worst([], 0, 1) == (1, None)


def test_a_match_takes_the_tokens_along_that_go_on_with_its_last_character() -> None:
    tokens = ["a", "日", "", "", "本", "", "b"]
    assert match_end(tokens, 1, "日") == 4
    assert match_end(tokens, 1, "日本") == 6
    assert match_end(tokens, 4, "本b") == 7
