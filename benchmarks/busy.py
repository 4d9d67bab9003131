"""What other busy processes cost: as many busy loops as there are cores, beside products of the size of an SAE's.

The fair share is what the scheduler gives to as many threads as compute here among all that run. Threads that spin
while they wait get far less of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.measures import Measure
from inspector import threads

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "busy"
PRODUCTS = 600
TOKENS, D_MODEL, LATENTS = 256, 576, 2048
LIMIT = 1.5


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """Alone and beside busy loops in turn; the medians' ratio over the fair share's."""
    cores = threads.usable_cores()
    alone, beside = [], []
    for _ in range(runs):
        alone.append(_seconds())
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
        try:
            beside.append(_seconds())
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
    fair = (cores + cores) / cores
    slow = sorted(beside)[runs // 2] / sorted(alone)[runs // 2]
    return [
        Measure(
            group=GROUP,
            what=f"products with {cores} threads beside {cores} busy loops",
            budget=f"{LIMIT:g} x the fair share's slow-down",
            measured=f"{slow / fair:.2f} x: {slow:.2f} times as long as alone, the fair share is {fair:.1f}",
            value=slow / fair,
            limit=LIMIT,
        )
    ]


def _seconds() -> float:
    environment = {name: value for name, value in os.environ.items() if name not in (threads.COUNT, *threads.ASLEEP)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.busy"], check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Do the products and print the seconds."""
    threads.limit()
    import torch

    x, encoder = torch.randn(TOKENS, D_MODEL), torch.randn(D_MODEL, LATENTS)
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.relu(x @ encoder) @ encoder.T
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
