"""Where the thread that talks to views and the thread that computes meet; both may call everything here.

The first only puts questions in and takes messages out, the second only the reverse; neither ever waits for the other.
What every view has to know (how far loading is, what is loaded, how good the maps are) is remembered for views that
attach later. No torch, no sockets.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from inspector.session.protocol import (
    Cancel,
    Failed,
    JobTold,
    LoadProgress,
    MapImproved,
    Ready,
    SessionMessage,
    ViewMessage,
)

Tell = Callable[[SessionMessage], None]
"""Hands one message to one view without blocking."""


MOST_WAITING = 200
"""Questions of one view that may wait for an answer; a screen that pages as fast as a key repeats asks thirty."""
MOST_WAITING_BYTES = 8 << 20
"""Of those questions together: two prompts as long as a frame may be."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A view asked something."""

    view: int
    message: ViewMessage
    n_bytes: int = field(default=0, compare=False)
    """As it came."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """A view has gone; nobody waits for its answers any more."""

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


class Hub:
    """One per session. View numbers count from 1 and are never used twice."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Asked | Left] = queue.SimpleQueue()
        self.stopping = threading.Event()
        """Set by `stop`: somebody asked the session to end."""
        self._lock = threading.Lock()
        self._tells: dict[int, Tell] = {}
        self._waiting: dict[int, tuple[int, int]] = {}
        """By view: number and bytes of its questions that nobody has taken up."""
        self._numbers = itertools.count(1)
        self._alone_since: float | None = time.monotonic()
        self._progress: LoadProgress | None = None
        self._ready: Ready | None = None
        self._improved: MapImproved | None = None
        self._failed: Failed | None = None
        self._jobs: dict[str, JobTold] = {}
        """Queued and running ones, by id, as they were last told."""

    # ---- the side of the views --------------------------------------------------------------------------------

    def attach(self, tell: Tell) -> int:
        """A view is there; it is told at once what the others already know. Returns its number."""
        with self._lock:
            view = next(self._numbers)
            # Loading is history once it is over, well or badly; a failure after it is told beside what can still be
            # seen.
            progress = None if self._ready or self._failed else self._progress
            for message in (progress, self._ready, self._improved, self._failed, *self._jobs.values()):
                if message is not None:
                    tell(message)
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
            most = 2 * MOST_WAITING if isinstance(message, Cancel) else MOST_WAITING  # who asked too much may cancel
            if n >= most or (n and size + n_bytes > MOST_WAITING_BYTES):
                return False
            self._waiting[view] = (n + 1, size + n_bytes)
        self.inbox.put(Asked(view=view, message=message, n_bytes=n_bytes))
        return True

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

    def tell_all(self, message: LoadProgress | Ready | MapImproved | JobTold | Failed) -> None:
        """Tell every view, and those to come."""
        with self._lock:
            match message:
                case LoadProgress():
                    self._progress = message
                case Ready():
                    self._ready = message
                case MapImproved():
                    self._improved = message
                case JobTold(job=job) if job.state in ("queued", "running"):
                    self._jobs[job.id] = message
                case JobTold(job=job):
                    self._jobs.pop(job.id, None)
                case Failed():
                    self._failed = message
            for tell in self._tells.values():
                tell(message)

    def remember(self, message: MapImproved) -> None:
        """What views to come are told of the maps; those that are there look under different policies."""
        with self._lock:
            self._improved = message

    @property
    def views(self) -> list[int]:
        """Numbers of the views attached now."""
        with self._lock:
            return list(self._tells)

    @property
    def n_views(self) -> int:
        """Views attached now."""
        with self._lock:
            return len(self._tells)

    def seconds_alone(self) -> float:
        """How long no view has been attached; 0 while one is."""
        with self._lock:
            return 0.0 if self._alone_since is None else time.monotonic() - self._alone_since
