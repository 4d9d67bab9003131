"""How command tests run the program: as a function with both streams caught, or as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from inspector.cli.failures import run_command
from inspector.cli.main import dm_inspect
from inspector.spec import AppRequest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str
    opened: tuple[AppRequest, ...]
    """What the app was asked to show."""


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run one command in this process, with its logs and sessions in a folder of the test."""
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DM_INSPECT_DEBUG", raising=False)

    def run_here(*args: str) -> Outcome:
        opened: list[AppRequest] = []

        def open_app(request: AppRequest) -> int:
            opened.append(request)
            return 0

        code = run_command(dm_inspect, args, open_app=open_app)
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err, opened=tuple(opened))

    return run_here


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a person sits at a capable terminal."""
    monkeypatch.setattr("inspector.cli.main.has_terminal", lambda: True)


def run_process(*args: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as its users do."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "inspector", *args],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=500,
        check=False,
    )
