"""Seconds on N workers against closed forms and a plain simulation, and where more workers stop to help."""

from __future__ import annotations

import math

import pytest

from inspector.cluster.scaling import Links, Part, best, parts_of, recorded, scaled
from inspector.events import PassShared
from inspector.experiment import parse_params
from inspector.experiments import choose
from inspector.statistics.costs import passes_of
from tests.statistics.test_costs import RATES, workload

FREE = Links(network=math.inf, merging=math.inf)


@pytest.mark.parametrize(("n_shards", "n_workers"), [(16, 1), (16, 2), (16, 3), (16, 16), (16, 64), (7, 4)])
def test_equal_shards_take_as_long_as_the_worker_with_most_of_them(n_shards: int, n_workers: int) -> None:
    part = Part(name="moments", shards=(2.0,) * n_shards, alone=1.0)
    found = scaled([part, part], n_workers, loading=5.0, links=FREE)
    assert found.seconds == pytest.approx(5 + 2 * (2 * math.ceil(n_shards / n_workers) + 1))
    assert found.computing == pytest.approx(2 * 2 * n_shards / n_workers)
    assert (found.loading, found.alone, found.merging) == (5.0, 2.0, 0.0)
    assert found.waiting == pytest.approx(found.seconds - 5 - 2 - found.computing)


def test_shards_go_to_whoever_is_free_in_their_order() -> None:
    """One does 5 and 1, the other 1, 1 and 4."""
    part = Part(name="scores", shards=(5.0, 1.0, 1.0, 4.0, 1.0))
    found = scaled([part], 2, loading=0.0, links=FREE)
    assert (found.seconds, found.waiting) == (6.0, 0.0)


def test_sums_travel_one_after_the_other_and_are_merged_once() -> None:
    """4 workers, 4 shards at once, 10 bytes each at 5 bytes/s; 4 fetched, 40 bytes merged at 20 bytes/s, 4 sent on."""
    part = Part(name="moments", shards=(1.0,) * 4, n_bytes=10.0)
    found = scaled([part], 4, loading=0.0, links=Links(network=5.0, merging=20.0))
    assert found.waiting == pytest.approx(4 * 2)
    assert found.merging == pytest.approx(4 * 2 + 40 / 20 + 4 * 2)
    alone = scaled([part], 1, loading=0.0, links=Links(network=5.0, merging=20.0))
    assert (alone.computing, alone.waiting, alone.merging) == (4.0, 0.0, 2.0)


def test_a_recorded_run_on_one_worker_takes_what_it_took() -> None:
    told = [
        PassShared(name="loading", seconds={}, merging=9.0),
        PassShared(name="moments", seconds={1: 2.0, 0: 1.0, 2: 3.0}, merging=0.5),
        PassShared(name="scores", seconds={0: 4.0, 1: 1.0}, merging=0.25),
    ]
    parts, loading = recorded(told)
    assert [part.shards for part in parts] == [(1.0, 2.0, 3.0), (4.0, 1.0)]
    assert scaled(parts, 1, loading=loading, links=Links()).seconds == pytest.approx(9 + 6 + 0.5 + 5 + 0.25)
    assert scaled(parts, 64, loading=loading, links=Links()).seconds == pytest.approx(9 + 3 + 0.5 + 4 + 0.25)


def test_passes_of_a_run_are_shards_of_their_contexts_with_the_sums_they_hand_in() -> None:
    """The first pass adds up x with x, with every error, and every error with itself: 7 matrices for 3 SAEs."""
    everything, work = choose(["all"]), workload()
    passes = passes_of(everything, parse_params(everything, {}), work)
    parts = parts_of(passes, work, RATES, 16, alone={"training"})
    assert [part.name for part in parts] == [each.name for each in passes]
    for part, each in zip(parts, passes, strict=True):
        assert sum(part.shards) + part.alone == pytest.approx(each.seconds(RATES))
        assert len(part.shards) in (0, min(16, each.contexts))
    by_name = {part.name: part for part in parts}
    assert by_name["moments"].n_bytes == 8 * 3584**2 * 7
    assert by_name["moments"].alone == pytest.approx((25 + 6 * 3) * 3584**3 / RATES.sums)
    assert by_name["training"].shards == ()


def test_merging_ends_what_more_workers_gain() -> None:
    """The paper's setting: 16 workers are quicker than 4, and 64 slower, as sums of 64 shards are to be merged."""
    everything, work = choose(["all"]), workload()
    passes = passes_of(everything, parse_params(everything, {}), work)

    def seconds(n_workers: int, links: Links) -> float:
        return best(passes, work, RATES, n_workers, loading=60.0, links=links).seconds

    assert seconds(16, Links()) < seconds(4, Links()) < seconds(1, Links())
    slow = best(passes, work, RATES, 64, loading=60.0, links=Links())
    assert slow.merging > slow.computing
    assert seconds(64, FREE) < seconds(16, FREE), "it is the merging"
