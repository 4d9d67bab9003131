"""A judge behind a chat endpoint: what is asked again, what is not, and that the key goes nowhere."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import socket
import traceback
from collections.abc import Iterator

import pytest

from inspector.errors import ExitCode, UsageError
from inspector.interp import prompts
from inspector.interp.chat import (
    KEY_VARIABLE,
    MALFORMED_TRIES,
    STARTING_TRIES,
    ChatJudge,
    Key,
    Patience,
    _why_not_connected,
    completions_url,
    is_this_machine,
    key_from_environment,
)
from inspector.interp.judge import JudgeUnreachable, Reply
from tests.judge_server import JudgeServer, always_yes, judge_server

KEY = "canary-7f3a91c2e5"
QUESTION = prompts.decide("detection", "dark matter", ["one", "two\n3. three", '"four"', "⟪five⟫"])


class Pauses:
    """Stands in for sleep: nobody waits, and every pause is written down."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server(always_yes()) as running:
        yield running


def ask(server_url: str, pauses: Pauses, *, key: str | None = KEY, tries: int = 7, seconds: float = 30.0) -> Reply:
    """One question through a judge of its own."""
    now = 1_000_000.0

    async def sleep(delay: float) -> None:
        nonlocal now
        now += delay
        await pauses(delay)

    patience = Patience(tries=tries, sleep=sleep, jitter=lambda: 1.0, answer_seconds=seconds)

    async def once() -> Reply:
        secret = None if key is None else Key(key)
        judge = ChatJudge(server_url, "judge-1", secret, patience=patience, clock=lambda: now)
        try:
            return await judge.ask(QUESTION)
        finally:
            await judge.close()

    return asyncio.run(once())


def test_a_question_is_asked_as_the_interface_wants_it(server: JudgeServer, pauses: Pauses) -> None:
    assert ask(server.url, pauses) == Reply(text="[1, 1, 1, 1]", tries=1)
    (body,) = server.asked
    assert set(body) == {"model", "messages", "temperature", "max_tokens", "stream"}
    assert (body["model"], body["temperature"], body["stream"]) == ("judge-1", 0, False)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert server.keys == [f"Bearer {KEY}"]
    assert pauses.seconds == []


def test_without_a_key_nothing_is_said_of_one(server: JudgeServer, pauses: Pauses) -> None:
    ask(server.url, pauses, key=None)
    assert server.keys == [None]


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "cut", "cut headers"])
def test_what_may_pass_is_asked_again(server: JudgeServer, pauses: Pauses, fault: str) -> None:
    server.faults = [fault, fault]
    assert ask(server.url, pauses) == Reply(text="[1, 1, 1, 1]", tries=3)
    assert server.tried == 3 and len(server.asked) == 1


def test_a_server_that_says_nothing_is_asked_again(server: JudgeServer, pauses: Pauses) -> None:
    server.faults = ["slow"]
    assert ask(server.url, pauses, seconds=1.0).tries == 2


def test_pauses_double_up_to_a_limit(server: JudgeServer, pauses: Pauses) -> None:
    server.always = "503"
    with pytest.raises(JudgeUnreachable, match=r"did not answer in 9 tries: status 503"):
        ask(server.url, pauses, tries=9)
    assert pauses.seconds == [1, 2, 4, 8, 16, 32, 60, 60]
    assert server.tried == 9


def test_jitter_is_a_share_of_the_pause() -> None:
    patience = Patience(jitter=lambda: 0.25)
    assert [patience.pause(tries) for tries in (1, 2, 3)] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0.5", 0.5), ("100000", 300.0)])
def test_retry_after_is_honoured_up_to_a_limit(server: JudgeServer, pauses: Pauses, value: str, seconds: float) -> None:
    server.faults, server.retry_after = ["429"], value
    assert ask(server.url, pauses).tries == 2
    assert pauses.seconds == [seconds]


def test_retry_after_may_be_a_date(server: JudgeServer, pauses: Pauses) -> None:
    server.faults, server.retry_after = ["429 date"], email.utils.formatdate(1_000_020.0, usegmt=True)
    assert ask(server.url, pauses).tries == 2
    assert pauses.seconds == [20.0]


@pytest.mark.parametrize("value", ["soon", "-5", "nan", ""])
def test_a_retry_after_without_sense_is_an_ordinary_pause_or_none(
    server: JudgeServer, pauses: Pauses, value: str
) -> None:
    server.faults, server.retry_after = ["429"], value
    assert ask(server.url, pauses).tries == 2
    assert pauses.seconds in ([1.0], [])


@pytest.mark.parametrize("fault", ["not json", "no choices", "no text", "huge", "compressed"])
def test_a_response_that_is_none_is_asked_for_again_and_then_counted(
    server: JudgeServer, pauses: Pauses, fault: str
) -> None:
    server.faults = [fault]
    assert ask(server.url, pauses).text == "[1, 1, 1, 1]"
    server.always = fault
    reply = ask(server.url, pauses)
    assert (reply.text, reply.tries) == (None, MALFORMED_TRIES) and reply.problem


@pytest.mark.parametrize("fault", ["401", "404", "redirect"])
def test_a_refusal_ends_it_at_once(server: JudgeServer, pauses: Pauses, fault: str) -> None:
    server.always = fault
    with pytest.raises(JudgeUnreachable, match=r"refuses with status \d+") as caught:
        ask(server.url, pauses)
    assert server.tried == 1
    assert caught.value.exit_code == ExitCode.TARGET


def test_a_server_that_wants_the_newer_name_of_the_limit_gets_it(server: JudgeServer, pauses: Pauses) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.faults, server.refusal = ["400"], {"error": {"message": said}}
    assert ask(server.url, pauses) == Reply(text="[1, 1, 1, 1]", tries=2)
    (body,) = server.asked
    assert body["max_completion_tokens"] == QUESTION.max_tokens and "max_tokens" not in body
    server.always = "400"
    server.refusal = {"error": {"message": "max_completion_tokens is too large"}}
    with pytest.raises(JudgeUnreachable, match="status 400"):
        ask(server.url, pauses)


def test_nobody_there_is_said_after_a_few_tries(pauses: Pauses) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(JudgeUnreachable, match=rf"in {STARTING_TRIES} tries: nothing is connected there"):
            ask(url, pauses)
    assert len(pauses.seconds) == STARTING_TRIES - 1


def test_what_a_server_says_is_repeated_without_control_characters(server: JudgeServer, pauses: Pauses) -> None:
    server.always, server.refusal = "404", {"error": {"message": "no model\x1b[31m\n 'judge-1'" + "x" * 999}}
    with pytest.raises(JudgeUnreachable) as caught:
        ask(server.url, pauses)
    assert "(no model [31m 'judge-1'xxx" in str(caught.value)
    assert len(str(caught.value)) < 500 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("said", [f"Incorrect API key provided: {KEY}.", f"bad key {KEY[:8]}***{KEY[-2:]}"])
def test_what_repeats_the_key_is_not_repeated(server: JudgeServer, pauses: Pauses, said: str) -> None:
    server.always, server.refusal = "401", {"error": {"message": said}}
    with pytest.raises(JudgeUnreachable, match="left out, because it repeats a part of the key") as caught:
        ask(server.url, pauses)
    assert KEY[:6] not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "fault", ["401", "404", "500", "cut", "not json", "huge", "compressed", "no text", "redirect", "cut headers"]
)
def test_no_failure_shows_the_key(
    server: JudgeServer, pauses: Pauses, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.always, server.refusal = fault, {"error": {"message": f"your {KEY} is wrong"}}
    said = ""
    try:
        said = repr(ask(server.url, pauses))
    except JudgeUnreachable as error:
        said = "".join(traceback.format_exception(error))
    assert KEY not in said + caplog.text
    assert KEY not in repr(Key(KEY)) + str(Key(KEY)) + str([Key(KEY)])


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert key_from_environment() is None
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    key = key_from_environment()
    assert key is not None and key.header == f"Bearer {KEY}"
    for wrong in (f"{KEY}\nX: y", f"{KEY} 2", f"{KEY}ü"):
        monkeypatch.setenv(KEY_VARIABLE, wrong)
        with pytest.raises(UsageError) as caught:
            key_from_environment()
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("https://host/api/v3/", "https://host/api/v3/chat/completions"),
        ("http://[::1]:11434/v1/chat/completions", "http://[::1]:11434/v1/chat/completions"),
    ],
)
def test_an_address_may_be_short(typed: str, asked: str) -> None:
    assert completions_url(typed) == asked


@pytest.mark.parametrize("typed", ["", "localhost:8000", "ftp://host", "http://", "http://a b", "http://h:99999", "x"])
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        completions_url(typed)


@pytest.mark.parametrize("typed", [f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}", f"http://host/#{KEY}"])
def test_secrets_in_an_address_are_refused_and_not_repeated(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        completions_url(typed)
    assert KEY not in str(caught.value)


def test_a_proxy_is_used_for_other_machines_only() -> None:
    assert all(map(is_this_machine, ("http://127.0.0.1:1", "http://[::1]", "http://localhost")))
    assert not is_this_machine("http://a.b") and not is_this_machine("http://10.0.0.1")


def test_no_more_questions_at_once_than_asked_for(server: JudgeServer, pauses: Pauses) -> None:
    async def many() -> list[Reply]:
        judge = ChatJudge(server.url, "judge-1", parallel=2)
        try:
            return await asyncio.gather(*(judge.ask(QUESTION) for _ in range(12)))
        finally:
            await judge.close()

    assert len(asyncio.run(many())) == 12
    assert server.most_at_once <= 2


def test_why_nobody_is_reached_is_told_apart(pauses: Pauses, server: JudgeServer) -> None:
    with pytest.raises(JudgeUnreachable, match="encryption cannot be agreed on"):
        ask(server.url.replace("http:", "https:"), pauses)
    assert _why_not_connected("[Errno -2] Name or service not known") == "its name is not known"
    assert "not trusted" in _why_not_connected("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert _why_not_connected("All connection attempts failed") == "nothing is connected there"


@pytest.mark.parametrize("echoed", [f"1. yes (Bearer {KEY})", KEY.upper(), f"...{KEY[:12]}...", f"{KEY[-12:]}: yes"])
def test_an_answer_that_repeats_the_key_is_no_answer(pauses: Pauses, echoed: str) -> None:
    with judge_server(lambda messages: echoed) as server:
        reply = ask(server.url, pauses)
    assert reply == Reply(text=None, problem="an answer that repeats the key", tries=MALFORMED_TRIES)


def test_a_placeholder_for_a_key_may_stand_in_an_answer(pauses: Pauses) -> None:
    with judge_server(lambda messages: "yes, EMPTY") as server:
        assert ask(server.url, pauses, key="EMPTY").text == "yes, EMPTY"
