"""How late the app's event loop is while the session loads beside it and while the linear maps are fitted.

A beat every ten milliseconds runs in the app's own loop. A loop that hangs sends one late beat instead of many, which
would hide the hang in a percentile; so each late beat also stands for those that should have come meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        beats = read_beats(record)
    loading = [late for at, late in beats if painted <= at < coloured]
    fitting = [late for at, late in beats if at >= coloured]
    return [*_judge("while the session loads", loading), *_judge("while the maps are fitted", fitting)]


def read_beats(path: Path) -> list[tuple[float, float]]:
    """(when, seconds late) of each beat, with the beats that a late one stands for."""
    data = path.read_bytes()
    whole = data[: len(data) - len(data) % BEAT.size]
    return fill_in([(at, late) for at, late in BEAT.iter_unpack(whole)])


def fill_in(beats: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Add the beats that did not come while the loop hung: each a period less late than the one before it."""
    filled = []
    for at, late in beats:
        while late > PERIOD:
            filled.append((at, late))
            late -= PERIOD
        filled.append((at, max(late, 0.0)))
    return filled


def _judge(when: str, late: Sequence[float]) -> list[Measure]:
    if not late:
        return [unmeasured(GROUP, when, f"p99 {P99_MS:g} ms, worst {WORST_MS:g} ms", "no beats")]
    p99, worst = 1000 * percentile(late, 99), 1000 * max(late)
    return [
        Measure(
            group=GROUP,
            what=f"p99 {when}",
            budget=f"{P99_MS:g} ms",
            measured=f"{p99:.0f} ms of {len(late):,} beats",
            value=p99,
            limit=P99_MS,
        ),
        Measure(
            group=GROUP,
            what=f"worst {when}",
            budget=f"{WORST_MS:g} ms",
            measured=f"{worst:.0f} ms",
            value=worst,
            limit=WORST_MS,
        ),
    ]
