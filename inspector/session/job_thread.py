"""A job's work in a thread of its own that runs only when it is told to: a generator that can also rest between yields.

A step of a pass runs the model over some contexts and asks every SAE, which on a laptop takes longer than a view that
turned a page should wait. So the work may rest before each, and the service answers in between. The two threads never
run at once: model and SAEs have state that two must not share. A thread, because a generator can only rest where it
yields; and what a thread has to itself (torch's inference mode) does not leak into the service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from inspector.errors import panics_are_errors

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.events import Event
    from inspector.sources.model import LanguageModel
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec

Item = TypeVar("Item")
REST_SECONDS = 0.02
"""A turn is at least so long, so that handing over costs nothing that could be felt."""
CLOSE_SECONDS = 20.0
ROWS_CHUNKS = 1
"""Of an SAE's own chunks, asked for between two rests."""


class Abandoned(BaseException):
    """The work is given up while it rests. Not an Exception, so that no handler takes it for a failure."""


class Turns(Generic[Item]):
    """Work that is done turn by turn.

    Args:
        make: gets this object and makes the generator; called within the first turn.
    """

    def __init__(self, make: Callable[[Turns[Item]], Generator[Item, None, object]]) -> None:
        self._make = make
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._item: Item | None = None
        self._error: BaseException | None = None
        self._over = self._closing = False
        self._held = 0
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)

    # ---- the service's side -----------------------------------------------------------------------------------

    def turn(self) -> Item | None:
        """Let the work go on until it yields, which is returned, or rests: None.

        Raises:
            StopIteration: it is done.
            Exception: what it raised.
        """
        if self._over:
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        self._item = None
        self._began = time.perf_counter()
        self._go.release()
        self._rests.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._over:
            raise StopIteration
        return self._item

    def close(self) -> None:
        """Give the work up where it is; it tidies up behind itself. Harmless the second time."""
        if self._over or self._thread.ident is None:
            self._over = True
            return
        self._closing = True
        self._go.release()
        self._thread.join(CLOSE_SECONDS)
        self._over = True

    # ---- the work's side --------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Called by the work where others may use model and SAEs: hands over, if the turn was long enough."""
        if threading.current_thread() is not self._thread or self._held:
            return
        if time.perf_counter() - self._began >= REST_SECONDS:
            self._hand_over()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No rest within: something of an SAE's state is still needed."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def _hand_over(self) -> None:
        self._rests.release()
        self._go.acquire()
        if self._closing:
            raise Abandoned

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._closing:
                with panics_are_errors():
                    self._work()
        except Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._over = True
            self._rests.release()

    def _work(self) -> None:
        work = self._make(self)
        try:
            for item in work:
                self._item = item
                self._hand_over()
        finally:
            work.close()


class RestingSae:
    """An SAE that lets the work rest before it is asked; in all else the SAE itself."""

    def __init__(self, sae: LoadedSae, turns: Turns[Any]) -> None:
        self._sae_itself = sae
        self._turns = turns
        self._comes_and_goes = sae.comes_in_slices
        """Whether its weights are brought to the device for each call: then it is asked once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sae_itself, name)

    def reconstruct(self, x: Any) -> Any:
        """See `LoadedSae.reconstruct`."""
        self._turns.rest()
        whole = self._sae_itself.reconstruct
        rows = ROWS_CHUNKS * int(getattr(self._sae_itself, "chunk_tokens", 0))
        if self._comes_and_goes or not 0 < rows < len(x):
            return whole(x)
        # In whole chunks, as the SAE takes them: the same numbers to the last bit. A lone row would go another way.
        starts = list(range(0, len(x) - 1, rows))
        parts = []
        for start, stop in zip(starts, [*starts[1:], len(x)], strict=True):
            self._turns.rest()
            parts.append(whole(x[start:stop]))
        return _joined(parts)

    def chunks(self, x: Any) -> Iterator[Any]:
        """See `LoadedSae.chunks`: between its chunks and their decoding nothing else may use the SAE."""
        self._turns.rest()
        with self._turns.held():
            yield from self._sae_itself.chunks(x)


class RestingModel:
    """A model that lets the work rest between two contexts; in all else the model itself."""

    def __init__(self, model: LanguageModel, turns: Turns[Any]) -> None:
        self._model_itself = model
        self._turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model_itself, name)

    def activations(self, tokens: Tensor, hook_name: str) -> Tensor:
        """See `LanguageModel.activations`, which runs one context at a time, too."""
        import torch

        rows = []
        for index in range(len(tokens)):
            self._turns.rest()
            rows.append(self._model_itself.activations(tokens[index : index + 1], hook_name))
        with torch.inference_mode():
            return torch.cat(rows)


def _joined(parts: list[Any]) -> Any:
    """Reconstructions of consecutive rows as one."""
    import torch

    with torch.inference_mode():
        return replace(
            parts[0],
            x_hat=torch.cat([part.x_hat for part in parts]),
            l0=torch.cat([part.l0 for part in parts]),
        )


def resting(loaded: Loaded, turns: Turns[Any]) -> Loaded:
    """The same target, whose model and SAEs let the work rest."""
    saes = tuple(cast("LoadedSae", RestingSae(sae, turns)) for sae in loaded.saes)
    return replace(loaded, model=cast("LanguageModel", RestingModel(loaded.model, turns)), saes=saes)


def work_on(spec: RunSpec, loaded: Loaded, turns: Turns[Any]) -> Generator[Event, None, list[dict[str, Any]]]:
    """The run itself, which rests where the service may answer in between; or the driver of one on a cluster."""
    if spec.ray is not None:
        from inspector.cluster.driver import run_on_cluster

        return run_on_cluster(spec)
    from inspector import runner

    return runner.resumed(spec, _with_room(spec, resting(loaded, turns)))


def _with_room(spec: RunSpec, loaded: Loaded) -> Loaded:
    """The target with as many contexts at once as a run in a terminal takes, if the device has room beside the session.

    A session plans for one, which is all that a view needs. With the same batches a job ends in the same bits as its
    command, and either goes on from the other's checkpoints.
    """
    memory = loaded.memory
    if memory is None or memory.contexts_at_once >= spec.batch_size:
        return loaded
    tokens = spec.batch_size * loaded.contexts.token_ids.shape[1]
    # As `memory_plan` counts them: x, reconstructions and float64 copies of a batch, 64 bytes per number of it.
    more = 68 * tokens * loaded.model.check_hook(loaded.hook_name)
    if memory.needed + more > memory.budget:
        return loaded
    return replace(loaded, memory=replace(memory, contexts_at_once=spec.batch_size, needed=memory.needed + more))
