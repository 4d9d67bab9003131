"""The thread that talks to views: accepts them on the socket, reads their questions into the hub, writes the answers
out.

It computes nothing and imports no torch, so it answers Hello while the engine is still loading. A view that breaks the
protocol, reads nothing for too long or belongs to another user loses its own connection; nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from inspector import __version__
from inspector.errors import ExitCode
from inspector.session import frames
from inspector.session.discovery import same_user
from inspector.session.hub import MOST_WAITING, MOST_WAITING_BYTES
from inspector.session.protocol import PROTOCOL_VERSION, Failed, Hello, SessionMessage, Stop, Welcome

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from inspector.session.hub import Hub, Tell

VIEW_FRAME = 4 * 1024 * 1024
"""Bytes a view may send at once; a prompt longer than this fits no model."""
HELLO_SECONDS = 10.0
MAX_WAITING = 64 * 1024 * 1024
"""Bytes kept for a view that does not read, for instance one that was suspended: a thousand pages of 256 tokens with 15
SAEs."""

log = logging.getLogger(__name__)


def mismatch(view: Hello, session_id: str) -> str | None:
    """The two sentences for a view of another version; None if it may stay."""
    if view.version == PROTOCOL_VERSION:
        return None
    return (
        f"The session {session_id} runs dm-inspect {__version__} with protocol {PROTOCOL_VERSION}, this view speaks "
        f"protocol {view.version}. "
        f"Stop it with `dm-inspect sessions stop {session_id}`, or start another beside it with --new-session."
    )


def too_much(request: int) -> Failed:
    """The answer to a question too many."""
    return Failed(
        request=request,
        exit_code=ExitCode.RESOURCE,
        message=(
            f"This view has {MOST_WAITING} questions or {MOST_WAITING_BYTES >> 20} MB of text waiting for answers. "
            "Wait for some of them, or cancel them."
        ),
    )


class Endpoint:
    """Serves one listening socket from a thread of its own. `start` returns when views are accepted; `stop` when all
    are told goodbye.
    """

    def __init__(
        self, hub: Hub, listening: socket.socket, *, session_id: str, log_path: str, on_stop: Callable[[], None]
    ) -> None:
        self.hub = hub
        self.session_id = session_id
        self.log_path = log_path
        self._listening = listening
        self._on_stop = on_stop
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="views", daemon=True)

    def start(self) -> None:
        """Begin to accept views."""
        self._thread.start()
        self._started.wait()

    def stop(self, seconds: float = 2.0) -> None:
        """Write out what is waiting, at most that long, close every connection and end the thread."""
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(seconds)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._accept, sock=self._listening)
        self._started.set()
        await self._ended.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=1.5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if same_user(writer.get_extra_info("socket")):
                await self._attend(reader, writer)
        except (frames.BadFrame, TimeoutError) as error:
            log.warning("a view was dropped: %s", error)
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            pass  # the session ends; the finally clause is all that is left to do
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._connections.discard(task)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await asyncio.wait_for(frames.read_frame(reader, VIEW_FRAME), HELLO_SECONDS)
        if body is None:
            return
        hello = frames.decode_view(body)
        if not isinstance(hello, Hello):
            raise frames.BadFrame(f"The first message was {type(hello).__name__} and not Hello.")
        refused = mismatch(hello, self.session_id)
        if refused:
            writer.write(frames.encode(Failed(request=hello.request, exit_code=1, message=refused)))
            await writer.drain()
            return
        welcome = Welcome(
            request=hello.request,
            version=PROTOCOL_VERSION,
            program_version=__version__,
            pid=os.getpid(),
            log_path=self.log_path,
        )
        writer.write(frames.encode(welcome))
        outgoing = Outgoing(self._loop, writer)
        view = self.hub.attach(outgoing.tell)
        log.info("view %d attached", view)
        try:
            await self._listen(view, reader, outgoing.tell)
        finally:
            self.hub.detach(view)
            await outgoing.finish()
            log.info("view %d left", view)

    async def _listen(self, view: int, reader: asyncio.StreamReader, tell: Tell) -> None:
        while (body := await frames.read_frame(reader, VIEW_FRAME)) is not None:
            message = frames.decode_view(body)
            if isinstance(message, Stop):
                log.info("view %d asked the session to stop", view)
                self._on_stop()
                continue
            if not self.hub.ask(view, message, len(body)):
                tell(too_much(message.request))
            # What has arrived already is read without a pause; the other views' turn comes only where one is made.
            await asyncio.sleep(0)


class Outgoing:
    """Messages on their way to one view. `tell` may be called from any thread and never blocks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        self._loop = loop
        self._writer = writer

    def tell(self, message: SessionMessage) -> None:
        """Encode here, where a mistake has a traceback worth reading, and write in the endpoint's thread."""
        frame = frames.encode(message)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is there to tell
            self._loop.call_soon_threadsafe(self._write, frame)

    def _write(self, frame: bytes) -> None:
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_WAITING:
            log.warning("a view was dropped: it has not read for %d bytes", MAX_WAITING)
            self._writer.transport.abort()
            return
        self._writer.write(frame)

    async def finish(self) -> None:
        """Let a view that still reads have the last words."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._writer.drain(), 1.0)
