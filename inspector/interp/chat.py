"""A judge behind an OpenAI-style `/chat/completions`: vLLM, the llama.cpp server, Ollama, hosted ones.

The key comes from the environment, goes into one header and nowhere else: no message, log, cache or result may hold it.
So what a server writes into an error is not repeated when it might hold the key, redirects are not followed, and
a URL with a password or a query is refused.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inspector.disk.files import shown
from inspector.errors import UsageError
from inspector.interp.judge import JudgeUnreachable, Question, Reply

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "DM_INSPECT_JUDGE_KEY"
MOST_BYTES = 1 << 20
"""Of one response: an answer has a few hundred tokens."""
MOST_CHARACTERS = 100_000
"""Of one answer."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may be another when asked again."""
NEWER_LIMIT = "max_completion_tokens"
MALFORMED_TRIES = 3
"""Of a response that is none: a proxy's page may pass, a server of something else does not."""
STARTING_TRIES = 3
"""Of connecting, as long as nothing was ever answered: then the address is wrong, or no server runs."""
_SHORTEST_LEAK = 6
"""Characters of the key in a row that keep a server's message from being repeated."""
_SURE_LEAK = 12
"""Characters of the key in a row that no answer has by chance: such an answer is not used, kept or shown."""


class Key:
    """A secret that only the header shows."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(...)"

    @property
    def header(self) -> str:
        """Value of the Authorization header."""
        return f"Bearer {self._value}"

    def may_be_in(self, text: str) -> bool:
        """Whether a part of the key stands in the text."""
        return self._is_in(text, min(_SHORTEST_LEAK, len(self._value)))

    def is_in(self, text: str) -> bool:
        """Whether so much of the key stands in the text that it is no chance; in any case of its letters.

        Keys shorter than that are placeholders such as `EMPTY`, which servers without keys are given.
        """
        return len(self._value) >= _SURE_LEAK and self._is_in(text, _SURE_LEAK)

    def _is_in(self, text: str, size: int) -> bool:
        value, text = self._value.casefold(), text.casefold()
        return any(value[i : i + size] in text for i in range(len(value) - size + 1))


def key_from_environment() -> Key | None:
    """The key in DM_INSPECT_JUDGE_KEY, if there is one.

    Raises:
        UsageError: it cannot stand in a header; the message does not show it.
    """
    value = os.environ.get(KEY_VARIABLE, "").strip()
    if not value:
        return None
    if not value.isascii() or any(not "!" <= letter <= "~" for letter in value):
        raise UsageError(f"{KEY_VARIABLE} holds characters that no key has. Set it again, without quotes or spaces.")
    return Key(value)


def completions_url(url: str) -> str:
    """The address that is asked, from what was typed: a host, a `/v1`, or all of it.

    Raises:
        UsageError: it is no http address, or holds what does not belong into one.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not repeated: the part that is too much may be a secret.
        raise UsageError(
            f"--judge-url holds a user name, a password or a query. Give the address alone, and the key in "
            f"{KEY_VARIABLE}."
        )
    if parts.scheme not in ("http", "https") or not host or any(not "!" <= letter <= "~" for letter in url.strip()):
        raise UsageError(f"--judge-url {shown(url)} is no address. Write for example http://localhost:8000/v1.")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_this_machine(url: str) -> bool:
    """Whether the address never leaves the machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a question is asked again, and after how long: exponential backoff with full jitter."""

    tries: int = 7
    first_seconds: float = 1.0
    """The first pause is at most this, each further one twice as long."""
    most_seconds: float = 60.0
    most_asked_seconds: float = 300.0
    """Longest pause that a server may ask for with Retry-After."""
    answer_seconds: float = 180.0
    """For one answer. A local 70B model with a long queue takes its time."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    def pause(self, tries: int) -> float:
        """Seconds before the next try, after so many."""
        longest = min(self.most_seconds, self.first_seconds * 2.0 ** (tries - 1))
        return self.jitter() * longest


class _Passing(Exception):
    """It did not work now; `reason` has no part of the key."""

    def __init__(self, reason: str, *, after: float | None = None, malformed: bool = False, refused: bool = False):
        super().__init__(reason)
        self.reason, self.after, self.malformed, self.refused = reason, after, malformed, refused


class ChatJudge:
    """Asks one model at one address.

    Args:
        url: as typed; see `completions_url`.
        model: name of the model there.
        key: sent if there is one.
        parallel: questions at a time.
        patience: with an address that does not answer.
        clock: seconds since the epoch, for Retry-After as a date.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: Key | None = None,
        *,
        parallel: int = 8,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = completions_url(url)
        self.name, self.parallel = model, parallel
        self._key, self._patience, self._clock = key, patience or Patience(), clock
        self._client: httpx.AsyncClient | None = None
        self._rest_until = 0.0
        self._limit = "max_tokens"
        """Name of the limit on the answer; some servers know it by a newer name alone."""
        self._has_answered = False

    async def ask(self, question: Question) -> Reply:
        """The answer; asked again as `Patience` says.

        Raises:
            JudgeUnreachable: no server answers, or the question is refused.
        """
        patience, malformed, refused = self._patience, 0, 0
        for tries in range(1, patience.tries + 1):
            await self._rest()
            try:
                text = await self._once(question)
            except _Passing as trouble:
                malformed += trouble.malformed
                refused += trouble.refused
                if malformed == MALFORMED_TRIES:
                    return Reply(text=None, problem=trouble.reason, tries=tries)
                if tries == patience.tries or (refused == STARTING_TRIES and not self._has_answered):
                    raise JudgeUnreachable(
                        f"The judge at {self.url} did not answer in {tries} tries: {trouble.reason}. Look "
                        "whether it runs; the same command goes on where this one stopped."
                    ) from None
                if trouble.after is None:
                    await patience.sleep(patience.pause(tries))
                else:
                    # The server said when to ask again, which holds for all questions.
                    self._rest_until = max(
                        self._rest_until, self._clock() + min(trouble.after, patience.most_asked_seconds)
                    )
            else:
                self._has_answered = True
                return Reply(text=text, tries=tries)
        raise AssertionError("the last try either returns or raises")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # ---- how --------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        while (left := self._rest_until - self._clock()) > 0:
            await self._patience.sleep(left)

    async def _once(self, question: Question) -> str:
        """One try.

        Raises:
            _Passing: try again.
            JudgeUnreachable: do not.
        """
        import httpx

        body = {
            "model": self.name,
            "messages": question.turns,
            "temperature": 0,
            self._limit: question.max_tokens,
            "stream": False,
        }
        # Half characters cannot be UTF-8; a text that holds one is asked about with a replacement.
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        try:
            # One limit for all of it: a server that sends a byte a minute never times out between bytes.
            async with (
                asyncio.timeout(self._patience.answer_seconds),
                self._connected().stream("POST", self.url, content=content, headers=self._headers()) as response,
            ):
                raw = await _read(response)
        except TimeoutError:
            raise _Passing(f"no answer within {self._patience.answer_seconds:g} s") from None
        except httpx.ConnectError as error:
            raise _Passing(_why_not_connected(str(error)), refused=True) from None
        except httpx.TransportError as error:
            raise _Passing(f"the connection failed ({type(error).__name__})") from None
        if response.status_code in PASSING:
            raise _Passing(f"status {response.status_code}", after=self._retry_after(response.headers))
        if response.status_code == 400 and self._limit != NEWER_LIMIT and NEWER_LIMIT.encode() in raw:
            self._limit = NEWER_LIMIT
            raise _Passing(f"it wants {NEWER_LIMIT}", after=0.0)
        if response.status_code != 200:
            raise JudgeUnreachable(
                f"The judge at {self.url} refuses with status {response.status_code}{self._said(raw)}. "
                f"Check --judge-url, --judge-model and the key in {KEY_VARIABLE}."
            )
        text = _answer_in(raw)
        if self._key is not None and self._key.is_in(text):
            # Answers are kept, shown and exported; what a server echoes would be in all of them.
            raise _Passing("an answer that repeats the key", malformed=True)
        return text

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._patience.answer_seconds, connect=10.0),
                limits=httpx.Limits(max_connections=self.parallel, max_keepalive_connections=self.parallel),
                follow_redirects=False,
                trust_env=not is_this_machine(self.url),  # a proxy has no business on the way to this machine
            )
        return self._client

    def _headers(self) -> dict[str, str]:
        # Not compressed: a small response could become gigabytes.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        return headers if self._key is None else {**headers, "Authorization": self._key.header}

    def _retry_after(self, headers: Any) -> float | None:
        """Seconds that the server asks to wait: a number, or a date."""
        value = str(headers.get("retry-after", "")).strip()
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - self._clock()
            except (ValueError, TypeError, OverflowError):
                return None
        return max(0.0, seconds) if seconds == seconds else None

    def _said(self, raw: bytes) -> str:
        """What the server says of its refusal, short and harmless, or nothing."""
        try:
            found = json.loads(raw)
            message = found["error"]["message"] if isinstance(found["error"], dict) else found["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        if not isinstance(message, str) or not message.strip():
            return ""
        if self._key is not None and self._key.may_be_in(message):
            return " (what it says is left out, because it repeats a part of the key)"
        said = "".join(letter if letter.isprintable() else " " for letter in message)
        return f" ({' '.join(said.split())[:200]})"


async def _read(response: httpx.Response) -> bytes:
    """The body, up to a limit.

    Raises:
        _Passing: it is longer, or compressed, which was not asked for.
    """
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise _Passing("a compressed response", malformed=True)
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MOST_BYTES:
            raise _Passing(f"a response of more than {MOST_BYTES:,} bytes", malformed=True)
        parts.append(part)
    return b"".join(parts)


def _why_not_connected(said: str) -> str:
    """The usual reasons in words; libraries name them in many."""
    if "ssl" in said.lower() or "certificate" in said.lower():
        return "the encryption cannot be agreed on, or its certificate is not trusted"
    if any(words in said for words in ("Name or service", "name resolution", "nodename", "getaddrinfo")):
        return "its name is not known"
    return "nothing is connected there"


def _answer_in(raw: bytes) -> str:
    """The text of the first choice.

    Raises:
        _Passing: there is none.
    """
    try:
        text = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _Passing("a response that is no chat completion", malformed=True) from None
    if not isinstance(text, str):
        raise _Passing("a chat completion without text", malformed=True)
    return text[:MOST_CHARACTERS]
