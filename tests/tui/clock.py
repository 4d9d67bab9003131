"""An event loop on which nobody waits: when all that is left to do is to wait for a time, that time is now.

Tests of the app wait for timers all the time, and for a machine that is busy as long again. Here a timer that is due in
half a second is due as soon as nothing else is left to do, in the same order among the others, and what is computed
takes no time: nothing depends on how fast the machine is. Threads and processes at work are waited for in earnest.
"""

from __future__ import annotations

import asyncio
import selectors
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from textual.notifications import Notification


class _Selector(selectors.DefaultSelector):
    """Selects what is ready, and instead of waiting moves the clock of its loop."""

    loop: Unhurried

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or timeout < 0 or self.loop.waits_for_others():
            began = time.monotonic()
            ready = super().select(timeout)
            timeout = time.monotonic() - began
        self.loop.passed += timeout
        return ready


class Unhurried(asyncio.SelectorEventLoop):
    """Its time stands while anything is done, and jumps to the next timer when nothing is."""

    def __init__(self) -> None:
        self.passed = 0.0
        """Seconds, of which none was waited for unless others were."""
        self._threads = 0
        self._processes: weakref.WeakSet[asyncio.SubprocessTransport] = weakref.WeakSet()
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed

    def waits_for_others(self) -> bool:
        """Whether a thread or a process is at work that was started from this loop."""
        return self._threads > 0 or any(each.get_returncode() is None for each in self._processes)

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(*arguments)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._threads -= 1

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> Any:
        transport, protocol = await super().subprocess_exec(*arguments, **options)
        self._processes.add(transport)
        return transport, protocol


def now() -> float:
    """The time of the running loop; without one the machine's, for apps that are only made."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


@contextmanager
def time_of_the_loop() -> Iterator[None]:
    """What Textual's timers and notices go by meanwhile."""

    def raised(*arguments: Any, **options: Any) -> Notification:
        return Notification(*arguments, raised_at=now(), **options)

    with (
        mock.patch("textual._time.get_time", now),
        mock.patch("textual.notifications.time", now),
        mock.patch("textual.app.Notification", raised),
    ):
        yield
