"""Requests and their answers: by purpose, and by call."""

from __future__ import annotations

import asyncio

from inspector.session.protocol import Failed, GetJobs, Jobs, SessionMessage, ViewMessage
from inspector.tui.session import NO_SESSION, Conversation


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


async def test_what_was_asked_by_purpose_is_not_delivered_to_callers() -> None:
    conversation, _ = attached()
    assert await conversation.ask("jobs", GetJobs())
    assert not conversation.deliver(Jobs(request=1, jobs=[]))
    assert conversation.done(1) == "jobs"
