"""Ctrl-C, typed into the terminal, at every stage of what takes time: exit 6 within two seconds, and a sane terminal.

Prints a table: stage, how often it was hit, the longest time to the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import ROOT

SECONDS = 2.0
"""To the end, from the key."""
LIMIT = 300.0
"""For a command that is not interrupted, on a busy machine."""
TRIES = 8
"""Of each command, spread over the time that it takes."""
STAGES = (
    "importing torch", "importing transformers", "importing sae-lens", "model", "text", "SAE", "load gate", "moments",
    "scores", "training", "activations",
)  # fmt: skip
SMALL = ("--contexts", "60", "--widths", "256,512")
COMMANDS = {
    "run": ("run", "error-vector", "norm-prediction", *SMALL),
    "tokens": ("tokens", *SMALL, "--out", "tokens.parquet"),
    "train": ("train", "--layer", "3", "--widths", "256,512", "--l0", "8", "--tokens", "60000", "--out", "suite"),
    "report": ("results", "report", "--out", "report.html"),
    "list": ("suites", "--model", "gemma-2-9b", "--layer", "20"),
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a command."""

    code: int
    stage: str
    """That was on the screen when the key was pressed."""
    took: float
    """Seconds from the key to the end; from the start if none was pressed."""
    said: str
    is_sane: bool


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        with contextlib.suppress(OSError):
            os.close(slave)


def in_terminal(words: tuple[str, ...], folder: Path, press_after: float | None) -> Ended:
    """The command with a terminal of its own; Ctrl-C is a byte that is typed there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    with terminal() as (master, slave):
        before = termios.tcgetattr(slave)

        def own_terminal() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        began = time.monotonic()
        with (folder / "stdout").open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", "inspector", *words],
                stdin=slave,
                stdout=stdout,
                stderr=slave,
                cwd=folder,
                env=environment,
                start_new_session=True,
                preexec_fn=own_terminal,  # noqa: PLW1509  # this process has no other threads here
            )
        said, pressed, stage = b"", None, "start"
        while process.poll() is None:
            assert time.monotonic() - began < LIMIT, said.decode(errors="replace")
            if pressed is None and press_after is not None and time.monotonic() - began >= press_after:
                stage, pressed = last_stage(said), time.monotonic()
                os.write(master, b"\x03")
            if select.select([master], [], [], 0.01)[0]:
                said += os.read(master, 65536)
        took = time.monotonic() - (pressed or began)
        while select.select([master], [], [], 0)[0]:
            said += os.read(master, 65536)
        is_sane = termios.tcgetattr(slave) == before and said.rfind(b"\x1b[?25l") <= said.rfind(b"\x1b[?25h")
    text = said.decode(errors="replace")
    return Ended(code=process.returncode, stage=stage if pressed else "end", took=took, said=text, is_sane=is_sane)


def last_stage(said: bytes) -> str:
    text = said.decode(errors="replace")
    return max(STAGES, key=text.rfind) if any(stage in text for stage in STAGES) else "start"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_every_stage(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = in_terminal(COMMANDS[name], tmp_path, None)
    assert whole.code == 0 and whole.is_sane, whole.said
    order = random.Random(0)
    longest: dict[str, tuple[int, float]] = {}
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        at = whole.took * (number + order.random()) / TRIES
        ended = in_terminal(COMMANDS[name], folder, max(0.15, at))  # before that Python itself is still starting
        n, took = longest.get(ended.stage, (0, 0.0))
        longest[ended.stage] = (n + 1, max(took, ended.took if ended.stage != "end" else 0.0))
        assert ended.is_sane, ended.said
        assert "Traceback" not in ended.said
        if ended.stage == "end" or ended.code == 0:  # it was done before the key was read
            assert ended.code == 0
            continue
        assert ended.code == 6, (ended.code, ended.said)
        assert len(re.findall(r"error: ", ended.said)) == 1, ended.said
        assert ended.took <= SECONDS, (ended.stage, ended.took)
    with capsys.disabled():
        print(f"\nCtrl-C in `{name}` ({whole.took:.1f} s long): stage, times, longest until the end")
        for stage, (n, took) in longest.items():
            print(f"  {stage:<24} {n:>3} {took:>6.2f} s")
