"""Sessions seen from the command line: a stand-in that speaks the protocol, listed, attached to and stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run

ID = "0123456789ab"


@pytest.fixture
def session(run: Run) -> Iterator[int]:
    """The process id of a running stand-in. `run` comes first: it chooses the folder where sessions are found."""
    command = [sys.executable, "-m", "tests.cli.stand_in_session", ID]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process.pid
        process.kill()


def test_none_is_said_on_stderr_and_an_empty_list_in_json(run: Run) -> None:
    outcome = run("sessions", "list")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "No session is running. `dm-inspect` starts one.\n")
    assert run("sessions", "list", "--json").out == '{"sessions": []}\n'


def test_a_session_is_listed(run: Run, session: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.cli.sessions.resident_bytes", lambda pid: 1_440_000_000)
    pid = str(session)
    assert run("sessions", "list").out == (
        f"session       {'pid'.ljust(len(pid))}  model  hook                      device  memory  state  age\n"
        f"────────────  {'─' * len(pid)}  ─────  ────────────────────────  ──────  ──────  ─────  ──────────\n"
        f"{ID}  {pid}  toy    blocks.3.hook_resid_post  cpu     1.4 GB  ready  1 min 05 s\n"
    )
    (row,) = json.loads(run("sessions", "list", "--json").out)["sessions"]
    assert (row["memory_bytes"], row["device_bytes"]) == (1_440_000_000, None)
    assert {key: row[key] for key in ("id", "pid", "model", "device", "state")} == {
        "id": ID,
        "pid": session,
        "model": "toy",
        "device": "cpu",
        "state": "ready",
    }


@pytest.mark.usefixtures("session")
def test_a_session_is_stopped(run: Run) -> None:
    outcome = run("sessions", "stop")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"stopped {ID} (toy)\n")
    assert run("sessions", "stop", "--all").err == "No session is running.\n"


@pytest.mark.usefixtures("session", "terminal")
def test_attaching_opens_the_app_on_that_session(run: Run) -> None:
    (request,) = run("sessions", "attach", "--theme", "light").opened
    assert (request.session_id, request.theme, request.target.model) == (ID, "light", "toy")


@pytest.mark.usefixtures("session")
def test_attaching_without_a_terminal_is_an_error(run: Run) -> None:
    outcome = run("sessions", "attach", ID)
    assert (outcome.code, outcome.out, outcome.opened) == (2, "", ())
    assert outcome.err == (
        "error: There is no terminal to open the app in. Use `dm-inspect run` or `dm-inspect tokens` instead.\n"
    )


@pytest.mark.usefixtures("session")
def test_an_unknown_session_is_an_error_with_the_nearest(run: Run) -> None:
    outcome = run("sessions", "stop", "0123456789ac")
    assert (outcome.code, outcome.err) == (2, f"error: There is no session '0123456789ac'. Nearest: {ID}.\n")


@pytest.mark.usefixtures("session")
def test_all_and_an_id_contradict_each_other(run: Run) -> None:
    outcome = run("sessions", "stop", "--all", ID)
    assert (outcome.code, outcome.err) == (2, f"error: --all and {ID} were both given. Leave one out.\n")
