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
from collections.abc import Callable
from dataclasses import dataclass

from inspector.session.protocol import (
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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A view asked something."""

    view: int
    message: ViewMessage


@dataclass(frozen=True, kw_only=True)
class Left:
    """A view has gone; nobody waits for its answers any more."""

    view: int


class Hub:
    """One per session. View numbers count from 1 and are never used twice."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Asked | Left] = queue.SimpleQueue()
        self.stopping = threading.Event()
        """Set by `stop`: somebody asked the session to end."""
        self._lock = threading.Lock()
        self._tells: dict[int, Tell] = {}
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
            self._alone_since = None
        return view

    def detach(self, view: int) -> None:
        """A view has gone. Harmless if it already had."""
        with self._lock:
            if self._tells.pop(view, None) is None:
                return
            if not self._tells:
                self._alone_since = time.monotonic()
        self.inbox.put(Left(view=view))

    def ask(self, view: int, message: ViewMessage) -> None:
        """Put a question before the engine."""
        self.inbox.put(Asked(view=view, message=message))

    def stop(self) -> None:
        """Ask the session to end; wakes the engine if it waits. May be called from a signal handler."""
        self.stopping.set()
        self.inbox.put(Left(view=0))

    # ---- the side of the engine -------------------------------------------------------------------------------

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
