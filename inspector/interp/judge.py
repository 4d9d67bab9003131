"""What a judge is: something that answers a few messages with text, always the same for the same messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from inspector.errors import TargetError


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a judge is asked at once."""

    messages: tuple[Message, ...]
    max_tokens: int
    """Of the answer; longer ones are cut by the judge, and are then unparsable."""


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
            JudgeUnreachable: there is nobody, or nobody who answers.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class JudgeUnreachable(TargetError):
    """The judge does not answer, or refuses every question."""
