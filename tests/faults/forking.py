"""Processes that can be killed again and again: forks of one that has imported everything, which takes a second or ten.

The server's side is `serve`, in a module that is run as a program; the tests' side is `Forks`. Each line on stdin is
one attempt as JSON. On stdout: `ready`, then for each attempt `pid N` and, once it has ended, `ended CODE STEPS IN`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import ROOT

KILL, OVER = b"k", b"o"
"""What a fork says of itself: kill me now; the moment is over."""


def serve(attempt: Callable[..., int]) -> None:
    """Fork for each line of stdin; the fork runs `attempt` with what the line says and a handle to speak on."""
    print("ready", flush=True)
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            os._exit(attempt(speak=writer, **json.loads(line)))
        os.close(writer)
        print(f"pid {pid}", flush=True)
        said = b""
        while heard := os.read(reader, 65536):
            if KILL in heard:
                os.kill(pid, signal.SIGKILL)
            said += heard
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        steps = said.rpartition(b"n")[2].decode() if b"n" in said else "0"
        print(f"ended {os.waitstatus_to_exitcode(status)} {steps} {int(not said.endswith(OVER))}", flush=True)


@dataclass(frozen=True, kw_only=True)
class End:
    """What became of one attempt."""

    code: int
    """Negative for a signal."""
    steps: int
    """That the fork counted, if it came to its end."""
    met: bool
    """Whether it was killed before the moment that was meant was over."""


@dataclass
class Forks:
    """The server, as the tests see it."""

    process: subprocess.Popen[str]
    pid: int = 0
    """Of the last fork."""

    def begin(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        self.pid = int(self._said("pid "))

    def ended(self) -> End:
        """Wait for its end."""
        code, steps, met = self._said("ended ").split()
        return End(code=int(code), steps=int(steps), met=int(code) == -signal.SIGKILL and met == "1")

    def _said(self, beginning: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(beginning), line
        return line.removeprefix(beginning).strip()


@contextlib.contextmanager
def forks(module: str, *arguments: str, log: Path | None = None) -> Iterator[Forks]:
    """The server of a module, ready; what it says on stderr goes to `log`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    with (
        open(log or os.devnull, "w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=environment,
        ) as process,
    ):
        made = Forks(process)
        made._said("ready")
        yield made
        assert process.stdin is not None
        process.stdin.close()
