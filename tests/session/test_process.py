"""Real session processes: started, found, shared, outliving signals, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inspector.disk import locks
from inspector.errors import UsageError
from inspector.session import discovery, process
from inspector.session.client import SOCKET_VARIABLE, SessionClient
from inspector.session.protocol import (
    ContextScores,
    Failed,
    GetContext,
    LoadProgress,
    MapImproved,
    Ready,
    SessionMessage,
    Welcome,
)
from inspector.spec import TargetSpec

SECONDS = 120.0
"""For a session to load on a busy machine: imports alone take ten when nothing else runs."""


@pytest.fixture
def private(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sessions of this test alone, logs included."""
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(short_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(short_path / "state"))
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    return short_path


async def until(client: SessionClient, condition: Callable[[SessionMessage], bool]) -> list[SessionMessage]:
    """Messages up to the first that fulfils the condition."""
    heard: list[SessionMessage] = []
    async with asyncio.timeout(SECONDS):
        async for message in client.messages():
            heard.append(message)
            if condition(message):
                return heard
    raise AssertionError(f"{client.lost}: {heard[-2:]}")


async def ended(pid: int) -> None:
    async with asyncio.timeout(SECONDS):
        while locks.is_running(pid):
            await asyncio.sleep(0.02)


async def test_the_life_of_a_session(private: Path, toy_target: TargetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    # Started by name from another folder, as a user would: the session must not depend on where it began.
    monkeypatch.chdir(Path(toy_target.model).parent)
    target = replace(toy_target, model="model", suite="suite", text="text.txt")
    first = await SessionClient.open(target)
    (welcome,) = await until(first, lambda message: isinstance(message, Welcome))  # before anything is loaded
    pid = first.welcome.pid
    assert pid != os.getpid()

    # It is one: whoever names the same files finds it, and its place is private.
    second = await SessionClient.open(toy_target)
    assert second.welcome.pid == pid
    key = discovery.session_key(toy_target)
    assert stat.S_IMODE(discovery.socket_path(key).stat().st_mode) == 0o600
    (record,) = await asyncio.to_thread(discovery.list_sessions)
    assert (record.id, record.pid) == (key, pid)
    assert record.state in ("loading", "fitting", "ready")  # however long this process had to wait for a core
    assert record.target == toy_target

    # Another beside it, ended while it loads.
    beside = await SessionClient.open(toy_target, new_session=True)
    assert beside.welcome.pid not in (pid, os.getpid())
    assert len(await asyncio.to_thread(discovery.list_sessions)) == 2
    os.kill(beside.welcome.pid, signal.SIGTERM)
    async for _ in beside.messages():
        pass
    assert beside.lost == "The session ended."
    await ended(beside.welcome.pid)

    # It is in no terminal, deaf to what a lost one sends, and unharmed by a hostile client and a view that dies.
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGINT)
    hostile = discovery.connect(discovery.socket_path(key))
    assert hostile is not None
    with hostile, contextlib.suppress(OSError):
        hostile.sendall(b"\xff" * 64)
        hostile.shutdown(socket.SHUT_WR)
    await second.close()
    await first.send(GetContext(context=2))
    heard = await until(first, lambda message: isinstance(message, ContextScores))
    assert any(isinstance(message, LoadProgress) and message.what == "model" for message in heard)
    assert any(isinstance(message, Ready) for message in heard)

    # Reattached, it knows where it was; another process may stop it.
    third = await SessionClient.attach()
    told = await until(third, lambda message: isinstance(message, MapImproved))
    assert [type(message) for message in told] == [Welcome, Ready, MapImproved] or isinstance(told[-1], MapImproved)
    (record,) = await asyncio.to_thread(discovery.list_sessions)
    assert record.hook == "blocks.1.hook_resid_post"
    stopped = await asyncio.to_thread(discovery.stop_session, key)
    assert stopped.pid == pid
    assert not locks.is_running(pid)
    async for _ in third.messages():
        pass
    assert third.lost == "The session ended."
    await first.close()
    assert await asyncio.to_thread(discovery.list_sessions) == []
    assert [path.name for path in discovery.runtime_dir().iterdir()] == ["lock"]
    assert "ended with 0" in Path(welcome.log_path).read_text()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="none is running"):
        await SessionClient.attach(key)


async def test_a_target_that_cannot_be_loaded_is_explained_and_can_be_tried_again(
    private: Path, toy_target: TargetSpec
) -> None:
    wrong = replace(toy_target, layers=(7,))
    for _ in range(2):
        client = await SessionClient.open(wrong)
        heard = await until(client, lambda message: isinstance(message, Failed))
        assert isinstance(heard[-1], Failed)
        assert (heard[-1].request, heard[-1].exit_code) == (0, 3)
        # The failed one must not be found again, although it may not have ended yet.
        assert await asyncio.to_thread(discovery.list_sessions) == []
        async for _message in client.messages():
            pass
        assert client.lost == "The session ended."
        await ended(client.welcome.pid)


async def test_a_stale_socket_is_in_nobodys_way(private: Path, toy_target: TargetSpec) -> None:
    wrong = replace(toy_target, layers=(7,))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(discovery.socket_path(discovery.session_key(wrong))))
    client = await SessionClient.open(wrong)
    await until(client, lambda message: isinstance(message, Failed))
    await client.close()
    await ended(client.welcome.pid)


def test_the_starting_process_explains_what_it_cannot_do(private: Path) -> None:
    def start(stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "inspector.session.process"]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, check=False)

    done = start(b"{]")
    assert done.returncode == 2
    assert done.stderr.startswith(b"stdin does not describe a session: ")
    (private / "run").write_text("a file where the folder should be")
    done = start(b'{"session_id": "x", "target": {}}')
    assert done.returncode != 0
    assert b"DM_INSPECT_RUNTIME_DIR" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("said", "seconds"), [(None, 600.0), ("2", 120.0), ("0.5", 30.0), ("0", float("inf")), ("soon", 600.0)]
)
def test_idle_minutes_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, said: str | None, seconds: float
) -> None:
    if said is None:
        monkeypatch.delenv(process.IDLE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(process.IDLE_VARIABLE, said)
    assert process.idle_seconds() == seconds


def test_the_view_side_imports_no_torch_and_no_numpy() -> None:
    code = (
        "import sys; import inspector.session.client, inspector.session.discovery, tests.fake_session; "
        "print([m for m in ('torch', 'numpy', 'transformers', 'plotext') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SECONDS, check=True, cwd=root)
    assert done.stdout.strip() == b"[]"
