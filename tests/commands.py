"""Several commands in one process of their own: importing the model libraries is most of what a command costs.

    done = commands(folder, [["tokens", "--json"], ...], blocked=True)

Everything else is as a user has it: a process with an empty home, the program's own entry, exit codes and streams.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = "--blocked"
"""In front of a command's words: from it on any connection is an error."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of one command."""

    code: int
    out: str
    err: str


def commands(folder: Path, words: Sequence[Sequence[str]], **variables: str) -> list[Done]:
    """Run the commands one after the other; nothing of the user's own settings reaches them."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))},
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # How long the library waits for an answer: a server on a busy machine is no broken one.
        "HF_HUB_ETAG_TIMEOUT": "300",
        "HF_HUB_DOWNLOAD_TIMEOUT": "300",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands"],
        env=environment,
        input=json.dumps([list(each) for each in words]),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [Done(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def _refuse(*_: object) -> None:
    raise AssertionError("a socket was opened")


def _one(words: list[str]) -> Done:
    from inspector.__main__ import open_app
    from inspector.cli.failures import run_command
    from inspector.cli.main import dm_inspect

    if words[0] == BLOCK:
        words = words[1:]
        socket.socket.connect = socket.socket.connect_ex = _refuse  # type: ignore[method-assign, assignment]
        socket.getaddrinfo = _refuse  # type: ignore[assignment]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(dm_inspect, words, open_app=open_app)
    return Done(code=int(code), out=out.getvalue(), err=err.getvalue())


if __name__ == "__main__":
    made = [_one(each) for each in json.loads(sys.stdin.read())]
    print(json.dumps([vars(each) for each in made]))
