"""What a command says on stderr while it works: a bar on a terminal, a line now and then in a log, or nothing.

stdout carries data only, so everything here goes to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import click

from inspector.cli import interrupts
from inspector.errors import Cancelled
from inspector.events import (
    Downloading,
    Event,
    JudgeProgress,
    Loading,
    MemoryPlanned,
    PassProgress,
    PassShared,
    TrainProgress,
    Warned,
)
from inspector.spec import RunSpec

Result = TypeVar("Result")
SECONDS_BETWEEN_LINES = 5.0
"""In a log file a line more often than this hides everything else; less often looks like a hang."""


class Narrator(Protocol):
    """Hears events and says something about them."""

    def hear(self, event: Event) -> None:
        """Take note of one event."""

    def close(self) -> None:
        """Leave the terminal clean; called once, also after a failure."""


def quiet_option(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command --quiet; its function receives `quiet: bool`."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress on stderr; warnings still come.")(function)


def batch_size_option(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command --batch-size; its function receives `batch_size: int`."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=RunSpec.batch_size,
        show_default=True,
        metavar="N",
        help="Contexts at once: speed and memory, no number.",
    )(function)


def ray_option(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command --ray; its function receives `ray: str | None`."""
    return click.option(
        "--ray",
        metavar="local[:N]|auto|ADDRESS",
        help="On the workers of a Ray cluster, which share the passes; local: one on this machine.",
    )(function)


def follow(
    work: Generator[Event, None, Result], *, quiet: bool, should_stop: Callable[[], bool] = lambda: False
) -> Result:
    """Run `work` to its end, say on stderr how far it is, and return its result.

    Args:
        work: yields events and returns the result.
        quiet: say nothing but warnings.
        should_stop: asked between two events; once it says yes the work is closed, so that it can save what it has.

    Raises:
        Cancelled: `should_stop` said yes, or Ctrl-C ended a download, of which something stays.
    """
    narrator = narrator_for(quiet=quiet)
    event: Event | None = None
    try:
        while True:
            try:
                event = next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            narrator.hear(event)
            if interrupts.pressed() and not should_stop():  # a library has swallowed it
                raise KeyboardInterrupt
            if should_stop():
                raise Cancelled(
                    what_stays(event) or "Stopped at your request. The same command goes on where it stopped."
                )
    except KeyboardInterrupt:
        interrupts.heard()
        work.close()  # from here on nothing more arrives
        if stays := what_stays(event):
            raise Cancelled(stays) from None
        raise
    finally:
        work.close()
        narrator.close()


def what_stays(event: Event | None) -> str:
    """What a download leaves when it is cancelled, in two sentences; empty if it leaves nothing."""
    if not isinstance(event, Downloading) or not event.kept_in:
        return ""
    try:
        n_bytes = os.stat(event.kept_in).st_size
    except OSError:
        return ""
    return (
        f"Cancelled at your request; {n_bytes:,} bytes of {event.file} stay in {event.kept_in}. "
        "The same command goes on from there; remove that file to have the room back."
    )


def narrator_for(*, quiet: bool) -> Narrator:
    """The narrator that suits where stderr goes."""
    if quiet:
        return Silence()
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return Bar()
    return Lines()


def say(text: str) -> None:
    """One line on stderr. Names of files and SAEs come from outside, so nothing in it may act on the terminal."""
    print(_visible(text), file=sys.stderr, flush=True)


def _visible(text: str) -> str:
    from inspector.drawing.safe_text import visible  # brings Rich, which `--help` need not pay for

    return visible(text)


class Silence:
    """Says nothing but warnings."""

    def hear(self, event: Event) -> None:
        """Pass a warning on."""
        if isinstance(event, Warned):
            say(f"warning: {event.message}")

    def close(self) -> None:
        """Nothing to clean."""


class Lines:
    """A plain line when something was loaded, and every few seconds of a pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = float("-inf")
        self._about = ""

    def hear(self, event: Event) -> None:
        """Say it, unless a line about the same was said a moment ago."""
        match event:
            case Warned():
                say(f"warning: {event.message}")
            case Loading(total=0):
                say(loading_text(event))
            case Loading():
                self._now_and_then("loading", loading_text(event), is_last=event.done == event.total)
            case MemoryPlanned():
                for line in memory_text(event):
                    say(line)
            case Downloading():
                text = f"downloading {event.what}: {event.amount}"
                self._now_and_then(event.what, text, is_last=event.done_bytes == event.total_bytes)
            case PassProgress() | TrainProgress():
                self._now_and_then(event_name(event), progress_text(event), is_last=is_complete(event))
                if isinstance(event, TrainProgress) and event.held_out:
                    say(held_out_text(event))
            case PassShared():
                say(event.told)
            case JudgeProgress():
                self._now_and_then(event.stage, judge_text(event), is_last=event.done == event.total)

    def _now_and_then(self, about: str, text: str, *, is_last: bool) -> None:
        now = self._clock()
        if about != self._about or is_last or now - self._said_at >= SECONDS_BETWEEN_LINES:
            self._about, self._said_at = about, now
            say(text)

    def close(self) -> None:
        """Nothing to clean."""


class Bar:
    """A bar that is redrawn in place and disappears when the work is done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[says]}", markup=False),
        )
        # Twice a second: this may run over SSH.
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=2)
        self._task: Any = None
        self._about = ""
        self._progress.start()

    def hear(self, event: Event) -> None:
        """Move the bar, or write a line above it."""
        match event:
            case Warned():
                self._progress.console.print(_visible(f"warning: {event.message}"))
            case Loading(seconds=None):
                self._show("loading", event.done, event.total, _visible(loading_text(event)))
            case Loading(total=0):
                self._progress.console.print(_visible(loading_text(event)))
            case Loading():
                self._show("loading", event.done, event.total, _visible(loading_text(event)))
            case MemoryPlanned():
                for line in memory_text(event):
                    self._progress.console.print(_visible(line))
            case Downloading():
                self._show(f"downloading {_visible(event.what)}", event.done_bytes, event.total_bytes, event.amount)
            case PassProgress() | TrainProgress():
                done, total = amounts(event)
                self._show(event_name(event), done, total, rate_text(event))
                if isinstance(event, TrainProgress) and event.held_out:
                    self._progress.console.print(held_out_text(event))
            case PassShared():
                self._progress.console.print(_visible(event.told))
            case JudgeProgress():
                self._show(event.stage, event.done, event.total, judge_text(event))

    def _show(self, about: str, done: int, total: int, says: str) -> None:
        if about != self._about:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._about, self._task = about, self._progress.add_task(about, total=None, says="")
        self._progress.update(self._task, completed=done, total=total or None, says=says)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def loading_text(event: Loading) -> str:
    """`model stories260K ...`, and when it is there `model stories260K: 3.1 s`."""
    what = f"{event.what} {event.detail}".rstrip()
    return f"{what} ..." if event.seconds is None else f"{what}: {event.seconds:.1f} s"


def memory_text(event: MemoryPlanned) -> list[str]:
    """The plan as a small table; rows that hardly count are left out of it."""
    rows = [(name, n_bytes) for name, n_bytes in event.rows if n_bytes >= 0.005 * event.needed]
    together = "together, at most"
    width = max(len(name) for name in (together, *(name for name, _ in rows)))
    return [
        f"memory on {event.device}:",
        *(f"  {name:<{width}} {n_bytes / 1e9:8.2f} GB" for name, n_bytes in rows),
        f"  {together:<{width}} {event.needed / 1e9:8.2f} GB of {event.budget / 1e9:.2f} GB that may be used",
        *([f"  {event.slices}"] if event.slices else []),
    ]


def event_name(event: PassProgress | TrainProgress) -> str:
    """What is in progress."""
    return event.name if isinstance(event, PassProgress) else "training"


def amounts(event: PassProgress | TrainProgress) -> tuple[int, int]:
    """How much is done, and of how much."""
    if isinstance(event, PassProgress):
        return event.contexts_done, event.contexts_total
    return event.tokens_done, event.tokens_total


def is_complete(event: PassProgress | TrainProgress) -> bool:
    """Whether nothing is left of it."""
    done, total = amounts(event)
    return done >= total


def progress_text(event: PassProgress | TrainProgress) -> str:
    """`moments: 120 of 300 contexts, 12,345 tokens/s, 20 s left`."""
    done, total = amounts(event)
    unit = "contexts" if isinstance(event, PassProgress) else "tokens"
    return f"{event_name(event)}: {done:,} of {total:,} {unit}, {rate_text(event)}"


def judge_text(event: JudgeProgress) -> str:
    """`scoring: 120 of 3,000 answers, 12 known before, 3 tries repeated, 20 s left`."""
    parts = [f"{event.stage}: {event.done:,} of {event.total:,} answers"]
    parts += [f"{event.known:,} known before"] if event.known else []
    parts += [f"{event.retried:,} tries repeated"] if event.retried else []
    parts += [f"{duration(event.seconds_left)} left"] if event.done < event.total else []
    return ", ".join(parts)


def rate_text(event: PassProgress | TrainProgress) -> str:
    """`12,345 tokens/s, 20 s left`, with the mean FVU while training."""
    rate = f"{event.tokens_per_second:,.0f} tokens/s"
    parts = [rate] if is_complete(event) else [rate, f"{duration(event.seconds_left)} left"]
    if isinstance(event, TrainProgress) and event.fvu:
        parts.append(f"FVU {min(event.fvu.values()):.3f} to {max(event.fvu.values()):.3f}")
    return ", ".join(parts)


def held_out_text(event: TrainProgress) -> str:
    """`held out after 600,000 tokens: FVU 0.153 to 0.211, L0 15.8 to 32.0, dead latents 0 to 12`."""
    found = event.held_out.values()
    parts = [
        f"{shown} {_between([each[key] for each in found], digits)}"
        for key, shown, digits in (("fvu", "FVU", 4), ("l0", "L0", 1), ("dead", "dead latents", 0))
    ]
    return f"held out after {event.tokens_done:,} tokens: {', '.join(parts)}"


def _between(values: list[float], digits: int) -> str:
    low, high = (f"{end:,.{digits}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """`20 s`, `3 min 05 s`, `2 h 10 min`; `?` where nothing is known yet."""
    if not 0 <= seconds < 1e7:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
