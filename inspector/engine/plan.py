"""Which tokens are fitted, which are scored, and which are left out.

Whole contexts are held out by default, with all contexts of the same document: neighbouring tokens share topic and
wording, and a map tested on tokens next to those it was fitted on looks better than it is. The paper has one context of
each document and splits tokens at random (D-25); `split='token'` does that.

Left out as well are tokens that outweigh all others, whose activation is many times as long as an ordinary one's.
Language models have a few of them per thousand ("massive activations", "attention sinks"): not only the first token but
quotes, newlines and digits in the middle of a text. Sums of squares belong to them: nineteen of ten thousand tokens of
Gemma 3 270M turned a norm R-squared of 0.55 into 0.99. The threshold is fixed before any pass, so that neither batches
nor shards have a say in which tokens are meant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

PAPER_TRAIN, PAPER_TOKENS = 150_000, 246_900
"""The paper fits on 150,000 of its 300 x 823 tokens; when there are fewer tokens, on the same share of them."""
MOST_OFF = 0.25
"""Of the goal; documents so large that whole ones miss it by more are divided."""

ONE_DOCUMENT = (
    "All contexts are of one document: contexts are held out instead of documents, and what is held out shares its "
    "subject and wording with what is fitted."
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The role of every position of every context."""

    included: Tensor
    """[c, t] bool: fitted or scored."""
    train: Tensor
    """[c, t] bool: fitted. The included rest is held out."""
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()
    """What had to be decided differently from what was asked for."""
    documents: Tensor | None = None
    """[c] int64: contexts of the same number are held out, and drawn for intervals, together. None: each alone."""

    @property
    def test(self) -> Tensor:
        """[c, t] bool: included and held out."""
        return self.included & ~self.train


def make_plan(
    token_ids: Tensor,
    special_ids: Collection[int],
    positions: tuple[int, int | None],
    train_tokens: int | None,
    split: Literal["context", "token"],
    seed: int,
    documents: Sequence[int] | None = None,
) -> Plan:
    """Divide the tokens into train, test and excluded.

    Excluded are special tokens, positions outside the range, and always the last position of a context: it has no next
    token, so losses would not line up (D-01). With `split='context'` so many whole documents are fitted that their
    number of tokens comes nearest to the goal, at least one, and one is held out; with 'token' the goal is met exactly.
    Where all is one document, or whole ones miss the goal by far, contexts are taken for documents, with a note.

    Args:
        token_ids: [c, t] int64.
        special_ids: ids that are never fitted or scored.
        positions: half-open range; an end of None is the end of the context.
        train_tokens: goal for n_train; None: the paper's number. More than its share of what there is becomes that
            share, with a note if a number was asked for.
        split: 'context' or 'token'.
        seed: orders documents or tokens; the same seed gives the same plan with any version of numpy or torch.
        documents: [c] the number of each context's document; None: each has its own.
    """
    n_contexts, length = token_ids.shape
    start, end = positions
    place = torch.arange(length)
    within = (place >= start) & (place < (length if end is None else end)) & (place < length - 1)
    special = torch.isin(token_ids.cpu(), torch.tensor(sorted(special_ids), dtype=torch.int64))
    included = within[None, :] & ~special
    n_included = int(included.sum())
    goal, notes = _goal(train_tokens, n_included)
    train = torch.zeros_like(included)
    together = _together(documents, n_contexts)
    if split == "token":
        places = included.flatten().nonzero()[:, 0]
        train.view(-1)[places[_permutation(len(places), seed)[:goal]]] = True
    elif n_contexts > 1:
        if documents is not None and len(set(documents)) == 1:
            notes += (ONE_DOCUMENT,)
        train = _held_out_whole(included, goal, seed, together)
        largest = int(included.sum(dim=1).max())
        if together is not None and abs(int(train.sum()) - goal) > max(MOST_OFF * goal, largest):
            notes += (
                f"Whole documents would fit {int(train.sum()):,} tokens where {goal:,} are meant to be: contexts are "
                "held out instead, and what is held out shares documents with what is fitted.",
            )
            together = None
            train = _held_out_whole(included, goal, seed, None)
    else:
        notes += ("One context cannot be split by context: everything is held out and nothing fitted.",)
    n_train = int(train.sum())
    n_test = n_included - n_train
    return Plan(included=included, train=train, n_train=n_train, n_test=n_test, notes=notes, documents=together)


def with_everything(plan: Plan, split: Literal["context", "token"], seed: int) -> Plan:
    """The plan with special tokens and the positions outside the range counted like the others.

    What was fitted and what was held out stays so, and only tokens are added: otherwise the two could not be compared.
    Added tokens of a fitted context are fitted with `split='context'`; with 'token' the plan's own share of them is,
    in seeded order. The last position of a context stays out: it has no next token.
    """
    included = torch.ones_like(plan.included)
    included[:, -1] = False
    added = included & ~plan.included
    train = plan.train.clone()
    if split == "context":
        train |= added & plan.train.any(dim=1)[:, None]
    elif plan.n_train:
        places = added.flatten().nonzero()[:, 0]
        n_fitted = len(places) * plan.n_train // (plan.n_train + plan.n_test)
        train.view(-1)[places[_permutation(len(places), seed)[:n_fitted]]] = True
    n_train = int(train.sum())
    n_test = int(included.sum()) - n_train
    return replace(plan, included=included, train=train, n_train=n_train, n_test=n_test)


def _goal(train_tokens: int | None, n_included: int) -> tuple[int, tuple[str, ...]]:
    most = n_included * PAPER_TRAIN // PAPER_TOKENS
    if train_tokens is None:
        return min(PAPER_TRAIN, most), ()
    if train_tokens <= most:
        return train_tokens, ()
    note = (
        f"{train_tokens:,} training tokens were asked for, but only {n_included:,} tokens are there: "
        f"{PAPER_TRAIN / PAPER_TOKENS:.1%} of them are fitted, the paper's share."
    )
    return most, (note,)


def _together(documents: Sequence[int] | None, n_contexts: int) -> Tensor | None:
    """Documents numbered in the order of their first contexts; None where that groups nothing, or everything."""
    if documents is None or len(set(documents)) in (1, n_contexts):
        return None
    numbers: dict[int, int] = {}
    return torch.tensor([numbers.setdefault(each, len(numbers)) for each in documents], dtype=torch.int64)


def _held_out_whole(included: Tensor, goal: int, seed: int, together: Tensor | None) -> Tensor:
    """[c, t] bool, the tokens to fit: all included ones of some contexts, or of some documents."""
    units = torch.arange(len(included)) if together is None else together
    sizes = torch.zeros(int(units.max()) + 1, dtype=torch.int64).index_add_(0, units, included.sum(dim=1))
    return included & torch.isin(units, _units_for(sizes, goal, seed))[:, None]


def _units_for(tokens_per_unit: Tensor, goal: int, seed: int) -> Tensor:
    """Indices of the contexts or documents to fit, at least one and not all."""
    order = _permutation(len(tokens_per_unit), seed)
    reached = tokens_per_unit[order].cumsum(dim=0)
    n_chosen = int((reached - goal).abs().argmin()) + 1
    return order[: min(n_chosen, len(order) - 1)]


def random_part(
    indices: Sequence[int], n: int, seed: int | tuple[int, ...], documents: Tensor | None = None
) -> list[int]:
    """So many of the indices, in their order; fewer are a part of more.

    With the document of every context, one of each comes before a second of any: intervals draw documents.
    """
    order: list[int] = _permutation(len(indices), seed).tolist()
    if documents is not None:
        firsts: dict[int, int] = {}
        for place in order:
            firsts.setdefault(int(documents[indices[place]]), place)
        first = set(firsts.values())
        order = [*firsts.values(), *(place for place in order if place not in first)]
    return [indices[place] for place in sorted(order[:n])]


def _permutation(n: int, seed: int | tuple[int, ...]) -> Tensor:
    """Seeded permutation of range(n), by sorting raw bits: numpy promises those across versions, not its shuffles."""
    return torch.from_numpy(np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable"))


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Which tokens of one hook count as outliers."""

    factor: float
    """In medians."""
    median_norm: float
    """Median |x| of the tokens that the load gate looked at."""

    @property
    def threshold(self) -> float:
        """Norms above it are outliers'."""
        return self.factor * self.median_norm

    @torch.inference_mode()
    def among(self, x: Tensor) -> Tensor:
        """[n] bool, on the CPU: which rows of x [n, d] are outliers. What is not finite is none."""
        norm = x.float().norm(dim=-1)
        found: Tensor = (norm > self.threshold) & norm.isfinite()
        return found.cpu()

    def times(self, norm: float) -> float:
        """A norm in medians."""
        return norm / self.median_norm


def outliers_of(factor: float | None, median_norm: float | None) -> Outliers | None:
    """None if nothing counts as an outlier: it is switched off, or the median says nothing."""
    if factor is None or median_norm is None or not 0 < median_norm < float("inf"):
        return None
    return Outliers(factor=factor, median_norm=median_norm)
