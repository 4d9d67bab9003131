"""The Experiments screen and its form from the keyboard, against an invented session."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events

from inspector.experiments import ids
from inspector.session.protocol import CancelJob, Failed, GetCosts, StartJob
from inspector.tui.screens.experiments import ExperimentsScreen
from inspector.tui.screens.jobs import JobsScreen
from inspector.tui.screens.parameters import ParametersScreen
from inspector.tui.screens.questions import TwinScreen
from inspector.tui.widgets.entry import Form
from tests.fake_jobs import FakeJobs
from tests.fake_session import FakeSession
from tests.tui.driving import Driven, driven


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(ExperimentsScreen, "remembered", {})
    return tmp_path


def session(**options: object) -> FakeSession:
    jobs = options.pop("jobs", None) or FakeJobs(hold=True)
    return FakeSession(
        hostile_share=0.0,
        epochs=1,
        target=("--widths", "256"),
        jobs=jobs,
        **options,  # type: ignore[arg-type]
    )


async def opened(app: Driven) -> ExperimentsScreen:
    await app.press("e")
    await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen))
    screen = app.app.screen
    assert isinstance(screen, ExperimentsScreen)
    await app.until(lambda: screen._estimates is not None or not screen._loading)
    await app.settle()
    return screen


def started(app: Driven) -> list[StartJob]:
    return [message for message in app.asked(StartJob) if isinstance(message, StartJob)]


async def test_it_lists_all_experiments_with_their_cost_and_what_would_contradict_the_claim() -> None:
    async with driven(session()) as app:
        screen = await opened(app)
        await app.until(lambda: screen._estimates is not None)
        await app.settle()
        lines = app.screen_text()
        assert lines[0].startswith(f" dm-inspect  experiments   {len(ids())}")
        assert lines[0].rstrip().endswith("demo · layer 3 · resid_post · cpu")
        assert lines[1].startswith("    paper      experiment                             cost here ")
        assert lines[2].startswith("▸   Sec. 4.1   Norm prediction                             24 s ")
        assert any("would contradict the paper's claim" in line for line in lines)
        assert any(line.startswith(" $ dm-inspect run norm-prediction --widths 256") for line in lines)
        everything = [each.id for each in screen.experiments]
        await app.until(lambda: len(app.asked(GetCosts)) == 2)
        assert [message.experiments for message in app.asked(GetCosts)] == [  # type: ignore[attr-defined]
            everything, ["norm-prediction"],
        ]  # fmt: skip
        await app.until(
            lambda: any("about 54 s, 30 s of it for passes over the tokens" in line for line in app.screen_text())
        )


async def test_several_marked_ones_run_as_one_job() -> None:
    async with driven(session()) as app:
        await opened(app)
        await app.press("space", "space")
        await app.until(
            lambda: any("2 together" in line and "passes that they share" in line for line in app.screen_text())
        )
        await app.press("s")
        await app.until(lambda: started(app))
        await app.settle()
        assert [message.experiments for message in started(app)] == [["norm-prediction", "error-vector"]]
        app.client.session.jobs.advance(4)
        await app.settle()
        queue = next(line for line in app.screen_text() if "norm-prediction, error-vector" in line)
        assert queue.startswith(" ▶ running     norm-prediction, error-vector")
        assert "30%" in queue
        await app.press("x")
        await app.until(lambda: app.asked(CancelJob))
        await app.until(lambda: not app.home.session.unfinished)


async def test_the_form_shows_the_command_live_and_starts_what_it_shows() -> None:
    async with driven(session()) as app:
        await opened(app)
        await app.press("enter")
        await app.until(lambda: isinstance(app.app.screen, ParametersScreen))
        await app.settle()
        await app.press("right", "right", "down", "5", "0", "enter", "down", "right", "down", "right")
        lines = app.screen_text()
        assert any(
            line.rstrip().endswith(
                "$ dm-inspect run norm-prediction --widths 256 -p intercept=off -p resamples=50 "
                "--profile paper-text --null shuffle"
            )
            for line in lines
        ), lines
        await app.press("s")
        await app.until(lambda: started(app))
        (message,) = started(app)
        assert message.params == {"intercept": "off", "resamples": "50"}
        assert (message.profile, message.null) == ("paper-text", "shuffle")
        await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen))
        await app.press("enter")
        await app.until(lambda: isinstance(app.app.screen, ParametersScreen))
        await app.settle()
        assert app.app.screen.query_one(Form).values["resamples"] == "50", "the values come back"


async def test_a_job_is_started_on_a_cluster_from_its_form() -> None:
    async with driven(session()) as app:
        await opened(app)
        form = await form_of(app)
        while form.field is None or form.field.key != "ray":
            await app.press("down")
        assert any("The Ray cluster whose workers share the work" in line for line in app.screen_text())
        await app.press("enter", "h", "e", "r", "e", "enter", "s")
        assert any("--ray here is no cluster. Write local, local:N, auto" in line for line in app.screen_text())
        assert started(app) == []
        await app.press("enter", *"local", "colon", "2", "enter")
        assert any(line.rstrip().endswith("--widths 256 --ray local:2") for line in app.screen_text())
        await app.press("s")
        await app.until(lambda: started(app))
        assert [(message.ray, message.params) for message in started(app)] == [("local:2", {})]


async def test_a_bad_value_is_told_at_once_and_never_sent() -> None:
    async with driven(session()) as app:
        await opened(app)
        await app.press("enter")
        await app.until(lambda: isinstance(app.app.screen, ParametersScreen))
        await app.press("down", "enter", "x", "enter")
        assert any("'resamples=x' is not a number." in line for line in app.screen_text())
        await app.press("s")
        assert isinstance(app.app.screen, ParametersScreen)
        assert started(app) == []
        await app.press("escape")
        assert isinstance(app.app.screen, ExperimentsScreen)


async def test_letters_are_text_while_a_field_is_edited_and_escape_gives_the_old_value_back() -> None:
    async with driven(session()) as app:
        await opened(app)
        await app.press("enter")
        await app.until(lambda: isinstance(app.app.screen, ParametersScreen))
        form = app.app.screen.query_one(Form)
        await app.press("down", "enter", "s", "q", "y")
        assert form.editing == "sqy", "what is typed takes the place of what was there"
        assert isinstance(app.app.screen, ParametersScreen)
        await app.press("escape")
        assert (form.editing, form.values) == (None, {})
        await app.press("escape")
        assert isinstance(app.app.screen, ExperimentsScreen)


async def form_of(app: Driven) -> Form:
    await app.press("enter")
    await app.until(lambda: isinstance(app.app.screen, ParametersScreen))
    await app.settle()
    return app.app.screen.query_one(Form)


async def test_no_key_typed_fast_is_lost() -> None:
    async with driven(session()) as app:
        await opened(app)
        form = await form_of(app)
        # All at once, as a paste or a slow line brings them: each is waiting before the one before it is done.
        for key in ("down", "enter", "5", "0", "0", "enter", "down", "right", "down", "right", "end"):
            app.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await app.settle()
        assert form.values == {"resamples": "500", "profile": "paper-text", "null": "shuffle"}
        assert form.field is None


async def test_a_number_outside_its_bounds_is_refused_with_the_range() -> None:
    async with driven(session()) as app:
        await opened(app)
        form = await form_of(app)
        await app.press("down", "enter", *"1000333", "enter")
        assert form.values == {"resamples": "1000333"}
        row = next(line for line in form.lines if any(text.startswith("1000333") for text, _ in line))
        assert ("1000333", "error") in row
        assert any(text.startswith("0 to 10,000, default 1000") for text, _ in row)
        await app.press("s")
        assert isinstance(app.app.screen, ParametersScreen)
        assert started(app) == []
        assert any("Write a number from 0 to 10,000" in line for line in app.screen_text())


async def test_values_are_of_their_experiment_and_do_not_carry_over() -> None:
    async with driven(session()) as app:
        await opened(app)
        await form_of(app)
        await app.press("down", "5", "enter", "escape", "down")
        form = await form_of(app)
        assert form.values == {}, "of the next experiment nothing was asked"
        await app.press("escape", "up")
        form = await form_of(app)
        assert form.values == {"resamples": "5"}


async def test_marks_are_cleared_when_the_form_has_started_what_was_marked() -> None:
    async with driven(session()) as app:
        screen = await opened(app)
        await app.press("space", "space")
        assert len(screen.marks) == 2
        await form_of(app)
        await app.press("s")
        await app.until(lambda: started(app) and app.app.screen is screen)
        await app.settle()
        assert screen.marks == []


async def test_a_second_job_of_the_same_command_is_asked_about() -> None:
    async with driven(session()) as app:
        await opened(app)
        await app.press("s")
        await app.until(lambda: started(app) and app.home.session.jobs)
        await app.press("s")
        await app.until(lambda: isinstance(app.app.screen, TwinScreen))
        assert any("norm-prediction is waiting to run, with these very parameters" in line
                   for line in app.screen_text())  # fmt: skip
        await app.press("escape")
        assert len(started(app)) == 1
        await form_of(app)
        await app.press("down", "5", "enter", "s")
        await app.until(lambda: len(started(app)) == 2)
        assert started(app)[1].params == {"resamples": "5"}, "another parameter is another job"
        await app.press("s")
        await app.until(lambda: isinstance(app.app.screen, TwinScreen))
        await app.press("enter")
        await app.until(lambda: len(started(app)) == 3)
        await app.press("J")
        await app.until(lambda: isinstance(app.app.screen, JobsScreen))
        await app.settle()
        assert any("norm-prediction (resamples=5)" in line for line in app.screen_text()), "Jobs says what was changed"


async def test_what_cannot_run_here_says_why_and_is_not_among_all() -> None:
    cannot = {"norm-prediction": "The text has no such tokens."}
    async with driven(session(jobs=FakeJobs(hold=True, cannot=cannot))) as app:
        screen = await opened(app)
        await app.until(lambda: screen._estimates is not None)
        await app.settle()
        lines = app.screen_text()
        assert "cannot" in lines[2]
        assert any("The text has no such tokens." in line for line in lines)
        await app.press("a")
        assert set(screen.marks) == set(ids()) - {"norm-prediction"}
        await app.press("a")
        assert screen.marks == []


async def test_a_session_that_cannot_estimate_says_why_and_costs_nothing_but_the_costs() -> None:
    failure = Failed(exit_code=2, message="A session does not answer GetCosts.")
    async with driven(session(failures={GetCosts: failure}), notifications=True) as app:
        await opened(app)
        lines = app.screen_text()
        assert any("does not answer GetCosts" in line for line in lines)
        assert lines[2].startswith("▸   Sec. 4.1   Norm prediction                                -")
        await app.press("s")
        await app.until(lambda: started(app))


async def test_a_refused_job_is_said_aloud() -> None:
    failure = Failed(exit_code=5, message="The table of jobs cannot be written. Free some disk.")
    async with driven(session(failures={StartJob: failure}), notifications=True) as app:
        await opened(app)
        await app.press("s")
        await app.until(lambda: any("cannot be written" in line for line in app.screen_text()))


async def test_while_the_session_loads_the_list_is_there_and_the_costs_come_later() -> None:
    fake = session(load_seconds=1.5)
    async with driven(fake, wait=False) as app:
        await app.press("e")
        await app.until(lambda: isinstance(app.app.screen, ExperimentsScreen) and app.app.screen.experiments)
        screen = app.app.screen
        assert isinstance(screen, ExperimentsScreen)
        assert any("Norm prediction" in line for line in app.screen_text())
        await app.until(lambda: screen._estimates is not None)
        await app.until(lambda: "demo · layer 3" in app.screen_text()[0])


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (200, 60)])
async def test_every_window_size_shows_the_list_the_command_and_the_keys(size: tuple[int, int]) -> None:
    async with driven(session(), size=size) as app:
        await opened(app)
        lines = app.screen_text()
        assert all(len(line) <= size[0] for line in lines)
        assert any("Norm prediction" in line for line in lines)
        assert any("$ dm-inspect run" in line for line in lines)
        assert "Space mark" in lines[-1]
        await app.press("J")
        await app.until(lambda: isinstance(app.app.screen, JobsScreen))
        await app.settle()
        assert any("no job yet" in line for line in app.screen_text())
        await app.press("escape")
        await app.until(lambda: app.app.screen is app.home)
