"""The invented jobs keep the promises that the screens rely on."""

from __future__ import annotations

from inspector.events import JobInfo
from inspector.session.protocol import (
    CancelJob,
    Costs,
    Failed,
    GetCosts,
    GetJobLog,
    GetJobs,
    JobLog,
    Jobs,
    JobTold,
    ResumeJob,
    SessionMessage,
    StartJob,
)
from tests.fake_jobs import FakeJobs


def started(jobs: FakeJobs, *experiments: str) -> JobInfo:
    told = jobs.answer(StartJob(experiments=list(experiments)))
    assert isinstance(told, JobTold)
    return told.job


def test_a_job_runs_through_its_experiments_and_every_view_is_told() -> None:
    told: list[SessionMessage] = []
    jobs = FakeJobs(hold=True, steps=2, tellers=[told.append])
    job = started(jobs, "error-vector", "norm-prediction")
    assert job.state == "queued"
    assert job.command == "dm-inspect run error-vector norm-prediction"
    jobs.advance(5)
    now = jobs.known[job.id]
    assert (now.state, now.results) == ("done", ("error-vector-0001", "norm-prediction-0001"))
    states = [message.job.state for message in told if isinstance(message, JobTold)]
    assert states == ["queued", "running", "running", "running", "running", "done"]
    log = jobs.answer(GetJobLog(job=job.id))
    assert isinstance(log, JobLog)
    assert log.lines[-1] == "norm-prediction: kept as norm-prediction-0001"


def test_one_runs_and_the_next_waits_and_the_newest_is_listed_first() -> None:
    jobs = FakeJobs(hold=True, steps=1)
    first, second = started(jobs, "error-vector"), started(jobs, "fvu-nonlinear")
    jobs.advance(1)
    listed = jobs.answer(GetJobs())
    assert isinstance(listed, Jobs)
    assert [(job.id, job.state) for job in listed.jobs] == [(second.id, "queued"), (first.id, "running")]


def test_cancel_and_resume_and_what_is_refused() -> None:
    jobs = FakeJobs(hold=True)
    job = started(jobs, "error-vector")
    assert isinstance(jobs.answer(ResumeJob(job=job.id)), Failed)
    assert isinstance(jobs.answer(CancelJob(job="nothing")), Failed)
    jobs.answer(CancelJob(job=job.id))
    assert jobs.known[job.id].state == "cancelled"
    jobs.answer(ResumeJob(job=job.id))
    assert jobs.known[job.id].state == "queued"
    bad = jobs.answer(StartJob(experiments=["error-vektor"]))
    assert isinstance(bad, Failed)
    assert bad.exit_code == 2
    assert isinstance(jobs.answer(StartJob(experiments=["error-vector"], params={"nothing": "1"})), Failed)


def test_estimates_name_what_cannot_run() -> None:
    jobs = FakeJobs(cannot={"ce-splice": "The model has no such hook."})
    answer = jobs.answer(GetCosts(experiments=["error-vector", "ce-splice"]))
    assert isinstance(answer, Costs)
    assert answer.costs[0].seconds is not None
    assert (answer.costs[1].seconds, answer.costs[1].why_not) == (None, "The model has no such hook.")
