"""The terminal may vanish: an SSH connection is cut, tmux is killed. Then the view ends, at once and without a word.

The kernel tells by SIGHUP, but only the foreground of a controlling terminal. Otherwise reading returns nothing for
ever, so that Textual's input thread spins, and writing fails, so that its output thread dies and every later write
waits for it. So a thread waits for the hang-up itself, and writing never waits for a thread that is gone. The session
notices nothing but that a view left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import signal
import threading
from typing import TYPE_CHECKING

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_WORDS_SECONDS = 0.5
"""For the event loop to save what the view remembers, before the process ends without it."""
WRITE_SECONDS = 0.2
"""Between two looks at whether the output thread is still there, while its queue is full."""
HUNG_UP = 128 + signal.SIGHUP
"""Exit code, as a shell would report it."""


class PatientDriver(LinuxDriver):
    """Textual's driver, which a terminal that is gone cannot block."""

    def write(self, data: str) -> None:
        """Hand text to the output thread; if that has died there is no terminal, and nothing to be said to it."""
        thread = self._writer_thread
        while thread is not None and thread.is_alive():
            with contextlib.suppress(queue.Full):
                thread._queue.put(data, timeout=WRITE_SECONDS)
                return

    def close(self) -> None:
        """End the output thread, if it has not ended by itself."""
        thread = self._writer_thread
        while thread is not None and thread.is_alive():
            with contextlib.suppress(queue.Full):
                thread._queue.put(None, timeout=WRITE_SECONDS)
                thread.join()


def is_gone(fileno: int) -> bool:
    """Whether the terminal behind this descriptor has hung up."""
    poll = select.poll()
    poll.register(fileno, 0)
    return any(found & (select.POLLHUP | select.POLLERR) for _, found in poll.poll(0))


def watch(fileno: object, loop: asyncio.AbstractEventLoop, last_words: Callable[[], None]) -> None:
    """End the process when the terminal hangs up.

    The thread sleeps in the kernel until then: no work, no wake-ups.

    Args:
        fileno: of the driver; what is no terminal is not watched.
        loop: of the app.
        last_words: called in the loop before the end, if the loop still runs.
    """
    if isinstance(fileno, int) and os.isatty(fileno) and hasattr(select, "poll"):
        threading.Thread(target=_wait, args=(fileno, loop, last_words), name="terminal-watch", daemon=True).start()


def _wait(fileno: int, loop: asyncio.AbstractEventLoop, last_words: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(fileno, 0)  # no events asked for: only a hang-up or an error is told
    while True:
        found = [events for _, events in poll.poll()]
        if any(events & select.POLLNVAL for events in found):
            return  # the descriptor was closed, or this system cannot watch terminals
        if found:
            break
    leave(loop, last_words)


def leave(loop: asyncio.AbstractEventLoop, last_words: Callable[[], None]) -> None:
    """End the process from another thread: no terminal is left to restore."""
    said = threading.Event()

    def say() -> None:
        try:
            last_words()
        finally:
            said.set()

    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(say)
        said.wait(LAST_WORDS_SECONDS)
    os._exit(HUNG_UP)
