"""The view's side of the conversation: what it needs of a client, and which request was asked for what.

`SessionClient` and the tests' fake both fit `Client`. The screen asks through `Conversation`, which remembers the
purpose of each request until its last answer, so that an answer nobody waits for any more can be told from the current
one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Protocol

from inspector.session.protocol import Cancel, Failed, SessionMessage, ViewMessage

Purpose = Literal["context", "detail", "find", "pairs", "prompt", "generate", "policy", "jobs"]
MAX_EARLY = 16
"""Answers kept for a caller who does not know its request's number yet."""
NO_SESSION = Failed(exit_code=1, message="There is no session. Connect again with r on the Stream screen.")


class Client(Protocol):
    """An open connection to a session."""

    lost: str | None
    """Why the connection ended, if it was not closed by this side."""

    async def send(self, message: ViewMessage) -> int:
        """Send; the request number it was given."""

    def messages(self) -> AsyncIterator[SessionMessage]:
        """What the session tells; ends with the connection."""

    async def close(self) -> None:
        """Leave; the session goes on."""


Connect = Callable[[], Awaitable[Client]]


class Conversation:
    """Requests under way, by purpose; of each purpose only the latest counts."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self._latest: dict[Purpose, int] = {}
        self._calls: dict[int, asyncio.Future[SessionMessage]] = {}
        self._early: OrderedDict[int, SessionMessage] = OrderedDict()

    def attach(self, client: Client | None) -> None:
        """Talk to this session from now on; what was asked of another is forgotten."""
        self.client = client
        self._latest.clear()
        self._early.clear()
        calls, self._calls = self._calls, {}
        for waiting in calls.values():
            if not waiting.done():
                waiting.set_result(NO_SESSION)

    async def call(self, message: ViewMessage) -> SessionMessage:
        """Send a request and wait for its one answer, `Failed` among them; never raises for a session that is gone.

        Not for a handler of the Stream screen, which is who delivers the answer: from there, use `ask`.
        """
        if self.client is None:
            return NO_SESSION
        try:
            request = await self.client.send(message)
        except ConnectionError:
            return NO_SESSION
        early = self._early.pop(request, None)
        if early is not None:
            return early
        self._calls[request] = asyncio.get_running_loop().create_future()
        try:
            return await self._calls[request]
        finally:
            self._calls.pop(request, None)

    def deliver(self, message: SessionMessage) -> bool:
        """Hand an answer to whoever called for it; whether somebody did, or may yet."""
        request = message.request
        if not request or request in self._latest.values():
            return False
        waiting = self._calls.get(request)
        if waiting is None:
            self._early[request] = message
            while len(self._early) > MAX_EARLY:
                self._early.popitem(last=False)
            return False
        if not waiting.done():
            waiting.set_result(message)
        return True

    async def ask(self, purpose: Purpose, message: ViewMessage) -> bool:
        """Send a request; False if there is no session to ask."""
        if self.client is None:
            return False
        try:
            self._latest[purpose] = await self.client.send(message)
        except ConnectionError:
            return False  # The end of messages() tells why, in its turn.
        return True

    async def cancel(self, purpose: Purpose) -> None:
        """Ask the session to stop working on it."""
        request = self._latest.get(purpose)
        if self.client is not None and request is not None:
            try:
                await self.client.send(Cancel(target=request))
            except ConnectionError:
                return

    def is_open(self, purpose: Purpose) -> bool:
        """Whether an answer is awaited."""
        return purpose in self._latest

    def is_latest(self, purpose: Purpose, request: int) -> bool:
        """Whether this answers the latest request of its purpose."""
        return self._latest.get(purpose) == request

    def done(self, request: int) -> Purpose | None:
        """The request was answered for good; what it was for, if it was still awaited."""
        for purpose, latest in self._latest.items():
            if latest == request:
                del self._latest[purpose]
                return purpose
        return None
