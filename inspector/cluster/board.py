"""Where the workers of a run see what is left to be done, and what the others have done.

Every worker runs the whole program (`runner.run`) on a copy of the target of its own. Wherever that walks over tokens,
the shards are dealt out here, one by one, to whoever asks; each hands in its sums. Then one of them merges the sums of
all shards, in the order of the shards, and the others take what came of it. So every worker has the same numbers after
every pass, whoever added up what; the number of workers, their speed and their deaths change no bit.

Nothing here knows Ray, a model or a device: a board is called by threads, or through whatever carries calls.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.store.checkpoints import Checkpoints, checkpoints_for

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec
    from inspector.statistics.sums import Kept

TRIES = 2
"""Of a piece that fails, or whose worker dies; then the run fails, and the cluster is not asked again."""
WHOLE = ".whole"
"""Ends the name of a step in which pieces are merged."""
State = tuple[Mapping[str, "Tensor"], Mapping[str, Any]]
"""Tensors and JSON data, as `sums.Accumulator.state` has them."""


@dataclass
class _Step:
    """One pass, or one list of conclusions, in pieces."""

    n: int
    found: dict[int, State | None] = field(default_factory=dict)
    """What was handed in, by piece; None once all workers have it."""
    held: dict[int, int] = field(default_factory=dict)
    """Piece to the worker that does it."""
    stored: set[int] = field(default_factory=set)
    """Pieces that are on disk."""
    lost: Counter[int] = field(default_factory=Counter)
    """Tries that came to nothing, by piece."""
    taken_by: set[int] = field(default_factory=set)
    """Workers that have the sums of all pieces."""


class Board:
    """The steps of one run. Every method may be called by several threads at once.

    Args:
        workers: their numbers.
    """

    def __init__(self, workers: frozenset[int]) -> None:
        self._workers = set(workers)
        self._steps: dict[str, _Step] = {}
        self._changed = threading.Condition()
        self._checkpoints: Checkpoints | None = None
        self._finished: dict[str, dict[str, Any] | None] = {}
        """What a try before this one has finished, as it was when it was asked for first."""

    # ---- of the workers ---------------------------------------------------------------------------------------------

    def open(self, worker: int, folder: str, seconds: float, about: Mapping[str, Any]) -> None:
        """Where sums and finished experiments are kept; the first worker that knows says it.

        Raises:
            ResourceError: the disk is full.
        """
        del worker  # all say the same
        with self._changed:
            if self._checkpoints is None:
                self._checkpoints = Checkpoints(Path(folder), seconds=seconds, about=about).__enter__()

    def claim(self, worker: int, step: str, n_pieces: int) -> int | None:
        """See `sums.Together`."""
        with self._changed:
            while True:
                if not is_whole(step) and self._step(whole(step), 1).found:
                    return None
                at = self._step(step, n_pieces)
                piece = next((each for each in range(at.n) if each not in at.found and each not in at.held), None)
                if piece is not None:
                    at.held[piece] = worker
                    return piece
                if len(at.found) == at.n:
                    return None
                self._changed.wait()

    def hand_in(
        self, worker: int, step: str, piece: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> None:
        """See `sums.Together`. Of a worker that was given up for dead nothing is taken: another one does its piece."""
        with self._changed:
            at = self._steps[step]
            if at.held.get(piece) != worker:
                return
            del at.held[piece]
            at.found[piece] = tensors, facts
            if is_whole(step):
                at.taken_by.add(worker)
            self._keep()
            self._drop()
            self._changed.notify_all()

    def give_up(self, worker: int, step: str, piece: int) -> bool:
        """See `sums.Together`."""
        with self._changed:
            at = self._steps[step]
            if at.held.get(piece) == worker:
                del at.held[piece]
            at.lost[piece] += 1
            self._changed.notify_all()
            return at.lost[piece] < TRIES

    def piece(self, worker: int, step: str, piece: int) -> State:
        """What was handed in; with what was merged the step ends for this worker."""
        with self._changed:
            at = self._steps[step]
            found = at.found[piece]
            assert found is not None, "kept until every worker has it"
            if is_whole(step):
                at.taken_by.add(worker)
                self._drop()
            return found

    def finished(self, worker: int, experiment: str) -> dict[str, Any] | None:
        """The result of an experiment that a try before this one has finished: the same answer for every worker."""
        del worker
        with self._changed:
            if experiment not in self._finished:
                found = None if self._checkpoints is None else self._checkpoints.finished(experiment)
                self._finished[experiment] = found
            return self._finished[experiment]

    def finish(self, worker: int, experiment: str, result: Mapping[str, Any]) -> None:
        """Keep the result of a finished experiment.

        Raises:
            ResourceError: there is no room.
        """
        del worker
        with self._changed:
            if self._checkpoints is not None:
                self._checkpoints.finish(experiment, result)

    # ---- of the driver ----------------------------------------------------------------------------------------------

    def lose(self, worker: int) -> str | None:
        """A worker is dead: others do what it did. The step and piece, in words, that has now cost `TRIES` workers."""
        with self._changed:
            self._workers.discard(worker)
            poisoned = None
            for name, at in self._steps.items():
                for piece in [each for each, holder in at.held.items() if holder == worker]:
                    del at.held[piece]
                    at.lost[piece] += 1
                    if at.lost[piece] >= TRIES:
                        poisoned = f"shard {piece + 1} of {at.n} of '{name}'"
            self._drop()
            self._changed.notify_all()
            return poisoned

    def problems(self) -> list[str]:
        """What the checkpoints have to tell, once."""
        with self._changed:
            return [] if self._checkpoints is None else self._checkpoints.problems()

    def discard(self) -> None:
        """The run is finished and its results are stored: nothing of it is needed any more."""
        with self._changed:
            if self._checkpoints is not None:
                self._checkpoints.discard()

    # ---- on disk ----------------------------------------------------------------------------------------------------

    def _step(self, name: str, n_pieces: int) -> _Step:
        if name not in self._steps:
            at = self._steps[name] = _Step(n_pieces)
            if self._checkpoints is None:
                return at
            for piece in range(n_pieces):
                kept = self._checkpoints.load(_kept_as(name, n_pieces, piece))
                if kept is not None:
                    at.found[piece] = kept.tensors, kept.facts
                    at.stored.add(piece)
        return self._steps[name]

    def _keep(self) -> None:
        """Store what is not stored yet, where it is time to."""
        if self._checkpoints is None or not self._checkpoints.due():
            return
        for name, at in self._steps.items():
            for piece, found in at.found.items():
                if piece not in at.stored and found is not None and found[0]:
                    self._checkpoints.store(_kept_as(name, at.n, piece), *found)
                    at.stored.add(piece)

    def _drop(self) -> None:
        """Forget the sums that every living worker has, and the pieces of those that are merged."""
        for name, at in self._steps.items():
            merged = self._steps.get(whole(name))
            if (self._workers and self._workers <= at.taken_by) or (merged is not None and merged.found):
                at.found = dict.fromkeys(at.found)


def whole(step: str) -> str:
    """See `sums.Together`."""
    return f"{step}{WHOLE}"


def is_whole(step: str) -> bool:
    """Whether this is a step in which the pieces of another one are merged."""
    return step.endswith(WHOLE)


def _kept_as(step: str, n_pieces: int, piece: int) -> str:
    return f"{step}.{piece}of{n_pieces}"


class Shared(Checkpoints):
    """What a worker is given as checkpoints of its run: its part of a board.

    Args:
        spec: of the run.
        loaded: the worker's copy of the target.
        call: (method, arguments) of the board, with the worker's number put in front; waits for the answer.
    """

    def __init__(self, spec: RunSpec, loaded: Loaded, call: Callable[..., Any]) -> None:
        own = checkpoints_for(spec, loaded)
        super().__init__(lambda: own.folder, seconds=own.seconds, about=own._about)
        self._call = call

    def __enter__(self) -> Shared:
        """Say where the board keeps things. This process locks and writes nothing itself."""
        self._call("open", str(self.folder), self.seconds, self._about)
        return self

    def finished(self, experiment: str) -> dict[str, Any] | None:
        """See `Board`."""
        found: dict[str, Any] | None = self._call("finished", experiment)
        return found

    def finish(self, experiment: str, result: Mapping[str, Any]) -> None:
        """See `Board`."""
        self._call("finish", experiment, dict(result))

    def whole(self, step: str) -> str:
        """See `sums.Together`."""
        return whole(step)

    def claim(self, step: str, n_pieces: int) -> int | None:
        """See `sums.Together`; so the others."""
        piece: int | None = self._call("claim", step, n_pieces)
        return piece

    def hand_in(self, step: str, piece: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """From the device to the host, where the others take it from."""
        self._call("hand_in", step, piece, {name: each.cpu() for name, each in tensors.items()}, dict(facts))

    def give_up(self, step: str, piece: int) -> bool:
        """Whether somebody is to try it once more."""
        again: bool = self._call("give_up", step, piece)
        return again

    def handed_in(self, step: str, n_pieces: int) -> Iterator[Kept]:
        """One after the other, so that two are in memory at most."""
        from inspector.statistics.sums import Kept

        for piece in range(n_pieces):
            tensors, facts = self._call("piece", step, piece)
            yield Kept(tensors=dict(tensors), facts=dict(facts))
