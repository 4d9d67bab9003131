"""A session without a model on a socket, for measures that must depend on nothing but the view."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.terminal import python

if TYPE_CHECKING:
    from benchmarks.terminal import Home

ROOT = Path(__file__).resolve().parent.parent


class FakeServer:
    """`tests.fake_session` as a process of its own; `environment` makes a view attach to it."""

    def __init__(self, home: Home, **options: float | str) -> None:
        self.socket = home.path / "fake.sock"
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        environment = home.environment()
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            python("-m", "tests.fake_session", "--socket", str(self.socket), *arguments),
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        until = time.perf_counter() + 20
        while not self.socket.exists():
            if time.perf_counter() > until or self._process.poll() is not None:
                raise RuntimeError("tests.fake_session did not start.")
            time.sleep(0.02)

    @property
    def environment(self) -> dict[str, str]:
        """What the view needs to find it."""
        return {"DM_INSPECT_SESSION_SOCKET": str(self.socket)}

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=10)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
