"""Whose turn it is among the questions that wait."""

from __future__ import annotations

import pytest

from inspector.session.hub import Asked, Hub, Questions
from inspector.session.protocol import GetContext


def asked(view: int, request: int) -> Asked:
    return Asked(view=view, message=GetContext(request=request, context=0))


def taken(questions: Questions) -> list[tuple[int, int]]:
    return [(item.view, item.message.request) for item in questions.take_all()]


def test_views_take_turns_and_each_keeps_its_own_order() -> None:
    questions = Questions()
    for request in range(100):
        questions.add(asked(1, request))
    questions.add(asked(2, 7))
    questions.add(asked(2, 8))
    questions.add(asked(3, 9))
    assert taken(questions) == [(1, 0), (2, 7), (3, 9), (1, 1), (2, 8), *((1, request) for request in range(2, 100))]
    assert not questions
    with pytest.raises(KeyError):
        questions.take()


def test_who_asked_last_waits_one_turn_however_much_another_asks_meanwhile() -> None:
    questions = Questions()
    questions.add(asked(1, 0))
    questions.add(asked(1, 1))
    assert questions.take().view == 1
    questions.add(asked(2, 0))
    questions.add(asked(1, 2))
    assert [questions.take().view, questions.take().view] == [1, 2]


def test_what_is_withdrawn_is_one_request_or_all_of_a_view() -> None:
    questions = Questions()
    for view, request in ((1, 0), (1, 1), (2, 0), (1, 0)):
        questions.add(asked(view, request))
    assert len(questions.withdraw(1, 0)) == 2
    assert questions.withdraw(1, 5) == questions.withdraw(9) == []
    assert len(questions.withdraw(2)) == 1
    assert taken(questions) == [(1, 1)]


def test_a_view_that_has_gone_leaves_no_count_behind() -> None:
    hub = Hub()
    view = hub.attach(lambda message: None)
    assert hub.ask(view, GetContext(request=1, context=0))
    hub.detach(view)
    item = hub.inbox.get_nowait()
    assert isinstance(item, Asked)
    hub.taken_up(item)  # harmless
    assert hub._waiting == {}
