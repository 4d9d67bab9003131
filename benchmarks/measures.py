"""What a benchmark says: one line per measure, and the table they make."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number and the budget it is held against."""

    group: str
    what: str
    budget: str
    """As the design states it; '-' where it states none."""
    measured: str
    """For people, with its unit."""
    value: float | None
    """For programs; None if it could not be measured."""
    limit: float | None = None
    """The largest value that is still within budget; None: reported, not judged."""

    @property
    def verdict(self) -> str:
        """'met', 'MISSED', 'not measured', or '-' where nothing was promised."""
        if self.value is None:
            return "not measured"
        if self.limit is None:
            return "-"
        return "met" if self.value <= self.limit else "MISSED"

    @property
    def failed(self) -> bool:
        """Whether this line should fail the run: a promise that was broken, or one that nobody could check."""
        return self.verdict in ("MISSED", "not measured")


def unmeasured(group: str, what: str, budget: str, why: str) -> Measure:
    """A line for a measure that did not come about."""
    return Measure(group=group, what=what, budget=budget, measured=why, value=None, limit=None)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of at least one value; no interpolation, so the answer is a value that occurred."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def ratio_of(group: str, what: str, ours: Sequence[float], theirs: Sequence[float], limit: float, than: str) -> Measure:
    """Compare two programs timed in turn: the ratio of the medians is judged, that of the best runs shown beside it.

    Args:
        group: Which part of the benchmarks this is.
        what: What was timed.
        ours: Seconds of each run.
        theirs: Seconds of each run of the yardstick.
        limit: The largest ratio within budget.
        than: What the yardstick is.
    """
    median, yardstick = statistics.median(ours), statistics.median(theirs)
    best = min(ours) / min(theirs)
    seconds = f"{median:.2f} s against {yardstick:.2f} s, {len(ours)} runs each"
    measured = f"{median / yardstick:.2f} x (best runs {best:.2f} x): {seconds}"
    return Measure(
        group=group, what=what, budget=f"{limit:g} x {than}", measured=measured, value=median / yardstick, limit=limit
    )


def machine() -> str:
    """Where the numbers are from, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("textual", "torch"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    hardware = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, load {load}"
    return f"{hardware}, Python {platform.python_version()}, {packages}"


def as_table(measures: Sequence[Measure]) -> str:
    """The measures as plain text in four columns, a group per paragraph."""
    head = ("what", "budget", "measured", "verdict")
    cells = [(m.what, m.budget, m.measured, m.verdict) for m in measures]
    widths = [max(len(row[i]) for row in (head, *cells)) for i in range(4)]
    lines = [_row(head, widths), _row(tuple("-" * w for w in widths), widths)]
    group = measures[0].group if measures else ""
    for measure, row in zip(measures, cells, strict=True):
        if measure.group != group:
            lines.append("")
            group = measure.group
        lines.append(_row(row, widths))
    return "\n".join(lines)


def as_markdown(measures: Sequence[Measure]) -> str:
    """The same table for the documentation, with its date and the machine."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Byte counts are exact; times are ratios within one run: seconds are the machine's.",
        "",
        f"{date.today().isoformat()} · {machine()}",
        "",
        "| what | budget | measured | verdict |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {m.what} | {m.budget} | {m.measured} | {m.verdict} |" for m in measures]
    return "\n".join(lines) + "\n"


def as_data(measures: Sequence[Measure]) -> dict[str, Any]:
    """The same table for programs."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "benchmarks": [asdict(m) | {"verdict": m.verdict} for m in measures],
    }


def _row(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
