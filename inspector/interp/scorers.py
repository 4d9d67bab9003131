"""What a judge is asked about one latent, and how its answers are counted.

Both ask about the same deciles. Detection: is the latent active anywhere in this text? Its negatives are windows
in which it never is. Fuzzing: are the marks where it is active? Its negatives are windows in which it is active, of no
other use, with as many marks on tokens where it is not; where those run out, silent windows with marks anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from inspector.interp import answers, prompts
from inspector.interp.examples import N_DECILES, Example, LatentExamples
from inspector.interp.excerpts import Decode, marked_text, plain_text, strong, wrong
from inspector.interp.judge import Question

Scorer = Literal["detection", "fuzzing"]
SCORERS: tuple[Scorer, ...] = ("detection", "fuzzing")
NEGATIVES = 0
"""Group of the negatives; 1 to 10 are the deciles, the weakest first."""
N_GROUPS = N_DECILES + 1
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
    """[N_GROUPS] excerpts shown."""
    parsed: npt.NDArray[np.int64]
    """[N_GROUPS] of which an answer could be read."""
    right: npt.NDArray[np.int64]
    """[N_GROUPS] of which it was right."""
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


def explaining(latent: LatentExamples, decode: Decode) -> Question:
    """What is asked to get an explanation."""
    return prompts.explain([marked_text(example, strong(example), decode) for example in latent.shown])


def items_of(latent: LatentExamples, scorer: Scorer, decode: Decode, seed: int) -> list[Item]:
    """The excerpts of one latent's test, in a seeded order."""
    chosen = random.Random(f"{seed}:{latent.index}")
    items = [
        Item(group=group, text=_positive(example, scorer, decode))
        for group, decile in enumerate(latent.deciles, start=1)
        for example in decile
    ]
    if scorer == "detection":
        negatives = [plain_text(example, decode) for example in latent.negatives]
    else:
        negatives = _wrongly_marked(latent, decode, chosen)
    items += [Item(group=NEGATIVES, text=text) for text in negatives]
    chosen.shuffle(items)
    return items


def _positive(example: Example, scorer: Scorer, decode: Decode) -> str:
    if scorer == "detection":
        return plain_text(example, decode)
    return marked_text(example, strong(example), decode)


def _wrongly_marked(latent: LatentExamples, decode: Decode, chosen: random.Random) -> list[str]:
    """As many as there are negatives, with as many marks each as one of the positives has."""
    usual = [int(strong(example).sum()) for decile in latent.deciles for example in decile]
    texts = []
    for example in (*latent.spare, *latent.negatives):
        marks = wrong(example, chosen, chosen.choice(usual))
        if marks is not None:
            texts.append(marked_text(example, marks, decode))
        if len(texts) == len(latent.negatives):
            break
    return texts


def questions_of(items: Sequence[Item], explanation: str, scorer: Scorer, shown: int) -> list[Question]:
    """The items, so many to a question, in their order."""
    ask = prompts.detect if scorer == "detection" else prompts.fuzz
    return [ask(explanation, [item.text for item in part]) for part in _parts(items, shown)]


def count(items: Sequence[Item], replies: Sequence[str | None], shown: int) -> Counts:
    """Hold the answers against the truth.

    Args:
        items: as they were asked.
        replies: one per question, in order; None where there was no answer at all.
        shown: items to a question.
    """
    asked, parsed, right = (np.zeros(N_GROUPS, dtype=np.int64) for _ in range(3))
    n_unparsable = 0
    for part, reply in zip(_parts(items, shown), replies, strict=True):
        verdicts = answers.verdicts_in(reply, len(part))
        n_unparsable += verdicts is None
        for i, item in enumerate(part):
            asked[item.group] += 1
            if verdicts is not None:
                parsed[item.group] += 1
                right[item.group] += verdicts[i] == item.truth
    return Counts(asked=asked, parsed=parsed, right=right, n_questions=len(replies), n_unparsable=n_unparsable)


def _parts(items: Sequence[Item], shown: int) -> list[Sequence[Item]]:
    return [items[first : first + shown] for first in range(0, len(items), shown)]
