"""Texts of the user's own beside the contexts: typed, pasted or generated; numbered, named, and kept with the view.

What is kept is what brings a text back: its characters, or the tokens that the model wrote. Scores are asked for again.
Pure: no screen, no session, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from inspector.drawing.safe_text import visible
from inspector.session.protocol import AnalysePrompt

OwnSource = Literal["prompt", "generated"]
MOST_KEPT = 20
"""Texts that the next view finds again; the oldest go first."""
LONGEST_KEPT = 20_000
"""Characters, or tokens, of one that the next view finds again; longer ones last as long as this view."""
NAME_LENGTH = 48
"""Characters of a name."""


@dataclass(frozen=True, kw_only=True)
class OwnText:
    """One text."""

    source: OwnSource
    number: int
    """From 1, in the order in which they came; `context` in messages."""
    name: str
    text: str = ""
    """As it was typed."""
    token_ids: tuple[int, ...] = ()
    """Of a generation, once it has ended."""

    def question(self, first: str = "") -> AnalysePrompt:
        """Asks for its scores, of one SAE first."""
        ids, text = list(self.token_ids), "" if self.token_ids else self.text
        return AnalysePrompt(text=text, token_ids=ids, source=self.source, number=self.number, first=first)


class OwnTexts:
    """All of them, in the order in which they came."""

    def __init__(self) -> None:
        self.all: tuple[OwnText, ...] = ()
        self._last = 0
        """The highest number there ever was: the scores of a text that was forgotten may still be at hand."""

    def find(self, source: str, number: int) -> OwnText | None:
        """A text; None if there is none of that number."""
        return next((each for each in self.all if (each.source, each.number) == (source, number)), None)

    def typed(self, text: str) -> OwnText:
        """Add what was typed; the same text again is the one that is there."""
        known = next((each for each in self.all if each.source == "prompt" and each.text == text), None)
        return known or self._add("prompt", _name(text), text)

    def begun(self, before: str) -> OwnText:
        """Add a generation.

        Args:
            before: the text that it goes on from.
        """
        return self._add("generated", f"after {_name(before, tail=True)}")

    def _add(self, source: OwnSource, name: str, text: str = "") -> OwnText:
        self._last = 1 + max(self._last, *(each.number for each in self.all), 0)
        added = OwnText(source=source, number=self._last, name=name, text=text)
        self.all = (*self.all, added)
        return added

    def ended(self, number: int, token_ids: list[int]) -> None:
        """What the model wrote under this number, its beginning included; nothing at all: it never began."""
        kept = [replace(e, token_ids=tuple(token_ids)) if e.number == number else e for e in self.all]
        self.all = tuple(each for each in kept if each.text or each.token_ids or each.number != number)

    def drop(self, source: str, number: int) -> None:
        """Forget one."""
        self.all = tuple(each for each in self.all if (each.source, each.number) != (source, number))

    def history(self) -> list[str]:
        """What was typed, the newest last."""
        return [each.text for each in self.all if each.source == "prompt"]

    def neighbour(self, source: str, number: int, step: int) -> OwnText | None:
        """The text before or after one; None past either end."""
        at = next((i for i, each in enumerate(self.all) if (each.source, each.number) == (source, number)), -1) + step
        return self.all[at] if 0 <= at < len(self.all) else None

    def place(self, source: str, number: int) -> str:
        """'2/3': which of them it is."""
        at = next((i for i, each in enumerate(self.all, 1) if (each.source, each.number) == (source, number)), 0)
        return f"{at}/{len(self.all)}"

    def worth_keeping(self) -> tuple[OwnText, ...]:
        """What the next view finds again."""
        lasting = [each for each in self.all if 0 < max(len(each.text), len(each.token_ids)) <= LONGEST_KEPT]
        return tuple(lasting[-MOST_KEPT:])


def _name(text: str, *, tail: bool = False) -> str:
    """The first or the last words of a text, on one line and safe to show."""
    line = " ".join(text.split())
    if len(line) > NAME_LENGTH:
        line = f"…{line[1 - NAME_LENGTH :]}" if tail else f"{line[: NAME_LENGTH - 1]}…"
    return f"'{visible(line) if line else ''}'"
