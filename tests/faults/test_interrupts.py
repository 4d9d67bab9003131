"""Ctrl-C, typed into the terminal, at every stage of what takes time: exit 6 within two seconds, and a sane terminal.

Prints a table: stage, how often it was hit, the longest time to the end, and how much of it was not waiting for a core.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inspector.store.results import save
from tests.commands import ROOT
from tests.conftest import Say
from tests.hub_server import Hub, hub_server
from tests.tui.stored_results import COMMAND, norm_result, store

__all__ = ["store"]
SECONDS = 2.0
"""To the end, from the key. Seconds in which the process could run and had no core are the machine's, and not counted:
so it holds beside other busy processes too. The table shows both."""
LIMIT = 600.0
"""For a command that is not interrupted, on a busy machine."""
NARRATED = {
    "importing": "imports", "downloading": "download", "model": "load", "text": "load", "SAE": "load",
    "load gate": "gate", "moments": "pass", "scores": "pass", "training": "training", "activations": "training",
}  # fmt: skip
"""Stages by the word with which the narration begins to speak of them."""
_WORDS = re.compile(rf"\b({'|'.join(sorted(NARRATED, key=len, reverse=True))})\b")
SMALL = ("--contexts", "60", "--widths", "256,512")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is interrupted."""

    words: tuple[str, ...]
    stages: tuple[str, ...]
    """Each is to be hit."""
    tries: int
    """At moments spread over the time that it takes; and once more at each stage that none of them hit."""


COMMANDS = {
    "run": Command(
        words=("run", "error-vector", "norm-prediction", *SMALL), stages=("imports", "load", "gate", "pass"), tries=8
    ),
    "tokens": Command(words=("tokens", *SMALL, "--out", "tokens.parquet"), stages=("pass",), tries=4),
    "train": Command(
        words=("train", "--layer", "3", "--widths", "256,512", "--l0", "8", "--tokens", "60000", "--out", "suite"),
        stages=("load", "training"),
        tries=8,
    ),
    "export": Command(
        words=("results", "export", "norm-prediction", "--format", "svg", "--out", "figure.svg"),
        stages=("export",),
        tries=8,
    ),
    "report": Command(words=("results", "report", "--out", "report.html"), stages=("report",), tries=8),
    "list": Command(words=("suites", "--model", "gemma-2-9b", "--layer", "20"), stages=("list",), tries=4),
}
MODEL, WEIGHTS = "google/gemma-2-2b", "model.safetensors"
FETCH = ("tokens", "--model", "gemma-2-2b", "--layer", "1", "--l0", "60", "--cache-dir", "cache", "--text", "no.txt")
N_BYTES = 24_000_000


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a command."""

    code: int
    stage: str
    """That was on the screen when the key was pressed; `end` if none was."""
    took: float
    """Seconds from the key to the end; from the start if none was pressed."""
    waited: float
    """Of them, seconds in which its main thread could run and had no core; 0 where the system does not say."""
    said: str
    is_sane: bool


@dataclass
class Moment:
    """When the key is pressed."""

    when: Callable[[float, str], bool]
    """Of the seconds since the start and what the screen got so far."""


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        with contextlib.suppress(OSError):
            os.close(slave)


def in_terminal(
    words: tuple[str, ...], folder: Path, moment: Moment | None = None, name: str = "", **variables: str
) -> Ended:
    """The command with a terminal of its own; Ctrl-C is a byte that is typed there."""
    folder.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **variables}
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
        said, stage, pressed, waits = b"", "end", began, [0.0, 0.0]
        while process.poll() is None:
            text = said.decode(errors="replace")
            assert time.monotonic() - began < LIMIT, text
            waits[1] = waited_for_a_core(process.pid, waits[1])
            if stage == "end" and moment is not None and moment.when(time.monotonic() - began, text):
                stage, pressed, waits[0] = last_stage(text) or name, time.monotonic(), waits[1]
                os.write(master, b"\x03")
            if select.select([master], [], [], 0.01)[0]:
                said += os.read(master, 65536)
        took = time.monotonic() - pressed
        while select.select([master], [], [], 0)[0]:
            said += os.read(master, 65536)
        is_sane = termios.tcgetattr(slave) == before and said.rfind(b"\x1b[?25l") <= said.rfind(b"\x1b[?25h")
    return Ended(
        code=process.returncode,
        stage=stage,
        took=took,
        waited=waits[1] - waits[0],
        said=said.decode(errors="replace"),
        is_sane=is_sane,
    )


def waited_for_a_core(pid: int, before: float) -> float:
    """Seconds in which a process' main thread was ready to run and had no core; `before` if nothing is known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return before


def last_stage(text: str) -> str:
    """The stage of the last line, or frame of a bar, that speaks of one: by its first word; empty if none does."""
    for line in reversed(re.split(r"[\r\n]|\x1b\[2K", text)):
        if found := _WORDS.search(line):
            return NARRATED[found[1]]
    return ""


@dataclass
class Table:
    """By stage: how often the key was pressed there, and the longest until the end."""

    rows: dict[str, list[Ended]] = field(default_factory=dict)

    def add(self, ended: Ended) -> None:
        """Check one, and count it."""
        assert ended.is_sane, ended.said
        assert "Traceback" not in ended.said
        if ended.stage == "end" or ended.code == 0:  # it was done before the key was read
            assert ended.code == 0, ended.said
            return
        assert ended.code == 6, (ended.code, ended.said)
        assert len(re.findall(r"error: ", ended.said)) == 1, ended.said
        assert ended.took - ended.waited <= SECONDS, (ended.stage, ended.took, ended.waited)
        self.rows.setdefault(ended.stage, []).append(ended)

    def tell(self, say: Say, name: str, seconds: float) -> None:
        for stage, found in self.rows.items():
            longest, own = max(each.took for each in found), max(each.took - each.waited for each in found)
            outcome = f"exit 6 within {longest:.2f} s, of them {own:.2f} not waiting for a core"
            say(f"Ctrl-C in `{name}`, {seconds:.1f} s long: {stage}", len(found), outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_every_stage(name: str, tmp_path: Path, store: Path, say: Say) -> None:
    save(norm_result(), COMMAND)
    command, order, table = COMMANDS[name], random.Random(0), Table()
    whole = in_terminal(command.words, tmp_path / "whole")
    assert whole.code == 0 and whole.is_sane, whole.said
    for number in range(command.tries):
        at = max(0.15, whole.took * (number + order.random()) / command.tries)  # before, Python itself is starting
        moment = Moment(when=lambda seconds, _, at=at: seconds >= at)
        table.add(in_terminal(command.words, tmp_path / str(number), moment, name))
    for stage in command.stages:
        if stage not in table.rows:
            moment = Moment(when=lambda _, said, stage=stage: last_stage(said) == stage)
            table.add(in_terminal(command.words, tmp_path / stage, moment, name))
    assert set(command.stages) <= table.rows.keys()
    table.tell(say, name, whole.took)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """With a model whose weights come quickly up to a point, and slowly from there."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gemma2", "num_hidden_layers": 26}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(os.urandom(N_BYTES))
    with hub_server() as made:
        made.publish(MODEL, folder)
        yield made


@pytest.mark.slow
def test_ctrl_c_ends_a_download_and_the_next_one_goes_on(tmp_path: Path, hub: Hub, say: Say) -> None:
    """Pressed six times in one download, each time further on; the seventh command has the rest, and the same bytes."""
    order, table, home = random.Random(0), Table(), tmp_path / "home"
    variables = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}

    def kept() -> int:
        return sum(path.stat().st_size for path in home.rglob("*.part"))

    began, before = time.monotonic(), 0
    for number in range(1, 7):
        hub.hold[WEIGHTS] = N_BYTES * number // 8 + order.randrange(N_BYTES // 16)
        enough = hub.hold[WEIGHTS] - 1_500_000
        moment = Moment(when=lambda _, said, enough=enough: last_stage(said) == "download" and kept() >= enough)
        ended = in_terminal(FETCH, home, moment, **variables)
        table.add(ended)
        assert f"{kept():,} bytes of {WEIGHTS} stay" in re.sub(r"\s+", " ", ended.said)
        assert kept() > before
        before = kept()
    assert len(table.rows["download"]) == 6
    hub.released.set()
    last = in_terminal(FETCH, home, **variables)
    assert last.code == 4 and "There is no text file 'no.txt'" in last.said and last.is_sane, last.said
    (weights,) = home.glob(f"cache/models--*/snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == (tmp_path / "published" / WEIGHTS).read_bytes()
    table.tell(say, "tokens, of a hub", time.monotonic() - began)
