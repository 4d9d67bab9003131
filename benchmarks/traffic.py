"""Bytes the app writes to its terminal, in 120 columns and 40 rows: per key, while idle, while tokens stream."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.measures import Measure
from benchmarks.sessions import FakeServer
from benchmarks.terminal import Home, Terminal, python
from benchmarks.view import (
    DOWN,
    ESCAPE,
    GENERATE,
    PAGE_DOWN,
    RIGHT,
    WIDTHS,
    WORST,
    open_view,
    wait_for_colours,
    wait_for_finished_map,
)
from inspector.disk.folders import RESULTS
from inspector.store.results import save
from tests.store.objects import worst_result

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "bytes at 120x40"
IDLE_SECONDS = 10.0
TOKENS_PER_SECOND = 30


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group. Counts hardly vary, so `runs` is not used; only one of them needs a model."""
    return [*_pane_alone(), *_whole_screen(), *_worst_tokens(), _idle_with_model(target), _streaming()]


OVER = (("a", "anatomy", "from width to width"), ("L", "latent card", "nearest decoder directions"),
        ("S", "switcher", "Model, hook, suite"))  # fmt: skip
"""Key, name, and words that are there when it is."""


def _pane_alone() -> list[Measure]:
    """The token pane in a program of its own."""
    with Home() as home, Terminal(python("-m", "benchmarks.pane_alone"), home) as view:
        wait_for_colours(view, 30, second_line="")
        return [
            _per_key("cursor step, token pane alone", view, [RIGHT] * 25, 400),
            _per_key("page, token pane alone", view, [PAGE_DOWN] * 5, 45_000),
            _per_key("width switch, token pane alone", view, [*WIDTHS], 45_000),
        ]


def _whole_screen() -> list[Measure]:
    with Home() as home, FakeServer(home) as server, open_view(home, extra=server.environment) as view:
        wait_for_colours(view)
        lines = [
            _per_key("cursor step, detail pane and plot", view, [RIGHT] * 15, 3_000),
            _per_key("cursor down, detail pane and plot", view, [DOWN] * 8, 3_000),
            _per_key("page, detail pane and plot", view, [PAGE_DOWN] * 5, 60_000),
            _per_key("width switch, detail pane and plot", view, [*WIDTHS], 60_000),
        ]
        view.read_until_silent(1.0, 10.0)
        lines.append(_idle("idle, invented session", view))
        return [*lines, *(_page_over(view, *over) for over in OVER)]


def _page_over(view: Terminal, key: str, what: str, shown: str) -> Measure:
    """A page of a screen that a key opens over the Stream."""
    view.send(key)
    view.wait_for(shown)
    view.read_until_silent(1.0, 10.0)
    measured = _per_key(f"page, {what}", view, [PAGE_DOWN], 12_000)
    view.send(ESCAPE)
    view.read_until_silent(1.0, 10.0)
    return measured


def _worst_tokens() -> list[Measure]:
    """Ten thousand rows: a page of them, and from the key that sorts them anew to the last byte."""
    made = worst_result(10_000)
    made["provenance"] |= {"model": "demo", "text": "fake", "n_contexts": 300, "context_length": 256}
    with Home() as home, FakeServer(home) as server:
        folder = home.path / "results"
        save(made, "dm-inspect run worst-tokens", folder=folder)
        extra = {**server.environment, RESULTS.variable: str(folder)}
        with open_view(home, extra=extra) as view:
            wait_for_colours(view)
            view.send(WORST)
            view.wait_for("nonlinear")
            view.read_until_silent(1.0, 10.0)
            page = _per_key("page, worst tokens", view, [PAGE_DOWN] * 5, 12_000)
            bursts = [view.press(RIGHT) for _ in range(8)]
    milliseconds = [1000 * burst.seconds for burst in bursts if burst.n_bytes]
    median = statistics.median(milliseconds) if milliseconds else None
    sort = Measure(
        group="worst tokens",
        what="10,000 rows sorted, key to last byte",
        budget="100 ms",
        measured="no answer" if median is None else f"{median:.0f} ms median of {len(milliseconds)}",
        value=median,
        limit=100,
    )
    return [page, sort]


def _idle_with_model(target: Sequence[str]) -> Measure:
    """The same silence with a real session behind the view, once its map is finished."""
    with Home() as home, open_view(home, target) as view:
        wait_for_finished_map(view)
        return _idle("idle, real session", view)


def _streaming() -> Measure:
    options = {"tokens_per_second": TOKENS_PER_SECOND}
    with Home() as home, FakeServer(home, **options) as server, open_view(home, extra=server.environment) as view:
        wait_for_colours(view)
        view.send(GENERATE)
        view.read_for(0.5)
        view.send("\r")
        view.read_for(1.0)  # the pane opens: a paint, not a stream
        seconds = 5.0
        rate = view.read_for(seconds).n_bytes / seconds
    return Measure(
        group=GROUP,
        what=f"streaming {TOKENS_PER_SECOND} tokens/s",
        budget="15,000 per second",
        measured=f"{rate:,.0f} per second over {seconds:g} s",
        value=rate,
        limit=15_000,
    )


def _per_key(what: str, view: Terminal, keys: Sequence[str], limit: int) -> Measure:
    counts = [view.press(key).n_bytes for key in keys]
    median = statistics.median(counts)
    return Measure(
        group=GROUP,
        what=what,
        budget=f"{limit:,}",
        measured=f"{median:,.0f} median of {len(counts)}, most {max(counts):,}",
        value=median if min(counts) else None,  # a key that wrote nothing was not understood
        limit=limit,
    )


def _idle(what: str, view: Terminal) -> Measure:
    n_bytes = view.read_for(IDLE_SECONDS).n_bytes
    return Measure(
        group=GROUP,
        what=what,
        budget="0 per second",
        measured=f"{n_bytes:,} in {IDLE_SECONDS:g} s",
        value=n_bytes / IDLE_SECONDS,
        limit=0,
    )
