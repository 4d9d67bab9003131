"""A hang must not hide behind the one beat it let through."""

from __future__ import annotations

import pytest

from benchmarks.lag import fill_in, read_beats
from benchmarks.launch import BEAT
from benchmarks.measures import percentile


def test_a_hang_counts_as_the_beats_it_swallowed():
    beats = [(float(i), 0.0) for i in range(50)] + [(60.0, 0.5)]
    late = [value for _, value in fill_in(beats)]
    assert len(late) == 100  # a hang of 500 ms swallowed 49 beats besides the one that came
    assert max(late) == 0.5
    assert percentile(late, 99) == pytest.approx(0.49)
    assert percentile([value for _, value in beats], 90) == 0.0  # unfilled, the hang would be invisible at p90


def test_a_record_cut_in_the_middle_of_a_beat_is_read_up_to_there(tmp_path):
    path = tmp_path / "beats"
    path.write_bytes(BEAT.pack(1.0, 0.001) + BEAT.pack(2.0, 0.002) + b"\x00" * 7)
    assert read_beats(path) == [(1.0, 0.001), (2.0, 0.002)]
