"""A run on the workers of a Ray cluster: started, listened to, and ended with everything they hold.

    driver   this process: no model, no torch; passes on what the workers say, and counts them
    board    an actor: which piece of which pass is whose (`board.Board`)
    worker   an actor per device: opens the target and runs `runner.run` on it, pass by pass with the others

Scheduling, transport and finding out who died are Ray's. The processes of a cluster trust each other: Ray carries
Python objects between them, as it always does, and nothing of that comes from a model, a text or a hub.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from inspector import threads
from inspector.cluster import ADDRESS, LOCAL, check_address
from inspector.cluster.board import Board, Shared
from inspector.disk.locks import resident_bytes
from inspector.errors import InspectorError, ResourceError, TargetError, UsageError, error_of, first_line
from inspector.events import Event, Loading, Measured, PassProgress, PassShared, Warned, WorkerInfo, Workers
from inspector.experiments import choose
from inspector.spec import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec

T = TypeVar("T")
INSTALL = "pip install 'dm-inspect[cluster]'"
WAIT_SECONDS = 0.5
"""Between two looks at whether the user wants it to stop."""
ANSWER_SECONDS = 10.0
"""For a cluster to take a connection."""
AT_HOME = "127.0.0.1"
LOADING = "loading"
DRIVER = -1
"""In the place of a worker's number."""
PASSED_ON = re.compile(r"DM_INSPECT_\w+|HF_\w+|OMP_\w+|MKL_\w+|KMP_\w+|XDG_\w+")
"""Names of variables that a worker is given: where things are kept, and how many threads compute."""


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """How a worker's run ended that could not be finished."""

    exit_code: int
    message: str


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Where a worker is, and the memory of that device."""

    where: str
    used_bytes: int
    free_bytes: int


class Worker:
    """One device's part of the run. Ray makes an actor of it.

    Args:
        number: from 0.
        variables: for the environment, before torch is imported.
    """

    def __init__(self, number: int, variables: dict[str, str]) -> None:
        self._number = number
        os.environ.update(variables)

    def ready(self) -> int:
        """Its process id, when it has begun."""
        return os.getpid()

    def work(self, spec: RunSpec, board: Any) -> Iterator[Event | _Held | _Failed]:
        """Open the target and run the experiments; the events of that, then how it failed, if it did."""
        from inspector.runner import run, table_together
        from inspector.sources.target import open_target

        def call(method: str, *arguments: Any) -> Any:
            return _ray().get(getattr(board, method).remote(self._number, *arguments))

        try:
            threads.limit()
            began = time.perf_counter()
            loaded = yield from open_target(spec.target)
            for warning in loaded.warnings:
                yield Warned(message=warning)
            yield PassShared(name=LOADING, seconds={}, merging=time.perf_counter() - began)
            told = ""
            program = table_together if spec.experiments == (TOKENS,) else run
            for event in program(spec, loaded, checkpoints=Shared(spec, loaded, call)):
                yield event
                if isinstance(event, PassProgress) and event.name != told:
                    told = event.name
                    yield _held(loaded)
        except InspectorError as error:
            yield _Failed(exit_code=int(error.exit_code), message=str(error))


def _held(loaded: Loaded) -> _Held:
    """What this process holds of the device that the target is on."""
    import torch

    from inspector.sources.memory_sizes import free_bytes

    device = loaded.model.device
    used = torch.cuda.memory_reserved(device) if device.type == "cuda" else resident_bytes(os.getpid())
    return _Held(where=f"{socket.gethostname()} {device}", used_bytes=used or 0, free_bytes=free_bytes(device))


def run_on_cluster(spec: RunSpec) -> Generator[Event, None, list[dict[str, Any]]]:
    """As `runner.run` on a target that is opened by every worker; close it to end all of them.

    Args:
        spec: of the run, with `ray`. Its shards are dealt out; the same number gives the same bits in one process.

    Raises:
        UsageError: Ray is not installed, or that is no address.
        TargetError: there is no cluster there.
        ResourceError: all workers died, or the same shard cost several.
        InspectorError: as the run in one process raises it.
    """
    asked = choose(spec.experiments)
    if not any(each.needs_target for each in asked):
        from inspector.runner import run

        return (yield from run(spec, None))
    return (yield from _led(spec, lambda crew: [crew.results[index] for index in range(len(asked))]))


def tokens_on_cluster(spec: RunSpec, write: Callable[[pa.Table], T]) -> Generator[Event, None, T]:
    """As `runner.token_table` of the text of a target that is opened by every worker; close it to end all of them.

    Args:
        spec: of TOKENS, with `ray`.
        write: brings the table to where it belongs; until it has, what the workers have made is kept.

    Returns:
        What `write` did.

    Raises:
        As `run_on_cluster`.
    """

    def written(crew: _Crew) -> T:
        from inspector.statistics.token_table import ROWS, joined_rows

        return write(joined_rows(crew.pieces(ROWS)))

    return (yield from _led(spec, written))


def _led(spec: RunSpec, conclude: Callable[[_Crew], T]) -> Generator[Event, None, T]:
    """All workers from their beginning to their end, and what is made of what they have done."""
    assert spec.ray is not None, "the caller looked"
    with _cluster(spec.ray) as n_workers:
        crew = _Crew(spec, n_workers)
        try:
            yield from crew.started()
            yield from crew.heard()
            found = conclude(crew)
            crew.discard()
        finally:
            crew.end()
    return found


class _Crew:
    """The actors of one run, and what they have said so far."""

    def __init__(self, spec: RunSpec, n_workers: int) -> None:
        ray = self._ray = _ray()
        gpus = 1 if _wants_gpu(spec) and ray.cluster_resources().get("GPU", 0) else 0
        variables = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        self._spec = spec
        # A thread for every worker that waits for others, and some for those that hand in meanwhile.
        board = ray.remote(num_cpus=0, max_concurrency=4 * n_workers + 4)(Board)
        worker = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
        self._board = board.remote(frozenset(range(n_workers)))
        self._workers = {number: worker.remote(number, variables) for number in range(n_workers)}
        self._n = n_workers
        self._warned: set[str] = set()
        self._progress: dict[int, PassProgress] = {}
        self._infos = {number: WorkerInfo(number=number + 1) for number in range(n_workers)}
        self._ended = False
        """Whether a worker has come to its end, and so has the work."""
        self._shared: dict[str, PassShared] = {}
        self.results: dict[int, dict[str, Any]] = {}

    def started(self) -> Iterator[Event]:
        """Wait until every worker has found a place."""
        ray, waiting = self._ray, [worker.ready.remote() for worker in self._workers.values()]
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=WAIT_SECONDS)
            yield Loading(what="workers", done=self._n - len(waiting), total=self._n)
        yield Workers(workers=tuple(self._infos.values()))

    def heard(self) -> Iterator[Event]:
        """What the workers say, each thing once, until all have ended.

        Raises:
            InspectorError: one of them failed, or all died.
        """
        ray = self._ray
        said = {
            number: worker.work.options(num_returns="streaming").remote(self._spec, self._board)
            for number, worker in self._workers.items()
        }
        while said:
            ready, _ = ray.wait(list(said.values()), num_returns=1, timeout=WAIT_SECONDS)
            if not ready:
                yield from self._again()
            for number in [each for each, stream in said.items() if stream in ready]:
                try:
                    event = ray.get(next(said[number]))
                except StopIteration:
                    del said[number]
                    self._ended = True
                    yield self._is(number, state="done", tokens_per_second=0.0)
                except (ray.exceptions.RayError, RuntimeError) as error:
                    del said[number]
                    yield from self._lost(number, error, left=len(said))
                else:
                    yield from self._passed_on(number, event, lead=number == min(said))
            for problem in ray.get(self._board.problems.remote()) if ready else ():
                yield Warned(message=problem)
        for name, event in self._shared.items():
            if event.seconds or name == LOADING:  # nothing was shared of what an earlier try has left
                yield event

    def pieces(self, step: str) -> Iterator[Mapping[str, Tensor]]:
        """Tensors that were handed in, one piece after the other."""
        for piece in range(self._spec.shards):
            yield self._ray.get(self._board.piece.remote(DRIVER, step, piece))[0]

    def discard(self) -> None:
        """Leave nothing on disk that only an interrupted run would need."""
        self._ray.get(self._board.discard.remote())

    def end(self) -> None:
        """Leave nothing running."""
        for actor in (*self._workers.values(), self._board):
            with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):
                self._ray.kill(actor, no_restart=True)

    def _is(self, number: int, **changes: Any) -> Workers:
        """What all are at, now that one is at something else."""
        self._infos[number] = replace(self._infos[number], **changes)
        return Workers(workers=tuple(self._infos.values()))

    def _passed_on(self, number: int, event: Event | _Held | _Failed, *, lead: bool) -> Iterator[Event]:
        if isinstance(event, _Failed):
            raise error_of(event.exit_code, event.message)
        if isinstance(event, _Held):
            yield self._is(number, state="running", **vars(event))
            return
        if isinstance(event, Measured):
            if event.index not in self.results:
                self.results[event.index] = event.result
                yield event
        elif isinstance(event, PassProgress):
            self._progress[number] = event
            yield self._together(event)
            at, rate = event.contexts_done, event.tokens_per_second
            yield self._is(number, stage=event.name, contexts=at, tokens_per_second=rate)
        elif isinstance(event, PassShared):
            known = self._shared.get(event.name, event)
            self._shared[event.name] = replace(
                event,
                seconds=dict(sorted({**known.seconds, **event.seconds}.items())),
                merging=max(known.merging, event.merging),
            )
        elif isinstance(event, Warned):
            if event.message not in self._warned:
                self._warned.add(event.message)
                yield event
        elif lead:
            yield event

    def _together(self, event: PassProgress) -> PassProgress:
        """What all workers have done of the same pass."""
        same = [each for each in self._progress.values() if each.name == event.name]
        done = min(event.contexts_total, sum(each.contexts_done for each in same))
        left = event.contexts_total - done
        # Contexts per second of each, from what it says of itself.
        pace = sum(
            (each.contexts_total - each.contexts_done) / each.seconds_left for each in same if each.seconds_left > 0
        )
        return replace(
            event,
            contexts_done=done,
            tokens_per_second=sum(each.tokens_per_second for each in same),
            seconds_left=left / pace if pace else event.seconds_left,
        )

    def _again(self) -> Iterator[Event]:
        """So that whoever listens has a turn to stop it."""
        if self._progress:
            yield self._together(next(reversed(self._progress.values())))
        else:
            yield Loading(what="targets of the workers", total=self._n)

    def _lost(self, number: int, error: BaseException, *, left: int) -> Iterator[Event]:
        self._progress.pop(number, None)
        poisoned = self._ray.get(self._board.lose.remote(number))
        cause = first_line(error).rstrip(".")
        if poisoned is not None:
            raise ResourceError(
                f"Two workers died in {poisoned}: {cause}. Look at that text and at the memory of the devices; "
                "the same command goes on from what was finished."
            )
        if not left and not self._ended and len(self.results) < len(self._spec.experiments):
            raise ResourceError(
                f"All {self._n} workers died, the last one of this: {cause}. "
                "The same command goes on from what was finished."
            )
        yield Warned(message=f"Worker {number + 1} of {self._n} died ({cause}). The others do what it had begun.")
        yield self._is(number, state="died", tokens_per_second=0.0)


def _ray() -> Any:
    """The library; what it says of its types is not what its decorators return.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"--ray needs Ray, which is not installed. Run: {INSTALL}") from error


def _wants_gpu(spec: RunSpec) -> bool:
    return spec.target.device not in ("cpu", "mps")


@contextlib.contextmanager
def _cluster(where: str) -> Iterator[int]:
    """A connection to a cluster, or one of its own on this machine; the number of workers that fit there.

    Raises:
        UsageError: Ray is not installed, or `where` is nothing that there is.
        TargetError: nothing answers there.
    """
    # Before the import, which reads them: no word goes to Ray's makers, and no line of its log to the terminal.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = _ray()
    check_address(where)
    local = LOCAL.fullmatch(where)
    n_workers = 0
    if local is not None:
        n_workers = int(local.group(1) or 0) or min(4, threads.usable_cores())
        os.environ.setdefault(threads.COUNT, str(max(1, threads.usable_cores() // n_workers)))
    threads.wait_asleep()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)} if in_main else {}
    folder = tempfile.mkdtemp(prefix="dm-ray-") if local is not None else None
    try:
        try:
            if local is not None:
                _begin_here(max(n_workers, threads.usable_cores()), folder, quiet)
            else:
                _require_an_answer(where)
                ray.init(address=where, **quiet)
        except Exception as error:  # of whatever kind: Ray's own have no common one
            raise TargetError(
                f"No Ray cluster answers at {where!r}: {first_line(error).rstrip('.')}. "
                "Start one with `ray start --head`, give its address, or use --ray local."
            ) from error
        finally:
            for number, handler in handlers.items():  # Ray sets its own
                signal.signal(number, handler)
        yield n_workers or _places(ray.cluster_resources(), len(ray.nodes()))
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _begin_here(cores: int, folder: str | None, quiet: dict[str, Any]) -> None:
    """A cluster of this machine; once more where its processes were not there in Ray's 30 seconds."""
    ray = _ray()
    for last in (False, True):
        try:
            ray.init(num_cpus=cores, include_dashboard=False, _node_ip_address=AT_HOME, _temp_dir=folder, **quiet)
            return
        except Exception as error:
            _end_half(error)
            if last or type(error) is not Exception:  # which is what Ray raises then
                raise
        ray.shutdown()


def _end_half(error: Exception) -> None:
    """End the processes that Ray had begun: only the object that raised this knows them."""
    at = error.__traceback__
    while at is not None:
        kill = getattr(at.tb_frame.f_locals.get("self"), "kill_all_processes", None)
        if kill is not None:
            kill(check_alive=False, allow_graceful=False, wait=True)
        at = at.tb_next


def _require_an_answer(where: str) -> None:
    """Ray itself tries for minutes.

    Raises:
        OSError: nothing listens there.
    """
    named = ADDRESS.fullmatch(where)
    if named is not None:
        socket.create_connection((named[1] or named[2], int(named[3])), timeout=ANSWER_SECONDS).close()


def _places(resources: dict[str, float], n_nodes: int) -> int:
    """A worker per GPU, or per node where there is none."""
    return max(1, int(resources.get("GPU", 0)) or n_nodes)
