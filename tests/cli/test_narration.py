"""What stderr says about a sequence of events, line by line."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from inspector.cli.narration import Bar, Lines, duration, follow, judge_text
from inspector.errors import DataError
from inspector.events import Event, JudgeProgress, Loading, PassProgress, TrainProgress, Warned


def work() -> Generator[Event, None, str]:
    yield Loading(what="model", detail="toy")
    yield Loading(what="model", detail="toy", seconds=1.26)
    yield Warned(message="SAE 2 has L0 400.")
    for done in (1, 2, 3):
        yield PassProgress(
            name="moments", contexts_done=done, contexts_total=3, tokens_per_second=12_345.6, seconds_left=3.0 - done
        )
    return "result"


def test_a_log_gets_a_line_when_something_begins_and_ends_and_none_in_between(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert follow(work(), quiet=False) == "result"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "model toy ...\n"
        "model toy: 1.3 s\n"
        "warning: SAE 2 has L0 400.\n"
        "moments: 1 of 3 contexts, 12,346 tokens/s, 2 s left\n"
        "moments: 3 of 3 contexts, 12,346 tokens/s\n"
    )


def test_a_line_comes_again_after_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    for done, now[0] in ((1, 0.0), (2, 4.9), (3, 5.0), (4, 9.9)):
        lines.hear(
            PassProgress(name="s", contexts_done=done, contexts_total=9, tokens_per_second=1.0, seconds_left=1.0)
        )
    assert [line.split(" of")[0] for line in capsys.readouterr().err.splitlines()] == ["s: 1", "s: 3"]


def test_of_many_saes_the_first_and_the_last_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(clock=lambda: 0.0)
    for i in range(3):
        lines.hear(Loading(what=f"SAE {i + 1}/3", detail="a", done=i, total=3))
        lines.hear(Loading(what=f"SAE {i + 1}/3", detail="a", done=i + 1, total=3, seconds=0.25))
    assert capsys.readouterr().err == "SAE 1/3 a ...\nSAE 3/3 a: 0.2 s\n"


def test_nothing_in_a_name_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().hear(Loading(what="text", detail="a\x1b[2Jb\nc"))
    assert capsys.readouterr().err == "text a␛[2Jb⏎c ...\n"


def test_quiet_leaves_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(work(), quiet=True) == "result"
    assert capsys.readouterr().err == "warning: SAE 2 has L0 400.\n"


def test_training_tells_the_range_of_fvu(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().hear(
        TrainProgress(
            tokens_done=2048, tokens_total=4096, tokens_per_second=500.0, seconds_left=64.0, fvu={"a": 0.5, "b": 0.25}
        )
    )
    assert capsys.readouterr().err == (
        "training: 2,048 of 4,096 tokens, 500 tokens/s, 1 min 04 s left, FVU 0.250 to 0.500\n"
    )


def test_training_tells_what_held_out_text_says(capsys: pytest.CaptureFixture[str]) -> None:
    event = TrainProgress(
        tokens_done=4096,
        tokens_total=4096,
        tokens_per_second=500.0,
        seconds_left=0.0,
        fvu={"a": 0.5, "b": 0.25},
        held_out={"a": {"fvu": 0.5, "l0": 8.0, "dead": 0}, "b": {"fvu": 0.25, "l0": 8.0, "dead": 4}},
    )
    line = "held out after 4,096 tokens: FVU 0.2500 to 0.5000, L0 8.0, dead latents 0 to 4\n"
    Lines().hear(event)
    assert capsys.readouterr().err.endswith(line)
    bar = Bar()
    bar.hear(event)
    bar.close()
    assert line in capsys.readouterr().err


def test_the_work_is_closed_when_it_fails_and_when_nobody_listens_any_more() -> None:
    closed = []

    def failing() -> Generator[Event, None, None]:
        try:
            yield Warned(message="soon")
            raise DataError("No text. Give some.")
        finally:
            closed.append(True)

    with pytest.raises(DataError, match=r"^No text\. Give some\.$"):
        follow(failing(), quiet=True)
    assert closed == [True]


def test_the_bar_takes_text_literally(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.hear(Warned(message="[red]SAE[/red] :smile:"))
    bar.hear(Loading(what="SAE 1/3", detail="[bold]x[/bold]", done=1, total=3))
    bar.hear(TrainProgress(tokens_done=1, tokens_total=2, tokens_per_second=1.0, seconds_left=1.0, fvu={}))
    bar.close()
    assert "warning: [red]SAE[/red] :smile:\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (float("inf"), "?"),
        (float("nan"), "?"),
        (-1, "?"),
    ],
)
def test_durations_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_asking_a_judge_says_what_was_known_and_what_was_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = JudgeProgress(stage="scoring", done=4, total=1200, known=0, retried=0, seconds_left=-1.0)
    last = JudgeProgress(stage="scoring", done=1200, total=1200, known=31, retried=2, seconds_left=0.0)
    assert judge_text(first) == "scoring: 4 of 1,200 answers, ? left"
    assert judge_text(last) == "scoring: 1,200 of 1,200 answers, 31 known before, 2 tries repeated"
    lines = Lines(clock=lambda: 0.0)
    for event in (first, replace(first, done=5), last):
        lines.hear(event)
    assert capsys.readouterr().err == f"{judge_text(first)}\n{judge_text(last)}\n"
    bar = Bar()
    bar.hear(first)
    bar.hear(last)
    bar.close()
