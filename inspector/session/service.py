"""The computing side of a session: loads the target, answers views, and fits the maps in the time that is left.

One thread, one loop, one thing at a time: what a view asked first, then one token of each running generation, then one
step of the background work. Work is a generator, so it is put aside between any two steps at no cost; its steps are
kept short, so that nobody waits for one.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from inspector.errors import Cancelled, ExitCode, ResourceError, UsageError, panics_are_errors
from inspector.events import Downloading, Loading, MemoryPlanned, Warned
from inspector.session import discovery
from inspector.session.estimating import FitClock, estimates
from inspector.session.jobs import JobRunner
from inspector.session.protocol import (
    AnalysePrompt,
    Cancel,
    CancelJob,
    Find,
    Generate,
    Generated,
    GetContext,
    GetDetail,
    GetEstimates,
    GetJobLog,
    GetJobs,
    GetLatent,
    GetPairs,
    LatentView,
    LoadProgress,
    Ready,
    ResumeJob,
    SessionMessage,
    SetPolicy,
    StartJob,
)
from inspector.session.server import Asked, Left, Questions, Views, failed

if TYPE_CHECKING:
    from inspector.session.fitting import Fits
    from inspector.session.latents import Latents
    from inspector.session.texts import Browser
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

N_WATCHED = 3
"""Contexts sent again to a view after a fit: the one it shows and the two it may have asked for ahead."""
FAILED_SECONDS = 30.0
"""For the view that started a session to attach and hear why loading failed."""
GRACE_SECONDS = 1.0
MOST_IN_STEPS = 8
"""Answers of one view that are made step by step at the same time: generations and searches for latents."""

log = logging.getLogger(__name__)


class Service:
    """One loaded target and everybody who looks at it.

    Args:
        target: what to load.
        views: where views ask and are told.
        on_state: told 'loading', 'fitting', 'ready' or 'failed', with Ready once it is known.
        idle_seconds: to stay without any view, counted from the end of the fit and of the last job if that is later.
        session_id: under which its jobs are listed; None: the target's.
    """

    def __init__(
        self,
        target: TargetSpec,
        views: Views,
        *,
        on_state: Callable[[str, Ready | None], None],
        idle_seconds: float,
        session_id: str | None = None,
    ) -> None:
        self.target = target
        self.views = views
        self.jobs = JobRunner(target, session_id=session_id or discovery.session_key(target), tell=views.tell_all)
        self._on_state = on_state
        self._idle_seconds = idle_seconds
        self._questions = Questions()
        self._gone: deque[int] = deque()
        """Views that left and whose texts are to be forgotten."""
        self._again: deque[tuple[int, str, int]] = deque()
        """(view, source, context) to be sent again with the newest maps."""
        self._generations: OrderedDict[tuple[int, int], Iterator[Generated | LatentView | None]] = OrderedDict()
        """By view and request; questions about latents are answered in steps too."""
        self._latents: Latents | None = None
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
            from inspector.session.loading import first_layer, ready_message
            from inspector.spec import target_words

            words = target_words(first_layer(self.target))
            ready = msgspec.structs.replace(ready_message(loaded, warnings), target=words)
        except Exception as error:
            return self._fail(error)
        from inspector.session.fitting import Fits
        from inspector.session.texts import Browser

        browser = Browser(loaded)
        fits = Fits(loaded, browser.readings)
        fits.want("excluded")
        self.views.tell_all(ready)
        self._on_state("fitting", ready)
        log.info("ready: %s, %s, %d SAEs on %s", ready.model, ready.hook_name, len(ready.saes), ready.device)
        while not self.views.stopping.is_set():
            self._collect(0.0)
            if self._gone:
                browser.forget(self._gone.popleft())
            elif self._questions:
                self._answer(browser, fits, self._questions.take())
            elif self._again:
                self._send_again(browser, *self._again.popleft())
            elif self._generations:
                self._generate_one()
            elif self._is_jobs_turn(fits):
                self.jobs.step(loaded)
                self._busy_until = time.monotonic()
            elif fits.has_work:
                if not self._fit_one_step(browser, fits):
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
        """Everything of the target, telling how far it is."""
        # No torch before this: a name that does not exist is answered in a blink and not after ten seconds.
        from inspector.session.loading import download_progress, first_layer
        from inspector.sources.target import open_target

        warnings: list[str] = []
        loading = open_target(first_layer(self.target), session=True)
        began = time.monotonic()
        while True:
            if self.views.stopping.is_set():
                raise Cancelled("Loading was stopped. Start it again with `dm-inspect`.")
            try:
                with panics_are_errors():
                    event = next(loading)
            except StopIteration as done:
                loaded: Loaded = done.value
                return loaded, warnings
            if isinstance(event, Loading):
                self._tell_loading(event)
            elif isinstance(event, Downloading):
                began = began if event.file else time.monotonic()
                took = time.monotonic() - began if event.file and event.done_bytes == event.total_bytes else None
                self.views.tell_all(download_progress(event, took))
            elif isinstance(event, MemoryPlanned):
                amount = f"{event.needed / 1e9:.1f} of {event.budget / 1e9:.1f} GB on {event.device}"
                self._tell_loading(Loading(what="memory", detail=amount, seconds=0.0))
            elif isinstance(event, Warned):
                warnings.append(event.message)
            self._collect(0.0)
            self._answer_about_jobs()

    def _tell_loading(self, event: Loading) -> None:
        self.views.tell_all(
            LoadProgress(
                what=event.what, detail=event.detail, seconds=event.seconds, done=event.done, total=event.total
            )
        )

    def _fail(self, error: Exception) -> int:
        """Tell everybody why, once there is somebody, and give the exit code."""
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
            self._tell(asked, failed(error, asked.message.request))
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
        for key in [key for key in self._generations if key[0] == view]:
            del self._generations[key]
        self._watched.pop(view, None)
        self._gone.append(view)

    def _cancel(self, view: int, message: Cancel) -> None:
        """End a request that has not been answered; one that has is over, and nothing is said."""
        waiting = self._questions.withdraw(view, message.target)
        for asked in waiting:
            self.views.taken_up(asked)
        running = self._generations.pop((view, message.target), None)
        if waiting or running is not None:
            self.views.tell(view, failed(Cancelled("Cancelled. Ask again to repeat it."), message.target))

    def _answer(self, browser: Browser, fits: Fits, asked: Asked) -> None:
        began = time.monotonic()
        self.views.taken_up(asked)
        try:
            with panics_are_errors():
                answer = self._answer_to(browser, fits, asked)
        except Exception as error:
            self._tell(asked, failed(error, asked.message.request))
            return
        if answer is not None:
            self._tell(asked, answer)
        log.debug("%s answered in %.0f ms", type(asked.message).__name__, 1000 * (time.monotonic() - began))

    def _answer_to(self, browser: Browser, fits: Fits, asked: Asked) -> SessionMessage | None:
        """The answer; None if it comes in steps, or was told already."""
        view, message = asked.view, asked.message
        match message:
            case GetContext():
                scores = browser.context(message, view)
                self._watch(view, "context", message.context)
                return scores
            case GetDetail():
                return browser.detail(view, message)
            case Find():
                return browser.find(message)
            case GetPairs():
                return browser.pairs(message, view)
            case AnalysePrompt():
                scores = browser.prompt(view, message)
                self._watch(view, "prompt", 0)
                return scores
            case SetPolicy():
                self._tell(asked, browser.set_policy(view, message))
                self._read_anew(browser, fits, view)
                return None
            case StartJob() | CancelJob() | ResumeJob() | GetJobs() | GetJobLog():
                return self.jobs.answer(message)
            case GetEstimates():
                return estimates(message, browser.loaded, self.jobs.jobs(), self._clock.seconds)
            case Generate() | GetLatent():
                running = [key for key in self._generations if key[0] == view]
                if len(running) >= MOST_IN_STEPS:
                    raise ResourceError(f"{len(running)} answers of this view are being made. Wait, or cancel one.")
                steps = (
                    browser.generate(view, message)
                    if isinstance(message, Generate)
                    else self._latents_of(browser).answer(message)
                )
                self._generations[(view, message.request)] = steps
                return None
            case _:
                raise UsageError(f"A session does not answer {type(message).__name__}. Send another message.")

    def _answer_about_jobs(self) -> None:
        """While the target loads: jobs can be queued and looked at before there is anything to compute on."""
        for asked in self._questions.take_all():
            message = asked.message
            if not isinstance(message, StartJob | CancelJob | ResumeJob | GetJobs | GetJobLog):
                self._questions.add(asked)
                continue
            self.views.taken_up(asked)
            try:
                self._tell(asked, self.jobs.answer(message))
            except Exception as error:
                self._tell(asked, failed(error, message.request))

    def _tell(self, asked: Asked, message: SessionMessage) -> None:
        self.views.tell(asked.view, message)

    def _watch(self, view: int, source: str, context: int) -> None:
        watched = self._watched.setdefault(view, OrderedDict())
        watched[(source, context)] = None
        watched.move_to_end((source, context))
        while len(watched) > N_WATCHED:
            watched.popitem(last=False)

    # ---- work in steps ----------------------------------------------------------------------------------------

    def _is_jobs_turn(self, fits: Fits) -> bool:
        """A job and the fits of the maps take turns while somebody looks; if nobody does, the fits wait."""
        if not self.jobs.busy:
            return False
        self._job_was_last = not (self._job_was_last and fits.has_work and self.views.count)
        return self._job_was_last

    def _generate_one(self) -> None:
        """One token of the generation that has waited longest."""
        key, generation = self._generations.popitem(last=False)
        view, request = key
        try:
            with panics_are_errors():
                message = next(generation)
        except StopIteration:
            return
        except Exception as error:
            self.views.tell(view, failed(error, request))
            return
        if message is not None:
            self.views.tell(view, message)
        if message is None or (isinstance(message, Generated) and not message.finished):
            self._generations[key] = generation

    def _latents_of(self, browser: Browser) -> Latents:
        """What answers about latents; its tables are kept."""
        if self._latents is None:
            from inspector.session.latents import latents_of

            self._latents = latents_of(browser.loaded)
        return self._latents

    def _fit_one_step(self, browser: Browser, fits: Fits) -> bool:
        """One step of a background fit; who looks under its policy is told what came of it. Whether there is more."""
        began = time.monotonic()
        try:
            with panics_are_errors():
                improved = fits.step({browser.policy(view) for view in self.views.numbers})
        except Exception as error:
            # What was fitted before stays in use; every view has to know that it will not get better.
            self.views.tell_all(failed(error))
            return fits.has_work
        self._clock.worked(time.monotonic() - began)
        if improved is None:
            return fits.has_work
        message = improved.message
        self._clock.improved(message)
        if message.policy == "excluded":  # which everybody who comes later begins with
            self.views.remember(message)
        views = [view for view in self.views.numbers if browser.policy(view) == message.policy]
        if browser.readings[message.policy].improve(improved):
            self._again = deque(item for item in self._again if item[0] not in views)
            for view in views:
                self._again += [(view, *text) for text in reversed(self._watched.get(view, ()))]
        for view in views:
            self.views.tell(view, message)
        log.info(
            "fit %d (%s) from %d tokens%s",
            message.epoch,
            message.policy,
            message.n_tokens,
            ", the last" * message.finished,
        )
        return fits.has_work

    def _read_anew(self, browser: Browser, fits: Fits, view: int) -> None:
        """The view has changed its policy: what it looks at comes again, and the fit that is missing begins."""
        policy = browser.policy(view)
        fits.want(policy)
        if (told := browser.readings[policy].told) is not None:
            self.views.tell(view, told)
        self._again = deque(item for item in self._again if item[0] != view)
        self._again += [(view, *text) for text in reversed(self._watched.get(view, ()))]

    def _send_again(self, browser: Browser, view: int, source: str, context: int) -> None:
        try:
            message = (
                browser.context(GetContext(context=context), view)
                if source == "context"
                else browser.prompt_again(view)
            )
        except Exception as error:
            log.warning("context %d could not be sent again: %s", context, error)
            return
        if message is not None:
            self.views.tell(view, message)

    def _is_idle(self) -> bool:
        since_busy = time.monotonic() - self._busy_until
        return min(self.views.seconds_alone(), since_busy) > self._idle_seconds
