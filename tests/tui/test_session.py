"""What the view knows after each message."""

from __future__ import annotations

import asyncio

from inspector.events import GateLine, JobInfo
from inspector.session.cards import SaeQuality
from inspector.session.protocol import (
    Failed,
    GetJobs,
    Jobs,
    JobTold,
    LoadProgress,
    MapImproved,
    SessionMessage,
    ViewMessage,
    Welcome,
)
from inspector.tui.session import NO_SESSION, Conversation, Requests, SessionView
from tests.fake_session import FakeSession

WELCOME = Welcome(version=1, program_version="0", pid=1, log_path="/x/log")


def step(what: str, seconds: float | None = None) -> LoadProgress:
    return LoadProgress(what=what, seconds=seconds)


def test_from_connecting_to_ready() -> None:
    view = SessionView()
    assert view.stage == "connecting"
    view = view.told(WELCOME, 0.0)
    assert (view.stage, view.log_path) == ("loading", "/x/log")
    view = view.told(FakeSession().ready(), 1.0)
    assert (view.stage, view.exit_code) == ("ready", 0)


def test_a_step_reported_again_is_one_step() -> None:
    view = SessionView().told(step("model"), 2.0).told(step("model", 1.5), 3.5)
    assert [(s.told.what, s.started, s.seconds) for s in view.steps] == [("model", 2.0, 1.5)]


def test_counted_steps_are_one_that_lasts_until_the_last() -> None:
    view = SessionView().told(step("text", 0.1), 0.0)
    view = view.told(step("SAE 1/3"), 1.0).told(step("SAE 1/3", 0.5), 1.5)
    view = view.told(step("SAE 2/3", 0.5), 2.0)
    assert [(s.told.what, s.seconds) for s in view.steps] == [("text", 0.1), ("SAE 2/3", None)]
    view = view.told(step("SAE 3/3", 0.5), 2.5)
    assert [(s.told.what, s.seconds) for s in view.steps] == [("text", 0.1), ("SAE 3/3", 1.5)]


def test_a_failed_load_keeps_its_exit_code_though_the_connection_then_ends() -> None:
    view = SessionView().told(WELCOME, 0.0).told(Failed(exit_code=3, message="No such layer."), 1.0)
    assert (view.stage, view.error, view.exit_code) == ("failed", "No such layer.", 3)
    assert view.lost("The session ended.") == view


def test_a_request_that_failed_is_no_failed_load() -> None:
    view = SessionView().told(WELCOME, 0.0)
    assert view.told(Failed(request=4, exit_code=6, message="Cancelled."), 1.0) == view


def test_a_fit_that_failed_says_so_and_leaves_what_was_fitted() -> None:
    fake = FakeSession()
    fitting = SessionView().told(fake.ready(), 0.0).told(fake.map_improved(4), 0.0)
    view = fitting.told(Failed(exit_code=4, message="NaN in shard 3."), 1.0)
    assert (view.stage, view.stopped, view.error, view.exit_code) == ("ready", "NaN in shard 3.", "", 0)
    assert view.improved == fitting.improved
    assert view.told(fake.ready(), 2.0).stopped == ""


def test_no_connection_is_a_failure_and_a_broken_one_is_not() -> None:
    assert (SessionView().lost("No.", 5).stage, SessionView().lost("No.", 5).exit_code) == ("failed", 5)
    ready = SessionView().told(FakeSession().ready(), 0.0)
    assert (ready.lost("Gone.").stage, ready.lost("Gone.").exit_code) == ("lost", 0)


def test_a_session_started_again_that_cannot_load_keeps_its_reason() -> None:
    view = SessionView(ready=FakeSession().ready()).told(WELCOME, 0.0)
    view = view.told(Failed(exit_code=3, message="The file is gone."), 1.0)
    assert (view.stage, view.error) == ("lost", "The file is gone.")
    assert view.lost("The session ended.") == view


def test_quality_is_that_of_the_row() -> None:
    assert SessionView().quality(0) is None
    quality = SaeQuality(r2=0.5, r2_low=None, r2_high=None, fvu=0.1, fvu_nonlinear=0.05, l0=15.0)
    view = SessionView().told(
        MapImproved(epoch=1, n_tokens=10, n_tokens_goal=20, n_held_out=5, qualities=[quality]), 0.0
    )
    assert view.quality(0) == quality
    assert view.quality(1) is None


def test_a_download_keeps_its_bytes() -> None:
    told = LoadProgress(what="downloading model m", done_bytes=3, total_bytes=10, bytes_per_second=2.0)
    (only,) = SessionView().told(told, 1.0).steps
    assert only.told is told


def test_the_other_policy_swaps_the_fits_and_keeps_the_old_one_beside() -> None:
    fake = FakeSession()
    view = SessionView().told(fake.ready(), 0.0).told(fake.map_improved(8), 0.0)
    excluded = view.improved
    view = view.told(fake.policy_set("included"), 1.0)
    assert (view.policy, view.improved, view.beside) == ("included", None, excluded)
    view = view.told(fake.map_improved(8, policy="included"), 2.0)
    assert view.quality(0).r2 > view.quality(0, beside=True).r2  # type: ignore[union-attr,operator]
    back = view.told(fake.policy_set("excluded"), 3.0)
    assert (back.policy, back.improved, back.beside) == ("excluded", excluded, view.improved)


def test_a_fit_that_is_told_before_its_policy_is_confirmed_is_not_lost() -> None:
    fake = FakeSession()
    view = SessionView().told(fake.ready(), 0.0).told(fake.map_improved(8), 0.0)
    view = view.told(fake.map_improved(8, policy="included"), 1.0).told(fake.policy_set("included"), 2.0)
    assert view.improved is not None
    assert view.improved.policy == "included"


def job(name: str, state: str = "queued", created: float = 0.0) -> JobInfo:
    return JobInfo(id=name, experiments=("error-vector",), state=state, command="dm-inspect run", created=created)  # type: ignore[arg-type]


def test_jobs_are_newest_first_and_those_that_run_are_in_their_order() -> None:
    view = SessionView().told(Jobs(jobs=[job("a", "done", 1), job("c", "queued", 3), job("b", "running", 2)]), 0.0)
    assert [each.id for each in view.jobs] == ["c", "b", "a"]
    view = view.told(JobTold(job=job("d", created=4)), 1.0).told(JobTold(job=job("b", "done", 2)), 2.0)
    assert [(each.id, each.state) for each in view.jobs] == [
        ("d", "queued"), ("c", "queued"), ("b", "done"), ("a", "done"),
    ]  # fmt: skip
    assert [each.id for each in view.unfinished] == ["c", "d"]
    assert view.job("a") == job("a", "done", 1)
    assert view.job("z") is None


def test_a_gate_that_failed_is_known_as_soon_as_the_target_is_there() -> None:
    failure = GateLine(name="fvu", sae_id="a", measured="1.31", expected="below 1", why="the SAE is of another model")
    assert SessionView().gate_failures == ()
    assert SessionView().told(FakeSession(gate_failures=[failure]).ready(), 0.0).gate_failures == (failure,)


class Wire:
    """A connection that a test holds both ends of."""

    lost: str | None = None

    def __init__(self) -> None:
        self.sent: list[ViewMessage] = []
        self.on_send: list[SessionMessage] = []
        self.conversation: Conversation | None = None

    async def send(self, message: ViewMessage) -> int:
        self.sent.append(message)
        number = len(self.sent)
        await asyncio.sleep(0)
        for answer in self.on_send:
            assert self.conversation is not None
            self.conversation.deliver(answer)
        return number

    async def messages(self):  # type: ignore[no-untyped-def]
        return
        yield

    async def close(self) -> None:
        return


def attached() -> tuple[Conversation, Wire]:
    conversation, wire = Conversation(), Wire()
    conversation.attach(wire)
    wire.conversation = conversation
    return conversation, wire


async def test_a_call_returns_its_own_answer() -> None:
    conversation, wire = attached()
    first, second = (
        asyncio.ensure_future(conversation.call(GetJobs())),
        asyncio.ensure_future(conversation.call(GetJobs())),
    )
    while len(wire.sent) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert not conversation.deliver(Jobs(jobs=[]))  # told to all, not an answer
    assert conversation.deliver(Jobs(request=2, jobs=[]))
    assert conversation.deliver(Failed(request=1, exit_code=2, message="no"))
    assert isinstance(await first, Failed)
    assert isinstance(await second, Jobs)


async def test_an_answer_that_is_quicker_than_its_number_is_not_lost() -> None:
    conversation, wire = attached()
    wire.on_send = [Jobs(request=1, jobs=[])]
    assert await asyncio.wait_for(conversation.call(GetJobs()), 30) == Jobs(request=1, jobs=[])


async def test_a_call_ends_with_the_session() -> None:
    conversation, wire = attached()
    call = asyncio.ensure_future(conversation.call(GetJobs()))
    while not wire.sent:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    conversation.attach(None)
    assert await asyncio.wait_for(call, 30) == NO_SESSION
    assert await conversation.call(GetJobs()) == NO_SESSION


def test_of_each_purpose_only_the_latest_request_is_awaited() -> None:
    requests = Requests()
    requests.add("jobs", GetJobs())
    assert requests.waiting == [("jobs", GetJobs())]
    requests.sent("jobs", 1)
    requests.sent("jobs", 2)
    assert requests.answered(Jobs(request=1, jobs=[])) is None
    assert requests.is_open("jobs")
    assert requests.answered(Jobs(request=2, jobs=[])) == "jobs"
    assert requests.answered(Jobs(request=2, jobs=[])) is None


def test_what_could_not_be_sent_is_not_awaited() -> None:
    requests = Requests()
    requests.sent("jobs", 0)
    assert not requests.is_open("jobs")


def test_the_same_question_is_asked_once_unless_it_is_wanted_again() -> None:
    requests, question = Requests(), (GetJobs(), 1)
    assert requests.is_new("detail", question)
    requests.add_question("detail", question)
    assert not requests.is_new("detail", question)
    assert requests.is_new("detail", (GetJobs(), 2))
    requests.ask_again("detail")
    assert requests.is_new("detail", question)


async def test_a_session_that_is_not_there_has_no_request_number() -> None:
    assert await Conversation().send(GetJobs()) == 0
