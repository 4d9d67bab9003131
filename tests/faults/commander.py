"""`python -m tests.faults.commander`: commands that are killed at a moment within a stage; see `forking`.

A stage is what happens around certain files: it begins where one of them is opened to be written, made, renamed or
removed, and is over `TAIL` calls after the last time. Calls of Python functions, and of functions in C by Python, are
its steps: so the same step of the same command is the same place, however busy the machine is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import re
import signal
import sys
import threading
import warnings
from typing import Any

import msgspec

from tests.faults.forking import KILL, OVER, serve

TAIL = 200
"""Calls after the last touch of a file: what flushes the folder and removes what was replaced."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


class Stage:
    """Counts the steps of a stage, and ends the process, or has it ended, at one of them.

    Args:
        files: paths that belong to it; searched in each path.
        before: its steps are instead those before the first of the files is touched.
        kill_at: the step; 0: none.
        asks: to be killed by another process, and goes on meanwhile: the end may come within a call; else it kills
            itself between two.
        speak: the handle to ask on.
    """

    def __init__(self, files: str, *, before: bool, kill_at: int, asks: bool, speak: int) -> None:
        self._files, self._before, self._kill_at, self._asks = re.compile(files), before, kill_at, asks
        self._speak, self._main = speak, threading.get_ident()
        self._tail, self._is_asked = 0, False
        self.steps = 0
        sys.addaudithook(self._hear)
        if before:
            sys.setprofile(self._step)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = given[0], given[2]
            touched = isinstance(flags, int) and flags & _WRITES and self._is_mine(path)
        else:
            touched = event in _TOUCHES and any(map(self._is_mine, given))
        if not touched or threading.get_ident() != self._main:
            return
        if self._before:
            self._over()
        elif not self._tail:
            sys.setprofile(self._step)
        self._tail = TAIL

    def _is_mine(self, path: object) -> bool:
        return isinstance(path, str | bytes) and self._files.search(os.path.abspath(os.fsdecode(path))) is not None

    def _step(self, _frame: object, event: str, _what: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.steps += 1
        if self.steps == self._kill_at:
            if self._asks:
                self._is_asked = True
                os.write(self._speak, KILL)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        self._tail -= 1
        if not self._tail and not self._before:
            self._over()

    def _over(self) -> None:
        sys.setprofile(None)
        if self._is_asked:
            os.write(self._speak, OVER)


def attempt(
    *,
    speak: int,
    words: list[str],
    folder: str,
    environment: dict[str, str],
    files: str = r"(?!)",
    before: bool = False,
    kill_at: int = 0,
    asks: bool = False,
) -> int:
    """One command in a folder; its exit code. What it prints is in the folder: `stdout`, and `stderr` at its end."""
    from inspector.__main__ import open_app
    from inspector.cli.failures import run_command
    from inspector.cli.main import dm_inspect

    os.environ.update(environment)
    os.chdir(folder)
    for standard, flags in ((1, os.O_TRUNC), (2, os.O_APPEND)):
        handle = os.open(f"std{('out', 'err')[standard - 1]}", os.O_WRONLY | os.O_CREAT | flags)
        os.dup2(handle, standard)
        os.close(handle)
    stage = Stage(files, before=before, kill_at=kill_at, asks=asks, speak=speak)
    code = run_command(dm_inspect, words, open_app=open_app)
    sys.setprofile(None)
    os.write(speak, b"n%d" % stage.steps)
    return int(code)


def warm(target_as_json: str) -> None:
    """Import all that a command may import, so that the code may be edited while this runs, and load a target."""
    import matplotlib.figure
    import pyarrow.parquet  # noqa: F401

    import inspector
    from inspector.sources.target import open_target
    from inspector.spec import TargetSpec
    from inspector.store.checkpoints import code_digest

    assert matplotlib.figure
    for module in pkgutil.walk_packages(inspector.__path__, "inspector."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    code_digest()  # kept by every fork
    target = msgspec.json.decode(target_as_json, type=TargetSpec)
    with contextlib.closing(open_target(target)) as work:
        for _ in work:
            pass


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warm(sys.argv[1])
    serve(attempt)
