"""`python -m tests.faults.sweeper`: sessions that can be killed again and again without importing torch each time.

Loads a toy target once. In every attempt (see `forking`) a copy of this process becomes a session with that target,
starts or resumes a job in it, and ends when the job does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from inspector.session.protocol import JobTold, ResumeJob, SessionMessage, StartJob
from inspector.session.server import Views
from inspector.session.service import Service
from inspector.spec import TargetSpec
from tests.faults.forking import serve

SESSION = "fault5session"


def main() -> None:
    """See the module."""
    target = msgspec.json.decode(sys.argv[1], type=TargetSpec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(target)
    serve(partial(attempt, target, loaded))


def load(target: TargetSpec) -> Any:
    """The target, and everything that a job imports."""
    from inspector import experiments, runner  # noqa: F401
    from inspector.sources.target import open_target
    from inspector.store.checkpoints import code_digest

    experiments.discover()
    code_digest()  # kept by every copy: the code may be edited while this runs
    work = open_target(target)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


def attempt(
    target: TargetSpec,
    loaded: Any,
    *,
    speak: int,
    environment: dict[str, str],
    log: str,
    counts: str,
    job: str | None = None,
    experiments: list[str] | None = None,
    params: dict[str, str] | None = None,
) -> int:
    """One session: until its job is over. It has nothing to say on `speak`: it is killed from outside, at any time."""
    os.environ.update(environment)
    with open(log, "a") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    count_reconstructions(loaded, Path(counts))
    views = Views()

    def tell(message: SessionMessage) -> None:
        if isinstance(message, JobTold) and message.job.state not in ("queued", "running"):
            views.stop()

    Service._load = lambda self: (loaded, [])  # type: ignore[method-assign]
    service = Service(target, views, on_state=lambda *_: None, idle_seconds=1e9, session_id=SESSION)
    view = views.attach(tell)
    views.ask(
        view,
        ResumeJob(request=1, job=job)
        if job is not None
        else StartJob(request=1, experiments=list(experiments or ()), params=dict(params or {})),
    )
    return service.run()


def count_reconstructions(loaded: Any, path: Path) -> None:
    """A byte for each call of an SAE by a job; the background fit's are not counted."""
    from inspector.statistics import pipeline

    original = pipeline.by_the_sae
    file = path.open("ab", buffering=0)

    def counted(sae: Any, batch: Any) -> Any:
        with contextlib.suppress(OSError):
            file.write(b".")
        return original(sae, batch)

    pipeline.by_the_sae = counted


if __name__ == "__main__":
    main()
