"""What a judge is: something that answers a question with text, always the same for the same question.

Here is the one without any server: a model from disk that answers in this process. `chat` has those behind an address.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from inspector.errors import TargetError

if TYPE_CHECKING:
    from inspector.sources.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a judge is asked at once."""

    system: str
    """What it is to do."""
    user: str
    """With what."""
    max_tokens: int
    """Of the answer; longer ones are cut by the judge, and are then unparsable."""

    @property
    def turns(self) -> list[dict[str, str]]:
        """As a conversation, in the words of chat endpoints."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back."""

    text: str | None
    """None: nothing that could be an answer, however often it was asked."""
    problem: str = ""
    """Why there is none."""
    tries: int = 1
    """How often it was asked."""


class Judge(Protocol):
    """Answers questions; several at once if `parallel` says so."""

    name: str
    """Under which answers are kept: the same name gives the same answers."""
    parallel: int
    """Questions it takes at a time."""

    async def ask(self, question: Question) -> Reply:
        """The answer.

        Raises:
            JudgeUnreachable: there is none, or none that answers.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class JudgeUnreachable(TargetError):
    """The judge does not answer, or refuses every question."""


PREFIX = "local:"


class LocalJudge:
    """Asks a model in this process, one question at a time.

    Args:
        writer: the model.
    """

    parallel = 1

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.name = f"{PREFIX}{writer.digest[:32]}"
        """By its weights: the same folder may hold another model tomorrow."""

    async def ask(self, question: Question) -> Reply:
        """The likeliest continuation, in a thread, so that the wish to stop is heard meanwhile."""
        return Reply(text=await asyncio.to_thread(self._writer.write, question.turns, question.max_tokens))

    async def close(self) -> None:
        """Nothing to close."""
