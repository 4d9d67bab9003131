"""The stand-in session keeps to the protocol, so that what is built against it meets no surprise in the real one."""

import asyncio
import sys
from pathlib import Path

import pytest

from inspector.session import frames
from inspector.session.client import SOCKET_VARIABLE, SessionClient
from inspector.session.frames import unpack
from inspector.session.protocol import (
    AnalysePrompt,
    ContextScores,
    Failed,
    Find,
    Generate,
    Generated,
    GetAnatomy,
    GetContext,
    GetCosts,
    GetDetail,
    GetJobLog,
    GetJobs,
    GetLatent,
    GetPairs,
    GetSimilar,
    JobTold,
    Move,
    Ready,
    SessionMessage,
    SetPolicy,
    StartJob,
    Stop,
    ViewMessage,
)
from inspector.spec import TargetSpec
from tests.fake_session import FakeClient, FakeSession


async def everything(client: FakeClient | SessionClient) -> list[SessionMessage]:
    """Ask one of each as soon as it is ready; all messages until the last has been answered."""
    heard: list[SessionMessage] = []
    open_requests: set[int] = set()
    async with asyncio.timeout(120):
        async for message in client.messages():
            heard.append(message)
            if isinstance(message, Ready):
                sae_id = message.saes[0].sae_id
                questions: list[ViewMessage] = [
                    GetContext(context=1),
                    GetDetail(source="context", context=1, position=40, sae_id=sae_id),
                    Find(text="dark matter"),
                    GetPairs(sae_ids=[sae.sae_id for sae in message.saes[:3]]),
                    AnalysePrompt(text="def self return"),
                    Generate(prompt_ids=[1], max_tokens=20),
                    SetPolicy(policy="included"),
                    GetLatent(sae_id=sae_id, index=3),
                    GetAnatomy(source="context", context=1, position=40, sae_id=sae_id),
                    GetSimilar(source="context", context=1, position=40, sae_id=sae_id),
                    GetCosts(experiments=["norm-prediction"]),
                    StartJob(experiments=["norm-prediction"]),
                    GetJobs(),
                    Move(target=TargetSpec()),
                    GetContext(context=message.n_contexts),
                ]
                open_requests = {await client.send(question) for question in questions}
            if isinstance(message, JobTold) and message.request:
                open_requests.add(await client.send(GetJobLog(job=message.job.id)))
            if not (isinstance(message, Generated) and not message.finished):
                open_requests.discard(message.request)
            if not open_requests and any(isinstance(m, Failed) for m in heard):
                return heard
    raise AssertionError(heard[-3:])


async def test_every_message_is_one_a_session_could_send_and_the_same_each_time() -> None:
    heard = await everything(FakeClient(FakeSession(epochs=2)))
    for message in heard:
        assert frames.decode_session(frames.encode(message)[4:]) == message
    # All that a session can tell is told.
    assert {type(message) for message in heard} == set(SessionMessage.__args__)  # type: ignore[attr-defined]
    again = await everything(FakeClient(FakeSession(epochs=2)))
    assert [m for m in again if isinstance(m, ContextScores)] == [m for m in heard if isinstance(m, ContextScores)]


async def test_parts_of_the_error_are_at_right_angles_as_the_real_ones_are_on_average() -> None:
    (scores, *_) = [m for m in await everything(FakeClient()) if isinstance(m, ContextScores) and m.epoch]
    for sae in scores.saes:
        columns = (unpack(sae.sae_error_norm), unpack(sae.linear_error_norm), unpack(sae.nonlinear_error_norm))
        for total, linear, nonlinear in zip(*columns, strict=True):
            assert total**2 == pytest.approx(linear**2 + nonlinear**2, rel=1e-5)


async def test_over_a_socket_it_is_attached_to_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fake_session",
        "--socket",
        str(tmp_path / "s"),
        "--epochs",
        "2",
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"listening")
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / "s"))
    client = await SessionClient.open(TargetSpec())
    heard = await everything(client)
    assert {type(message) for message in heard} == set(SessionMessage.__args__)  # type: ignore[attr-defined]
    await client.send(Stop())
    async for _ in client.messages():
        pass
    assert client.lost is not None
    assert await process.wait() == 0
    process._transport.close()  # type: ignore[attr-defined]  # or its pipe is found open when it is collected
