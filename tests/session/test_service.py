"""The loop: who is answered when, what is cancelled, and that no failure of one request is anybody else's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from inspector.errors import ExitCode
from inspector.session import fitting, loading, service
from inspector.session.client import SessionClient
from inspector.session.protocol import (
    AnalysePrompt,
    Cancel,
    ContextScores,
    Failed,
    Find,
    Found,
    Generate,
    Generated,
    GetContext,
    Hello,
    MapImproved,
    Move,
    Ready,
    SessionMessage,
    SessionMoved,
    ViewMessage,
    Welcome,
)
from inspector.session.server import Views
from inspector.session.service import Service
from inspector.session.texts import Texts
from inspector.sources.target import serves
from inspector.spec import TargetSpec

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

SECONDS = 120.0
"""For anything to happen, on the busiest machine; nothing here takes one."""


class Running:
    """A service in a thread, and the messages of each of its views."""

    def __init__(self, target: TargetSpec, idle_seconds: float = 1e9) -> None:
        self.views = Views()
        self.states: list[str] = []
        self.told: list[list[SessionMessage]] = []
        self.changed = threading.Condition()
        self.code: int | None = None
        self.service = Service(target, self.views, on_state=self._entered, idle_seconds=idle_seconds)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _entered(self, state: str, _: str) -> None:
        with self.changed:
            self.states.append(state)
            self.changed.notify_all()

    def _run(self) -> None:
        self.code = self.service.run()

    def start(self) -> Running:
        self.thread.start()
        return self

    def attach(self) -> int:
        messages: list[SessionMessage] = []
        self.told.append(messages)

        def tell(message: SessionMessage) -> None:
            with self.changed:
                messages.append(message)
                self.changed.notify_all()

        return self.views.attach(tell)

    def until(self, view: int, condition: Callable[[SessionMessage], bool]) -> SessionMessage:
        """The first message to a view that fulfils the condition."""
        deadline = time.monotonic() + SECONDS
        with self.changed:
            while True:
                for message in self.told[view - 1]:
                    if condition(message):
                        return message
                assert self.changed.wait(deadline - time.monotonic()), self.told[view - 1][-3:]

    def ask(self, view: int, message: ViewMessage) -> SessionMessage:
        """Ask and wait for the first answer."""
        self.views.ask(view, message)
        return self.until(view, lambda told: told.request == message.request)

    def end(self) -> None:
        self.views.stop()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def running(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Ready at once: what is loaded was loaded before."""

    def at_once(self: Service) -> tuple[Loaded, list[str]]:
        return loaded, ["odd"]

    monkeypatch.setattr(Service, "_load", at_once)
    made = Running(TargetSpec())
    made.attach()
    yield made.start()  # type: ignore[misc]
    made.end()


def finished(message: SessionMessage) -> bool:
    return isinstance(message, MapImproved) and message.finished


def test_ready_tells_what_is_loaded(running: Running, loaded: Loaded) -> None:
    ready = running.until(1, lambda message: isinstance(message, Ready))
    assert isinstance(ready, Ready)
    assert (ready.n_contexts, ready.context_length, ready.positions) == (40, 32, (4, 32))
    assert (ready.hook_name, ready.layer, ready.device) == ("blocks.1.hook_resid_post", 1, "cpu")
    assert [sae.sae_id for sae in ready.saes] == [sae.ref.sae_id for sae in loaded.saes]
    assert ready.warnings[-1] == "odd"
    running.until(1, finished)
    with running.changed:  # the state follows the message
        assert running.changed.wait_for(lambda: running.states[-1] == "ready", SECONDS)
    assert running.states == ["loading", "fitting", "ready"]


def test_too_few_training_tokens_are_warned_of(loaded: Loaded) -> None:
    assert loading.too_few_tokens(loaded) == []
    few = replace(loaded, plan=replace(loaded.plan, n_train=319))
    (warning,) = loading.too_few_tokens(few)
    assert "319 training tokens are too few" in warning
    assert "At least 320" in warning


def test_a_watched_context_is_sent_again_after_every_fit(running: Running) -> None:
    running.ask(1, GetContext(request=1, context=3))
    last = running.until(1, finished)
    assert isinstance(last, MapImproved)
    running.until(1, lambda m: isinstance(m, ContextScores) and m.request == 0 and m.epoch == last.epoch)
    again = [m for m in running.told[0] if isinstance(m, ContextScores) and m.request == 0]
    epochs = [message.epoch for message in again]
    assert epochs == sorted(set(epochs))  # each once, in order
    assert {(message.source, message.context) for message in again} == {("context", 3)}


def test_only_the_last_few_contexts_are_watched_and_only_by_their_view(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    original = fitting._Fit._fitted

    def held(self: fitting._Fit) -> object:
        while not gate.is_set():
            time.sleep(0.001)
            yield None
        return (yield from original(self))

    monkeypatch.setattr(fitting._Fit, "_fitted", held)
    second = running.attach()
    for number in range(5):
        running.ask(1, GetContext(request=10 + number, context=number))
    running.ask(second, GetContext(request=3, context=30))
    before = len(running.told[0]), len(running.told[1])
    gate.set()
    running.until(1, finished)
    running.ask(1, Find(request=99, text="?"))
    again = [m.context for m in running.told[0][before[0] :] if isinstance(m, ContextScores)]
    assert set(again) <= {2, 3, 4}
    assert 4 in again
    assert {m.context for m in running.told[1][before[1] :] if isinstance(m, ContextScores)} <= {30}


def test_a_question_is_answered_while_the_fit_goes_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.until(1, finished)  # with the fit that there is
    steps, when_told = 0, -1

    def endless(*_: object) -> object:
        nonlocal steps
        while True:
            steps += 1
            time.sleep(0.01)
            yield None

    monkeypatch.setattr(fitting, "background_fit", endless)
    other = Running(TargetSpec())
    view = other.attach()
    other.start()
    other.ask(view, GetContext(request=1, context=0))
    tell = other.views.tell

    def noted(view: int, message: SessionMessage) -> None:
        nonlocal when_told
        if message.request == 2:
            when_told = steps  # in the session's thread: this one may wake much later
        tell(view, message)

    monkeypatch.setattr(other.views, "tell", noted)
    other.views.ask(view, Find(request=2, text="error"))
    before = steps  # once it is asked: until then the machine may have made any number of them
    assert isinstance(other.until(view, lambda message: message.request == 2), Found)
    assert when_told - before <= 2  # it waited for the step under way, not for more
    other.end()


def test_other_saes_are_loaded_beside_the_model_that_is_held(
    loaded: Loaded, toy_target: TargetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Service, "_load", lambda self: (loaded, []))
        made = Running(toy_target)
        made.service._on_move = lambda target: "next"
        view = made.attach()
        made.start()
        width = loaded.saes[0].ref.d_sae
        other = replace(toy_target, widths=(width,))

        def refused(number: int, target: TargetSpec) -> tuple[int, str]:
            answer = made.ask(view, Move(request=number, target=target))
            assert isinstance(answer, Failed)
            return answer.exit_code, answer.message

        assert refused(1, TargetSpec(device="cpu"))[1].startswith("This session holds another model.")
        assert refused(2, replace(toy_target, widths=(7,)))[0] == ExitCode.TARGET, "it stays with what it has"
        second = made.attach()
        assert refused(3, other)[1].startswith("Another view or a job needs")
        made.views.detach(second)
        assert made.ask(view, Move(request=4, target=other)) == SessionMoved(request=4, session="next")
        made.thread.join(SECONDS)
    monkeypatch.setattr("inspector.sources.loading.load_model", lambda _: pytest.fail("the model was loaded again"))
    following = Service(
        made.service.next or toy_target, made.views, on_state=lambda *_: None, idle_seconds=1, model=made.service.model
    )
    again, _ = following._load()
    assert again.model is loaded.model
    assert {sae.ref.d_sae for sae in again.saes} == {width}


@pytest.mark.parametrize(("dtype", "asked", "fits"), [
    (torch.float32, "auto", True), (torch.bfloat16, "auto", False), (torch.bfloat16, "bfloat16", True)
])  # fmt: skip
def test_a_model_that_had_to_be_halved_is_not_kept_for_other_saes(dtype: torch.dtype, asked: Any, fits: bool) -> None:
    class Held:
        pass

    held: Any = Held()
    held.dtype = dtype
    target = TargetSpec(model="gemma-2-2b", dtype=asked)
    assert serves(held, target, replace(target, model="google/gemma-2-2b", layers=(3,))) is fits


def test_one_failure_is_told_to_its_request_and_everything_goes_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: dict[str, Exception] = {
        "bug": ZeroDivisionError("division by zero"),
        "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        "python": MemoryError(),
    }

    def breaking(_view: int, asked: Find) -> Found:
        if asked.text in failures:
            raise failures[asked.text]
        return Found(request=asked.request, hits=[])

    running.until(1, lambda message: isinstance(message, Ready))
    monkeypatch.setitem(running.service._answers, Find, breaking)
    codes = {}
    for number, text in enumerate(failures, start=1):
        answer = running.ask(1, Find(request=number, text=text))
        assert isinstance(answer, Failed)
        codes[text] = answer.exit_code
        if text == "bug":
            assert "ZeroDivisionError: division by zero" in answer.message
    assert codes == {"bug": 1, "cuda": 5, "cpu": 5, "python": 5}
    assert isinstance(running.ask(1, Find(request=9, text="fine")), Found)
    answer = running.ask(1, GetContext(request=10, context=4000))
    assert answer == Failed(request=10, exit_code=2, message="There is no context 4000. The contexts are 0 to 39.")
    answer = running.ask(1, Hello(request=11))
    assert isinstance(answer, Failed)
    assert answer.exit_code == 2


def test_a_generation_is_cancelled_within_a_step_and_says_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.until(1, finished)
    steps = 0

    def endless(self: Texts, view: int, asked: Generate) -> object:
        nonlocal steps
        while True:
            steps += 1
            time.sleep(0.01)
            yield None

    monkeypatch.setattr(Texts, "generate", endless)
    running.views.ask(1, Generate(request=5))
    while not steps:
        time.sleep(0.001)
    running.views.ask(1, Cancel(request=6, target=5))
    before = steps  # once it is asked: until then the machine may have made any number of them
    answer = running.until(1, lambda message: message.request == 5)
    assert isinstance(answer, Failed)
    assert answer.exit_code == 6
    assert steps - before <= 2
    running.ask(1, Find(request=7, text="x"))
    after = steps
    time.sleep(0.05)
    assert steps == after
    # Of a request that is over, or of another's, nothing is said.
    running.views.ask(1, Cancel(request=8, target=5))
    running.ask(1, Find(request=9, text="x"))
    assert not [m for m in running.told[0] if m.request == 8]


def test_two_views_generate_side_by_side_and_one_that_leaves_stops(running: Running) -> None:
    second = running.attach()
    running.views.ask(1, Generate(request=1, prompt_ids=[5, 6], max_tokens=40, seed=1))
    running.views.ask(second, Generate(request=1, prompt_ids=[7], max_tokens=40, seed=2))
    third = running.attach()
    running.views.ask(third, Generate(request=1, prompt_ids=[7], max_tokens=40, seed=2))
    running.views.detach(third)
    for view in (1, second):
        running.until(view, lambda message: isinstance(message, Generated) and message.finished)
    assert not any(isinstance(m, Generated) and m.finished for m in running.told[third - 1])


def test_a_broken_fit_is_told_to_all_and_browsing_goes_on(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.errors import DataError

    def broken(*_: object) -> object:
        yield None
        raise DataError("NaN at context 3. Look at it.")

    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    monkeypatch.setattr(fitting, "background_fit", broken)
    running = Running(TargetSpec())
    view = running.attach()
    running.start()
    told = running.until(view, lambda message: isinstance(message, Failed))
    assert told == Failed(exit_code=4, message="NaN at context 3. Look at it.")
    assert isinstance(running.ask(view, GetContext(request=1, context=0)), ContextScores)
    late = running.attach()
    assert [type(message) for message in running.told[late - 1]] == [Ready, Failed]
    running.end()


def test_loading_that_fails_is_told_and_ends_the_session(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(service, "GRACE_SECONDS", 0.05)
    running = Running(TargetSpec(model=f"{tmp_path}/nothing", suite=f"{tmp_path}"))
    view = running.attach()
    running.views.ask(view, GetContext(request=7, context=0))
    running.start()
    running.thread.join(SECONDS)
    assert running.code == 3
    assert running.states == ["loading", "failed"]
    failures = [message for message in running.told[view - 1] if isinstance(message, Failed)]
    assert [(m.request, m.exit_code) for m in failures] == [(0, 3), (7, 3)]


def test_without_views_it_ends_when_the_fit_is_done_and_not_before(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    slow = threading.Event()

    def fit(*_: object) -> object:
        while not slow.is_set():
            time.sleep(0.005)
            yield None

    monkeypatch.setattr(fitting, "background_fit", fit)
    running = Running(TargetSpec(), idle_seconds=0.1).start()
    time.sleep(0.5)
    assert running.thread.is_alive()
    slow.set()
    running.thread.join(SECONDS)
    assert running.code == 0
    # With a view it stays.
    running = Running(TargetSpec(), idle_seconds=0.1)
    view = running.attach()
    running.start()
    time.sleep(0.5)
    assert running.thread.is_alive()
    running.views.detach(view)
    running.thread.join(SECONDS)
    assert running.code == 0


async def test_in_process_speaks_the_same_messages(toy_target: TargetSpec, loaded: Loaded) -> None:
    client = await SessionClient.open(toy_target, in_process=True)
    kinds: list[str] = []
    async with asyncio.timeout(60):
        async for message in client.messages():
            kinds.append(type(message).__name__)
            if isinstance(message, Ready):
                await client.send(GetContext(context=1))
            if isinstance(message, ContextScores):
                await client.close()
    assert isinstance(client.welcome, Welcome)
    assert kinds[0] == "Welcome"
    assert kinds.index("LoadProgress") < kinds.index("Ready") < kinds.index("ContextScores")
    assert client.lost is None
    for thread in threading.enumerate():
        if thread.name == "session":
            await asyncio.to_thread(thread.join, SECONDS)


def test_a_librarys_panic_fails_one_question_and_neither_session_nor_job(
    running: Running, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):  # as Rust libraries raise it
        pass

    def panic(*_: object) -> None:
        raise PanicException("retry-limit-in-match over\nstack backtrace")

    running.until(1, lambda message: isinstance(message, Ready))
    monkeypatch.setitem(running.service._answers, AnalysePrompt, panic)
    failure = running.ask(1, AnalysePrompt(request=41, text="xxxx"))
    assert isinstance(failure, Failed)
    assert "gave up inside (retry-limit-in-match over)" in failure.message
    assert isinstance(running.ask(1, GetContext(request=42, context=0)), ContextScores)


def test_one_view_can_have_so_many_answers_made_in_steps_and_no_more(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(*_: object) -> Iterator[None]:
        while True:
            yield None

    running.until(1, finished)
    monkeypatch.setattr(Texts, "generate", endless)
    for request in range(50, 50 + service.MOST_IN_STEPS):
        running.views.ask(1, Generate(request=request, prompt_ids=[5]))
    refused = running.ask(1, Generate(request=99, prompt_ids=[5]))
    assert isinstance(refused, Failed)
    assert refused.exit_code == 5
    running.views.ask(1, Cancel(request=100, target=50))
    running.until(1, lambda message: message.request == 50)
    other = running.attach()
    assert isinstance(running.ask(other, GetContext(request=3, context=0)), ContextScores)
