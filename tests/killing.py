"""A run that is killed again and again at random moments, in processes forked from one that has everything loaded.

python -m tests.killing FOLDER --seed 0 --kills 4 [--profile P] [--null N] [--shards N] [--room BYTES]

Prints one JSON object: how often it was killed, what was computed, what of it twice, whether the bytes are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from inspector import runner
from inspector.errors import InspectorError
from inspector.events import Event, Measured, PassProgress
from inspector.experiment import Experiment
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.store.checkpoints import Checkpoints, checkpoints_for
from tests.toy import fit_toy_suite, write_toy_model, write_toy_suite

EXPERIMENTS = ("theory-c1", "norm-prediction", "error-vector", "fvu-nonlinear")
PARAMS = {"resamples": "50", "draws": "2000"}
PASSES = ("null", "moments", "scores", "real")
LIMIT = 300.0
"""Seconds after which a forked process is taken for stuck."""
T = TypeVar("T")


def finish(work: Generator[Event, None, T], hear: Callable[[Event], None] = lambda _: None) -> T:
    while True:
        try:
            hear(next(work))
        except StopIteration as stop:
            value: T = stop.value
            return value


def loaded_toy(root: Path, contexts: int = 24) -> Loaded:
    """A toy model with two SAEs; the files are made once."""
    if not (root / "text.txt").exists():
        write_toy_model(root / "model", "gemma2")
        write_toy_suite(root / "suite", widths=(32, 64), l0s=(4,))
        words = np.random.default_rng(0).integers(97, 123, size=(4000, 6), dtype=np.uint8)
        text = " ".join(bytes(word).decode() for word in words)
        fit_toy_suite(root / "suite", root / "model", text)
        (root / "text.txt").write_text(text)
    target = TargetSpec(
        model=str(root / "model"),
        layers=(1,),
        suite=str(root / "suite"),
        text=str(root / "text.txt"),
        contexts=contexts,
        context_length=48,
        positions=(6, None),
        train_tokens=500,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sae-lens imports a deprecated module of transformer-lens
        return finish(open_target(target))


def as_bytes(objects: list[dict[str, Any]]) -> bytes:
    from inspector.disk.sealed import to_json

    return "\n".join(to_json(each) for each in objects).encode()


class Told:
    """What the processes said, line by line."""

    def __init__(self) -> None:
        self.passes: dict[str, int] = {}
        self.batches = self.twice = self.computed_twice = 0
        self.computed: set[str] = set()

    def hear(self, line: str) -> None:
        """`batch PASS CONTEXTS_DONE` is finished; `compute EXPERIMENT` begins."""
        kind, _, rest = line.partition(" ")
        if kind == "batch":
            name, done = rest.split()
            self.batches += 1
            self.twice += int(done) <= self.passes.get(name, 0)
            self.passes[name] = max(int(done), self.passes.get(name, 0))
        elif kind == "measured":
            self.computed.add(rest)
        elif kind == "compute":
            self.computed_twice += rest in self.computed


def child(loaded: Loaded, spec: RunSpec, folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """One attempt, in a process of its own."""
    honest = runner.choose

    def chosen(names: Any) -> list[Experiment]:
        return [_telling(each, say) for each in honest(names)]

    def hear(event: Event) -> None:
        if isinstance(event, PassProgress) and event.name in PASSES:
            say(f"batch {event.name} {event.contexts_done}")
        elif isinstance(event, Measured):
            say(f"measured {event.result['experiment']}")

    runner.choose = chosen  # type: ignore[attr-defined]
    checkpoints = Checkpoints(folder, seconds=0.0)
    raw = as_bytes(finish(runner.run(spec, loaded, checkpoints=checkpoints), hear))
    out.with_suffix(".tmp").write_bytes(raw)
    out.with_suffix(".tmp").replace(out)


def _telling(experiment: Experiment, say: Callable[[str], None]) -> Experiment:
    def compute(*arguments: Any) -> Any:
        assert experiment.compute is not None
        say(f"compute {experiment.id}")
        return experiment.compute(*arguments)

    def simulate(*arguments: Any) -> Any:
        assert experiment.simulate is not None
        say(f"compute {experiment.id}")
        return (yield from experiment.simulate(*arguments))

    if experiment.needs_target:
        return replace(experiment, compute=compute)
    return replace(experiment, simulate=simulate)


def attempt(run: Callable[[Callable[[str], None]], None], told: Told, after: int | None, pause: float) -> int | None:
    """Fork; hear `after` lines and kill a moment later (None: never). Its exit code, None if it was killed.

    It goes on from a line when that was heard, so it is one line further at most when it is killed, however late this
    process gets its turn: on a busy machine it would be at its end before.
    """
    reader, writer = os.pipe()
    heard_reader, heard_writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads; there are none here
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.close(heard_writer)
        code = 1
        try:
            run(lambda line: _say(writer, heard_reader, line))
            code = 0
        except InspectorError as error:
            code = int(error.exit_code)
        finally:
            os._exit(code)
    os.close(writer)
    os.close(heard_reader)
    began, killed = time.monotonic(), False
    with os.fdopen(reader, encoding="ascii") as lines, os.fdopen(heard_writer, "wb", buffering=0) as answers:
        for heard, line in enumerate(lines, start=1):
            told.hear(line.rstrip("\n"))
            if not killed:
                answers.write(b".")
            if after is not None and heard >= after and not killed:
                time.sleep(pause)
                os.kill(pid, signal.SIGKILL)
                killed = True
            if time.monotonic() - began > LIMIT:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError("a forked run is stuck")
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def _say(writer: int, heard: int, line: str) -> None:
    os.write(writer, f"{line}\n".encode("ascii"))
    os.read(heard, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--profile", default="careful")
    parser.add_argument("--null")
    parser.add_argument("--room", type=int, help="first, a try with room for files of so many bytes")
    parser.add_argument("--shards", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    loaded = loaded_toy(asked.root)
    spec = RunSpec(
        target=loaded.target,
        experiments=EXPERIMENTS,
        params=PARAMS,
        profile=asked.profile,
        null=asked.null,
        batch_size=2,
        shards=asked.shards,
    )
    steps = 0

    def count(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, PassProgress) and event.name in PASSES

    plain = as_bytes(finish(runner.run(spec, loaded), count))
    chance = random.Random(asked.seed)
    folder, out = checkpoints_for(spec, loaded).folder, asked.root / "out.json"
    out.unlink(missing_ok=True)
    told, kills, attempts = Told(), 0, 0
    full_disk = None
    if asked.room is not None:

        def cramped(say: Callable[[str], None]) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked.room, asked.room))
            child(loaded, spec, folder, out, say)

        full_disk = attempt(cramped, told, None, 0.0)
    before = told.batches
    code: int | None = None
    while code is None:
        left = asked.kills - kills
        # Early enough that moments for the other kills are left.
        lines = steps - before + 2 * len(EXPERIMENTS)
        after = chance.randint(1, max(1, lines // asked.kills)) if left > 0 else None
        attempts += 1
        code = attempt(lambda say: child(loaded, spec, folder, out, say), told, after, chance.random() * 0.02)
        kills += code is None
    if code:
        raise RuntimeError(f"a forked run ended with {code}")
    print(
        json.dumps(
            {
                "kills": kills,
                "attempts": attempts,
                "full_disk": full_disk,
                "batches_before_the_disk_was_full": before,
                "batches": steps,
                "batches_told": told.batches,
                "finished_batches_again": told.twice,
                "finished_experiments_again": told.computed_twice,
                "same_bytes": out.read_bytes() == plain,
                "checkpoints_left": folder.exists(),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
