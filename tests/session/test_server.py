"""The views' thread: who may talk, who is dropped, who hears what. No engine: the views's other side is this test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inspector.errors import InspectorError
from inspector.session import discovery, frames, server
from inspector.session.client import SessionClient
from inspector.session.protocol import (
    AnalysePrompt,
    Cancel,
    Failed,
    Find,
    Found,
    GetContext,
    Hello,
    Hit,
    LoadProgress,
    MapImproved,
    Ready,
    SessionMessage,
    Stop,
    Welcome,
)
from inspector.session.server import Asked, Left, Questions, Server, Views

SECONDS = 120.0
"""For anything to happen, on the busiest machine; nothing here takes one."""
READY = Ready(
    model="m",
    hook_name="blocks.0.hook_resid_post",
    layer=0,
    device="cpu",
    n_contexts=1,
    context_length=8,
    positions=(1, 8),
    saes=[],
    text="t",
)


class Served:
    """A running endpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.views = Views()
        self.stops = 0
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(path))
        self.listening.listen(16)
        self.server = Server(
            self.views, self.listening, session_id="abc", log_path="/log", on_stop=lambda: setattr(self, "stops", 1)
        )
        self.server.start()

    def raw(self) -> socket.socket:
        connection = discovery.connect(self.path)
        assert connection is not None
        return connection

    async def asked(self) -> Asked | Left:
        return await asyncio.to_thread(self.views.inbox.get, timeout=SECONDS)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path / "s")
    yield made
    made.server.stop()


@asynccontextmanager
async def attached(served: Served) -> AsyncIterator[SessionClient]:
    client = await SessionClient.connect(served.path)
    try:
        yield client
    finally:
        await client.close()


async def take(client: SessionClient, n: int) -> list[SessionMessage]:
    taken: list[SessionMessage] = []
    async with asyncio.timeout(SECONDS):
        async for message in client.messages():
            taken.append(message)
            if len(taken) == n:
                break
    return taken


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def gone(connection: socket.socket) -> bool:
    """Whether the other end has closed, after it has said what it had to say."""
    connection.settimeout(SECONDS)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


async def test_welcome_comes_before_anything_is_loaded(served: Served) -> None:
    async with attached(served) as client:
        (welcome,) = await take(client, 1)
        assert isinstance(welcome, Welcome)
        assert (welcome.request, welcome.log_path) == (1, "/log")
        assert client.welcome == welcome
        await until(lambda: served.views.count == 1)  # by the endpoint's thread, a moment after it said welcome


async def test_questions_carry_their_view_and_answers_come_back_to_it_alone(served: Served) -> None:
    async with attached(served) as first, attached(served) as second:
        await until(lambda: served.views.count == 2)
        number = await first.send(GetContext(context=5))
        asked = await served.asked()
        assert asked == Asked(view=1, message=GetContext(request=number, context=5))
        served.views.tell(1, Found(request=number, hits=[Hit(context=1, position=2)]))
        served.views.tell_all(READY)
        assert [type(m) for m in await take(first, 3)] == [Welcome, Found, Ready]
        assert [type(m) for m in await take(second, 2)] == [Welcome, Ready]


async def test_a_view_that_comes_late_is_told_what_the_others_know(served: Served) -> None:
    improved = MapImproved(epoch=1, n_tokens=10, n_tokens_goal=20, n_held_out=5, qualities=[])
    served.views.tell_all(LoadProgress(what="model"))
    async with attached(served) as client:
        assert [type(m) for m in await take(client, 2)] == [Welcome, LoadProgress]
    served.views.tell_all(READY)
    served.views.tell_all(improved)
    async with attached(served) as client:
        assert (await take(client, 3))[1:] == [READY, improved]
    broken = Failed(exit_code=4, message="NaN")
    served.views.tell_all(broken)
    async with attached(served) as client:
        assert (await take(client, 4))[1:] == [READY, improved, broken]


async def test_a_failed_loading_is_told_to_those_who_come_later(served: Served) -> None:
    served.views.tell_all(LoadProgress(what="model"))
    failure = Failed(exit_code=3, message="No model. Give one.")
    served.views.tell_all(failure)
    async with attached(served) as client:
        assert (await take(client, 2))[1:] == [failure]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", server.VIEW_FRAME + 1),
        struct.pack(">I", 3) + b"\x81\xa4t",
        frames.encode(GetContext(request=1, context=0)),  # a fine message, but not the first
        frames.encode(Hello(request=1)) + struct.pack(">I", 4) + b"\xff\xff\xff\xff",
        frames.encode(Hello(request=1)) + b"\x00\x00",
    ],
)
async def test_a_view_that_breaks_the_protocol_is_dropped_and_no_other(served: Served, data: bytes) -> None:
    async with attached(served) as good:
        bad = served.raw()
        with contextlib.suppress(OSError):  # closed before it was all said
            bad.sendall(data)
            bad.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(gone, bad)
        bad.close()
        await until(lambda: served.views.count == 1)
        number = await good.send(Find(text="x"))
        heard = await served.asked()
        if isinstance(heard, Left):  # the bad one got as far as Hello
            heard = await served.asked()
        assert heard == Asked(view=1, message=Find(request=number, text="x"))


async def test_a_thousand_hostile_connections_change_nothing(served: Served) -> None:
    def hostile() -> None:
        for i in range(1000):
            with served.raw() as bad, contextlib.suppress(ConnectionError):
                bad.sendall(struct.pack(">I", 6) + bytes((i * k) % 256 for k in range(6)))

    async with attached(served) as good:
        await asyncio.to_thread(hostile)
        await until(lambda: served.views.count == 1)
        served.views.tell_all(READY)
        assert (await take(good, 2))[1] == READY


@pytest.mark.parametrize("version", [1, 99])
async def test_another_version_is_told_apart_and_what_to_do(served: Served, version: int) -> None:
    with served.raw() as old:
        old.sendall(frames.encode(Hello(request=9, version=version)))
        old.settimeout(SECONDS)
        head = old.recv(4)
        answer = frames.decode_session(old.recv(struct.unpack(">I", head)[0]))
    assert isinstance(answer, Failed)
    assert (answer.request, answer.exit_code) == (9, 1)
    assert f"protocol {version}." in answer.message
    assert "dm-inspect sessions stop abc" in answer.message
    assert served.views.count == 0


async def test_the_client_refuses_a_session_of_another_version(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "__version__", "0.0.1")
    with pytest.raises(InspectorError, match=r"runs dm-inspect 0\.0\.1 .*sessions stop.*--new-session"):
        await SessionClient.connect(served.path)


async def test_the_client_refuses_a_session_of_the_first_protocol(tmp_path: Path) -> None:
    """Of before there were jobs: its Welcome, byte for byte."""
    body = b"\x86\xa4type\xa7Welcome\xa7request\x01\xa7version\x01"
    body += b"\xafprogram_version\xa50.1.0\xa3pid\x07\xa8log_path\xa4/log"

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "s"))
    listening.listen(1)

    def old_session() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(struct.pack(">I", len(body)) + body)
            gone(connection)

    with contextlib.closing(listening):
        serving = asyncio.create_task(asyncio.to_thread(old_session))
        with pytest.raises(InspectorError, match=r"\(pid 7\) runs dm-inspect 0\.1\.0 with protocol 1; .*sessions stop"):
            await SessionClient.connect(tmp_path / "s")
        await serving


async def test_another_users_connection_is_closed_unheard(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "same_user", lambda _: False)
    with served.raw() as other:
        with contextlib.suppress(ConnectionError):  # closed before it could be said
            other.sendall(frames.encode(Hello(request=1)))
        assert await asyncio.to_thread(gone, other)


async def test_a_view_that_leaves_is_forgotten(served: Served) -> None:
    async with attached(served):
        await until(lambda: served.views.count == 1)
        assert served.views.seconds_alone() == 0.0
    assert await served.asked() == Left(view=1)
    assert served.views.count == 0
    time.sleep(0.01)
    assert served.views.seconds_alone() > 0.0


async def test_stop_is_heard_while_the_engine_is_busy(served: Served) -> None:
    async with attached(served) as client:
        await client.send(Stop())
        await until(lambda: served.stops == 1)


async def test_a_view_that_does_not_read_is_dropped_before_it_fills_the_memory(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 1_000_000)
    with served.raw() as asleep:
        asleep.sendall(frames.encode(Hello(request=1)))
        await until(lambda: served.views.count == 1)
        for _ in range(50):
            served.views.tell(1, Failed(exit_code=1, message="x" * 100_000))
        await until(lambda: served.views.count == 0)


async def test_the_client_says_why_messages_ended(served: Served) -> None:
    client = await SessionClient.connect(served.path)
    assert client.lost is None
    served.server.stop()
    assert [type(m) async for m in client.messages()] == [Welcome]
    assert client.lost == "The session ended."
    assert await client.send(GetContext(context=0)) == 2  # nothing raised
    closed = await _closed_by_this_side(served)
    assert closed.lost is None


async def _closed_by_this_side(served: Served) -> SessionClient:
    again = Served(served.path.with_name("t"))
    client = await SessionClient.connect(again.path)
    await client.close()
    assert [m async for m in client.messages()] == []
    await asyncio.to_thread(again.server.stop)
    return client


async def test_what_is_no_session_is_named(tmp_path: Path) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_unix_server(babble, tmp_path / "x")
    with pytest.raises(InspectorError, match="no session of this program"):
        await SessionClient.connect(tmp_path / "x")
    server.close()
    with pytest.raises(OSError, match="No such file"):
        await SessionClient.connect(tmp_path / "nobody")


async def test_a_flood_of_one_view_is_refused_beyond_a_limit_and_delays_no_other(served: Served) -> None:
    with contextlib.closing(served.raw()) as loud:
        loud.sendall(frames.encode(Hello(request=1)))
        await until(lambda: served.views.count == 1)
        async with attached(served) as quiet:
            await until(lambda: served.views.count == 2)
            flood = b"".join(frames.encode(GetContext(request=2 + i, context=0)) for i in range(2_000))
            await asyncio.to_thread(loud.sendall, flood)
            number = await quiet.send(GetContext(context=7))
            heard = [await served.asked() for _ in range(server.MOST_WAITING + 1)]
            mine = [item for item in heard if isinstance(item, Asked) and item.view == 2]
            assert [item.message.request for item in mine] == [number]
        told = await asyncio.to_thread(frames_of, loud, 1 + 2_000 - server.MOST_WAITING)
        assert told[1] == server.too_much(2 + server.MOST_WAITING)
        assert {type(message) for message in told[1:]} == {Failed}


def frames_of(connection: socket.socket, n: int) -> list[SessionMessage]:
    """The next n messages from a session."""
    connection.settimeout(SECONDS)
    told, stream = [], connection.makefile("rb")
    for _ in range(n):
        (length,) = struct.unpack(">I", stream.read(4))
        told.append(frames.decode_session(stream.read(length)))
    return told


async def test_long_questions_of_one_view_are_bounded_by_their_bytes(served: Served) -> None:
    prompt = AnalysePrompt(text="x" * 3_000_000)
    async with attached(served) as client:
        for _ in range(5):
            await client.send(prompt)
        told = (await take(client, 1 + 3))[1:]
        assert all(isinstance(message, Failed) and "8 MB" in message.message for message in told)
        waiting = [await served.asked(), await served.asked()]
        assert served.views.inbox.empty()
        for asked in waiting:
            assert isinstance(asked, Asked)
            served.views.taken_up(asked)
        await client.send(prompt)  # there is room again
        assert isinstance(await served.asked(), Asked)


async def test_a_view_that_asked_too_much_can_still_cancel(served: Served) -> None:
    async with attached(served) as client:
        for _ in range(server.MOST_WAITING + 1):
            await client.send(GetContext(context=0))
        await client.send(Cancel(target=3))
        heard = [await served.asked() for _ in range(server.MOST_WAITING + 1)]
        assert isinstance(heard[-1], Asked)
        assert isinstance(heard[-1].message, Cancel)


def asked(view: int, request: int) -> Asked:
    return Asked(view=view, message=GetContext(request=request, context=0))


def taken(questions: Questions) -> list[tuple[int, int]]:
    return [(item.view, item.message.request) for item in questions.take_all()]


def test_views_take_turns_and_each_keeps_its_own_order() -> None:
    questions = Questions()
    for request in range(100):
        questions.add(asked(1, request))
    questions.add(asked(2, 7))
    questions.add(asked(2, 8))
    questions.add(asked(3, 9))
    assert taken(questions) == [(1, 0), (2, 7), (3, 9), (1, 1), (2, 8), *((1, request) for request in range(2, 100))]
    assert not questions
    with pytest.raises(KeyError):
        questions.take()


def test_who_asked_last_waits_one_turn_however_much_another_asks_meanwhile() -> None:
    questions = Questions()
    questions.add(asked(1, 0))
    questions.add(asked(1, 1))
    assert questions.take().view == 1
    questions.add(asked(2, 0))
    questions.add(asked(1, 2))
    assert [questions.take().view, questions.take().view] == [1, 2]


def test_what_is_withdrawn_is_one_request_or_all_of_a_view() -> None:
    questions = Questions()
    for view, request in ((1, 0), (1, 1), (2, 0), (1, 0)):
        questions.add(asked(view, request))
    assert len(questions.withdraw(1, 0)) == 2
    assert questions.withdraw(1, 5) == questions.withdraw(9) == []
    assert len(questions.withdraw(2)) == 1
    assert taken(questions) == [(1, 1)]


def test_a_view_that_has_gone_leaves_no_count_behind() -> None:
    views = Views()
    view = views.attach(lambda message: None)
    assert views.ask(view, GetContext(request=1, context=0))
    views.detach(view)
    item = views.inbox.get_nowait()
    assert isinstance(item, Asked)
    views.taken_up(item)  # harmless
    assert views._waiting == {}
