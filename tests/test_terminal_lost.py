"""Signals, and terminals that go away: the app restores what it can, and never lives on without a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.sessions import ROOT, FakeServer
from benchmarks.terminal import Home, Terminal
from benchmarks.view import wait_for_colours
from inspector.tui.terminal_watch import is_gone
from tests.at_the_terminal import LIMIT, redraw


@contextlib.contextmanager
def attached() -> Iterator[Terminal]:
    with (
        Home() as home,
        FakeServer(home, n_contexts=6) as server,
        Terminal([sys.executable, "-m", "inspector"], home, extra=server.environment) as view,
    ):
        wait_for_colours(view, LIMIT)
        yield view


def ended(process: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LIMIT)
    return process.poll()


def is_restored(raw: bytes) -> bool:
    """Every mode that was switched on is off again, the cursor shown, the alternate screen left."""
    on = set(re.findall(rb"\x1b\[\?(\d+)h", raw)) - {b"25", b"7"}
    off = all(raw.rfind(b"\x1b[?%bl" % mode) > raw.rfind(b"\x1b[?%bh" % mode) for mode in on)
    return off and raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l") and raw.rfind(b"\x1b[<u") > raw.rfind(b"\x1b[>")


@pytest.mark.parametrize("controlling", [True, False], ids=["its controlling terminal", "somebody else's terminal"])
def test_a_view_whose_terminal_vanished_ends(controlling: bool) -> None:
    """Without a controlling terminal no signal tells of it; the process then used to spin for ever."""
    with Home() as home, FakeServer(home, n_contexts=6) as server:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environment = home.environment(server.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        claim = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " if controlling else ""
        run = f"{claim}import sys; sys.argv = ['dm-inspect']; from inspector.__main__ import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", run],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        try:
            received = b""
            until = time.monotonic() + LIMIT
            while b"linear" not in received and time.monotonic() < until:
                received += os.read(master, 65536)
            assert b"linear" in received
            assert not is_gone(master)
            os.close(master)
            assert ended(process) == 128 + signal.SIGHUP
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_app_and_restores_the_terminal(number: signal.Signals) -> None:
    with attached() as view:
        view.process.send_signal(number)
        view.read_until_silent(silence=1.0, limit=LIMIT, first=LIMIT)
        assert ended(view.process) == 128 + number
        assert is_restored(view.raw)
        assert b"Traceback" not in view.raw


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_state(pid: int, stopped: bool) -> None:
    until = time.monotonic() + LIMIT
    while (state_of(pid) == "T") != stopped and time.monotonic() < until:
        time.sleep(0.05)
    assert (state_of(pid) == "T") == stopped


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("how", ["signal", "key"])
def test_suspending_restores_the_terminal_and_coming_back_paints_everything(how: str) -> None:
    with attached() as view:
        shown = [line.rstrip() for line in view.lines]
        if how == "signal":
            view.process.send_signal(signal.SIGTSTP)
        else:
            view.send("\x1a")
        wait_for_state(view.process.pid, stopped=True)
        view.read_until_silent(silence=0.5, limit=10.0)
        assert is_restored(view.raw)
        before = len(view.raw)
        view.process.send_signal(signal.SIGCONT)
        wait_for_state(view.process.pid, stopped=False)
        assert view.wait_until(lambda lines: [line.rstrip() for line in lines] == shown, LIMIT), view.lines
        assert b"\x1b[?1049h" in view.raw[before:]
        view.press("\x1b[C", silence=0.5)
        assert view.process.poll() is None
        view.send("q")
        assert ended(view.process) == 0


STORM = ("e", "j", " ", "J", "j", "\t", "j", "e", "\r", "\x1b[C", "\x1b[B", "\x1b", "J", "?", "\x1b", "\x1b")
"""Every screen of jobs and experiments; wherever a key arrives, it neither cancels nor starts a job, nor asks to leave.
Where it arrives is open: on a busy machine an Escape and the key behind it are one."""


def test_a_storm_of_resizes_over_all_screens_while_a_job_runs_leaves_a_whole_screen() -> None:
    with (
        Home() as home,
        FakeServer(home, n_contexts=6, job_steps=1000, job_step_seconds=0.3) as server,
        Terminal([sys.executable, "-m", "inspector"], home, extra=server.environment) as view,
    ):
        wait_for_colours(view, LIMIT)
        view.send("e")
        assert view.wait_until(lambda lines: any("Norm prediction" in line for line in lines), LIMIT)
        view.send("s")
        assert view.wait_until(lambda lines: any("▶ running" in line for line in lines), LIMIT)
        for step, key in enumerate((*STORM, *STORM)):
            view.resize(1 + (step * 37) % 200, 1 + (step * 13) % 60)
            view.send(key)
            view.read_for(0.02 + 0.1 * (step % 2))
        view.resize(120, 40)
        view.read_until_silent(1.0, 15.0)
        for _ in range(100):
            if view.lines[0].startswith(" dm-inspect  demo"):
                break
            view.press("\x1b", silence=0.5, limit=5.0)
        assert view.wait_until(lambda lines: lines[-2].startswith(" ▶ norm-prediction"), LIMIT), view.lines
        assert view.process.poll() is None
        assert b"Traceback" not in view.raw
        assert "token" in view.lines[-1], view.lines
        shown = [line.rstrip() for line in view.lines[:-2]]
        redraw(view)
        assert shown == [line.rstrip() for line in view.lines[:-2]]
        view.send("q")
        assert view.wait_until(lambda lines: any("leave, the job goes on" in line for line in lines), LIMIT)
        view.send("\r")
        assert ended(view.process) == 0
        view.read_for(0.5)
        assert is_restored(view.raw)


def test_the_next_view_begins_where_a_killed_one_was() -> None:
    """Also after SIGHUP: the place is written on the way out, whole or not at all."""
    with Home() as home, FakeServer(home, n_contexts=6) as server:
        command = [sys.executable, "-m", "inspector"]
        with Terminal(command, home, extra=server.environment) as view:
            wait_for_colours(view, LIMIT)
            view.send(">")
            assert view.wait_until(lambda lines: "context 2/6" in lines[1] and position_in(lines) is not None, LIMIT)
            begun = position_in(view.lines)
            view.send("\x1b[C")
            assert view.wait_until(lambda lines: position_in(lines) not in (None, begun), LIMIT)
            view.send("2")
            assert view.wait_until(lambda lines: "512◉" in lines[0], LIMIT)
            position = position_in(view.lines)
            view.process.send_signal(signal.SIGHUP)
            assert ended(view.process) == 128 + signal.SIGHUP
        with Terminal(command, home, extra=server.environment) as view:
            wait_for_colours(view, LIMIT)
            assert "context 2/6" in view.lines[1]
            assert "512◉" in view.lines[0]
            assert position is not None
            assert view.wait_for(position, LIMIT), view.lines


def position_in(lines: list[str]) -> str | None:
    """The `position N` that the pane of the token names."""
    found = re.search(r"position \d+", "\n".join(lines))
    return found and found.group()
