"""What the Stream screen shows and waits for, and what each key and message changes. No Textual, no clock, no socket.

`StreamState` decides; the screen carries out: it sends the waiting `requests` to the session, says the `notices`, and
draws the rest. So every key can be tested without a screen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from inspector.drawing.tokens import MODES, next_mode
from inspector.session.protocol import (
    ContextScores,
    Failed,
    Find,
    Found,
    Generated,
    GetContext,
    GetDetail,
    GetJobs,
    GetPairs,
    Pairs,
    PolicySet,
    Ready,
    SessionMessage,
    SetPolicy,
    TokenDetail,
)
from inspector.tui.documents import ScoredText, main_measure
from inspector.tui.saved_state import SavedView
from inspector.tui.selection import SaeChoice, Search, match_end, walk_worst
from inspector.tui.session import Notice, Purpose, Question, notices_of
from inspector.tui.suite_list import size_text
from inspector.tui.text_state import TextState, Where


def target_name(ready: Ready) -> str:
    """What tells one target from another, so that a saved place means the same text."""
    return f"{ready.model} {ready.hook_name} {ready.text} {ready.n_contexts}x{ready.context_length}"


class StreamState(TextState):
    """Session, SAEs, colour mode, search, and what hangs on the cursor; which text is shown is its base's."""

    def __init__(self, recall: Callable[[str], SavedView | None] = lambda _: None) -> None:
        """Nothing is known yet.

        Args:
            recall: what is remembered of a target from an earlier run, by its name.
        """
        super().__init__()
        self._recall = recall
        self.first_prompts: tuple[str, ...] = ()
        """Texts to list, and the first of them to begin with, as soon as there is a session."""
        self.relative = False
        """Whether the colours' edges are those of the text shown, and not the same for all."""
        self.search: Search | None = None
        self.pairs: Pairs | None = None

    # ---- looking ----------------------------------------------------------------------------------------------------

    def title(self) -> tuple[str, str]:
        """Above the tokens: what their colour means or what is going on; which text they are or which key ends it."""
        if self.choice is None or self.text is None:
            return "", ""
        if self.search is not None:
            return f"find '{self.search.text}' {self.search.summary()}", "n next · N back · Esc ends"
        if self._is_awaited:
            return f"tokens · {self.choice.labels[self.choice.active]} · {self._awaited()}", self.text.document.name
        if not self.text.finished:
            return f"generating · {len(self.text)} tokens", "Esc stops"
        measure = main_measure(self.mode)
        label = f"{self.choice.labels[self.choice.active]} · " if measure.per_sae else ""
        known = self.text.has_map or not measure.needs_map
        title = f"tokens · {label}{self.mode.title}{'' if known else ': no linear map yet'}"
        return title, self.text.document.name

    @property
    def _is_awaited(self) -> bool:
        """Whether the SAE that is looked at has not scored the text yet."""
        return self.text is not None and self.looked_at in self.text.waiting

    def _awaited(self) -> str:
        """What the colours wait for: the SAE that is looked at is not there yet."""
        told = self.session.bringing
        if told is None:
            return "waits for its SAE"
        amount = f"{size_text(told.done_bytes)} of {size_text(told.total_bytes)} from {told.detail}"
        if told.what == self.looked_at:
            return f"loading its SAE: {amount}"
        return f"waits for another SAE: {amount}"

    def hits(self) -> list[range]:
        """Tokens of this text that were found."""
        if self.search is None or self.text is None or self.place.source != "context":
            return []
        tokens, wanted = self.text.document.tokens, self.search.text
        here = [hit.position for hit in self.search.hits if hit.context == self.place.context]
        return [range(position, match_end(tokens, position, wanted)) for position in here]

    def detail_request(self) -> GetDetail | None:
        """Asks for latents and guesses at the cursor; None while there is no text."""
        if self.text is None or self.choice is None:
            return None
        place = self.place
        return GetDetail(
            source=place.source, context=place.context, position=place.position, sae_id=self.choice.sae.sae_id
        )

    def active_latents(self) -> list[int]:
        """Latents that are known to be active at the cursor, strongest first; none while that is not known."""
        detail, at = self.detail, self.detail_request()
        if detail is None or at is None:
            return []
        same = all(getattr(detail, key) == getattr(at, key) for key in ("source", "context", "position", "sae_id"))
        return [latent.index for latent in detail.latents] if same else []

    def questions(self, *, with_detail: bool) -> dict[Purpose, Question]:
        """What belongs to the picture: the detail at the cursor, and the pairs of enabled widths.

        The same question is worth asking again of a better map, and of another policy.

        Args:
            with_detail: whether latents and guesses are visible. While the cursor runs along with a generation they are
                not worth asking for.
        """
        found: dict[Purpose, Question] = {}
        at, choice, maps = self.detail_request(), self.choice, (self.epoch, self.session.policy)
        if at is not None and with_detail and not self.following and not self._is_awaited:
            found["detail"] = (at, maps)
        if choice is not None and len(choice.enabled) > 1:
            found["pairs"] = (GetPairs(sae_ids=[choice.saes[row].sae_id for _, row in choice.shown]), maps)
        return found

    def saved_view(self) -> tuple[str, SavedView] | None:
        """Target and place to come back to; None while there is nothing to come back to."""
        ready, choice, place = self.session.ready, self.choice, self._in_contexts
        if ready is None or choice is None or self.text is None:
            return None
        return target_name(ready), SavedView(
            context=place.context,
            position=place.position,
            sae_ids=tuple(choice.saes[row].sae_id for row in choice.picked),
            enabled=tuple(choice.widths[index] for index in sorted(choice.enabled)),
            active=choice.widths[choice.active],
            mode=self.mode.id,
            texts=self.own.worth_keeping(),
        )

    # ---- what the session says --------------------------------------------------------------------------------------

    def lost(self, why: str, exit_code: int) -> None:
        """There is no session, or not any more."""
        if self.requests.is_open("generate"):
            self.flush()
            self._end_generation()
        self.requests.clear()
        self.session = self.session.lost(why, exit_code)

    def told(self, message: SessionMessage, purpose: Purpose | None, now: float) -> None:
        """The session said something.

        Args:
            message: what.
            purpose: what it answers; None: nothing that is still awaited.
            now: clock time, seconds.
        """
        before = self.session
        self.session = before.told(message, now)
        self.notices += notices_of(message, before, purpose)
        match message:
            case Ready():
                self._take_ready(message)
            case ContextScores():
                self._take_text(ScoredText.of(message))
            case Generated() if purpose == "generate":
                self.arriving.append(message)
                if message.start == 0 or message.finished:
                    self.flush()
                if message.finished:
                    self._end_generation()
            case TokenDetail() if purpose == "detail":
                self.detail, self.problem = message, ""
            case Pairs() if purpose == "pairs":
                self.pairs = message
            case Found() if purpose == "find":
                self._take_found(message)
            case PolicySet() if message.policy != before.policy:
                self.texts.clear()  # other tokens count now: every number of before is of the other policy
                if self.session.ready is not None:
                    self.requests.add("context", GetContext(context=self._in_contexts.context))
            case Failed() if purpose == "detail":
                self.problem = message.message
            case Failed() if purpose == "generate":
                self.flush()
                self._end_generation()
            case Failed() if purpose == "prompt" and self._wanted is not None:
                self.own.drop(*self._wanted[:2])
                self._wanted = None
            case _:
                pass  # the session's own account is all that changes

    def _take_ready(self, ready: Ready) -> None:
        saved = self._recall(target_name(ready)) if self.choice is None else None
        if self.choice is None or list(self.choice.saes) != ready.saes:
            self.choice = SaeChoice.of(ready.saes)
        if saved is not None:
            self.choice = self.choice.restored(saved.sae_ids, saved.enabled, saved.active)
            self.mode = next((mode for mode in MODES if mode.id == saved.mode), self.mode)
            self.own.all = self.own.all or saved.texts
        self.requests.ask_again()
        if self.session.policy != "excluded":  # a new session knows nothing of what this view chose
            self.requests.add("policy", SetPolicy(policy=self.session.policy))
        if self.text is not None:
            self.texts.clear()  # nor any text of the user's own: each is asked for again before it is shown
            self.requests.add("context", GetContext(context=self._in_contexts.context))
            if (own := self.own.find(self.place.source, self.place.context)) is not None:
                self.requests.add("prompt", own.question())
        elif saved is not None and saved.context < ready.n_contexts:
            self.go("context", saved.context, saved.position)
        else:
            self.go("context", 0, "first")
        if self.first_prompts:
            for prompt in self.first_prompts:
                self.own.typed(prompt)
            self.analyse(self.first_prompts[0])
            self.first_prompts = ()
        self.requests.add("jobs", GetJobs())

    def _take_found(self, found: Found) -> None:
        if self.search is None:
            return
        self.search = replace(self.search, hits=tuple(found.hits), truncated=found.truncated)
        if found.hits:
            self._walk_hits(self.search, 1)
            return
        text = f"'{self.search.text}' is in none of the contexts."
        self.notices.append(Notice(text=text, severity="warning"))
        self.search = None

    # ---- keys -------------------------------------------------------------------------------------------------------

    def step_mode(self, step: int) -> None:
        """Another meaning of the colours."""
        self.mode = next_mode(self.mode, step)

    def toggle_relative(self) -> None:
        """Edges of this context alone, or those of the whole text again."""
        self.relative = not self.relative

    def press_width(self, index: int) -> None:
        """A number key."""
        if self.choice is not None:
            self._look_at(self.choice.press(index))

    def step_l0(self, step: int) -> None:
        """A sparser or denser SAE."""
        if self.choice is not None:
            self._look_at(self.choice.step_l0(step))

    def choose_sae(self, row: int) -> None:
        """Colour by this SAE; the other widths take their nearest L0."""
        if self.choice is not None:
            self._look_at(self.choice.go_to(row))

    def _look_at(self, choice: SaeChoice) -> None:
        """By another SAE; one that is not there yet comes before the others from now on."""
        before, self.choice = self.looked_at, choice
        if self.looked_at != before and self._is_awaited:
            self.go(self.place.source, self.place.context, self.place.position)

    def walk(self, step: int) -> None:
        """To the next place found, or the next worst token."""
        if self.search is not None and self.search.hits:
            self._walk_hits(self.search, step)
            return
        if self.text is None:
            return
        ranked = self.text.ranked(self.row, self.mode, outliers=self.walks_outliers)
        contexts, position = walk_worst(ranked, self.place.position, step)
        if position is not None:
            self.jump(position)
        elif self.place.source == "context":
            self._to_context(contexts, "worst" if step > 0 else "last-worst")
        elif ranked:
            self.jump(ranked[0])

    def _walk_hits(self, search: Search, step: int) -> None:
        self.search = search.walk(step, self.place)
        if self.search.hit is not None:
            self.go("context", self.search.hit.context, self.search.hit.position)

    def _to_context(self, step: int, where: Where) -> None:
        """Round and round."""
        if self.session.ready is not None:
            self.go("context", (self.place.context + step) % self.session.ready.n_contexts, where)

    def step_context(self, step: int) -> None:
        """The neighbouring context; of the user's own texts the neighbouring one, and past their ends the contexts."""
        own = self.own.neighbour(self.place.source, self.place.context, step)
        if self.place.source == "context":
            self._to_context(step, "first")
        elif own is not None:
            self.go(own.source, own.number, "first")
        else:
            self._go_back()

    def step_over_edge(self, step: int) -> None:
        """Walking over an end; the first and the last context have only one neighbour."""
        ready, context = self.session.ready, self.place.context + step
        if self.place.source == "context" and ready is not None and 0 <= context < ready.n_contexts:
            self.go("context", context, 0 if step > 0 else "last")

    def toggle_outliers(self) -> None:
        """Whether the walk over the worst tokens meets those that outweigh all others."""
        self.walks_outliers = not self.walks_outliers
        text = "n walks over outliers too." if self.walks_outliers else "n passes over outliers."
        self.notices.append(Notice(text=text))

    def toggle_policy(self) -> None:
        """Special tokens and early positions in, or out again: the other maps, and every number of theirs."""
        if self.text is not None and not self.requests.is_open("policy"):
            other = SetPolicy(policy="included" if self.session.policy == "excluded" else "excluded")
            self.requests.add("policy", other)

    def find(self, text: str) -> None:
        """Look for a text in all contexts."""
        self.search = Search(text=text)
        self.requests.add("find", Find(text=text))

    def leave(self) -> None:
        """Escape: stop a generation, else end the search, else go back to the contexts."""
        if self.requests.is_open("generate"):
            self.requests.cancel("generate")
        elif self.search is not None:
            self.search = None
        elif self.place.source != "context" and self.text is not None:
            own = self.own.place(self.place.source, self.place.context)
            self._go_back()
            self.notices.append(Notice(text=f"Kept as text {own}. P lists the texts.", seconds=3))
