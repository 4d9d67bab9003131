"""Ctrl-C as a wish: long work ends between two steps, with what it has kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 0.7
"""For the step under way to end by itself. After that it is ended as a second Ctrl-C ends it: what was kept before
stays, and a step that takes so long is one that is repeated from there.
"""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish that is asked for between two steps.

    A second one acts at once, and so does the first where the next step does not come within `PATIENCE_SECONDS`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    main = threading.get_ident()
    impatience = threading.Timer(PATIENCE_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
    impatience.daemon = True

    def wish(number: int, _frame: object) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)
        if not impatience.ident:
            impatience.start()

    def asked() -> bool:
        if stop.is_set():
            impatience.cancel()  # what is saved now is saved in peace
        return stop.is_set()

    for number in before:
        signal.signal(number, wish)
    try:
        yield asked
    finally:
        impatience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
