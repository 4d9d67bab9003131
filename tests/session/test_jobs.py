"""Jobs in the service's loop: queued, run in steps between questions, cancelled, resumed, and their results kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inspector import runner
from inspector.cluster import SHARDS, driver
from inspector.disk.folders import JOBS, RESULTS
from inspector.disk.sealed import jsonable
from inspector.errors import Cancelled, DataError
from inspector.events import JobInfo, PassProgress, Warned
from inspector.session import costs, service
from inspector.session import jobs as session_jobs
from inspector.session.protocol import (
    CancelJob,
    Costs,
    Failed,
    Find,
    Found,
    GetCosts,
    GetJobLog,
    GetJobs,
    JobLog,
    Jobs,
    JobTold,
    MapImproved,
    Policy,
    ResumeJob,
    SessionMessage,
    StartJob,
)
from inspector.session.service import Service
from inspector.spec import RunSpec, TargetSpec
from inspector.store import results
from inspector.store.jobs import JobStore
from tests.session.test_service import SECONDS, Running, finished

if TYPE_CHECKING:
    from inspector.sources.target import Loaded

QUICK = {"resamples": "20"}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jobs and results of this test alone."""
    monkeypatch.setenv(JOBS.variable, str(tmp_path / "jobs"))
    monkeypatch.setenv(RESULTS.variable, str(tmp_path / "results"))
    return tmp_path


@pytest.fixture
def running(
    loaded: Loaded, toy_target: TargetSpec, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    made = Running(toy_target)
    made.attach()
    yield made.start()
    made.end()


def job_of(message: object) -> JobInfo:
    assert isinstance(message, JobTold), message
    return message.job


def until_state(running: Running, job: str, state: str, view: int = 1) -> JobInfo:
    return job_of(running.until(view, lambda m: isinstance(m, JobTold) and m.job.id == job and m.job.state == state))


def start(running: Running, *experiments: str, request: int = 1, **params: str) -> JobInfo:
    return job_of(running.ask(1, StartJob(request=request, experiments=list(experiments), params={**QUICK, **params})))


def test_a_job_runs_to_its_end_and_its_results_are_those_of_a_run(
    running: Running, loaded: Loaded, folders: Path
) -> None:
    queued = start(running, "error-vector", "fvu-nonlinear")
    assert (queued.state, queued.experiments) == ("queued", ("error-vector", "fvu-nonlinear"))
    assert queued.command.startswith("dm-inspect run error-vector fvu-nonlinear --model ")
    done = until_state(running, queued.id, "done")
    assert [name.rpartition("-")[0] for name in done.results] == ["error-vector", "fvu-nonlinear"]
    assert done.ended >= done.started >= done.created > 0
    listed = running.ask(1, GetJobs(request=2))
    assert isinstance(listed, Jobs)
    assert [job.id for job in listed.jobs] == [queued.id]
    log = running.ask(1, GetJobLog(request=3, job=queued.id))
    assert isinstance(log, JobLog)
    assert "queued in session" in log.lines[0]
    assert log.lines[-1].endswith("done: 2 results")
    running.end()  # two threads must not use one model
    spec = RunSpec(target=loaded.target, experiments=tuple(queued.experiments), params=QUICK)
    kept = [results.load(each).result for each in done.results]
    assert kept == [jsonable(each) for each in result_of(runner.run(spec, loaded))]  # in every bit


def test_a_job_on_a_cluster_is_the_run_that_the_workers_are_given(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RunSpec] = []

    def noted(spec: RunSpec) -> Iterator[None]:
        given.append(spec)
        yield from ()

    monkeypatch.setattr(driver, "run_on_cluster", noted)
    ask = StartJob(request=1, experiments=["error-vector"], params=QUICK, ray="local:2")
    job = job_of(running.ask(1, ask))
    until_state(running, job.id, "done")
    assert [(spec.ray, spec.shards) for spec in given] == [("local:2", SHARDS)]
    refused = running.ask(1, StartJob(request=2, experiments=["error-vector"], ray="nowhere"))
    assert isinstance(refused, Failed)
    assert (refused.exit_code, refused.message[:29]) == (2, "--ray nowhere is no cluster. ")


def result_of(work: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_every_view_is_told_and_one_that_comes_later_too(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    hold(monkeypatch, gate)
    second = running.attach()
    job = start(running, "error-vector")
    until_state(running, job.id, "running", second)
    third = running.attach()
    assert any(isinstance(message, JobTold) and message.job.id == job.id for message in running.told[third - 1])
    gate.set()
    for view in (1, second, third):
        until_state(running, job.id, "done", view)
    fourth = running.attach()
    assert not any(isinstance(message, JobTold) for message in running.told[fourth - 1])


def hold(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> list[int]:
    """Jobs make small empty steps until the gate opens; returns a list that grows by one with every step."""
    original, steps = session_jobs.work_on, []

    def held(*args: Any) -> Any:
        while not gate.is_set():
            steps.append(1)
            time.sleep(0.002)
            yield PassProgress(name="held", contexts_done=1, contexts_total=2, tokens_per_second=1.0, seconds_left=1.0)
        return (yield from original(*args))

    monkeypatch.setattr(session_jobs, "work_on", held)
    return steps


def test_cancelled_within_one_step_and_the_next_one_begins(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    steps = hold(monkeypatch, gate)
    first = start(running, "error-vector")
    second = start(running, "norm-prediction", request=2)
    until_state(running, first.id, "running")
    running.views.ask(1, CancelJob(request=3, job=first.id))
    before = len(steps)  # once it is asked: until then the machine may have made any number of them
    cancelled = job_of(running.until(1, lambda message: message.request == 3))
    assert cancelled.state == "cancelled"
    assert len(steps) - before <= 2
    gate.set()
    until_state(running, second.id, "done")
    again = running.ask(1, CancelJob(request=4, job=first.id))
    assert again == Failed(
        request=4,
        exit_code=2,
        message=f"The job {first.id} is cancelled already. Only a queued or running one can be cancelled.",
    )
    # A cancelled one can be resumed, a finished one not.
    assert job_of(running.ask(1, ResumeJob(request=5, job=first.id))).state == "queued"
    until_state(running, first.id, "done")
    refused = running.ask(1, ResumeJob(request=6, job=first.id))
    assert isinstance(refused, Failed)
    assert refused.exit_code == 2


def test_a_waiting_job_is_cancelled_without_ever_running(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    hold(monkeypatch, gate)
    first, second = start(running, "error-vector"), start(running, "norm-prediction", request=2)
    assert job_of(running.ask(1, CancelJob(request=3, job=second.id))).started == 0
    gate.set()
    until_state(running, first.id, "done")
    assert JobStore().find(second.id).state == "cancelled"


def test_progress_is_told_twice_a_second_at_most(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    steps = hold(monkeypatch, gate)
    began = time.monotonic()
    job = start(running, "error-vector")
    while len(steps) < 300:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    told = [m for m in running.told[0] if isinstance(m, JobTold) and m.job.state == "running"]
    assert len(told) <= 2 + seconds / session_jobs.TOLD_SECONDS  # of 300 steps; one for the state, one to begin with
    gate.set()
    until_state(running, job.id, "done")


def test_questions_are_answered_between_two_steps(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    steps = hold(monkeypatch, gate)
    job = start(running, "error-vector")
    until_state(running, job.id, "running")
    when_told: dict[int, int] = {}
    tell = running.views.tell

    def noted(view: int, message: SessionMessage) -> None:
        when_told[message.request] = len(steps)  # in the session's thread: this one may wake much later
        tell(view, message)

    monkeypatch.setattr(running.views, "tell", noted)
    for number in range(10, 20):
        running.views.ask(1, Find(request=number, text="error"))
        before = len(steps)  # once it is asked, as above
        assert isinstance(running.until(1, lambda message, number=number: message.request == number), Found)
        assert when_told[number] - before <= 3
    gate.set()
    until_state(running, job.id, "done")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (StartJob(experiments=["error-vektor"]), "There is no experiment 'error-vektor'. Nearest: error-vector"),
        (StartJob(experiments=[]), "No experiment was named."),
        (StartJob(experiments=["error-vector"], params={"x": "1"}), "'x' is not a parameter of error-vector."),
        (StartJob(experiments=["error-vector"], profile="odd"), "There is no profile 'odd'. Known: careful"),
        (StartJob(experiments=["error-vector"], null="odd"), "There is no null 'odd'. Known: shuffle"),
        (CancelJob(job="nope"), "There is no job 'nope'."),
        (ResumeJob(job=""), "There is no job ''."),
        (GetJobLog(job="../../etc/passwd"), "There is no job '../../etc/passwd'."),
    ],
)
def test_what_is_wrong_is_said_at_once(running: Running, asked: Any, says: str) -> None:
    import msgspec

    answer = running.ask(1, msgspec.structs.replace(asked, request=7))
    assert isinstance(answer, Failed)
    assert answer.exit_code == 2
    assert answer.message.startswith(says)
    assert JobStore().all().jobs == ()


def test_a_job_that_fails_says_why_and_the_session_goes_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        yield Warned(message="odd")
        raise DataError("NaN at context 3. Look at it.")

    with monkeypatch.context() as patched:
        patched.setattr(session_jobs, "work_on", broken)
        job = start(running, "error-vector")
        ended = until_state(running, job.id, "failed")
    assert (ended.exit_code, ended.error) == (4, "NaN at context 3. Look at it.")
    assert isinstance(running.ask(1, Find(request=9, text="x")), Found)
    assert job_of(running.ask(1, ResumeJob(request=10, job=job.id))).error == ""
    assert until_state(running, job.id, "done").exit_code == 0


def test_a_full_disk_ends_the_job_with_5_and_it_resumes_when_there_is_room(running: Running, folders: Path) -> None:
    (folders / "results").write_text("no folder")  # nothing can be stored there
    job = start(running, "error-vector")
    ended = until_state(running, job.id, "failed")
    assert ended.exit_code == 5
    assert str(folders / "results") in ended.error
    (folders / "results").unlink()
    running.ask(1, ResumeJob(request=2, job=job.id))
    assert len(until_state(running, job.id, "done").results) == 1


def test_a_session_that_is_stopped_leaves_its_jobs_interrupted(
    loaded: Loaded, toy_target: TargetSpec, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    gate = threading.Event()
    with monkeypatch.context() as patched:
        hold(patched, gate)
        first = Running(toy_target)
        first.attach()
        first.start()
        jobs = [start(first, "error-vector"), start(first, "norm-prediction", request=2)]
        until_state(first, jobs[0].id, "running")
        first.end()
    assert {job.state for job in JobStore().all().jobs} == {"interrupted"}
    second = Running(toy_target)
    second.attach()
    second.start()
    listed = second.ask(1, GetJobs(request=1))
    assert isinstance(listed, Jobs)
    assert {job.id for job in listed.jobs} == {job.id for job in jobs}
    second.ask(1, ResumeJob(request=2, job=jobs[1].id))
    until_state(second, jobs[1].id, "done")
    second.end()


def test_a_job_that_died_after_its_last_result_is_done_when_it_is_resumed(running: Running) -> None:
    job = start(running, "error-vector")
    done = until_state(running, job.id, "done")
    JobStore().update(job.id, lambda found: replace(found, state="interrupted"))
    resumed = job_of(running.ask(1, ResumeJob(request=2, job=job.id)))
    assert (resumed.state, resumed.results) == ("done", done.results)
    # Not so if the result has been damaged since: it is measured again.
    path = RESULTS.path() / f"{done.results[0]}.json"
    path.write_bytes(path.read_bytes().replace(b'"r2_pooled"', b'"r2_polled"', 1))
    JobStore().update(job.id, lambda found: replace(found, state="interrupted"))
    assert job_of(running.ask(1, ResumeJob(request=3, job=job.id))).state == "queued"
    running.until(1, lambda m: isinstance(m, JobTold) and m.job.state == "running" and m.job.id == job.id)
    while JobStore().find(job.id).state != "done":
        time.sleep(0.01)
    assert results.load(done.results[0]).result["experiment"] == "error-vector"


def test_a_session_with_a_job_is_not_idle(
    loaded: Loaded, toy_target: TargetSpec, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_load", lambda self: (loaded, []))
    gate = threading.Event()
    steps = hold(monkeypatch, gate)
    running = Running(toy_target, idle_seconds=0.05)
    view = running.attach()
    running.start()
    job = start(running, "error-vector")
    running.views.detach(view)
    while len(steps) < 200:
        assert running.thread.is_alive()
        time.sleep(0.01)
    gate.set()
    running.thread.join(SECONDS)
    assert running.code == 0
    assert JobStore().find(job.id).state == "done"


@pytest.mark.parametrize(
    ("why", "state", "code"),
    [
        (DataError("There is no text. Give one."), "failed", 4),
        # The session was stopped: nobody cancelled the job, and it can be resumed like any other.
        (Cancelled("Loading was stopped. Start it again."), "interrupted", 0),
    ],
)
def test_a_job_asked_for_while_the_target_loads_ends_with_it(
    folders: Path,
    toy_target: TargetSpec,
    monkeypatch: pytest.MonkeyPatch,
    why: Exception,
    state: str,
    code: int,
) -> None:
    monkeypatch.setattr(service, "GRACE_SECONDS", 0.05)
    queued = threading.Event()

    def load(self: Service) -> Any:
        while not queued.is_set():
            self._while_loading()
            time.sleep(0.001)
        raise why

    monkeypatch.setattr(Service, "_load", load)
    running = Running(toy_target)
    view = running.attach()
    running.start()
    running.views.ask(view, Find(request=9, text="x"))  # has to wait
    job = start(running, "error-vector")
    assert job.state == "queued"
    queued.set()
    ended = until_state(running, job.id, state, view)
    assert (ended.exit_code, ended.error) == (code, str(why) if state == "failed" else "")
    running.thread.join(SECONDS)
    assert {m.request for m in running.told[view - 1] if isinstance(m, Failed)} == {0, 9}


def test_no_job_is_made_for_a_target_that_there_is_not(
    folders: Path, toy_target: TargetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "GRACE_SECONDS", 0.05)
    running = Running(replace(toy_target, model=str(folders / "nothing")))
    view = running.attach()
    running.views.ask(view, StartJob(request=1, experiments=["error-vector"]))
    running.start()
    running.thread.join(SECONDS)
    assert JobStore().all().jobs == ()
    assert [m.exit_code for m in running.told[view - 1] if isinstance(m, Failed) and m.request == 1] == [3]


def test_estimates_are_counted_first_and_then_what_was_measured_here(running: Running, loaded: Loaded) -> None:
    def ask(request: int, *experiments: str) -> Costs:
        answer = running.ask(1, GetCosts(request=request, experiments=list(experiments), params=QUICK))
        assert isinstance(answer, Costs), answer
        return answer

    running.until(1, finished)
    before = ask(1, "error-vector", "ce-splice", "theory-c1")
    assert before.shared_seconds is not None  # the fit has done the same work
    assert before.shared_seconds > 0
    vector, splice, theory = before.costs
    assert not any(each.measured for each in before.costs)
    assert (vector.seconds, vector.alone) == (0.0, before.shared_seconds)
    assert splice.seconds is not None
    assert splice.alone == pytest.approx(before.shared_seconds + splice.seconds, rel=0.1)  # two digits each
    assert theory.alone == theory.seconds  # it makes no pass over this target's tokens
    until_state(running, start(running, "ce-splice", request=2).id, "done")
    (after,) = ask(3, "ce-splice").costs
    assert after.measured
    assert after.seconds is not None
    assert after.seconds > 0
    assert isinstance(running.ask(1, GetCosts(request=4, experiments=["nope"])), Failed)


def test_what_cannot_run_says_why(loaded: Loaded, toy_target: TargetSpec, folders: Path) -> None:
    few = replace(loaded, plan=replace(loaded.plan, n_train=319))
    told = costs.Costing(few, costs.FitClock()).answer(GetCosts(request=1, experiments=["error-vector"]), [])
    assert told.shared_seconds is None
    assert told.costs[0].seconds is None
    assert told.costs[0].why_not.startswith("The regression needs 320 training tokens")


def test_the_fits_clock_tells_the_whole_from_a_part() -> None:
    def fit(n_tokens: int, *, done: bool = False, policy: Policy = "excluded") -> MapImproved:
        return MapImproved(
            epoch=1, n_tokens=n_tokens, n_tokens_goal=400, n_held_out=0, qualities=[], finished=done, policy=policy
        )

    clock = costs.FitClock()
    assert [clock.seconds] == [None]
    clock.worked(1.0)
    clock.improved(fit(100))
    assert clock.seconds == 4.0
    clock.worked(2.0)
    clock.improved(fit(400))
    assert clock.seconds == 4.0  # its scores are still to come
    clock.worked(2.0)
    clock.improved(fit(400, done=True))
    clock.worked(9.0)
    clock.improved(fit(100, policy="included"))
    assert clock.seconds == 5.0
