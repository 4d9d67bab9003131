"""Time from a width's key to the last byte of the new colours, and that it does not grow with the corpus."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.measures import Measure, percentile
from benchmarks.sessions import FakeServer
from benchmarks.terminal import Home
from benchmarks.view import WIDTHS, open_view, wait_for_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "width switch"
CORPORA = (3, 300)
CONTEXT_LENGTH = 1024
LIMIT_MS = 50.0


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group; an invented session, so `target` is not used."""
    times = {n_contexts: _milliseconds(n_contexts, 3 * runs) for n_contexts in CORPORA}
    return [*(_switch(n_contexts, values) for n_contexts, values in times.items()), _independence(times)]


def _milliseconds(n_contexts: int, presses: int) -> list[float]:
    """Key to last byte, for each press. The first two are thrown away: they fill caches."""
    options = {"n_contexts": n_contexts, "context_length": CONTEXT_LENGTH}
    with Home() as home, FakeServer(home, **options) as server, open_view(home, extra=server.environment) as view:
        wait_for_colours(view)
        bursts = [view.press(WIDTHS[i % len(WIDTHS)], silence=0.25) for i in range(presses + 2)][2:]
    return [1000 * burst.seconds for burst in bursts if burst.n_bytes]


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
