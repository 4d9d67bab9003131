"""The view's end of a session: finds it or starts it, asks, and hands on what it tells. Never imports torch or numpy.

    client = await SessionClient.open(target)
    await client.send(GetContext(context=0))
    async for message in client.messages(): ...

Nothing here blocks the event loop; starting a process and waiting for its lock happen in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from inspector.errors import InspectorError, UsageError, error_of
from inspector.session import discovery, frames
from inspector.session.protocol import Failed, Hello, Ready, SessionMessage, ViewMessage, Welcome

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.spec import TargetSpec

WELCOME_SECONDS = 30.0
"""A session answers Hello from a thread of its own; longer than this means that it was stopped (SIGSTOP) or hangs."""
SOCKET_VARIABLE = "DM_INSPECT_SESSION_SOCKET"
"""Names the socket to attach to, whatever the target; for tests and benchmarks with a stand-in session."""


class SessionClient:
    """One attached view. Make it with `open`, `attach` or `connect`."""

    def __init__(
        self,
        welcome: Welcome,
        receive: Callable[[], Awaitable[SessionMessage | None]],
        transmit: Callable[[ViewMessage], Awaitable[None]],
        hang_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.welcome = welcome
        """The session's first words; `messages` yields them too."""
        self.lost: str | None = None
        """Why `messages` ended, in a sentence, unless this side closed; None before that."""
        self._receive = receive
        self._transmit = transmit
        self._hang_up = hang_up
        self._requests = 0
        self._closed = False

    @classmethod
    async def open(cls, target: TargetSpec, *, new_session: bool = False, in_process: bool = False) -> SessionClient:
        """Attach to the session of this target, starting it if there is none.

        Returns once the session has answered; loading goes on and is told through `messages`.

        Args:
            target: what to load; None fields are resolved by the session. new_session: start another one even if one is
                there. in_process: load and compute in a thread of this process instead. For debugging: it ends with the
                process and may make it stutter.

        Raises:
            InspectorError: it could not be started, does not answer, or is of another version.
        """
        if in_process:
            # Not an import statement: the painting process depends on no torch, and a test of the imports would follow
            # it.
            local = importlib.import_module("inspector.session.process")
            return cls(*local.in_this_process(discovery.resolved(target)))
        named = os.environ.get(SOCKET_VARIABLE)
        if named:
            return await cls.connect(named)
        session_id = discovery.session_key(target)
        if new_session:
            session_id += f"-{secrets.token_hex(2)}"
        path = await asyncio.to_thread(discovery.socket_path, session_id)
        if not new_session:
            with contextlib.suppress(OSError):
                return await cls.connect(path)
        await asyncio.to_thread(discovery.launch, target, session_id)
        try:
            return await cls.connect(path)
        except OSError as error:
            raise InspectorError(
                f"The session ended as soon as it had started ({error}). Its log is {discovery.log_path(session_id)}."
            ) from error

    @classmethod
    async def attach(cls, session_id: str | None = None) -> SessionClient:
        """Attach to a running session by its id, or to the only one.

        Raises:
            UsageError: there is none of that id, with the nearest.
        """
        record = await asyncio.to_thread(discovery.find_session, session_id)
        try:
            return await cls.connect(discovery.socket_path(record.id))
        except OSError as error:
            raise UsageError(
                f"The session {record.id} has just ended ({error}). Start it again with `dm-inspect`."
            ) from error

    @classmethod
    async def connect(cls, path: str | Path) -> SessionClient:
        """Attach to the session that listens on this socket.

        Raises:
            OSError: none does.
            InspectorError: the session is another user's, of another version, or does not answer.
        """
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            if not discovery.same_user(writer.get_extra_info("socket")):
                raise InspectorError(
                    f"The session at {path} belongs to another user. Start your own with --new-session."
                )
            writer.write(frames.encode(Hello(request=1)))
            welcome = await _welcomed(reader, str(path))
        except BaseException:
            await _closed(writer)
            raise
        pending: list[SessionMessage] = [welcome]

        async def receive() -> SessionMessage | None:
            if pending:
                return pending.pop()
            body = await frames.read_frame(reader)
            return None if body is None else frames.decode_session(body)

        async def transmit(message: ViewMessage) -> None:
            writer.write(frames.encode(message))
            await writer.drain()

        client = cls(welcome, receive, transmit, lambda: _closed(writer))
        client._requests = 1
        return client

    async def send(self, message: ViewMessage) -> int:
        """Ask; returns the request number that was filled in. After the connection was lost nothing is sent and nothing
        raised.
        """
        self._requests += 1
        request = self._requests
        if not self._closed and self.lost is None:
            with contextlib.suppress(ConnectionError):  # `messages` ends and says so
                await self._transmit(msgspec.structs.replace(message, request=request))
        return request

    async def messages(self) -> AsyncIterator[SessionMessage]:
        """Everything the session tells, from Welcome on; ends when the connection does. Then `lost` says why, unless
        `close` was called.
        """
        while not self._closed:
            try:
                message = await self._receive()
            except frames.BadFrame as error:
                await self._lose(f"The session said something that is not understood: {error}")
                return
            except ConnectionError as error:
                await self._lose(f"The connection to the session broke: {error}.")
                return
            if message is None:
                await self._lose("The session ended.")
                return
            yield message

    async def close(self) -> None:
        """Leave; the session goes on. Harmless the second time."""
        if not self._closed:
            self._closed = True
            await self._hang_up()

    async def _lose(self, why: str) -> None:
        if not self._closed:
            self.lost = why
            await self._hang_up()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until what was sent is on its way; not for ever, for a session that does not read."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), 1.0)
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _welcomed(reader: asyncio.StreamReader, where: str) -> Welcome:
    try:
        body = await asyncio.wait_for(frames.read_frame(reader), WELCOME_SECONDS)
        answer = None if body is None else frames.decode_session(body)
    except TimeoutError as error:
        raise InspectorError(
            f"The session at {where} has not answered for {WELCOME_SECONDS:g} s. "
            "Stop it with `dm-inspect sessions stop`."
        ) from error
    except (frames.BadFrame, ConnectionError) as error:
        raise InspectorError(
            f"What listens at {where} is no session of this program ({error}). Remove that file, or use --new-session."
        ) from error
    if isinstance(answer, Failed):
        raise error_of(answer.exit_code, answer.message)
    if not isinstance(answer, Welcome):
        raise InspectorError(f"The session at {where} ended before it answered. Start it again, or see its log.")
    refused = discovery.mismatch(answer)
    if refused:
        raise InspectorError(refused)
    return answer


def ask_target(target: TargetSpec, message: ViewMessage) -> SessionMessage:
    """Ask the session of a target, which is started if there is none.

    Raises:
        InspectorError: it could not be started, or the target cannot be loaded, or what the session answered instead.
    """
    return asyncio.run(_ask(SessionClient.open(target), message))


def ask_session(session_id: str, message: ViewMessage) -> SessionMessage:
    """Ask a session that runs.

    Raises:
        OSError: it does not run any more.
        InspectorError: what the session answered instead.
    """
    return asyncio.run(_ask(SessionClient.connect(discovery.socket_path(session_id)), message))


async def _ask(connecting: Coroutine[Any, Any, SessionClient], message: ViewMessage) -> SessionMessage:
    client = await connecting
    try:
        request = await client.send(message)
        ready = False
        async for answer in client.messages():
            ready = ready or isinstance(answer, Ready)
            # Told to all before it is ready, it is the loading that failed; later a fit, which is not asked about.
            if isinstance(answer, Failed) and (answer.request == request or not (answer.request or ready)):
                raise error_of(answer.exit_code, answer.message)
            if answer.request == request:
                return answer
        raise InspectorError(f"{client.lost or 'The session ended.'} Its log is {client.welcome.log_path}.")
    finally:
        await client.close()
