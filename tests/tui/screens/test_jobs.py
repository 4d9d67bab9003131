"""The Jobs screen from the keyboard, and what the Stream screen says of jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inspector.events import JobState, WorkerInfo
from inspector.session.protocol import CancelJob, ResumeJob, StartJob
from inspector.tui.inspector_app import InspectorApp
from inspector.tui.screens.base import OpenScreen
from inspector.tui.screens.jobs import JobsScreen
from inspector.tui.screens.questions import LeavingScreen
from inspector.tui.widgets.bars import JobBar
from tests.fake_jobs import FakeJobs
from tests.fake_session import FakeSession
from tests.tui.driving import Driven, driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def session(*jobs: tuple[str, JobState]) -> FakeSession:
    """With jobs in these states."""
    fake = FakeJobs(hold=True, steps=4)
    for experiment, state in jobs:
        fake.answer(StartJob(experiments=[experiment]))
        name = f"job-{len(fake.known)}"
        if state == "done":
            fake.advance(5)
        elif state != "queued":
            fake.advance(2)
            if state != "running":
                fake.end(name, state, "The device is out of memory." if state == "failed" else "")
    return FakeSession(hostile_share=0.0, epochs=1, jobs=fake)


async def opened(app: Driven) -> JobsScreen:
    await app.press("J")
    await app.until(lambda: isinstance(app.app.screen, JobsScreen))
    await app.settle()
    screen = app.app.screen
    assert isinstance(screen, JobsScreen)
    return screen


async def test_every_job_with_its_state_progress_command_and_log() -> None:
    fake = session(("error-vector", "done"), ("pursuit", "failed"), ("norm-prediction", "running"))
    async with driven(fake) as app:
        screen = await opened(app)
        lines = app.screen_text()
        assert lines[0].startswith(" dm-inspect  jobs   3 jobs, 1 unfinished")
        assert lines[1].startswith(" ▸ ▶ running     norm-prediction")
        assert "25%" in lines[1]
        assert "The device is out of memory." in lines[2]
        assert "1 result" in lines[3]
        assert any("$ dm-inspect run norm-prediction" in line for line in lines)
        await app.until(lambda: any("started norm-prediction" in line for line in app.screen_text()))
        fake.jobs.advance(1)
        await app.until(lambda: "50%" in app.screen_text()[1])
        await app.press("down")
        await app.until(lambda: any("queued: pursuit" in line for line in app.screen_text()))
        assert screen.job is not None
        assert screen.job.id == "job-2"


async def test_the_workers_of_a_job_on_a_cluster_have_a_line_each() -> None:
    fake = session(("norm-prediction", "running"))
    async with driven(fake) as app:
        await opened(app)
        at = WorkerInfo(number=1, state="running", where="n1 cuda:0\x1b[2J", used_bytes=int(41e9), free_bytes=int(38e9))
        at = replace(at, stage="scores", contexts=120, tokens_per_second=9100.0)
        gone = WorkerInfo(number=2, state="died", where="n2 cuda:0")
        fake.jobs._changed(replace(fake.jobs.known["job-1"], workers=(at, gone)))
        await app.until(lambda: any("died" in line for line in app.screen_text()))
        lines = [line.strip() for line in app.screen_text() if line.strip().startswith("worker ")]
        assert lines == [
            "worker 1  running  n1 cuda:0␛[2J · 41.0 GB, 38.0 free · scores, 120 contexts · 9,100 tokens/s",
            "worker 2  died     n2 cuda:0 · 0.0 GB, 0.0 free",
        ]
        assert any("$ dm-inspect run norm-prediction" in line for line in app.screen_text()), "still in sight"


async def test_cancel_and_resume() -> None:
    fake = session(("error-vector", "running"))
    async with driven(fake) as app:
        await opened(app)
        await app.press("x")
        await app.until(lambda: app.asked(CancelJob))
        await app.until(lambda: "cancelled" in app.screen_text()[1])
        await app.press("r")
        await app.until(lambda: app.asked(ResumeJob))
        await app.until(lambda: "queued" in app.screen_text()[1])


async def test_enter_on_a_done_job_opens_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    async with driven(session(("error-vector", "done"), ("pursuit", "cancelled"))) as app:
        asked: list[list[str]] = []

        async def note(_: InspectorApp, message: OpenScreen) -> None:
            asked.append(list(message.ids))

        monkeypatch.setattr(InspectorApp, "on_open_screen", note)
        await opened(app)
        await app.press("enter")
        assert asked == []
        await app.press("down", "enter")
        assert asked == [["error-vector-0001"]]


async def test_a_job_has_its_line_on_the_stream_until_it_has_ended() -> None:
    fake = session()
    async with driven(fake, notifications=True) as app:
        assert not app.home.query_one(JobBar).display
        fake.jobs.answer(StartJob(experiments=["error-vector"]))
        fake.jobs.advance(3)
        await app.until(lambda: app.home.query_one(JobBar).display)
        await app.settle()
        assert app.screen_text()[-2].startswith(" ▶ error-vector  ━━━━━━━━━━━━────────────   50%")
        assert "token" in app.screen_text()[-1], "the keys are still below it"
        fake.jobs.advance(2)
        await app.until(lambda: not app.home.query_one(JobBar).display)
        await app.until(lambda: any("error-vector is done." in line for line in app.screen_text()))


async def test_jobs_that_were_there_before_the_view_are_there_without_being_told_of() -> None:
    async with driven(session(("error-vector", "running")), notifications=True) as app:
        await app.until(lambda: app.home.query_one(JobBar).display)
        assert not any("is done" in line for line in app.screen_text())


# ---- leaving --------------------------------------------------------------------------------------------------------


async def test_without_a_job_nobody_is_asked() -> None:
    async with driven(session(("error-vector", "done"))) as app:
        await app.pilot.press("q")
        await app.until(lambda: app.app.return_code is not None)
        assert app.app.return_code == 0


@pytest.mark.parametrize(("key", "leaves", "cancels"), [("enter", True, False), ("c", True, True)])
async def test_leaving_while_a_job_runs_asks_once(key: str, leaves: bool, cancels: bool) -> None:
    async with driven(session(("error-vector", "running"), ("pursuit", "queued"))) as app:
        await app.until(lambda: len(app.home.session.unfinished) == 2)
        await app.press("q")
        await app.until(lambda: isinstance(app.app.screen, LeavingScreen))
        await app.press("escape")
        assert app.app.screen is app.home
        await app.press("ctrl+q")
        await app.until(lambda: isinstance(app.app.screen, LeavingScreen))
        text = "\n".join(app.screen_text())
        assert "error-vector is running" in text
        assert "It goes on in the session when you leave" in text
        await app.pilot.press(key)
        await app.until(lambda: app.app.return_code is not None)
        assert leaves
        cancelled = [message.job for message in app.asked(CancelJob)]  # type: ignore[attr-defined]
        assert cancelled == (["job-2", "job-1"] if cancels else [])


async def test_leaving_twice_by_the_same_key_leaves() -> None:
    async with driven(session(("error-vector", "running"))) as app:
        await app.until(lambda: app.home.session.unfinished)
        await app.press("ctrl+q")
        await app.until(lambda: isinstance(app.app.screen, LeavingScreen))
        await app.pilot.press("ctrl+q")
        await app.until(lambda: app.app.return_code is not None)
        assert app.app.return_code == 0
