"""A judge without any server: a language model from disk that answers in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inspector.interp.judge import Question, Reply

if TYPE_CHECKING:
    from inspector.sources.causal import Writer

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
        turns = [{"role": message.role, "content": message.text} for message in question.messages]
        return Reply(text=await asyncio.to_thread(self._writer.write, turns, question.max_tokens))

    async def close(self) -> None:
        """Nothing to close."""
