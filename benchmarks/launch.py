"""Run a module as `python -m` does, and note what it imports and how late its event loop is.

    python -m benchmarks.launch --imports FILE --heartbeat FILE -- inspector --new-session

Times come from runs without this; here an audit hook watches every import and a beat every ten milliseconds asks
the loop how late it is. Both stay in this process: a session that the program starts is a fresh interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import runpy
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD = 0.010
"""Seconds between two beats."""
BEAT = struct.Struct("<ddd")
"""Seconds: when a beat came (`time.perf_counter`), how late, and what the loop's thread computed since the last."""


def record_imports(path: str) -> None:
    """Append `seconds name` to a file for each module that is looked for, from now on."""
    sink = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - lives as long as the process

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            sink.write(f"{time.perf_counter():.6f} {arguments[0]}\n")

    sys.addaudithook(hook)


def record_lag(path: str) -> None:
    """Give every event loop of this process a heartbeat that writes BEAT records."""
    sink = open(path, "wb", buffering=0)  # noqa: SIM115 - lives as long as the process
    run_forever: Callable[[asyncio.BaseEventLoop], None] = asyncio.BaseEventLoop.run_forever

    def with_heartbeat(self: asyncio.BaseEventLoop) -> None:
        def beat(due: float, computed: float) -> None:
            now, computed_now = self.time(), time.thread_time()
            sink.write(BEAT.pack(time.perf_counter(), now - due, computed_now - computed))
            self.call_at(now + PERIOD, beat, now + PERIOD, computed_now)

        self.call_soon(beat, self.time(), time.thread_time())
        run_forever(self)

    asyncio.BaseEventLoop.run_forever = with_heartbeat  # type: ignore[method-assign]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch")
    parser.add_argument("--imports")
    parser.add_argument("--heartbeat")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if asked.heartbeat:
        record_lag(asked.heartbeat)
    if asked.imports:
        record_imports(asked.imports)
    sys.argv = [asked.module, *asked.arguments]
    runpy.run_module(asked.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
