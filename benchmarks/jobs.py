"""What a job costs those who look: how soon a page of tokens comes while a sweep runs, and what the view writes.

A view in a terminal starts the session; beside it a client starts jobs and asks for pages, as another view would.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from benchmarks.measures import Measure, percentile, unmeasured
from benchmarks.terminal import Home
from benchmarks.view import open_view, wait_for_colours, wait_for_finished_map
from inspector.events import JobInfo
from inspector.session.client import SessionClient
from inspector.session.protocol import (
    CancelJob,
    ContextScores,
    Failed,
    GetContext,
    GetJobs,
    Jobs,
    JobTold,
    Ready,
    SessionMessage,
    StartJob,
    ViewMessage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.terminal import Terminal

GROUP = "while a job runs"
SWEEP = ["error-vector", "fvu-nonlinear", "norm-prediction"]
QUIET_SECONDS = 8.0
JOBS, ESCAPE = "J", "\x1b"
PAGE_MS, BYTES = 300.0, 1_000.0
PAGES = 200
PAUSE_SECONDS = 0.05
"""Between two pages: a key held down."""


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures, from one session on `target`; they need many pages and not many runs, so `runs` is not used."""
    with Home() as home:
        own = {name: str(home.path / name) for name in ("DM_INSPECT_JOBS_DIR", "DM_INSPECT_RESULTS_DIR")}
        with open_view(home, target, own) as view:
            wait_for_colours(view)
            wait_for_finished_map(view)
            (socket,) = (home.path / "run").glob("*.sock")
            lines = [_bytes(view, socket, "stream screen")]
            view.send(JOBS)
            lines.append(_bytes(view, socket, "jobs screen"))
            view.send(ESCAPE)
            view.read_for(1.0)
            waits, n_contexts = asyncio.run(_pages(socket))
        return [*lines, _latency(waits, n_contexts)]


async def _start(socket: Path) -> str:
    """Queue a sweep; returns its id once it runs."""
    client = await SessionClient.connect(socket)
    try:
        return (await _running(client)).id
    finally:
        await client.close()


async def _cancel(socket: Path, job: str) -> bool:
    """End it; whether it was still running."""
    client = await SessionClient.connect(socket)
    told = await _answer(client, CancelJob(job=job))
    await client.close()
    return isinstance(told, JobTold)


async def _pages(socket: Path) -> tuple[list[float], int]:
    """Seconds to each of PAGES pages while sweeps run, one after the other; and how many contexts there are."""
    client = await SessionClient.connect(socket)
    n_contexts = 1
    async for message in client.messages():
        if isinstance(message, Ready):
            n_contexts = message.n_contexts
            break
    chosen = random.Random(0)
    waits: list[float] = []
    job = await _running(client)
    while len(waits) < PAGES:
        began = time.perf_counter()
        page = await _answer(client, GetContext(context=chosen.randrange(n_contexts)))
        seconds = time.perf_counter() - began
        if not isinstance(page, ContextScores):
            raise RuntimeError(f"a page was answered with {page}")
        found = await _state(client, job.id)
        if found.state == "running":
            waits.append(seconds)
        elif found.state == "done":
            job = await _running(client)
        else:
            raise RuntimeError(f"the sweep ended as {found.state}: {found.error}")
        await asyncio.sleep(PAUSE_SECONDS)
    await _answer(client, CancelJob(job=job.id))
    await client.close()
    return waits, n_contexts


async def _running(client: SessionClient) -> JobInfo:
    """A sweep that has begun."""
    told = await _answer(client, StartJob(experiments=SWEEP))
    if not isinstance(told, JobTold):
        raise RuntimeError(f"no job was started: {told}")
    while (found := await _state(client, told.job.id)).state == "queued" or not found.done:
        await asyncio.sleep(0.1)
    return found


async def _state(client: SessionClient, job: str) -> JobInfo:
    listed = await _answer(client, GetJobs())
    assert isinstance(listed, Jobs), listed
    return next(each for each in listed.jobs if each.id == job)


async def _answer(client: SessionClient, question: ViewMessage) -> SessionMessage:
    """Ask and wait; what is told to all is passed over."""
    request = await client.send(question)
    async for message in client.messages():
        if message.request == request:
            return message
    return Failed(exit_code=1, message=client.lost or "the connection ended")


def _bytes(view: Terminal, socket: Path, screen: str) -> Measure:
    """What the view writes while a sweep runs that it did not start."""
    what, budget = f"bytes of the view, {screen}, 120x40", f"{BYTES:,.0f} per second"
    job = asyncio.run(_start(socket))
    view.read_for(1.5)  # the line of the job appears: a paint, not a stream
    rate = view.read_for(QUIET_SECONDS).n_bytes / QUIET_SECONDS
    if not asyncio.run(_cancel(socket, job)):
        return unmeasured(GROUP, what, budget, f"the sweep was over in {QUIET_SECONDS:g} s; give more --contexts")
    view.read_for(1.0)
    return Measure(
        group=GROUP,
        what=what,
        budget=budget,
        measured=f"{rate:,.0f} per second over {QUIET_SECONDS:g} s",
        value=rate,
        limit=BYTES,
    )


def _latency(waits: Sequence[float], n_contexts: int) -> Measure:
    p95 = 1000 * percentile(waits, 95)
    return Measure(
        group=GROUP,
        what="a page of tokens, p95",
        budget=f"{PAGE_MS:g} ms",
        measured=f"{p95:.0f} ms of {len(waits)} pages, p50 {1000 * percentile(waits, 50):.0f}, "
        f"worst {1000 * max(waits):.0f}; {n_contexts} contexts",
        value=p95,
        limit=PAGE_MS,
    )
