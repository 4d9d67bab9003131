"""What a sweep costs beside the work that cannot be avoided, and how much memory it holds.

The yardstick is the libraries' own: a `transformers` forward pass over the same tokens and a sae-lens encode and decode
of the same activations, each once. Every measurement is a process of its own, because peak memory only ever grows.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Measure
from benchmarks.terminal import Home, python

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "sweep"
CONTEXTS = (48, 144)
"""Two lengths of the same sweep: three times the tokens must not need more memory."""


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group.

    Args:
        target: TARGET options; model, layer, suite and text of them are used.
        runs: Repetitions of the timed sweep inside its process; a third of it, at least two.
    """
    short, long = (
        worker(target, contexts, repeats) for contexts, repeats in zip(CONTEXTS, (max(2, runs // 3), 1), strict=True)
    )
    return [_cost(short), _memory(short, long)]


def worker(target: Sequence[str], contexts: int, repeats: int) -> dict[str, Any]:
    """What `sweep_worker` measures, in an empty home."""
    arguments = ["--contexts", str(contexts), "--repeats", str(repeats), *target]
    with Home() as home:
        done = subprocess.run(
            python("-m", "benchmarks.sweep_worker", *arguments),
            env=home.environment(),
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _cost(measured: dict[str, Any]) -> Measure:
    bare = measured["forward"] + measured["saes"]
    ratio = measured["sweep"] / bare
    strict = measured["sweep"] / (measured["forward_to_layer"] + measured["saes"])
    yardstick = f"{measured['forward']:.1f} s + {measured['saes']:.1f} s"
    return Measure(
        group=GROUP,
        what=f"sweep of {measured['n_saes']} SAEs over {measured['n_tokens']:,} tokens",
        budget="1.25 x bare forward + bare SAEs",
        measured=f"{ratio:.2f} x: {measured['sweep']:.1f} s against {yardstick}; {strict:.2f} x if it stops early",
        value=ratio,
        limit=1.25,
    )


def _memory(short: dict[str, Any], long: dict[str, Any]) -> Measure:
    low, high = short["peak_mib"], long["peak_mib"]
    return Measure(
        group=GROUP,
        what=f"peak memory, {short['n_tokens']:,} and {long['n_tokens']:,} tokens",
        budget="independent of the number of tokens",
        measured=f"{low:,.0f} and {high:,.0f} MiB ({short['loaded_mib']:,.0f} once loaded)",
        value=high / low,
        limit=1.1,
    )
