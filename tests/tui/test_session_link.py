"""Requests and their answers: by purpose, and by call."""

from __future__ import annotations

import asyncio

from inspector.session.protocol import Failed, GetJobs, Jobs, SessionMessage, ViewMessage
from inspector.tui.session import NO_SESSION, Conversation, Requests


class Wire:
    """A connection that a test holds both ends of."""

    lost: str | None = None

    def __init__(self) -> None:
        self.sent: list[ViewMessage] = []
        self.on_send: list[SessionMessage] = []
        self.conversation: Conversation | None = None

    async def send(self, message: ViewMessage) -> int:
        self.sent.append(message)
        number = len(self.sent)
        await asyncio.sleep(0)
        for answer in self.on_send:
            assert self.conversation is not None
            self.conversation.deliver(answer)
        return number

    async def messages(self):  # type: ignore[no-untyped-def]
        return
        yield

    async def close(self) -> None:
        return


def attached() -> tuple[Conversation, Wire]:
    conversation, wire = Conversation(), Wire()
    conversation.attach(wire)
    wire.conversation = conversation
    return conversation, wire


async def test_a_call_returns_its_own_answer() -> None:
    conversation, wire = attached()
    first, second = (
        asyncio.ensure_future(conversation.call(GetJobs())),
        asyncio.ensure_future(conversation.call(GetJobs())),
    )
    while len(wire.sent) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert not conversation.deliver(Jobs(jobs=[]))  # told to all, not an answer
    assert conversation.deliver(Jobs(request=2, jobs=[]))
    assert conversation.deliver(Failed(request=1, exit_code=2, message="no"))
    assert isinstance(await first, Failed)
    assert isinstance(await second, Jobs)


async def test_an_answer_that_is_quicker_than_its_number_is_not_lost() -> None:
    conversation, wire = attached()
    wire.on_send = [Jobs(request=1, jobs=[])]
    assert await asyncio.wait_for(conversation.call(GetJobs()), 30) == Jobs(request=1, jobs=[])


async def test_a_call_ends_with_the_session() -> None:
    conversation, wire = attached()
    call = asyncio.ensure_future(conversation.call(GetJobs()))
    while not wire.sent:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    conversation.attach(None)
    assert await asyncio.wait_for(call, 30) == NO_SESSION
    assert await conversation.call(GetJobs()) == NO_SESSION


def test_of_each_purpose_only_the_latest_request_is_awaited() -> None:
    requests = Requests()
    requests.add("jobs", GetJobs())
    assert requests.waiting == [("jobs", GetJobs())]
    requests.sent("jobs", 1)
    requests.sent("jobs", 2)
    assert requests.answered(Jobs(request=1, jobs=[])) is None
    assert requests.is_open("jobs")
    assert requests.answered(Jobs(request=2, jobs=[])) == "jobs"
    assert requests.answered(Jobs(request=2, jobs=[])) is None


def test_what_could_not_be_sent_is_not_awaited() -> None:
    requests = Requests()
    requests.sent("jobs", 0)
    assert not requests.is_open("jobs")


def test_the_same_question_is_asked_once_unless_it_is_wanted_again() -> None:
    requests, question = Requests(), (GetJobs(), 1)
    assert requests.is_new("detail", question)
    requests.add_question("detail", question)
    assert not requests.is_new("detail", question)
    assert requests.is_new("detail", (GetJobs(), 2))
    requests.ask_again("detail")
    assert requests.is_new("detail", question)


async def test_a_session_that_is_not_there_has_no_request_number() -> None:
    assert await Conversation().send(GetJobs()) == 0
