"""A hang must not hide behind the one beat it let through."""

from __future__ import annotations

import pytest

from benchmarks.lag import Beat, fill_in, read_beats
from benchmarks.launch import BEAT
from benchmarks.measures import percentile


def test_a_hang_counts_as_the_beats_it_swallowed():
    beats = [Beat(float(i), 0.0, 0.0) for i in range(50)] + [Beat(60.0, 0.5, 0.4)]
    late = fill_in(beats)
    assert len(late) == 100  # a hang of 500 ms swallowed 49 beats besides the one that came
    assert max(late) == 0.5
    assert percentile(late, 99) == pytest.approx(0.49)
    assert percentile([beat.late for beat in beats], 90) == 0.0  # unfilled, the hang would be invisible at p90


def test_a_record_cut_in_the_middle_of_a_beat_is_read_up_to_there(tmp_path):
    path = tmp_path / "beats"
    path.write_bytes(BEAT.pack(1.0, 0.001, 0.0) + BEAT.pack(2.0, 0.002, 0.001) + b"\x00" * 7)
    assert read_beats(path) == [Beat(1.0, 0.001, 0.0), Beat(2.0, 0.002, 0.001)]
