"""One question to a session from a command: attach, ask, take the answer, leave. Blocks; not for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from inspector.errors import BY_EXIT_CODE, InspectorError
from inspector.session import discovery
from inspector.session.client import SessionClient
from inspector.session.protocol import Failed, Ready, SessionMessage, ViewMessage

if TYPE_CHECKING:
    from inspector.spec import TargetSpec


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
                raise BY_EXIT_CODE.get(answer.exit_code, InspectorError)(answer.message)
            if answer.request == request:
                return answer
        raise InspectorError(f"{client.lost or 'The session ended.'} Its log is {client.welcome.log_path}.")
    finally:
        await client.close()
