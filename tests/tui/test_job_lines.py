"""Jobs as text: bars, rates, times, and what fits into a line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.events import JobInfo, JobState
from inspector.tui import job_lines
from inspector.tui.lines import text_of, width_of

RUNNING = JobInfo(
    id="job-1",
    experiments=("error-vector", "ce-splice"),
    state="running",
    command="dm-inspect run error-vector ce-splice --widths 256,512",
    created=1_000.0,
    started=1_001.0,
    stage="moments",
    done=3,
    total=10,
    tokens_per_second=12_345.0,
    seconds_left=125.0,
)


@pytest.mark.parametrize(
    ("done", "total", "drawn"),
    [
        (0, 10, "──────────"),
        (1, 10, "━─────────"),
        (0.5, 10, "╸─────────"),
        (9.9, 10, "━━━━━━━━━╸"),
        (10, 10, "━━━━━━━━━━"),
        (20, 10, "━━━━━━━━━━"),
        (3, 0, "──────────"),
    ],
)
def test_a_bar_is_as_wide_as_it_should_be_and_full_only_when_done(done: float, total: float, drawn: str) -> None:
    assert text_of(job_lines.bar(done, total, 10)) == drawn


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
        (3 * 86400, "3 days"),
    ],
)
def test_durations_are_as_people_say_them(seconds: float | None, text: str) -> None:
    assert job_lines.duration(seconds) == text


def test_rates_have_three_digits() -> None:
    assert [job_lines.rate(value) for value in (0, 7.25, 99.0, 123.4, 12_345, 1_234_567)] == [
        "", "7.2 tokens/s", "99.0 tokens/s", "123 tokens/s", "12,300 tokens/s", "1,230,000 tokens/s",
    ]  # fmt: skip


def test_99_9_per_cent_is_not_100() -> None:
    assert [job_lines.percent(*pair) for pair in ((999, 1000), (1000, 1000), (0, 0))] == [" 99%", "100%", "   …"]


def test_the_indicator_leaves_out_what_matters_least_and_fills_the_line_exactly() -> None:
    wide = text_of(job_lines.indicator(RUNNING, 1, 118))
    assert wide == (
        "▶ error-vector +1  ━━━━━━━─────────────────   30%  moments  2 min 05 s left  0/2 results  +1 waiting"
        "            J jobs"
    )
    for width in (58, 78, 118, 200):
        line = job_lines.indicator(RUNNING, 1, width)
        assert width_of(line) == width
        assert "30%" in text_of(line)
        assert text_of(line).endswith("J jobs")


@pytest.mark.parametrize(
    ("state", "changes", "text"),
    [
        ("queued", {}, "○ queued      error-vector, ce-splice"),
        ("running", {}, "error-vector, ce-splice             ━━━━━━──────────────  30%  2 min 05 s left  0/2 results"),
        ("done", {"ended": 1_100.0, "results": ["a", "b"]}, "2 results   1 min 40 s ago"),
        ("failed", {"ended": 1_100.0, "error": "Out of memory."}, "Out of memory."),
        ("cancelled", {"ended": 1_100.0, "results": ["a"]}, "1/2 results 1 min 40 s ago"),
        ("interrupted", {"ended": 1_190.0}, "10 s ago"),
    ],
)
def test_each_state_has_its_word_and_what_became_of_it(state: JobState, changes: dict[str, object], text: str) -> None:
    job = replace(RUNNING, state=state, **changes)
    for width in (60, 80, 118):
        line = job_lines.row(job, width, 1_200.0)
        assert width_of(line) <= width
        assert state in text_of(line)
    assert text in text_of(job_lines.row(job, 118, 1_200.0))


def test_a_hostile_name_or_stage_is_shown_as_symbols() -> None:
    job = replace(RUNNING, stage="\x1b[2J", experiments=("\x1b]0;x\x07",))
    for line in (job_lines.indicator(job, 0, 118), job_lines.row(job, 118, 0.0), *job_lines.detail(job, 80)):
        assert "\x1b" not in text_of(line)


def test_the_detail_has_the_command_whole_however_narrow_it_is() -> None:
    lines = [text_of(line) for line in job_lines.detail(RUNNING, 30)]
    command = " ".join(line[2:] for line in lines if line.startswith(("$ ", "  ")))
    assert command == RUNNING.command
    assert any("moments · 3/10" in line for line in lines)
