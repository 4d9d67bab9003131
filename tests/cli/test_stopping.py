"""Ctrl-C: before the command, in a step that is short, in one that is long, and after the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from inspector.cli import opening
from inspector.cli.opening import interruptible

PATIENCE = 600.0
"""Seconds: longer than any test, so that a busy machine is not taken for a step that does not end."""


def test_the_first_ctrl_c_is_a_wish_and_the_second_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE_SECONDS", PATIENCE)
    with interruptible() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE_SECONDS", 0.01)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        threading.Event().wait(PATIENCE)


def test_what_is_saved_after_the_wish_was_heard_is_saved_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Timer] = []

    class Watched(threading.Timer):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr(threading, "Timer", Watched)
    monkeypatch.setattr(opening, "PATIENCE_SECONDS", PATIENCE)
    with interruptible() as should_stop:
        signal.raise_signal(signal.SIGINT)
        (timer,) = started
        assert should_stop()
        timer.join(60)
        assert timer.finished.is_set()  # cancelled: no second signal has come, or this line would not be reached


def whole(code: str) -> subprocess.CompletedProcess[str]:
    before = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv = ['dm-inspect', '--version']\nimport inspector.__main__ as m"
    )
    code = f"{before}\n{code}\nm.main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)


def test_ctrl_c_before_the_command_is_there() -> None:
    done = whole(
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'inspector.cli.failures': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())"
    )
    message = "error: Cancelled at your request. Nothing unfinished was written.\n"
    assert (done.returncode, done.stdout, done.stderr) == (6, "", message)


def test_ctrl_c_while_the_interpreter_ends_changes_nothing() -> None:
    """Both while Python still runs, and when it has taken its signal handlers away."""
    done = whole(
        "import atexit, builtins\n"
        "class Last:\n"
        "    def __init__(self, kill, pid): self.kill, self.pid = kill, pid\n"
        "    def __del__(self): self.kill(self.pid, 2)\n"
        "builtins.last = Last(os.kill, os.getpid())\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("dm-inspect")
    assert done.stderr == ""


def test_ctrl_c_while_a_failure_is_told() -> None:
    done = whole(
        "import inspector.cli.failures as f\n"
        "def interrupted(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "f.report = interrupted\n"
        "sys.argv[1:] = ['--no-such-option']"
    )
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
