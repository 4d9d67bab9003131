"""Explains every latent and scores the explanation: all questions of a stage at once, so that a judge is never idle.

Both scorers ask about the same deciles. Detection: is the latent active anywhere in this text? Its negatives are
windows in which it never is. Fuzzing: are the marks where it is active? Its negatives are windows in which it is
active, of no other use, with as many marks on tokens where it is not; where those run out, silent windows with marks
anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from inspector.events import Event
from inspector.interp import prompts
from inspector.interp.asking import Asker
from inspector.interp.examples import N_DECILES, Example, Gathered, LatentExamples, Settings
from inspector.interp.judge import Question

MARKED_FROM = 0.6
"""Share of a window's largest activation above which a token is marked, as in the paper's code."""

Decode = Callable[[Sequence[int]], str]
"""The text of several tokens together."""


def strong(example: Example) -> npt.NDArray[np.bool_]:
    """[length] which tokens are marked; at least one where the latent is active, none where it is not."""
    return (example.activations > MARKED_FROM * example.peak) & (example.activations > 0)


def wrong(example: Example, chosen: random.Random, n_marked: int) -> npt.NDArray[np.bool_] | None:
    """[length] as many marks as wanted on tokens at which the latent is not active; None: there are too few."""
    free = np.flatnonzero(example.activations <= 0).tolist()
    if len(free) < n_marked:
        return None
    marks = np.zeros(len(example.activations), dtype=np.bool_)
    marks[chosen.sample(free, n_marked)] = True
    return marks


def text_of(example: Example, marks: npt.NDArray[np.bool_] | None, decode: Decode) -> str:
    """The window as it is shown; neighbours that are marked alike are decoded together, so that no letter is halved."""
    if marks is None:
        marks = np.zeros(len(example.token_ids), dtype=np.bool_)
    pieces = []
    for is_marked, group in groupby(range(len(marks)), key=lambda i: bool(marks[i])):
        pieces.append((decode([int(example.token_ids[i]) for i in group]), is_marked))
    return prompts.marked(pieces)


NEGATIVES = 0
"""Group of the negatives; 1 to 10 are the deciles, the weakest first."""
GROUPS = ("Not", *(f"Q{i}" for i in range(1, N_DECILES + 1)))
"""As Fig. 7 names them."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One excerpt of the test."""

    group: int
    text: str

    @property
    def truth(self) -> bool:
        """What a judge who knows says."""
        return self.group != NEGATIVES


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Answers about one latent, by group."""

    asked: npt.NDArray[np.int64]
    """[groups] excerpts shown."""
    parsed: npt.NDArray[np.int64]
    """[groups] of which an answer could be read."""
    right: npt.NDArray[np.int64]
    """[groups] of which it was right."""
    n_questions: int
    n_unparsable: int
    """Questions whose answer could not be read; all their excerpts count as asked and not as parsed."""

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the accuracies on active and on silent windows; None where either has no answer."""
        positive, negative = slice(1, None), NEGATIVES
        if self.parsed[positive].sum() == 0 or self.parsed[negative] == 0:
            return None
        on_active = self.right[positive].sum() / self.parsed[positive].sum()
        return float((on_active + self.right[negative] / self.parsed[negative]) / 2)


def explaining(latent: LatentExamples, decode: Decode, settings: Settings) -> Question:
    """What is asked to get an explanation."""
    shown = [text_of(example, strong(example), decode) for example in latent.shown]
    return prompts.explain(shown, thinking=settings.thinking)


def items_of(latent: LatentExamples, scorer: prompts.Scorer, decode: Decode, seed: int) -> list[Item]:
    """The excerpts of one latent's test, in a seeded order."""
    chosen = random.Random(f"{seed}:{latent.index}")
    items = [
        Item(group=group, text=text_of(example, strong(example) if scorer == "fuzzing" else None, decode))
        for group, decile in enumerate(latent.deciles, start=1)
        for example in decile
    ]
    if scorer == "fuzzing":
        negatives = _wrongly_marked(latent, decode, chosen)
    else:
        negatives = [text_of(example, None, decode) for example in latent.negatives]
    items += [Item(group=NEGATIVES, text=text) for text in negatives]
    chosen.shuffle(items)
    return items


def _wrongly_marked(latent: LatentExamples, decode: Decode, chosen: random.Random) -> list[str]:
    """As many as there are negatives, with as many marks each as one of the positives has."""
    usual = [int(strong(example).sum()) for decile in latent.deciles for example in decile]
    texts = []
    for example in (*latent.spare, *latent.negatives):
        marks = wrong(example, chosen, chosen.choice(usual))
        if marks is not None:
            texts.append(text_of(example, marks, decode))
        if len(texts) == len(latent.negatives):
            break
    return texts


def questions_of(items: Sequence[Item], explanation: str, settings: Settings) -> list[Question]:
    """The items, so many to a question, in their order."""
    return [
        prompts.decide(settings.scorer, explanation, [item.text for item in part], thinking=settings.thinking)
        for part in _parts(items, settings.shown)
    ]


def count(items: Sequence[Item], replies: Sequence[str | None], shown: int) -> Counts:
    """Hold the answers against the truth.

    Args:
        items: as they were asked.
        replies: one per question, in order; None where there was no answer at all.
        shown: items to a question.
    """
    asked, parsed, right = (np.zeros(len(GROUPS), dtype=np.int64) for _ in range(3))
    n_unparsable = 0
    for part, reply in zip(_parts(items, shown), replies, strict=True):
        verdicts = prompts.verdicts_in(reply, len(part))
        n_unparsable += verdicts is None
        for i, item in enumerate(part):
            asked[item.group] += 1
            if verdicts is not None:
                parsed[item.group] += 1
                right[item.group] += verdicts[i] == item.truth
    return Counts(asked=asked, parsed=parsed, right=right, n_questions=len(replies), n_unparsable=n_unparsable)


def _parts(items: Sequence[Item], shown: int) -> list[Sequence[Item]]:
    return [items[first : first + shown] for first in range(0, len(items), shown)]


CHARACTERS_PER_TOKEN = 3.5
"""For the estimate; English prose has four, code three."""
UNKNOWN_EXPLANATION = "x" * 200
"""Stands in for an explanation that is not given yet, in the estimate."""
ANSWER_TOKENS = 50
"""Of an explanation, about; a list of verdicts has two per excerpt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One latent, explained and judged."""

    latent: LatentExamples
    explanation: str | None
    """None: the judge gave none that could be read, so nothing was scored."""
    counts: Counts | None
    control: Counts | None = None
    """By another latent's explanation."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What asking will take, at most; what is known already is not asked."""

    questions: int
    known: int
    """Of which answers are kept already, as far as that can be told before the explanations are there."""
    prompt_tokens: int
    """Of the questions that are to be asked, about."""
    answer_tokens: int


def cost_of(gathered: Sequence[Gathered], asker: Asker, decode: Decode, settings: Settings) -> Cost:
    """Count the questions; none is asked."""
    latents = [latent for one in gathered for latent in one.latents]
    explain = [explaining(latent, decode, settings) for latent in latents]
    asked = [(question, ANSWER_TOKENS) for question in explain]
    for latent, reply in zip(latents, asker.known(explain), strict=True):
        explanation = prompts.explanation_in(reply)
        if reply is None or explanation is not None:
            items = items_of(latent, settings.scorer, decode, settings.seed)
            of_items = questions_of(items, explanation or UNKNOWN_EXPLANATION, settings)
            asked += [(each, 2 * settings.shown + 1) for each in of_items] * (1 + settings.control)
    replies = asker.known([question for question, _ in asked])
    to_ask = [each for each, reply in zip(asked, replies, strict=True) if reply is None]
    return Cost(
        questions=len(asked),
        known=len(asked) - len(to_ask),
        prompt_tokens=sum(round(len(each.system + each.user) / CHARACTERS_PER_TOKEN) for each, _ in to_ask),
        answer_tokens=sum(n_tokens + settings.thinking for _, n_tokens in to_ask),
    )


def score(
    gathered: Sequence[Gathered], asker: Asker, decode: Decode, settings: Settings
) -> Generator[Event, None, list[list[Judged]]]:
    """Every latent of every SAE, in order.

    Raises:
        JudgeUnreachable: the judge does not answer.
    """
    latents = [latent for one in gathered for latent in one.latents]
    asked = [explaining(latent, decode, settings) for latent in latents]
    replies = yield from asker.ask(asked, "explaining")
    explanations = [prompts.explanation_in(reply) for reply in replies]
    items = [items_of(latent, settings.scorer, decode, settings.seed) for latent in latents]
    counts = yield from _judged(items, explanations, asker, settings, "scoring")
    controls: list[Counts | None] = [None] * len(latents)
    if settings.control:
        sizes = [len(one.latents) for one in gathered]
        controls = yield from _judged(items, _exchanged(explanations, sizes, settings.seed), asker, settings, "control")
    scored = iter(
        [
            Judged(latent=latent, explanation=explanation, counts=own, control=control)
            for latent, explanation, own, control in zip(latents, explanations, counts, controls, strict=True)
        ]
    )
    return [[next(scored) for _ in one.latents] for one in gathered]


def _judged(
    items: Sequence[Sequence[Item]],
    explanations: Sequence[str | None],
    asker: Asker,
    settings: Settings,
    stage: str,
) -> Generator[Event, None, list[Counts | None]]:
    """The counts of each latent that has an explanation; all questions are asked together."""
    asked: list[Question] = []
    sizes = []
    for own, explanation in zip(items, explanations, strict=True):
        questions = [] if explanation is None else questions_of(own, explanation, settings)
        sizes.append(len(questions))
        asked += questions
    replies = iter((yield from asker.ask(asked, stage)))
    counts: list[Counts | None] = []
    for own, size in zip(items, sizes, strict=True):
        counts.append(count(own, [next(replies) for _ in range(size)], settings.shown) if size else None)
    return counts


def _exchanged(explanations: Sequence[str | None], sizes: Sequence[int], seed: int) -> list[str | None]:
    """Each latent with the explanation of another of the same SAE, None where there is no other."""
    found: list[str | None] = []
    first = 0
    for size in sizes:
        places = [i for i in range(first, first + size) if explanations[i] is not None]
        random.Random(f"{seed}:exchanged").shuffle(places)
        moved: dict[int, str | None] = {}
        if len(places) > 1:  # a rotation leaves none with its own
            moved = {place: explanations[other] for place, other in zip(places, [*places[1:], places[0]], strict=True)}
        found += [moved.get(i) for i in range(first, first + size)]
        first += size
    return found
