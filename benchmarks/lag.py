"""How late the app's event loop is while the session loads beside it and while the linear maps are fitted.

A beat every ten milliseconds runs in the app's own loop. A loop that hangs sends one late beat instead of many, which
would hide the hang in a percentile; so each late beat also stands for those that should have come meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.launch import BEAT, PERIOD
from benchmarks.measures import Measure, percentile, unmeasured
from benchmarks.terminal import Home
from benchmarks.view import open_view, wait_for_colours

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GROUP = "event-loop lag"
P99_MS, WORST_MS = 50.0, 100.0
FIT_SECONDS = 20.0


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group, from one start of the app on `target`; a fresh session loads and fits meanwhile."""
    with Home() as home:
        record = home.path / "beats"
        with open_view(home, target, launch=("--heartbeat", str(record))) as view:
            view.wait_until(lambda _: view.screen.n_visible >= 20, limit=30)
            painted = view.started + (view.first_painted() or 0.0)
            wait_for_colours(view, 240)
            coloured = view.chunks[-1].at
            view.read_for(FIT_SECONDS)
            ended = time.perf_counter()  # leaving the terminal is slow and nobody waits for a key then
        beats = read_beats(record)
    loading = [beat for beat in beats if painted <= beat.at < coloured]
    fitting = [beat for beat in beats if coloured <= beat.at < ended]
    return [*_judge("while the session loads", loading), *_judge("while the maps are fitted", fitting)]


class Beat(NamedTuple):
    """One beat of the loop; all in seconds."""

    at: float
    late: float
    computed: float
    """Processor time of the loop's thread since the beat before: what of the lateness is the app's own doing."""


def read_beats(path: Path) -> list[Beat]:
    """Every beat that was recorded whole."""
    data = path.read_bytes()
    return [Beat(*values) for values in BEAT.iter_unpack(data[: len(data) - len(data) % BEAT.size])]


def fill_in(beats: Sequence[Beat]) -> list[float]:
    """How late each beat was, with those that did not come while the loop hung: each a period less late."""
    late = []
    for beat in beats:
        left = beat.late
        while left > PERIOD:
            late.append(left)
            left -= PERIOD
        late.append(max(left, 0.0))
    return late


def _judge(when: str, beats: Sequence[Beat]) -> list[Measure]:
    if not beats:
        return [unmeasured(GROUP, when, f"p99 {P99_MS:g} ms, worst {WORST_MS:g} ms", "no beats")]
    late = fill_in(beats)
    worst = max(beats, key=lambda beat: beat.late)
    busiest = max(beat.computed for beat in beats)
    p99_ms, worst_ms = 1000 * percentile(late, 99), 1000 * worst.late
    own = f"{worst_ms:.0f} ms, {1000 * worst.computed:.0f} of them computing; longest computation {1000 * busiest:.0f}"
    return [
        Measure(
            group=GROUP,
            what=f"p99 {when}",
            budget=f"{P99_MS:g} ms",
            measured=f"{p99_ms:.0f} ms of {len(late):,} beats",
            value=p99_ms,
            limit=P99_MS,
        ),
        Measure(
            group=GROUP, what=f"worst {when}", budget=f"{WORST_MS:g} ms", measured=own, value=worst_ms, limit=WORST_MS
        ),
    ]
