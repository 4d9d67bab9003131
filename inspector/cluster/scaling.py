"""How long a run takes on N workers, from what its parts take on one: what more workers gain, where that ends, and why.

The rules are those of `board.Board`: a free worker takes the next shard and hands in its sums; when all are there one
worker fetches and merges them, and the others fetch what came of it; what is concluded from them each works out for
itself. Everything that travels goes through the link of the node that has the board, one thing after the other.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from inspector.cluster import SHARDS

if TYPE_CHECKING:
    from inspector.events import PassShared
    from inspector.experiment import Experiment
    from inspector.statistics.costs import Pass, Rates, Workload


@dataclass(frozen=True, kw_only=True)
class Links:
    """How fast sums go from worker to worker."""

    network: float = 1.25e9
    """Bytes per second through the link of the board's node: 10 Gbit/s."""
    merging: float = 0.4e9
    """Bytes of sums per second that one process restores and merges; measured on one core, at d_model 1,152."""

    @property
    def assumed(self) -> str:
        """What a time on several workers takes for granted, in words."""
        return (
            "Workers are equally fast, read weights from disks of their own, and start in "
            f"{STARTING:.0f} s. Sums go through the link of one node at {self.network / 1e9:.3g} GB/s, and one worker "
            f"merges {self.merging / 1e9:.2g} GB of them per second. What experiments conclude is not counted."
        )


STARTING = 20.0
"""Seconds for Ray to start a worker, and for its imports."""
SMALLEST = 1e6
"""Bytes of the sums of a shard that holds no matrix."""
MOST_SHARDS = 512


@dataclass(frozen=True, kw_only=True)
class Part:
    """One pass, or what only one worker does."""

    name: str
    shards: tuple[float, ...] = ()
    """Seconds that each takes one worker, in the order in which they are dealt out."""
    n_bytes: float = 0.0
    """Of the sums of one shard."""
    alone: float = 0.0
    """Seconds that no other worker makes shorter."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A run on so many workers: seconds, and what they go into."""

    workers: int
    shards: int
    loading: float
    computing: float
    """If the shards could be dealt out evenly."""
    waiting: float
    """For the slowest shard, and for sums of shards to come through the link."""
    merging: float
    """Of one worker, and until the others have what it made."""
    alone: float
    """What every worker, or one while the others wait, does for itself."""

    @property
    def seconds(self) -> float:
        """Altogether."""
        return self.loading + self.computing + self.waiting + self.merging + self.alone

    def told(self) -> dict[str, Any]:
        """As JSON prints it."""
        return {**asdict(self), "seconds": self.seconds}


def recorded(events: Iterable[PassShared]) -> tuple[list[Part], float]:
    """The parts of a run and the seconds of loading, as one worker on a cluster has told them at its end.

    What it merged stands as `alone`: it was seconds, not bytes, and does not become less.
    """
    loading, found = 0.0, []
    for event in events:
        if not event.seconds:
            loading = event.merging
            continue
        shards = tuple(event.seconds[number] for number in sorted(event.seconds))
        found.append(Part(name=event.name, shards=shards, alone=event.merging))
    return found, loading


def scaled(parts: Sequence[Part], n_workers: int, *, loading: float, links: Links) -> Scaled:
    """A run of these parts, one after the other.

    Args:
        parts: of the run.
        n_workers: equally fast, at least 1.
        loading: seconds until a worker can begin; all load at once, each from a disk of its own.
        links: between them.
    """
    found = Scaled(workers=n_workers, shards=0, loading=loading, computing=0, waiting=0, merging=0, alone=0)
    for part in parts:
        # One worker shares the board's node: its sums go through memory.
        travel = part.n_bytes / links.network if n_workers > 1 else 0.0
        ideal, n = sum(part.shards) / n_workers, len(part.shards)
        merging = n * (travel + part.n_bytes / links.merging) + n_workers * travel if n else 0.0
        found = replace(
            found,
            shards=max(found.shards, n),
            computing=found.computing + ideal,
            waiting=found.waiting + _dealt_out(part.shards, n_workers, travel) - ideal,
            merging=found.merging + merging,
            alone=found.alone + part.alone,
        )
    return found


def _dealt_out(shards: Sequence[float], n_workers: int, travel: float) -> float:
    """Seconds until the sums of the last shard are on the board, each `travel` seconds in its link."""
    computed, waiting, link = sorted(shards[:n_workers]), iter(shards[n_workers:]), 0.0  # what is sorted is a heap
    while computed:
        link = max(link, heapq.heappop(computed)) + travel
        for seconds in itertools.islice(waiting, 1):
            heapq.heappush(computed, link + seconds)
    return link


def best(
    passes: Sequence[Pass],
    work: Workload,
    rates: Rates,
    n_workers: int,
    *,
    loading: float,
    links: Links,
    alone: Container[str] = (),
) -> Scaled:
    """With as many shards as end soonest: `SHARDS`, or twice that, and so on, never fewer than workers.

    Args:
        passes: of the run.
        work: the target.
        rates: of one worker's device.
        n_workers: as of `scaled`; so the next two.
        loading: seconds.
        links: between workers.
        alone: names of passes that one worker does.
    """
    counts = [SHARDS << power for power in range(int(math.log2(MOST_SHARDS / SHARDS)) + 1)]
    tried = [n for n in counts if n >= n_workers] or [n_workers]
    found = [scaled(parts_of(passes, work, rates, n, alone), n_workers, loading=loading, links=links) for n in tried]
    return min(found, key=lambda each: each.seconds)


def parts_of(
    passes: Sequence[Pass], work: Workload, rates: Rates, n_shards: int, alone: Container[str] = ()
) -> list[Part]:
    """What the passes are in shards; see `best`."""
    d, n_saes = work.sizes.d_in, len(work.saes)
    found = []
    for each in passes:
        seconds, fit, tokens = each.seconds(rates), 0.0, work.n_tokens * each.contexts / max(1, work.contexts)
        if each.name in alone or not each.contexts:
            found.append(Part(name=each.name, alone=seconds))
            continue
        if each.name == "moments":  # as `costs.shared_passes` counts the eigen-decomposition and a map per SAE
            fit, tokens = (25.0 + 6.0 * n_saes) * d**3, work.n_train
        matrices = round((each.sums - fit) / max(1.0, 2.0 * tokens * d**2))
        own = fit / rates.sums
        sizes = [len(range(shard, each.contexts, n_shards)) for shard in range(min(n_shards, each.contexts))]
        shards = tuple((seconds - own) * size / each.contexts for size in sizes)
        n_bytes = max(SMALLEST, 8.0 * d**2 * matrices)
        found.append(Part(name=each.name, shards=shards, n_bytes=n_bytes, alone=own))
    return found


def on_workers(
    workers: Sequence[int],
    experiments: Sequence[Experiment],
    params: Mapping[str, str],
    work: Workload,
    rates: Rates | None,
    links: Links,
) -> list[dict[str, Any]]:
    """A run on so many workers each, as JSON prints it.

    Args:
        workers: their numbers.
        experiments: of the run; none: the passes that all share.
        params: of the experiments, as typed.
        work: the target.
        rates: of one worker's device; None: not known, and so is nothing else.
        links: between workers.
    """
    from inspector.experiment import parse_params
    from inspector.sources.memory_sums import sae_bytes
    from inspector.statistics.costs import passes_of, shared_passes

    if rates is None:
        names = ("shards", "loading", "computing", "waiting", "merging", "alone", "seconds")
        return [{"workers": n, **dict.fromkeys(names)} for n in workers]
    parsed = parse_params(experiments, params) if experiments else {}
    passes = passes_of(experiments, parsed, work) if experiments else shared_passes(work, ())
    # One that writes files is one worker's, with all its passes.
    writing = [each for each in experiments if each.writes]
    alone = {each.name for one in writing if one.passes for each in one.passes(work, parsed[one.id])}
    weights = 2 * work.sizes.n_parameters + sum(sae_bytes(ref) for ref in work.saes if ref.d_sae)
    loading = STARTING + weights / rates.disk
    return [best(passes, work, rates, n, loading=loading, links=links, alone=alone).told() for n in workers]
