"""Whether a sweep's peak memory grows with its text: the same sweep over 50,000 and over 500,000 tokens.

The longer text is the shorter one's contexts again and again, in seeded order: what is held must not depend on how many
there are. Narrow SAEs, because what could grow (sums per context, activations that are kept) does not depend on the
width. Each length is a process of its own, because peak memory only ever grows.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Measure
from benchmarks.terminal import Home, python

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "memory"
TOKENS = (50_000, 500_000)
LIMIT = 1.1
"""Peaks of equal sweeps differ by some percent: the allocator keeps more or less of what was freed."""


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group.

    Args:
        target: TARGET options; not used, the demo always.
        runs: not used: a peak is measured once.
    """
    return [as_measure(*(_worker(n_tokens) for n_tokens in TOKENS))]


def _worker(n_tokens: int) -> dict[str, Any]:
    with Home() as home:
        done = subprocess.run(
            python("-m", "benchmarks.memory_worker", "--tokens", str(n_tokens)),
            env=home.environment(),
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def as_measure(short: dict[str, Any], long: dict[str, Any]) -> Measure:
    """The line of the table from what both processes measured."""
    low, high = short["peak_mib"], long["peak_mib"]
    return Measure(
        group=GROUP,
        what=f"peak memory of a sweep, {short['n_tokens']:,} and {long['n_tokens']:,} tokens",
        budget="independent of the number of tokens",
        measured=(
            f"{low:,.0f} and {high:,.0f} MiB ({short['loaded_mib']:,.0f} once loaded), {long['n_contexts']:,} contexts "
            f"in {long['n_groups']} blocks; {short['seconds']:.0f} and {long['seconds']:.0f} s"
        ),
        value=high / low,
        limit=LIMIT,
    )
