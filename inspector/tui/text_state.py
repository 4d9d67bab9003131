"""Which text is on the screen and where the cursor is in it; which of the user's own texts there are. No Textual.

A text at hand is shown at once, any other when it comes; a text of older maps or of another policy is shown and asked
for again. A generation grows while it is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from inspector.drawing.tokens import DEFAULT_MODE, TokenMode
from inspector.session.protocol import Generate, Generated, GetContext, TokenDetail
from inspector.tui.documents import ScoredText, Texts
from inspector.tui.own_texts import OwnTexts
from inspector.tui.selection import CursorPlace, SaeChoice, Source
from inspector.tui.session import Notice, Requests, SessionView

GENERATE_TOKENS = 200
"""Tokens per press of the key; Escape stops earlier."""

Where = int | Literal["first", "last", "worst", "last-worst"]
"""Which token of a text the cursor goes to when the text is there."""


class TextState:
    """Texts, cursor, generation, and the requests under way."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.session = SessionView()
        self.choice: SaeChoice | None = None
        """None until the session has said which SAEs there are."""
        self.mode: TokenMode = DEFAULT_MODE
        self.texts = Texts()
        self.text: ScoredText | None = None
        """What is shown; None until the first text came."""
        self.place = CursorPlace()
        self.way_back = CursorPlace()
        """Where in the contexts to come back to from a prompt or a generation."""
        self.own = OwnTexts()
        """Typed and generated texts."""
        self.walks_outliers = False
        """Whether the walk over the worst tokens meets those that outweigh all others."""
        self.detail: TokenDetail | None = None
        """What hangs on the cursor; may be about another token or SAE than the present one, which its fields tell."""
        self.problem = ""
        """Why there is no detail."""
        self.following = False
        """The cursor stays on the last token of what is being generated."""
        self.jumped = False
        """The cursor was sent somewhere: the pane, which walks by itself, has to be told."""
        self.grew = False
        """The text on the screen has more tokens than were drawn."""
        self.arriving: list[Generated] = []
        """Tokens that came since the last drawing."""
        self.requests = Requests()
        self.notices: list[Notice] = []
        """To be said."""
        self._wanted: tuple[Source, int, Where] | None = None
        """Where to go as soon as that text is there."""
        self._writing = 0
        """Number of the text that is being generated."""

    @property
    def row(self) -> int:
        """Row of the SAE that colours the tokens."""
        return self.choice.row if self.choice is not None else 0

    @property
    def looked_at(self) -> str:
        """The SAE that colours the tokens; '' until it is known which there are."""
        return self.choice.sae.sae_id if self.choice is not None else ""

    @property
    def _first(self) -> str:
        """The SAE whose scores are wanted first; '' where all come together."""
        return self.looked_at if self.session.ready is not None and self.session.ready.in_slices else ""

    @property
    def epoch(self) -> int:
        """Of the newest maps; 0: there are none yet."""
        return 0 if self.session.improved is None else self.session.improved.epoch

    @property
    def _in_contexts(self) -> CursorPlace:
        """On the screen, or where to come back to."""
        return self.place if self.place.source == "context" else self.way_back

    @property
    def can_reconnect(self) -> bool:
        """Whether there is no session."""
        return self.session.stage in ("failed", "lost")

    # ---- texts ------------------------------------------------------------------------------------------------------

    def go(self, source: Source, context: int, where: Where) -> None:
        """Show a text: now if it is at hand, else when it comes."""
        self._wanted = (source, context, where)
        text = self.texts.get(source, context)
        if text is not None:
            self._arrive(text)
        stale = text is None or text.document.epoch < self.epoch or text.policy != self.session.policy
        stale = stale or bool(text is not None and text.waiting)
        own = self.own.find(source, context)
        if source == "context" and stale:
            self.requests.add("context", GetContext(context=context, first=self._first))
        elif own is not None and stale and (text is None or text.finished):
            self.requests.add("prompt", own.question(self._first))

    def _take_text(self, text: ScoredText) -> None:
        """A text came: the one waited for, or better scores of the one shown, or one for later."""
        self.texts.put(text)
        if self._wanted is not None and self._wanted[:2] == text.key:
            self._arrive(text)
        elif self.text is not None and self.text.key == text.key:
            self.text = text

    def _arrive(self, text: ScoredText) -> None:
        """Show this text, which was waited for."""
        assert self._wanted is not None, "only a text that was asked for is arrived at"
        source, context, where = self._wanted
        self._wanted = None
        if self.text is not None:
            self.way_back = self._in_contexts
        self.text = text
        self.place = CursorPlace(source=source, context=context, position=self._position(text, where))
        self.jumped = True
        self.detail, self.problem = None, ""
        self.requests.ask_again("detail")

    def _position(self, text: ScoredText, where: Where) -> int:
        last = max(0, len(text) - 1)
        if isinstance(where, int):
            return min(max(where, 0), last)
        if where == "last":
            return last
        if where == "first":
            return next(text.document.included(), 0)
        ranked = text.ranked(self.row, self.mode, outliers=self.walks_outliers)
        if not ranked:
            return 0
        return ranked[0] if where == "worst" else ranked[-1]

    def flush(self) -> None:
        """Take the tokens that came since the last time: faster than a slow line can show them one by one."""
        arriving, self.arriving = self.arriving, []
        for message in arriving:
            if message.start == 0:
                own = self.own.find("generated", self._writing)
                self.texts.put(ScoredText.generated(message, own.name if own is not None else "", self._writing))
                self._wanted = ("generated", self._writing, "last")
                self.following = True
            elif (grown := self.texts.get("generated", self._writing)) is not None:
                grown.extend(message)
        text = self.texts.get("generated", self._writing)
        if not arriving or text is None:
            return
        if self._wanted is not None and self._wanted[:2] == text.key:
            self._arrive(text)
        elif self.text is text:
            self.grew = True
            if self.following:
                self.jump(len(text) - 1)

    def _end_generation(self) -> None:
        """The last token is there, or no more are wanted."""
        text = self.texts.get("generated", self._writing)
        if text is not None:
            text.finished = True
        self.own.ended(self._writing, [] if text is None else text.document.token_ids)
        self.following = False

    def _go_back(self) -> None:
        self.go("context", self.way_back.context, self.way_back.position)

    def move(self, position: int) -> None:
        """The cursor is on another token of the same text."""
        if self.text is not None and position != self.place.position:
            self.place = replace(self.place, position=position)
            self.following = not self.text.finished and position == len(self.text) - 1

    def jump(self, position: int) -> None:
        """Send the cursor to a token of this text."""
        self.move(position)
        self.jumped = True

    # ---- texts of the user's own -----------------------------------------------------------------------------------

    def analyse(self, prompt: str) -> None:
        """Score a typed text, and go there."""
        own = self.own.typed(prompt)
        self.go(own.source, own.number, "first")

    def generate(self) -> None:
        """Sample from the model after the text up to the cursor."""
        if self.text is None or self.requests.is_open("generate") or self.can_reconnect:
            return
        document, stop = self.text.document, self.place.position + 1
        self._writing = self.own.begun("".join(document.tokens[:stop])).number  # each has its own seed
        request = Generate(
            prompt_ids=document.token_ids[:stop], max_tokens=GENERATE_TOKENS, seed=self._writing, number=self._writing
        )
        self.requests.add("generate", request)
        self.notices.append(Notice(text="Generating from the text up to the cursor. Esc stops.", seconds=3))

    def to_contexts(self) -> None:
        """From a text of the user's own to where the contexts were left."""
        if self.place.source != "context":
            self._go_back()

    def drop_text(self, source: str, number: int) -> None:
        """Forget a text of the user's own; from the one on the screen back to the contexts."""
        if (source, number) == ("generated", self._writing) and self.requests.is_open("generate"):
            return
        self.own.drop(source, number)
        if (self.place.source, self.place.context) == (source, number):
            self._go_back()
