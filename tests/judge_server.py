"""A chat server on the loopback interface with scripted judges, and the faults that a real one has.

Speaks POST /v1/chat/completions and nothing else. A judge is a function of the messages, so that what it knows and how
it errs is the test's to say. It never sees who is right: an oracle has to be handed the truth.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from zlib import crc32

from tests.loopback import serving

Messages = list[dict[str, str]]
Script = Callable[[Messages], str]
EXPLANATION = "text in which the unit is active"
FAULTS = (
    "429", "429 date", "500", "502", "503", "cut", "cut headers", "slow", "not json", "no choices", "no text", "huge",
    "compressed", "redirect", "401", "404",
)  # fmt: skip


@dataclass
class JudgeServer:
    """What it answers, what goes wrong, and what it was asked."""

    script: Script
    faults: list[str | None] = field(default_factory=list)
    """For the next requests, one each; None or none left: it is answered."""
    always: str | None = None
    """For every request."""
    retry_after: str = "0"
    refusal: dict[str, Any] = field(default_factory=lambda: {"error": {"message": "no"}})
    """Body of an answer that is an error."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Body of every request that was answered well."""
    tried: int = 0
    """All requests."""
    keys: list[str | None] = field(default_factory=list)
    """Authorization header of every request."""
    on_request: Callable[[int], None] | None = None
    """Called with the number of the request, before it is answered."""
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends the slow answers."""

    def take(self) -> tuple[int, str | None]:
        """Number of a request, and its fault."""
        with self._lock:
            self.tried += 1
            return self.tried, self.always or (self.faults.pop(0) if self.faults else None)


@contextmanager
def judge_server(script: Script, **settings: Any) -> Iterator[JudgeServer]:
    """A running judge; its address is in `url`."""
    judge = JudgeServer(script=script, **settings)
    with serving(_handler(judge)) as address:
        judge.url = f"{address}/v1"
        try:
            yield judge
        finally:
            judge.released.set()


def _handler(judge: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

        def do_POST(self) -> None:
            with judge._lock:
                judge._now += 1
                judge.most_at_once = max(judge.most_at_once, judge._now)
            try:
                self._post()
            finally:
                with judge._lock:
                    judge._now -= 1

        def _post(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            number, fault = judge.take()
            judge.keys.append(self.headers.get("authorization"))
            if judge.on_request is not None:
                judge.on_request(number)
            if self.path != "/v1/chat/completions":
                return self._send(404, b"{}")
            if fault is not None:
                return self._fail(fault)
            with judge._lock:
                judge.asked.append(body)
            text = judge.script(body["messages"])
            whole = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]}
            self._send(200, json.dumps(whole).encode())

        def _fail(self, fault: str) -> None:
            refusal = json.dumps(judge.refusal).encode()
            good = {"choices": [{"message": {"content": "[1, 1, 1, 1]"}}]}
            match fault:
                case "429" | "429 date":
                    self._send(429, refusal, {"Retry-After": judge.retry_after})
                case "500" | "502" | "503" | "401" | "404" | "400":
                    self._send(int(fault), refusal)
                case "redirect":
                    self._send(302, b"", {"Location": "http://192.0.2.1/v1/chat/completions"})
                case "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"choices": [{"message"')
                    self.close_connection = True
                case "cut headers":
                    self.close_connection = True
                    self.connection.close()
                case "slow":
                    judge.released.wait(120)
                    self.close_connection = True
                case "not json":
                    self._send(200, b"<html>welcome</html>")
                case "no choices":
                    self._send(200, b'{"choices": []}')
                case "no text":
                    self._send(200, b'{"choices": [{"message": {"content": null}}]}')
                case "huge":
                    self._send(200, json.dumps(good).encode() + b" " * (2 << 20))
                case "compressed":
                    self._send(200, json.dumps(good).encode(), {"Content-Encoding": "gzip"})
                case _:
                    raise AssertionError(fault)

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):  # who asked has gone
                self.close_connection = True

    return Handler


# ---- judges ------------------------------------------------------------------------------------------------------


def excerpts_in(messages: Messages) -> list[str]:
    """The excerpts of a question, as they were before they were written as JSON strings."""
    lines = messages[-1]["content"].partition("Excerpts:\n")[2].splitlines()
    return [json.loads(re.sub(r"\A\d+\. ", "", line)) for line in lines]


def is_explaining(messages: Messages) -> bool:
    """Whether an explanation is asked for."""
    return not messages[-1]["content"].startswith("Description: ")


def judging(decide: Callable[[str, str], int]) -> Script:
    """A judge that explains with a fixed word and decides each excerpt by (description, excerpt)."""

    def script(messages: Messages) -> str:
        if is_explaining(messages):
            # A number of their own makes explanations differ, so that no two latents ask the same question.
            return json.dumps({"explanation": f"{EXPLANATION} {crc32(str(messages).encode())}"})
        description = json.loads(messages[-1]["content"].partition("Description: ")[2].partition("\n")[0])
        return json.dumps([decide(description, text) for text in excerpts_in(messages)])

    return script


def always_yes() -> Script:
    """Says 1 to everything."""
    return judging(lambda _, __: 1)


def coin(seed: int = 0) -> Script:
    """Says 0 or 1 as it comes, the same for the same excerpt and description."""
    return judging(lambda description, text: random.Random(f"{seed} {description} {text}").randint(0, 1))


def garbage(messages: Messages) -> str:
    """Explains well and then talks, in forms that are near to what was asked for."""
    if is_explaining(messages):
        return json.dumps({"explanation": EXPLANATION})
    n = len(excerpts_in(messages))
    near = [
        "Sure! [" + ", ".join("1" * n) + "]",
        json.dumps([1] * (n + 1)),
        json.dumps([True] * n),
        json.dumps(["1"] * n),
        json.dumps([1.0] * n),
        json.dumps({"verdicts": [1] * n}),
        "\x1b[31m1\x00",
        "",
        "[" * 5000,
        "[1, 1, 1",
    ]
    return near[crc32(str(messages).encode()) % len(near)]
