"""Workers that share a run, as threads: the bits of one process, whoever does what and whoever dies."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inspector.cluster.board import TRIES, Board, Shared
from inspector.disk.sealed import to_json
from inspector.errors import DataError
from inspector.events import Event, Measured
from inspector.runner import run, table_together
from inspector.sources.activations import ActivationBatch
from inspector.sources.target import Loaded, open_target
from inspector.spec import TOKENS, RunSpec
from inspector.statistics.token_table import ROWS, fitted_maps, joined_rows, rows_of_contexts
from inspector.store.checkpoints import VARIABLE
from tests.experiments.own import finish, write_files

EXPERIMENTS = ("theory-c1", "norm-prediction", "norm-test", "cross-component")
"""A simulation, the shared passes, a measurement for several experiments, one with more of the model."""
PARAMS = {"resamples": "20", "draws": "2000", "start": "0", "length": "20"}
SECONDS = 300.0


class Killed(BaseException):
    """What a worker dies of."""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    target = write_files(tmp_path_factory.mktemp("toy"))
    return [finish(open_target(target)) for _ in range(3)]


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))


def spec_of(loaded: Loaded, **changes: Any) -> RunSpec:
    given = {"experiments": EXPERIMENTS, "params": PARAMS, "shards": 5, "batch_size": 2, **changes}
    return RunSpec(target=loaded.target, **given)


def as_text(results: list[dict[str, Any]]) -> list[str]:
    return [to_json(each) for each in results]


class Crew:
    """Workers on one board; `dies` says with each of its calls whether a worker dies there."""

    def __init__(
        self,
        copies: list[Loaded],
        dies: Callable[[int, str, int], bool] = lambda *_: False,
        program: Callable[..., Iterator[Event]] = run,
        **changes: Any,
    ) -> None:
        self.board = Board(frozenset(range(len(copies))))
        self.results: dict[int, dict[str, Any]] = {}
        self.pieces: list[tuple[int, str, int]] = []
        """(worker, step, piece), as they are handed in."""
        self.given_up: list[tuple[str, int]] = []
        """(step, piece), each time that it failed."""
        self.errors: list[BaseException] = []
        self.events: list[Event] = []
        self._dies, self._changes, self._program = dies, changes, program
        self._threads = [
            threading.Thread(target=self._work, args=(n, each), daemon=True) for n, each in enumerate(copies)
        ]

    def finished(self) -> list[dict[str, Any]]:
        for each in self._threads:
            each.start()
        for each in self._threads:
            each.join(SECONDS)
            assert not each.is_alive(), "a worker waits for ever"
        return [self.results[n] for n in sorted(self.results)]

    def _work(self, worker: int, loaded: Loaded) -> None:
        calls = 0

        def call(method: str, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if self._dies(worker, method, calls):
                raise Killed
            if method == "give_up":
                self.given_up.append((arguments[0], arguments[1]))
            if method == "hand_in":
                self.pieces.append((worker, arguments[0], arguments[1]))
            return getattr(self.board, method)(worker, *arguments)

        spec = spec_of(loaded, **self._changes)
        try:
            for event in self._program(spec, loaded, checkpoints=Shared(spec, loaded, call)):
                self.events.append(event)
                if isinstance(event, Measured):
                    assert event.index not in self.results, "concluded twice"
                    self.results[event.index] = event.result
        except BaseException as error:
            self.errors.append(error)
            self.board.lose(worker)


@pytest.fixture(scope="module")
def alone(copies: list[Loaded]) -> list[str]:
    return as_text(finish(run(spec_of(copies[0]), copies[0])))


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_any_number_of_workers_ends_in_the_bits_of_one_process(
    copies: list[Loaded], alone: list[str], n_workers: int
) -> None:
    crew = Crew(copies[:n_workers])
    assert as_text(crew.finished()) == alone
    assert not crew.errors
    done = [(step, piece) for _, step, piece in crew.pieces]
    assert len(done) == len(set(done)), "nothing is done twice"
    crew.board.discard()


@pytest.mark.parametrize("at_call", [3, 8, 9, 14, 20, 25])
def test_a_worker_that_dies_costs_its_shard_and_no_bit(copies: list[Loaded], alone: list[str], at_call: int) -> None:
    """One call after the other is the last one of the first worker."""
    crew = Crew(copies[:2], lambda worker, _, calls: worker == 0 and calls == at_call)
    assert as_text(crew.finished()) == alone
    assert [type(error) for error in crew.errors] == [Killed]
    crew.board.discard()


def test_what_a_lost_board_had_stored_is_not_done_again(
    copies: list[Loaded], alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers die in the second pass, and the board with them; the next one begins from what is on disk."""
    monkeypatch.setenv(VARIABLE, "0")
    first = Crew(copies[:2], lambda _, method, calls: method == "hand_in" and calls > 12)
    first.finished()
    assert len(first.errors) == 2
    assert first.board._checkpoints is not None
    first.board._checkpoints.__exit__(None, None, None)  # as the system does it for a process that is gone
    second = Crew(copies[:2])
    assert as_text(second.finished()) == alone
    passes = {(step, piece) for _, step, piece in first.pieces if step in ("moments", "scores")}
    assert passes
    assert not passes.intersection((step, piece) for _, step, piece in second.pieces)
    folder = second.board._checkpoints.folder  # type: ignore[union-attr]
    assert folder.exists()
    second.board.discard()
    assert not folder.exists()


def test_a_shard_that_is_no_good_fails_the_run_with_its_place_after_two_tries(
    copies: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspector.statistics import passes

    honest = passes.stream

    def poisoned(*arguments: Any) -> Iterator[ActivationBatch]:
        for batch in honest(*arguments):
            here = (batch.contexts == 7) & (batch.positions == 10)
            yield replace(batch, x=batch.x.masked_fill(here[:, None], math.nan))

    monkeypatch.setattr(passes, "stream", poisoned)
    crew = Crew(copies[:2])
    crew.finished()
    failures = [str(error) for error in crew.errors if isinstance(error, DataError)]
    assert len(failures) == len(crew.given_up) - 1 and len(crew.given_up) >= TRIES  # the first try is not the end
    assert "not finite at context 7, position 10 (NaN; 1 of " in failures[0]


@pytest.mark.parametrize("at_call", [None, 3, 12])
def test_the_per_token_table_of_several_is_that_of_one_in_the_order_of_contexts(
    copies: list[Loaded], at_call: int | None
) -> None:
    """7 parts of 40 contexts: none divides the other. A part counts when it is handed in, whoever dies before."""
    one = copies[0]
    expected = finish(rows_of_contexts(one, finish(fitted_maps(one, 2, shards=7)), 2))
    assert expected.num_rows == 40 * 48 * len(one.saes)
    crew = Crew(
        copies[:2],
        lambda worker, _, calls: worker == 0 and calls == at_call,
        table_together,
        experiments=(TOKENS,),
        params={},
        shards=7,
    )
    crew.finished()
    assert [type(error) for error in crew.errors] == ([] if at_call is None else [Killed])
    table = joined_rows(crew.board.piece(-1, ROWS, part)[0] for part in range(7))
    assert table.equals(expected)
    crew.board.discard()


def test_a_piece_that_costs_two_workers_is_named() -> None:
    board = Board(frozenset(range(3)))
    assert board.claim(0, "moments", 2) == 0 and board.claim(1, "moments", 2) == 1
    assert board.lose(0) is None
    board.hand_in(0, "moments", 0, {}, {})  # it lives after all, and is not listened to
    assert board.claim(2, "moments", 2) == 0
    assert board.lose(2) == "shard 1 of 2 of 'moments'"
