"""Time from a width's key to the last byte of the new colours, and that it does not grow with the corpus."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.measures import Measure, percentile
from benchmarks.sessions import FakeServer
from benchmarks.terminal import Home
from benchmarks.view import WIDTHS, open_view, wait_for_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.terminal import Terminal

GROUP = "width switch"
CORPORA = (3, 300)
CONTEXT_LENGTH = 1024
LIMIT_MS = 50.0
WARM_UP = 2
"""Presses that are thrown away: they fill caches."""


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group; an invented session, so `target` is not used."""
    times = _milliseconds(4 * runs)
    return [*(_switch(n_contexts, values) for n_contexts, values in times.items()), _independence(times)]


def _milliseconds(presses: int) -> dict[int, list[float]]:
    """Key to last byte by corpus size, in turn, so that whatever else the machine does falls on both."""
    times: dict[int, list[float]] = {n_contexts: [] for n_contexts in CORPORA}
    with ExitStack() as stack:
        views = {n_contexts: _view(stack, n_contexts) for n_contexts in CORPORA}
        for press in range(presses + WARM_UP):
            for n_contexts, view in views.items():
                burst = view.press(WIDTHS[press % len(WIDTHS)], silence=0.25)
                if burst.n_bytes and press >= WARM_UP:
                    times[n_contexts].append(1000 * burst.seconds)
    return times


def _view(stack: ExitStack, n_contexts: int) -> Terminal:
    home = stack.enter_context(Home())
    options = {"n_contexts": n_contexts, "context_length": CONTEXT_LENGTH}
    server = stack.enter_context(FakeServer(home, **options))
    view = stack.enter_context(open_view(home, extra=server.environment))
    wait_for_colours(view)
    return view


def _switch(n_contexts: int, values: Sequence[float]) -> Measure:
    what = f"{n_contexts} x {CONTEXT_LENGTH} tokens, key to last byte"
    median = statistics.median(values) if values else None
    return Measure(
        group=GROUP,
        what=what,
        budget=f"{LIMIT_MS:g} ms",
        measured=f"{median:.0f} ms median of {len(values)}, p90 {percentile(values, 90):.0f} ms"
        if values
        else "no answer",
        value=median,
        limit=LIMIT_MS,
    )


def _independence(times: dict[int, list[float]]) -> Measure:
    small, large = (statistics.median(times[n_contexts]) for n_contexts in CORPORA)
    return Measure(
        group=GROUP,
        what=f"{CORPORA[1]} contexts against {CORPORA[0]}",
        budget="independent of corpus size",
        measured=f"{large / small:.2f} x",
        value=large / small,
        limit=1.25,
    )
