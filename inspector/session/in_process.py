"""`--in-process`: the same service and the same messages, in a thread of the view's own process. For debugging.

Nothing is encoded and nothing outlives the process; a computation that holds the interpreter makes the view stutter.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from inspector import __version__, threads
from inspector.session.hub import Hub
from inspector.session.protocol import PROTOCOL_VERSION, SessionMessage, Stop, ViewMessage, Welcome

if TYPE_CHECKING:
    from inspector.spec import TargetSpec

Parts = tuple[
    Welcome,
    Callable[[], Awaitable[SessionMessage | None]],
    Callable[[ViewMessage], Awaitable[None]],
    Callable[[], Awaitable[None]],
]
"""What a SessionClient is made of: first words, receive, transmit, hang up."""


def start(target: TargetSpec) -> Parts:
    """Start the service in a thread. Call it inside the event loop that will receive."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[SessionMessage | None] = asyncio.Queue()
    hub = Hub()
    threads.limit(spare=1)

    def tell(message: SessionMessage | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(arrived.put_nowait, message)

    def serve() -> None:
        try:
            from inspector.session.service import Service

            Service(target, hub, on_state=lambda *_: None, idle_seconds=0.0).run()
        finally:
            tell(None)

    welcome = Welcome(request=1, version=PROTOCOL_VERSION, program_version=__version__, pid=os.getpid(), log_path="")
    arrived.put_nowait(welcome)
    view = hub.attach(tell)
    threading.Thread(target=serve, name="session", daemon=True).start()

    async def transmit(message: ViewMessage) -> None:
        if isinstance(message, Stop):
            hub.stop()
        else:
            hub.ask(view, message)

    async def hang_up() -> None:
        hub.detach(view)
        hub.stop()
        arrived.put_nowait(None)

    return welcome, arrived.get, transmit, hang_up
