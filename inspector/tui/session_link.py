"""The view's side of the conversation: what it needs of a client, and which request was asked for what.

`SessionClient` and the tests' fake both fit `Client`. The screen asks through `Conversation`, which remembers the
purpose of each request until its last answer, so that an answer nobody waits for any more can be told from the current
one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Protocol

from inspector.session.protocol import Cancel, SessionMessage, ViewMessage

Purpose = Literal["context", "detail", "find", "pairs", "prompt", "generate"]


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

    def attach(self, client: Client | None) -> None:
        """Talk to this session from now on; what was asked of another is forgotten."""
        self.client = client
        self._latest.clear()

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
