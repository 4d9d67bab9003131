"""Explains every latent and scores the explanation: all questions of a stage at once, so that a judge is never idle."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from inspector.events import Event
from inspector.interp import answers
from inspector.interp.asking import Asker
from inspector.interp.examples import LatentExamples
from inspector.interp.excerpts import Decode
from inspector.interp.gathering import Gathered, Settings
from inspector.interp.judge import Question
from inspector.interp.scorers import Counts, Item, count, explaining, items_of, questions_of

CHARACTERS_PER_TOKEN = 3.5
"""For the estimate; English prose has four, code three."""
UNKNOWN_EXPLANATION = "x" * 200
"""Stands in for an explanation that nobody has given yet, in the estimate."""
ANSWER_TOKENS = 50
"""Of an explanation, about; a list of verdicts has two per excerpt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
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
    """Count the questions; asks nobody."""
    questions = known = prompt = answer = 0
    for one in gathered:
        for latent in one.latents:
            question = _with_room(explaining(latent, decode), settings)
            reply = asker.known(question)
            explanation = answers.explanation_in(reply)
            asked = [(question, ANSWER_TOKENS)]
            if reply is None or explanation is not None:
                items = items_of(latent, settings.scorer, decode, settings.seed)
                of_items = _questions(items, explanation or UNKNOWN_EXPLANATION, settings)
                asked += [(each, 2 * settings.shown + 1) for each in of_items] * (1 + settings.control)
            for each, n_tokens in asked:
                questions += 1
                if asker.known(each) is not None:
                    known += 1
                else:
                    prompt += round(_characters(each) / CHARACTERS_PER_TOKEN)
                    answer += n_tokens + settings.thinking
    return Cost(questions=questions, known=known, prompt_tokens=prompt, answer_tokens=answer)


def score(
    gathered: Sequence[Gathered], asker: Asker, decode: Decode, settings: Settings
) -> Generator[Event, None, list[list[Scored]]]:
    """Every latent of every SAE, in order.

    Raises:
        JudgeUnreachable: the judge does not answer.
    """
    latents = [latent for one in gathered for latent in one.latents]
    asked = [_with_room(explaining(latent, decode), settings) for latent in latents]
    replies = yield from asker.ask(asked, "explaining")
    explanations = [answers.explanation_in(reply) for reply in replies]
    items = [items_of(latent, settings.scorer, decode, settings.seed) for latent in latents]
    counts = yield from _judged(items, explanations, asker, settings, "scoring")
    controls: list[Counts | None] = [None] * len(latents)
    if settings.control:
        sizes = [len(one.latents) for one in gathered]
        controls = yield from _judged(items, _exchanged(explanations, sizes, settings.seed), asker, settings, "control")
    scored = iter(
        [
            Scored(latent=latent, explanation=explanation, counts=own, control=control)
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
        questions = [] if explanation is None else _questions(own, explanation, settings)
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
        if len(places) > 1:  # a rotation leaves nobody with their own
            moved = {place: explanations[other] for place, other in zip(places, [*places[1:], places[0]], strict=True)}
        found += [moved.get(i) for i in range(first, first + size)]
        first += size
    return found


def _questions(items: Sequence[Item], explanation: str, settings: Settings) -> list[Question]:
    found = questions_of(items, explanation, settings.scorer, settings.shown)
    return [_with_room(question, settings) for question in found]


def _with_room(question: Question, settings: Settings) -> Question:
    """The question with room for thoughts before the answer."""
    return replace(question, max_tokens=question.max_tokens + settings.thinking)


def _characters(question: Question) -> int:
    return sum(len(message.text) for message in question.messages)
