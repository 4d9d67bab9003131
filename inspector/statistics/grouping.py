"""Which contexts are resampled together: those of a document, and neighbours where sums would fill memory.

Every interval resamples documents, most of which are one context, so sums are kept per document. Beyond MOST_GROUPS
scored documents neighbours in the text's order share their sums and are drawn together, as blocks: what is kept no
longer grows with the text. The interval then rests on 512 blocks instead of more documents, which widens it if
anything, because blocks also keep together what neighbours share. Up to 512 nothing changes, not a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_GROUPS = 512
"""More would not narrow a 95% interval by anything that shows; at d_model 3584, 15 SAEs are 0.9 GB of sums."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The group of every context of a mask."""

    of_context: Tensor
    """[c] int64 for all contexts of the text; -1 where the mask has none of its tokens."""
    first: Tensor
    """[g] int64 the first context of each group; ascending."""


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
