"""Which tokens and which SAEs a costly measurement takes, and which contexts are resampled together.

Every interval resamples documents, most of which are one context, so sums are kept per document. Beyond MOST_GROUPS
scored documents neighbours in the text's order share their sums and are drawn together, as blocks: what is kept no
longer grows with the text. The interval then rests on 512 blocks instead of more documents, which widens it if
anything, because blocks also keep together what neighbours share. Up to 512 nothing changes, not a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inspector.engine.plan import Plan, random_part
from inspector.errors import TargetError, nearest
from inspector.sources.sae import LoadedSae

LEAST_TOKENS = 12_000
TOKENS_PER_DIMENSION = 50
"""With the paper's share of them fitted, thirty training tokens per dimension."""


def tokens_wanted(asked: int, d: int) -> int:
    """How many tokens to take: what was asked for, or for 0 enough for a regression on d dimensions."""
    return asked or max(LEAST_TOKENS, TOKENS_PER_DIMENSION * d)


def sample_plan(plan: Plan, tokens: int, seed: int) -> Plan:
    """The plan on random contexts of either side that together hold about so many tokens.

    Whole contexts, and of training and held-out ones the same share, so that what was held out stays so. Never the
    first ones: contexts stand in the order of their text, and its beginning is not like the rest. The same seed takes
    the same ones, and fewer tokens a part of those of more.
    """
    n_included = int(plan.included.sum())
    if tokens >= n_included:
        return plan
    share = tokens / n_included
    kept = torch.zeros(len(plan.included), dtype=torch.bool)
    for number, side in enumerate((plan.train, plan.test)):
        contexts = side.any(dim=1).nonzero()[:, 0].tolist()
        kept[random_part(contexts, max(1, math.ceil(share * len(contexts))), (seed, number))] = True
    included, train = plan.included & kept[:, None], plan.train & kept[:, None]
    n_train = int(train.sum())
    return replace(plan, included=included, train=train, n_train=n_train, n_test=int(included.sum()) - n_train)


def named(saes: Sequence[LoadedSae], sae_id: str) -> LoadedSae:
    """The SAE of a name.

    Raises:
        TargetError: there is none.
    """
    by_id = {sae.ref.sae_id: sae for sae in saes}
    if sae_id not in by_id:
        raise TargetError(f"'sae={sae_id}' is not among the target's SAEs.{nearest(sae_id, by_id)}")
    return by_id[sae_id]


def nearest_l0(saes: Sequence[LoadedSae], l0: float) -> list[LoadedSae]:
    """Per width the SAE nearest in nominal L0, the smaller of a tie; 0 takes all."""
    if l0 == 0:
        return list(saes)
    picks = []
    for d_sae in sorted({sae.ref.d_sae for sae in saes}):
        same = [sae for sae in saes if sae.ref.d_sae == d_sae]
        known = [sae for sae in same if sae.ref.nominal_l0 is not None]
        picks.append(
            min(known, key=lambda sae: (abs((sae.ref.nominal_l0 or 0.0) - l0), sae.ref.nominal_l0 or 0.0))
            if known
            else same[0]
        )
    return picks


MOST_GROUPS = 512
"""More would not narrow a 95% interval by anything that shows; at d_model 3584, 15 SAEs are 0.9 GB of sums."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Tokens that come context by context, and the group of each context."""

    groups: Tensor
    """[k] int64, one per context that came."""
    lengths: list[int]
    """[k] tokens of each."""

    def sums(self, values: Tensor) -> Tensor:
        """[k, ...] sums of values [n, ...] of each context, where those are."""
        return torch.stack([part.sum(dim=0) for part in torch.split(values, self.lengths)])

    def add(self, into: Tensor, values: Tensor) -> None:
        """Add values [n, ...] to sums per group [g, ...] on the CPU."""
        into.index_add_(0, self.groups, self.sums(values).cpu())


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The group of every context of a mask."""

    of_context: Tensor
    """[c] int64 for all contexts of the text; -1 where the mask has none of its tokens."""
    first: Tensor
    """[g] int64 the first context of each group; ascending."""

    @property
    def n(self) -> int:
        """How many groups."""
        return len(self.first)

    @property
    def n_contexts(self) -> int:
        """Contexts in all of them."""
        return int((self.of_context >= 0).sum())

    def runs(self, contexts: Tensor) -> Runs:
        """Of tokens in these contexts [n], context by context."""
        found, lengths = torch.unique_consecutive(contexts.cpu(), return_counts=True)
        return Runs(groups=self.of_context[found], lengths=lengths.tolist())


def drawn_together(mask: Tensor, documents: Tensor | None, contexts: Sequence[int]) -> list[int]:
    """The group of each of these contexts of a mask, without blocks: for sums that are kept per context anyhow."""
    of_context: list[int] = groups_of(mask, documents, most=len(mask)).of_context.tolist()
    numbers: dict[int, int] = {}  # of these contexts alone, without a gap
    return [numbers.setdefault(of_context[context], len(numbers)) for context in contexts]


def groups_of(mask: Tensor, documents: Tensor | None = None, most: int | None = None) -> Groups:
    """Groups of the contexts in which a [c, t] mask is True anywhere, consecutive ones together where they must be.

    Args:
        mask: the tokens that are scored.
        documents: [c] of `Plan`: contexts of one number are one group; None: each is its own.
        most: groups at most; None: MOST_GROUPS. Their sizes differ by one document.
    """
    indices = mask.any(dim=1).nonzero()[:, 0].cpu()
    of_context = torch.full((len(mask),), -1, dtype=torch.int64)
    numbers: dict[int, int] = {}
    firsts = []
    for context in indices.tolist():
        document = context if documents is None else int(documents[context])
        if document not in numbers:
            numbers[document] = len(numbers)
            firsts.append(context)
        of_context[context] = numbers[document]
    n_groups = min(len(numbers), MOST_GROUPS if most is None else most)
    first = torch.tensor(firsts, dtype=torch.int64)
    if n_groups:
        of_context[indices] = of_context[indices] * n_groups // len(numbers)
        first = first[[-(-group * len(numbers) // n_groups) for group in range(n_groups)]]
    return Groups(of_context=of_context, first=first)
