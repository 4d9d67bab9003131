"""The computing side of a session: loads the target, answers views, and fits the maps in the time that is left.

One thread, one loop, one thing at a time: what a view asked first, then one token of each running generation, then one
step of the background work. Work is a generator, so it is put aside between any two steps at no cost; its steps are
kept short, so that a view waits for one at most.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from inspector.errors import Cancelled, ExitCode, ResourceError, UsageError, panics_are_errors
from inspector.session import discovery
from inspector.session.costs import Costing, FitClock
from inspector.session.frames import is_last
from inspector.session.jobs import JobRunner
from inspector.session.loading import first_layer, load, ready_message
from inspector.session.protocol import (
    AnalysePrompt,
    Cancel,
    ContextScores,
    Find,
    Generate,
    GetAnatomy,
    GetContext,
    GetCosts,
    GetDetail,
    GetLatent,
    GetPairs,
    GetSimilar,
    JobQuestion,
    Move,
    PolicySet,
    Ready,
    SessionMessage,
    SessionMoved,
    SetPolicy,
    ViewMessage,
)
from inspector.session.server import Asked, Left, Questions, Views, failed

if TYPE_CHECKING:
    from inspector.session.fitting import Fits
    from inspector.session.latents import Latents
    from inspector.session.texts import Texts
    from inspector.sources.model import LanguageModel
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

N_WATCHED = 3
"""Contexts sent again to a view after a fit: the one it shows and the two it may have asked for ahead."""
FAILED_SECONDS = 30.0
"""For the view that started a session to attach and hear why loading failed."""
GRACE_SECONDS = 1.0
AGAIN = -1
"""In the place of a request: what is sent unasked."""
MOST_IN_STEPS = 8
"""Answers of one view that are made step by step at the same time: generations and searches for latents."""

log = logging.getLogger(__name__)


class Service:
    """One loaded target and the views that look at it.

    Args:
        target: what to load.
        views: where views ask and are told.
        on_state: told 'loading', 'fitting', 'ready' or 'failed', with Ready once it is known.
        idle_seconds: to stay without any view, counted from the end of the fit and of the last job if that is later.
        session_id: under which its jobs are listed; None: the target's.
        model: the target's, if it is loaded already.
        on_move: gives the session the name of another target, which is returned; None: it keeps the one it has.
    """

    _texts: Texts
    _fits: Fits

    def __init__(
        self,
        target: TargetSpec,
        views: Views,
        *,
        on_state: Callable[[str, Ready | None], None],
        idle_seconds: float,
        session_id: str | None = None,
        model: LanguageModel | None = None,
        on_move: Callable[[TargetSpec], str] | None = None,
    ) -> None:
        self.target = first_layer(discovery.resolved(target))
        self.views = views
        self.jobs = JobRunner(self.target, session_id=session_id or discovery.session_key(target), tell=views.tell_all)
        self._answers: dict[type[ViewMessage], Callable[[int, Any], SessionMessage | None]] = dict.fromkeys(
            get_args(JobQuestion), lambda _, asked: self.jobs.answer(asked)
        )
        """What answers a question, by its type, from the view and the question; None: the answer comes in steps. Jobs
        alone until the target is loaded: they can be queued before there is anything to compute on."""
        self.next: TargetSpec | None = None
        """What to load with the same model when `run` has returned; None: nothing, the session ends."""
        self.model = model
        """Once it is loaded."""
        self._on_move = on_move
        self._on_state = on_state
        self._idle_seconds = idle_seconds
        self._questions = Questions()
        self._gone: deque[int] = deque()
        """Views that left and whose texts are to be forgotten."""
        self._again: deque[tuple[int, str, int]] = deque()
        """(view, source, context) to be sent again with the newest maps."""
        self._in_steps: OrderedDict[tuple[int, int], Iterator[SessionMessage | None]] = OrderedDict()
        """Generations, searches and cards under way, by view and request."""
        self._scoring: dict[int, int] = {}
        """By view: its last request for a text, where SAEs come in slices."""
        self._watched: dict[int, OrderedDict[tuple[str, int], None]] = {}
        """By view: the last texts it was sent."""
        self._busy_until = 0.0
        self._job_was_last = False
        self._clock = FitClock()

    def run(self) -> int:
        """Load, then serve until there is a reason to end; the exit code."""
        try:
            return self._run()
        finally:
            self.jobs.interrupt_all()

    def _run(self) -> int:
        self._on_state("loading", None)
        try:
            loaded, warnings = self._load()
            ready = ready_message(loaded, warnings, self.target)
        except Exception as error:
            return self._fail(error)
        self._begin(loaded)
        self.views.tell_all(ready)
        self._on_state("fitting", ready)
        log.info("ready: %s, %s, %d SAEs on %s", ready.model, ready.hook_name, len(ready.saes), ready.device)
        while not self.views.stopping.is_set() and self.next is None:
            self._collect(0.0)
            if self._gone:
                self._texts.forget(self._gone.popleft())
            elif self._questions:
                self._answer(self._questions.take())
            elif self._again:
                self._send_again(*self._again.popleft())
            elif self._in_steps:
                self._step_one()
            elif self._is_jobs_turn():
                self.jobs.step(loaded)
                self._busy_until = time.monotonic()
            elif self._fits.has_work:
                if not self._fit_one_step():
                    self._busy_until = time.monotonic()
                    self._on_state("ready", ready)
            elif self._is_idle():
                log.info("no view for %g s: the session ends", self._idle_seconds)
                break
            else:
                self._collect(min(60.0, max(0.05, self._idle_seconds / 10)))
        return ExitCode.DONE

    # ---- loading ----------------------------------------------------------------------------------------------

    def _load(self) -> tuple[Loaded, list[str]]:
        return load(self.target, tell=self.views.tell_all, between=self._while_loading, model=self.model)

    def _while_loading(self) -> None:
        """Between two steps of loading: what can be answered already is, the other questions wait."""
        if self.views.stopping.is_set():
            raise Cancelled("Loading was stopped. Start it again with `dm-inspect`.")
        self._collect(0.0)
        for asked in self._questions.take_all():
            if type(asked.message) in self._answers:
                self._answer(asked)
            else:
                self._questions.add(asked)

    def _begin(self, loaded: Loaded) -> None:
        """There is something to look at from now on."""
        from inspector.session.anatomy import anatomy_of
        from inspector.session.fitting import Fits
        from inspector.session.similar import Similar
        from inspector.session.texts import Texts

        costing = Costing(loaded, self._clock)
        self.jobs.ahead_of = lambda spec: costing.ahead(spec, self.jobs.jobs())
        self.model = loaded.model
        texts = self._texts = Texts(loaded, self.views.tell)
        similar = Similar(texts)
        self._fits = Fits(loaded, texts.fits)
        self._fits.want("excluded")
        self._answers |= {
            GetContext: self._score if texts.in_slices else texts.context,
            GetDetail: texts.detail,
            Find: texts.find,
            GetPairs: texts.pairs,
            AnalysePrompt: self._score if texts.in_slices else texts.prompt,
            SetPolicy: texts.set_policy,
            GetCosts: lambda _, asked: costing.answer(asked, self.jobs.jobs()),
            Move: self._move,
            Generate: lambda view, asked: self._take_steps(view, asked, texts.generate(view, asked)),
            GetLatent: lambda view, asked: self._take_steps(view, asked, self._latents.answer(asked)),
            GetAnatomy: lambda view, asked: self._take_steps(view, asked, anatomy_of(texts, view, asked)),
            GetSimilar: lambda view, asked: self._take_steps(view, asked, similar.answer(view, asked)),
        }

    def _fail(self, error: Exception) -> int:
        """Tell every view why, once there is one, and give the exit code."""
        message = failed(error)
        self.jobs.fail_all(message)
        deadline = time.monotonic() + FAILED_SECONDS
        while not self.views.count and time.monotonic() < deadline and not self.views.stopping.is_set():
            time.sleep(0.02)
        # Before it is told: who tries again at once, with the cause repaired, must not find this session.
        self._on_state("failed", None)
        self.views.tell_all(message)
        self._collect(0.0)
        for asked in self._questions.take_all():
            self.views.tell(asked.view, failed(error, asked.message.request))
        self.views.stopping.wait(GRACE_SECONDS)
        return message.exit_code

    # ---- questions --------------------------------------------------------------------------------------------

    def _collect(self, wait: float) -> None:
        """Take in what has arrived; wait for the first that long."""
        while True:
            try:
                item = self.views.inbox.get(timeout=wait) if wait else self.views.inbox.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            if isinstance(item, Left):
                self._left(item.view)
            elif isinstance(item.message, Cancel):
                self.views.taken_up(item)
                self._cancel(item.view, item.message)
            else:
                self._questions.add(item)

    def _left(self, view: int) -> None:
        self._questions.withdraw(view)
        self._again = deque(item for item in self._again if item[0] != view)
        for key in [key for key in self._in_steps if key[0] == view]:
            del self._in_steps[key]
        self._watched.pop(view, None)
        self._scoring.pop(view, None)
        self._gone.append(view)

    def _cancel(self, view: int, message: Cancel) -> None:
        """End a request that has not been answered; one that has is over, and nothing is said."""
        waiting = self._questions.withdraw(view, message.target)
        for asked in waiting:
            self.views.taken_up(asked)
        running = self._in_steps.pop((view, message.target), None)
        if waiting or running is not None:
            self.views.tell(view, failed(Cancelled("Cancelled. Ask again to repeat it."), message.target))

    def _answer(self, asked: Asked) -> None:
        began, view, message = time.monotonic(), asked.view, asked.message
        self.views.taken_up(asked)
        try:
            answers = self._answers.get(type(message))
            if answers is None:
                raise UsageError(f"A session does not answer {type(message).__name__}. Send another message.")
            with panics_are_errors():
                answer = answers(view, message)
        except Exception as error:
            answer = failed(error, message.request)
        if answer is not None:
            self.views.tell(view, answer)
        if isinstance(answer, ContextScores):
            self._watch(view, answer.source, answer.context)
        elif isinstance(answer, PolicySet):
            self._read_anew(view)
        log.debug("%s answered in %.0f ms", type(message).__name__, 1000 * (time.monotonic() - began))

    def _watch(self, view: int, source: str, context: int) -> None:
        watched = self._watched.setdefault(view, OrderedDict())
        watched[(source, context)] = None
        watched.move_to_end((source, context))
        while len(watched) > N_WATCHED:
            watched.popitem(last=False)

    def _send_watched_again(self, *views: int) -> None:
        """What these views look at comes again, with the maps of now."""
        self._again = deque(item for item in self._again if item[0] not in views)
        self._again += [(view, *text) for view in views for text in reversed(self._watched.get(view, ()))]

    @cached_property
    def _latents(self) -> Latents:
        """What answers about latents; its tables are kept."""
        from inspector.session.latents import Latents

        return Latents(self._texts.loaded)

    def _move(self, _view: int, message: Move) -> SessionMoved:
        """Load something else of this model next; nothing is given up before all that can be wrong was looked at."""
        from inspector.sources.target import resolve, serves

        target = first_layer(discovery.resolved(message.target))
        if self._on_move is None or self.model is None or not serves(self.model, self.target, target):
            raise UsageError("This session holds another model. Open another session.")
        if self.views.count > 1 or self.jobs.busy:
            raise UsageError("Another view or a job needs what this session has loaded. Open another session.")
        resolve(target)
        name = self._on_move(target)
        self.views.forget()
        self.next = target
        return SessionMoved(request=message.request, session=name)

    # ---- work in steps ----------------------------------------------------------------------------------------

    def _is_jobs_turn(self) -> bool:
        """A job and the fits of the maps take turns while a view is attached; while none is, the fits wait."""
        if not self.jobs.busy:
            return False
        self._job_was_last = not (self._job_was_last and self._fits.has_work and self.views.count)
        return self._job_was_last

    def _take_steps(self, view: int, asked: ViewMessage, steps: Iterator[SessionMessage | None]) -> None:
        """Answer in steps from now on."""
        running = [key for key in self._in_steps if key[0] == view]
        if len(running) >= MOST_IN_STEPS:
            raise ResourceError(f"{len(running)} answers of this view are being made. Wait, or cancel one.")
        self._in_steps[(view, asked.request)] = steps

    def _score(self, view: int, asked: GetContext | AnalysePrompt) -> None:
        """A text's scores, SAE by SAE; the view looks at no other one any more."""
        before = self._scoring.get(view)
        if before is not None and (view, before) in self._in_steps:
            self._cancel(view, Cancel(target=before))
        self._scoring[view] = asked.request
        self._take_steps(view, asked, self._texts.scored(view, asked))

    def _step_one(self) -> None:
        """One step of the answer that has waited longest."""
        key, steps = self._in_steps.popitem(last=False)
        view, request = key
        try:
            with panics_are_errors():
                message = next(steps)
        except StopIteration:
            return
        except Exception as error:
            self.views.tell(view, failed(error, request))
            return
        if message is not None:
            self.views.tell(view, message)
        if isinstance(message, ContextScores):
            self._watch(view, message.source, message.context)
        if message is None or not is_last(message):
            self._in_steps[key] = steps

    def _fit_one_step(self) -> bool:
        """One step of a background fit; who looks under its policy is told what came of it. Whether there is more."""
        began, fits, texts = time.monotonic(), self._fits, self._texts
        try:
            with panics_are_errors():
                improved = fits.step({texts.policy(view) for view in self.views.numbers})
        except Exception as error:
            # What was fitted before stays in use; every view has to know that it will not get better.
            self.views.tell_all(failed(error))
            return fits.has_work
        self._clock.worked(time.monotonic() - began)
        if improved is None:
            return fits.has_work
        message = improved.message
        self._clock.improved(message)
        if message.policy == "excluded":  # which every view begins with
            self.views.remember(message)
        concerned = [view for view in self.views.numbers if texts.policy(view) == message.policy]
        if texts.fits[message.policy].improve(improved):
            self._send_watched_again(*concerned)
        for view in concerned:
            self.views.tell(view, message)
        last = ", the last" * message.finished
        log.info("fit %d (%s) from %d tokens%s", message.epoch, message.policy, message.n_tokens, last)
        return fits.has_work

    def _read_anew(self, view: int) -> None:
        """The view has changed its policy: what it looks at comes again, and the fit that is missing begins."""
        policy = self._texts.policy(view)
        self._fits.want(policy)
        if (told := self._texts.fits[policy].told) is not None:
            self.views.tell(view, told)
        self._send_watched_again(view)

    def _send_again(self, view: int, source: str, context: int) -> None:
        texts = self._texts
        if texts.in_slices:
            if (view, self._scoring.get(view)) not in self._in_steps:  # which has the newest maps with its next step
                self._in_steps[(view, AGAIN)] = texts.scored_again(view, source, context)
            return
        try:
            if source == "context":
                message: ContextScores | None = texts.context(view, GetContext(context=context))
            else:
                message = texts.own_again(view, source, context)
        except Exception as error:
            log.warning("context %d could not be sent again: %s", context, error)
            return
        if message is not None:
            self.views.tell(view, message)

    def _is_idle(self) -> bool:
        since_busy = time.monotonic() - self._busy_until
        return min(self.views.seconds_alone(), since_busy) > self._idle_seconds
