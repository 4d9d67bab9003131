"""The beginning of every command that computes: load the target, and say on stderr what the user should know."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from inspector import threads
from inspector.events import Event, Warned

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec


def opened(target: TargetSpec) -> Generator[Event, None, Loaded]:
    """Load the target; its warnings become events. Leaves a core to others, as a session does: the same number of
    threads, so that a job and its command end in the same bits.
    """
    from inspector.sources.target import open_target

    threads.limit(spare=1)
    loaded = yield from open_target(target)
    for warning in loaded.warnings:
        yield Warned(message=warning)
    return loaded


def one_context(loaded: Loaded, index: int = 0) -> Loaded:
    """The same target with a single context; what was fitted on all of them can be applied to it."""
    contexts, plan = loaded.contexts, loaded.plan
    here = slice(index, index + 1)
    included, train = plan.included[here], plan.train[here]
    return replace(
        loaded,
        contexts=replace(contexts, token_ids=contexts.token_ids[here], names=contexts.names[here]),
        plan=replace(
            plan, included=included, train=train, n_train=int(train.sum()), n_test=int((included & ~train).sum())
        ),
    )


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
