"""Between views and the thread that computes: who is attached, what waits for an answer, the socket they come in by.

`Views` is where the two threads meet. The server's thread puts questions in and takes messages out, the computing
thread does the reverse; neither waits for the other. What every view has to know (how far loading is, what is loaded,
how good the maps are) is remembered for views that attach later.

`Server` accepts views on the socket. It computes nothing and imports no torch, so it answers Hello while the engine is
still loading. A view that breaks the protocol, reads nothing for too long or belongs to another user loses its own
connection and disturbs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspector import __version__
from inspector.errors import ExitCode, InspectorError, ResourceError, is_out_of_memory
from inspector.session import frames
from inspector.session.discovery import same_user
from inspector.session.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Failed,
    Hello,
    JobTold,
    LoadProgress,
    MapImproved,
    Ready,
    SessionMessage,
    Stop,
    ToldToAll,
    ViewMessage,
    Welcome,
)

if TYPE_CHECKING:
    import socket

Tell = Callable[[SessionMessage], None]
"""Hands one message to one view without blocking."""
MOST_WAITING = 200
"""Questions of one view that may wait for an answer; a screen that pages as fast as a key repeats asks thirty."""
MOST_WAITING_BYTES = 8 << 20
"""Of those questions together: two prompts as long as a frame may be."""
VIEW_FRAME = 4 * 1024 * 1024
"""Bytes a view may send at once; a prompt longer than this fits no model."""
HELLO_SECONDS = 10.0
MAX_WAITING = 64 * 1024 * 1024
"""Bytes kept for a view that does not read, for instance one that was suspended: a thousand pages of 256 tokens with 15
SAEs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A view asked something."""

    view: int
    message: ViewMessage
    n_bytes: int = field(default=0, compare=False)
    """As it came."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """A view has gone; its answers are no longer waited for."""

    view: int


class Questions:
    """What waits for an answer. Views take turns, so that one with a hundred questions delays another's by one."""

    def __init__(self) -> None:
        self._by_view: OrderedDict[int, deque[Asked]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._by_view)

    def add(self, asked: Asked) -> None:
        """Behind the other questions of its view."""
        self._by_view.setdefault(asked.view, deque()).append(asked)

    def take(self) -> Asked:
        """The oldest question of the view that has waited longest for its turn.

        Raises:
            KeyError: there is none.
        """
        view, waiting = self._by_view.popitem(last=False)
        asked = waiting.popleft()
        if waiting:
            self._by_view[view] = waiting
        return asked

    def take_all(self) -> list[Asked]:
        """Every question, in the order of `take`."""
        taken = []
        while self:
            taken.append(self.take())
        return taken

    def withdraw(self, view: int, request: int | None = None) -> list[Asked]:
        """Questions of a view that need no answer any more: of one request, or all."""
        waiting = self._by_view.pop(view, deque())
        gone = [asked for asked in waiting if request is None or asked.message.request == request]
        rest = deque(asked for asked in waiting if asked not in gone)
        if rest:
            self._by_view[view] = rest
        return gone


class Views:
    """One per session. View numbers count from 1 and are never used twice."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Asked | Left] = queue.SimpleQueue()
        self.stopping = threading.Event()
        """Set by `stop`: the session is asked to end."""
        self._lock = threading.Lock()
        self._tells: dict[int, Tell] = {}
        self._waiting: dict[int, tuple[int, int]] = {}
        """By view: number and bytes of its questions that are not taken up yet."""
        self._numbers = itertools.count(1)
        self._alone_since: float | None = time.monotonic()
        self._known: dict[type[ToldToAll], ToldToAll] = {}
        """The last of each kind that was told to all, but for jobs."""
        self._jobs: dict[str, JobTold] = {}
        """Queued and running ones, by id, as they were last told."""

    # ---- the side of the views --------------------------------------------------------------------------------

    def attach(self, tell: Tell) -> int:
        """A view is there; it is told at once what the others already know. Returns its number."""
        with self._lock:
            view = next(self._numbers)
            # Loading is history once it is over, well or badly; a failure after it is told beside what can still be
            # seen.
            over = Ready in self._known or Failed in self._known
            for kind in (Ready, MapImproved, Failed) if over else (LoadProgress,):
                if kind in self._known:
                    tell(self._known[kind])
            for job in self._jobs.values():
                tell(job)
            self._tells[view] = tell
            self._waiting[view] = (0, 0)
            self._alone_since = None
        return view

    def detach(self, view: int) -> None:
        """A view has gone. Harmless if it already had."""
        with self._lock:
            if self._tells.pop(view, None) is None:
                return
            del self._waiting[view]
            if not self._tells:
                self._alone_since = time.monotonic()
        self.inbox.put(Left(view=view))

    def ask(self, view: int, message: ViewMessage, n_bytes: int = 0) -> bool:
        """Put a question before the engine. False: too much of this view waits already, and it was not put.

        Args:
            view: that asks.
            message: its question.
            n_bytes: of the frame it came in.
        """
        with self._lock:
            n, size = self._waiting.get(view, (0, 0))
            most = (
                2 * MOST_WAITING if isinstance(message, Cancel) else MOST_WAITING
            )  # a view that asked too much may cancel
            if n >= most or (n and size + n_bytes > MOST_WAITING_BYTES):
                return False
            self._waiting[view] = (n + 1, size + n_bytes)
        self.inbox.put(Asked(view=view, message=message, n_bytes=n_bytes))
        return True

    def forget(self) -> None:
        """The session loads something else: what views to come are told begins anew."""
        with self._lock:
            self._known.clear()

    def stop(self) -> None:
        """Ask the session to end; wakes the engine if it waits. May be called from a signal handler."""
        self.stopping.set()
        self.inbox.put(Left(view=0))

    # ---- the side of the engine -------------------------------------------------------------------------------

    def taken_up(self, asked: Asked) -> None:
        """A question is being answered, or needs no answer: it does not count as waiting any more."""
        with self._lock:
            if asked.view in self._waiting:
                n, size = self._waiting[asked.view]
                self._waiting[asked.view] = (n - 1, size - asked.n_bytes)

    def tell(self, view: int, message: SessionMessage) -> None:
        """Tell one view; silently nothing if it has gone."""
        with self._lock:
            tell = self._tells.get(view)
            if tell is not None:
                tell(message)

    def tell_all(self, message: ToldToAll) -> None:
        """Tell every view, and those to come."""
        with self._lock:
            if not isinstance(message, JobTold):
                self._known[type(message)] = message
            elif message.job.state in ("queued", "running"):
                self._jobs[message.job.id] = message
            else:
                self._jobs.pop(message.job.id, None)
            for tell in self._tells.values():
                tell(message)

    def remember(self, message: MapImproved) -> None:
        """What views to come are told of the maps; those that are there look under different policies."""
        with self._lock:
            self._known[MapImproved] = message

    @property
    def numbers(self) -> list[int]:
        """Numbers of the views attached now."""
        with self._lock:
            return list(self._tells)

    @property
    def count(self) -> int:
        """Views attached now."""
        with self._lock:
            return len(self._tells)

    def seconds_alone(self) -> float:
        """How long no view has been attached; 0 while one is."""
        with self._lock:
            return 0.0 if self._alone_since is None else time.monotonic() - self._alone_since


class Server:
    """Serves one listening socket from a thread of its own: `start` returns when views are accepted, `stop` when all
    that was to be told is written out.
    """

    def __init__(
        self, views: Views, listening: socket.socket, *, session_id: str, log_path: str, on_stop: Callable[[], None]
    ) -> None:
        self.views = views
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
        if hello.version != PROTOCOL_VERSION:
            other = InspectorError(
                f"The session {self.session_id} runs dm-inspect {__version__} with protocol {PROTOCOL_VERSION}, this "
                f"view speaks protocol {hello.version}. Stop it with `dm-inspect sessions stop {self.session_id}`, or "
                "start another beside it with --new-session."
            )
            writer.write(frames.encode(failed(other, hello.request)))
            await writer.drain()
            return
        welcome = Welcome(
            request=hello.request,
            version=PROTOCOL_VERSION,
            program_version=__version__,
            pid=os.getpid(),
            log_path=self.log_path,
            session=self.session_id,
        )
        writer.write(frames.encode(welcome))
        outgoing = Outgoing(self._loop, writer)
        view = self.views.attach(outgoing.tell)
        log.info("view %d attached", view)
        try:
            await self._listen(view, reader, outgoing.tell)
        finally:
            self.views.detach(view)
            await outgoing.finish()
            log.info("view %d left", view)

    async def _listen(self, view: int, reader: asyncio.StreamReader, tell: Tell) -> None:
        while (body := await frames.read_frame(reader, VIEW_FRAME)) is not None:
            message = frames.decode_view(body)
            if isinstance(message, Stop):
                log.info("view %d asked the session to stop", view)
                self._on_stop()
                continue
            if not self.views.ask(view, message, len(body)):
                tell(too_much(message.request))
            # What has arrived already is read without a pause; other views are served only where one is made.
            await asyncio.sleep(0)


class Outgoing:
    """Messages on their way to one view. `tell` may be called from any thread and never blocks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        self._loop = loop
        self._writer = writer

    def tell(self, message: SessionMessage) -> None:
        """Encode here, where a mistake has a traceback worth reading, and write in the server's thread."""
        frame = frames.encode(message)
        with contextlib.suppress(RuntimeError):  # the loop has ended: no view is there to tell
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
        """Write out the last words to a view that still reads."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._writer.drain(), 1.0)


def too_much(request: int) -> Failed:
    """The answer to a question too many."""
    waiting = f"{MOST_WAITING} questions or {MOST_WAITING_BYTES >> 20} MB of text waiting for answers"
    return failed(ResourceError(f"This view has {waiting}. Wait for some of them, or cancel them."), request)


def failed(error: BaseException, request: int = 0) -> Failed:
    """What to tell; call it in the `except` clause, where the traceback still is."""
    if isinstance(error, InspectorError):
        log.info("request %d failed: %s", request, error)
        return Failed(request=request, exit_code=error.exit_code, message=str(error))
    log.exception("request %d failed unexpectedly", request)
    said = next(iter(str(error).strip().splitlines()), "")
    if is_out_of_memory(error):
        message = (
            "The device is out of memory. Load fewer SAEs (--widths, --l0) or shorter contexts (--context-length)."
        )
        return Failed(request=request, exit_code=ExitCode.RESOURCE, message=message)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    message = f"Something unexpected happened ({what[:300]}). The session's log has the traceback."
    return Failed(request=request, exit_code=ExitCode.UNEXPECTED, message=message)
