"""The simulation of `plan --ray` against one, two and four real workers; `python -m benchmarks.scaling` prints a table.

Real are Ray, the board, the walk that shares a pass, and the sums that travel and are merged. What is not: a shard
takes its seconds asleep, so that four workers are as many on any number of cores.
"""

from __future__ import annotations

import os
import random
import time
from types import SimpleNamespace
from typing import Any

from inspector.cluster.board import Board, Shared
from inspector.cluster.driver import _cluster, _ray, run_on_cluster
from inspector.cluster.scaling import Links, Part, recorded, scaled
from inspector.events import PassShared
from inspector.spec import RunSpec, TargetSpec

WORKERS = (1, 2, 4)
PASSES = ("moments", "scores", "token norms")
SHARDS = 16
D = 256
"""The sums of a shard hold a [D, D] matrix of float64."""


def seconds_of(name: str) -> list[float]:
    """Of each shard; the same every time."""
    chance = random.Random(name)
    return [chance.uniform(0.2, 0.6) for _ in range(SHARDS)]


class Sleeper:
    """A worker that sleeps where others compute."""

    def __init__(self, number: int, board: Any) -> None:
        self._number, self._board = number, board
        import inspector.statistics.passes  # noqa: F401

    def ready(self) -> int:
        """When it has imported all."""
        return os.getpid()

    def work(self) -> float:
        """Seconds of all passes."""
        import torch

        from inspector.engine.moments import Moments
        from inspector.statistics.passes import walk

        def call(method: str, *arguments: Any) -> Any:
            return _ray().get(getattr(self._board, method).remote(self._number, *arguments))

        keeper = object.__new__(Shared)  # without a target there is nothing that it could be kept as
        keeper._call = call
        began = 0.0
        for name in ("first", *PASSES):
            own = seconds_of(name) if name in PASSES else [0.0] * SHARDS
            if name == PASSES[0]:  # after a pass in which the board has imported what it needs; all begin together
                began = time.perf_counter()

            def add(sums: Moments, group: list[int], own: list[float] = own) -> None:
                time.sleep(own[group[0]])
                sums.update(torch.ones(2, D))

            activations: Any = SimpleNamespace(
                shards=SHARDS, tokens_per_context=1, keeper=keeper, batch_size=1, device=torch.device("cpu"),
                kept_name=lambda name: name,
            )  # fmt: skip
            for _ in walk(activations, range(SHARDS), lambda: Moments(D), add, name=name, batch=list):
                pass
        return time.perf_counter() - began


def measured(n_workers: int) -> float:
    """Seconds of so many real workers, from when all are ready."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with _cluster(f"local:{n_workers}"):
        ray = _ray()
        board = ray.remote(num_cpus=0, max_concurrency=4 * n_workers + 4)(Board).remote(frozenset(range(n_workers)))
        workers = [ray.remote(num_cpus=1)(Sleeper).remote(number, board) for number in range(n_workers)]
        ray.get([worker.ready.remote() for worker in workers])
        return float(max(ray.get([worker.work.remote() for worker in workers])))


def told() -> list[PassShared]:
    """What one worker says of a run on the demo, in as many shards as the most workers it is simulated for."""
    target = TargetSpec(contexts=128, context_length=128, positions=(0, None), device="cpu", widths=(256, 1024), l0=16)
    spec = RunSpec(target=target, experiments=("norm-prediction", "per-token-scaling"), shards=64, ray="local:1")
    return [event for event in run_on_cluster(spec) if isinstance(event, PassShared)]


def main() -> None:
    """One line for each number of workers: of the sleeping ones, then of a run that was recorded."""
    parts = [Part(name=name, shards=tuple(seconds_of(name)), n_bytes=8.0 * D * D) for name in PASSES]
    print("workers  simulated  measured")
    for n_workers in WORKERS:
        expected = scaled(parts, n_workers, loading=0.0, links=Links()).seconds
        print(f"{n_workers:7}  {expected:7.2f} s  {measured(n_workers):6.2f} s", flush=True)
    recorded_parts, loading = recorded(told())
    print("workers  takes    loading  computing  waiting  merging and alone")
    for n_workers in (1, 2, 4, 8, 16, 32, 64):
        found = scaled(recorded_parts, n_workers, loading=loading, links=Links())
        rest = (found.seconds, found.loading, found.computing, found.waiting, found.merging + found.alone)
        print(f"{n_workers:7}  {'  '.join(f'{each:6.2f}' for each in rest)}")


if __name__ == "__main__":
    main()
