"""The Stream screen without a screen: keys and messages in, requests and a picture out."""

from __future__ import annotations

import msgspec

from inspector.drawing.tokens import MODES
from inspector.session.protocol import (
    AnalysePrompt,
    Cancel,
    ContextScores,
    Failed,
    Found,
    Generate,
    Generated,
    GetContext,
    GetJobs,
    Hit,
    LoadProgress,
    Ready,
    SessionMessage,
    SetPolicy,
    TokenDetail,
    ViewMessage,
)
from inspector.tui.saved_state import SavedView
from inspector.tui.session import Purpose
from inspector.tui.stream_state import StreamState, target_name
from tests.fake_session import FakeSession

SESSION = FakeSession(hostile_share=0.0, epochs=1, n_contexts=3, context_length=64)


def sent(state: StreamState) -> list[ViewMessage]:
    """What waits to be asked, as if it had been sent: requests are numbered from 1 on."""
    waiting, state.requests.waiting = state.requests.waiting, []
    for purpose, _ in waiting:
        NUMBERS[0] += 1
        state.requests.sent(purpose, NUMBERS[0])
    return [message for _, message in waiting]


NUMBERS = [0]


def tell(state: StreamState, message: SessionMessage, purpose: Purpose | None = None) -> None:
    state.told(message, purpose, 0.0)


def opened(recall: SavedView | None = None) -> StreamState:
    """Ready, with the first context on the screen."""
    state = StreamState(lambda _: recall)
    tell(state, SESSION.ready())
    sent(state)
    tell(state, SESSION.context_scores(0, 1))
    return state


def test_a_session_that_is_ready_is_asked_for_the_first_context_and_its_jobs() -> None:
    state = StreamState()
    tell(state, SESSION.ready())
    assert sent(state) == [GetContext(context=0), GetJobs()]
    assert state.text is None
    tell(state, SESSION.context_scores(0, 1))
    assert state.text is not None
    assert state.place.position == next(state.text.document.included())
    assert state.jumped


def test_where_the_user_was_is_gone_to_again() -> None:
    ready = SESSION.ready()
    asked: list[str] = []
    state = StreamState(lambda name: asked.append(name) or SavedView(context=2, position=40, mode=MODES[1].id))
    tell(state, ready)
    assert asked == [target_name(ready)]
    assert sent(state)[0] == GetContext(context=2)
    assert state.mode is MODES[1]
    tell(state, SESSION.context_scores(2, 1))
    assert (state.place.context, state.place.position) == (2, 40)
    assert state.saved_view() is not None
    assert state.saved_view()[1].context == 2  # type: ignore[index]


def test_a_context_at_hand_is_shown_at_once_and_another_is_asked_for() -> None:
    state = opened()
    state.step_context(1)
    assert sent(state) == [GetContext(context=1)]
    assert state.place.context == 0, "nothing changes before it is there"
    tell(state, SESSION.context_scores(1, 1))
    assert state.place.context == 1
    state.step_context(-1)
    assert sent(state) == []
    assert state.place.context == 0
    state.step_context(-1)
    assert sent(state) == [GetContext(context=2)], "round and round"


def test_the_first_and_the_last_context_have_one_neighbour_each() -> None:
    state = opened()
    state.step_over_edge(-1)
    assert sent(state) == []
    state.step_over_edge(1)
    assert sent(state) == [GetContext(context=1)]


def test_better_scores_of_the_text_on_the_screen_leave_the_cursor_alone() -> None:
    state = opened()
    state.move(40)
    state.jumped = False
    tell(state, SESSION.context_scores(0, 2))
    assert state.text is not None
    assert state.text.document.epoch == 2
    assert (state.place.position, state.jumped) == (40, False)


def test_detail_is_a_question_about_the_cursor_and_pairs_one_about_what_is_enabled() -> None:
    state = opened()
    questions = state.questions(with_detail=True)
    assert set(questions) == {"detail", "pairs"}
    assert set(state.questions(with_detail=False)) == {"pairs"}
    state.move(50)
    assert state.questions(with_detail=True)["detail"] != questions["detail"]
    assert state.questions(with_detail=True)["pairs"] == questions["pairs"]


def test_a_width_that_is_not_there_is_asked_for_first_and_the_title_says_what_it_waits_for() -> None:
    state = StreamState()
    ready = SESSION.ready()
    tell(state, msgspec.structs.replace(ready, in_slices=True))
    looked_at, other = state.looked_at, ready.saes[-1].sae_id
    assert sent(state)[0] == GetContext(context=0, first=looked_at)
    whole = SESSION.context_scores(0, 1)
    tell(state, msgspec.structs.replace(whole, waiting=[looked_at, other]))
    assert state.title()[0].endswith("waits for its SAE")
    assert "detail" not in state.questions(with_detail=True)
    tell(
        state,
        LoadProgress(what=looked_at, detail="host", done_bytes=1_200_000_000, total_bytes=3_100_000_000, for_text=True),
    )
    assert state.session.stage == "ready"
    assert state.title()[0].endswith("loading its SAE: 1.2 GB of 3.1 GB from host")
    tell(state, msgspec.structs.replace(whole, waiting=[other]))
    assert "detail" in state.questions(with_detail=True) and "SAE" not in state.title()[0]
    place = state.place
    state.choose_sae(len(ready.saes) - 1)
    assert sent(state) == [GetContext(context=0, first=other)]
    tell(state, whole)
    assert state.place == place and state.text is not None and not state.text.waiting


def test_latents_are_known_only_of_the_very_token_and_sae() -> None:
    state = opened()
    at = state.detail_request()
    assert at is not None
    answer = TokenDetail(
        source=at.source, context=at.context, position=at.position, sae_id=at.sae_id, latents=[], n_active=0, guesses={}
    )
    tell(state, answer, "detail")
    assert state.detail is answer
    state.move(at.position + 1)
    assert state.detail is answer, "the old one stays until the new one comes"
    assert state.active_latents() == []


def test_an_answer_that_is_not_awaited_any_more_changes_nothing() -> None:
    state = opened()
    tell(state, Failed(request=5, exit_code=5, message="No memory. Use less."), "detail")
    assert (state.problem, state.notices) == ("No memory. Use less.", [])
    tell(state, Found(hits=[Hit(context=1, position=3)]))
    assert state.search is None


def test_find_goes_to_the_first_hit_and_escape_ends_it() -> None:
    state = opened()
    state.find("dark")
    sent(state)
    tell(state, Found(hits=[Hit(context=0, position=40), Hit(context=1, position=5)]), "find")
    assert state.place.position == 40
    assert state.title()[0] == "find 'dark' 1/2"
    assert state.hits()[0].start == 40
    state.walk(1)
    assert sent(state) == [GetContext(context=1)]
    state.leave()
    assert state.search is None
    assert state.hits() == []


def test_what_is_nowhere_is_said() -> None:
    state = opened()
    state.find("zzz")
    tell(state, Found(hits=[]), "find")
    assert state.search is None
    assert [notice.text for notice in state.notices] == ["'zzz' is in none of the contexts."]


def part(start: int, n: int, finished: bool = False) -> Generated:
    scores = SESSION.context_scores(0, 1)
    size = 4 * n
    cut = [type(each)(**{name: getattr(each, name)[:size] for name in each.__struct_fields__}) for each in scores.saes]
    return Generated(
        start=start,
        token_ids=scores.token_ids[:n],
        tokens=scores.tokens[:n],
        split="h" * n,
        loss=scores.loss[:size],
        x_norm=scores.x_norm[:size],
        saes=cut,
        epoch=1,
        finished=finished,
    )


def test_a_generation_is_followed_until_the_cursor_is_moved_away_and_escape_stops_it() -> None:
    state = opened()
    state.move(40)
    state.generate()
    (request,) = sent(state)
    assert isinstance(request, Generate)
    assert len(request.prompt_ids) == 41
    tell(state, part(0, 41), "generate")
    assert (state.place.source, state.place.position, state.following) == ("generated", 40, True)
    tell(state, part(41, 2), "generate")
    assert len(state.arriving) == 1, "drawn when the screen finds time"
    state.flush()
    assert (state.place.position, state.grew) == (42, True)
    assert "detail" not in state.questions(with_detail=True)
    state.move(0)
    assert not state.following
    state.leave()
    assert isinstance(sent(state)[0], Cancel)
    tell(state, part(43, 1, finished=True), "generate")
    assert state.text is not None
    assert (state.text.finished, len(state.text), state.place.position) == (True, 44, 0)


def own(asked: ViewMessage) -> ContextScores:
    """The answer to a question about a text of the user's own."""
    assert isinstance(asked, AnalysePrompt)
    return SESSION.own_scores(asked, 1)


def generated(state: StreamState, n: int = 44) -> None:
    """A whole generation, from the text up to the cursor."""
    state.generate()
    sent(state)
    message = msgspec.structs.replace(part(0, n, finished=True), request=NUMBERS[0])
    tell(state, message, state.requests.answered(message))


def test_what_was_generated_is_kept_named_and_listed_and_comes_back() -> None:
    state = opened()
    state.move(40)
    generated(state)
    state.leave()
    assert state.place.source == "context"
    assert [notice.text for notice in state.notices][-1] == "Kept as text 1/1. P lists the texts."
    (kept,) = state.own.all
    assert (kept.source, kept.number, len(kept.token_ids)) == ("generated", 1, 44)
    assert kept.name.startswith("after '") and kept.name.endswith("'")
    state.go(kept.source, kept.number, "first")
    assert (state.place.source, sent(state)) == ("generated", [])
    assert list(state.text.document.token_ids) == list(kept.token_ids)  # type: ignore[union-attr]


def test_several_texts_stand_side_by_side_and_are_walked_through() -> None:
    state = opened()
    for text in ("self dark", "two\nlines", "self dark"):
        state.analyse(text)
        for asked in sent(state):
            tell(state, own(asked), "prompt")
    state.move(1)
    generated(state)
    assert [(each.source, each.number) for each in state.own.all] == [("prompt", 1), ("prompt", 2), ("generated", 3)]
    assert state.own.history() == ["self dark", "two\nlines"], "the same text again is the one that is there"
    state.go("prompt", 1, "first")
    seen = []
    for _ in range(3):
        seen.append((state.place.source, state.place.context))
        state.step_context(1)
    assert seen == [("prompt", 1), ("prompt", 2), ("generated", 3)]
    assert state.place.source == "context", "past the last are the contexts"
    state.drop_text("prompt", 2)
    assert [each.number for each in state.own.all] == [1, 3]


def test_texts_are_saved_with_the_view_and_scored_again_when_they_are_looked_at() -> None:
    state = opened()
    state.analyse("self dark")
    tell(state, own(sent(state)[0]), "prompt")
    generated(state)
    saved = state.saved_view()
    assert saved is not None
    later = opened(saved[1])
    assert later.own.all == state.own.all and sent(later) == []
    later.go("generated", 2, "first")
    (asked,) = sent(later)
    assert asked == AnalysePrompt(token_ids=list(state.own.all[1].token_ids), source="generated", number=2)
    tell(later, own(asked), "prompt")
    assert (later.place.source, later.place.context) == ("generated", 2)


def test_a_number_is_not_given_again_after_its_text_was_forgotten() -> None:
    state = opened()
    for text in ("self dark", "dark self"):
        state.analyse(text)
        tell(state, own(sent(state)[0]), "prompt")
    state.drop_text("prompt", 2)
    state.analyse("of the path")
    assert sent(state) == [AnalysePrompt(text="of the path", number=3)], "and not the scores of the forgotten one"


def test_a_new_session_is_asked_for_the_users_own_text_that_is_shown_and_for_others_when_they_are() -> None:
    state = opened()
    for text in ("self dark", "dark self"):
        state.analyse(text)
        tell(state, own(sent(state)[0]), "prompt")
    state.lost("The session ended.", 1)
    state.session = state.session.again()
    tell(state, SESSION.ready())
    assert AnalysePrompt(text="dark self", number=2) in sent(state)
    state.go("prompt", 1, "first")
    assert sent(state) == [AnalysePrompt(text="self dark", number=1)]


def test_a_text_that_is_refused_and_a_generation_that_never_began_leave_nothing() -> None:
    state = opened()
    state.analyse("x" * 9)
    sent(state)
    tell(state, Failed(request=1, exit_code=4, message="Too long. Shorten it."), "prompt")
    state.generate()
    sent(state)
    tell(state, Failed(request=2, exit_code=4, message="No room. Shorten it."), "generate")
    assert state.own.all == ()


def test_a_lost_session_keeps_what_it_had_generated() -> None:
    state = opened()
    state.generate()
    sent(state)
    tell(state, part(0, 44), "generate")
    state.lost("The session ended.", 1)
    assert [len(each.token_ids) for each in state.own.all] == [44]


def test_the_program_can_begin_with_texts() -> None:
    state = StreamState()
    state.first_prompts = ("self\n dark", "another")
    tell(state, SESSION.ready())
    asked = [message for message in sent(state) if isinstance(message, AnalysePrompt)]
    assert [message.text for message in asked] == ["self\n dark"]
    assert [each.text for each in state.own.all] == ["self\n dark", "another"]
    tell(state, SESSION.context_scores(0, 1), "context")
    tell(state, own(asked[0]), "prompt")
    assert state.place.source == "prompt"
    state.leave()
    assert state.place.source == "context"
    tell(state, SESSION.ready())
    assert not any(isinstance(message, AnalysePrompt) for message in sent(state)), "once"


def test_a_second_generation_waits_for_the_first() -> None:
    state = opened()
    state.generate()
    assert len(sent(state)) == 1
    state.generate()
    assert sent(state) == []


def test_escape_leads_back_from_a_prompt_to_where_it_was_asked() -> None:
    state = opened()
    state.move(45)
    state.analyse("self dark")
    asked = sent(state)
    assert asked == [AnalysePrompt(text="self dark", number=1)]
    tell(state, own(asked[0]), "prompt")
    assert state.place.source == "prompt"
    state.leave()
    assert (state.place.source, state.place.context, state.place.position) == ("context", 0, 45)


def test_a_lost_session_leaves_the_picture_and_forgets_what_it_owes() -> None:
    state = opened()
    state.generate()
    sent(state)
    state.lost("The session ended.", 1)
    assert state.can_reconnect
    assert not state.requests.is_open("generate")
    assert state.text is not None
    assert state.session.again().ready is not None


def test_the_policy_that_was_chosen_is_told_to_a_new_session() -> None:
    state = opened()
    state.toggle_policy()
    assert sent(state) == [SetPolicy(policy="included")]
    state.session = type(state.session)(policy="included", ready=state.session.ready)
    tell(state, Ready(**{name: getattr(SESSION.ready(), name) for name in SESSION.ready().__struct_fields__}))
    assert SetPolicy(policy="included") in sent(state)
