"""Short windows of the contexts, all of one length, from the positions an SAE is judged on anyway.

The paper's code judges on the first 128 tokens of a text SAEs that were trained on positions from 200 on (D-14), and
its negatives are shorter than its positives. Here windows tile the target's own positions, and all are equally long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.errors import DataError, UsageError

if TYPE_CHECKING:
    from inspector.engine.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in the order of the contexts, without overlap."""

    length: int
    """Tokens of each."""
    contexts: Tensor
    """[w] int64, the context each is from."""
    starts: Tensor
    """[w] int64, position of its first token."""
    n_broken: int
    """Left out because a special token stands in them."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.contexts)

    def of(self, contexts: Tensor) -> Tensor:
        """Indices of the windows in these contexts, ascending."""
        return torch.isin(self.contexts, contexts).nonzero()[:, 0]


def windows_of(plan: Plan, length: int) -> Windows:
    """Cut the included positions of every context into windows, from its first included one on.

    Args:
        plan: which positions are included; the last one of a context never is.
        length: tokens of a window.

    Raises:
        UsageError: a window is longer than the included part of a context.
        DataError: there is no window.
    """
    included = plan.included
    places = included.any(dim=0).nonzero()[:, 0]
    if len(places) == 0:
        raise DataError("No position is included, so there is no window to show. Let --positions begin earlier.")
    first, stop = int(places[0]), int(places[-1]) + 1
    if length > stop - first:
        raise UsageError(
            f"--window {length} is longer than the {stop - first} tokens of a context that are scored. Use a shorter "
            "one, or let --positions begin earlier."
        )
    starts = torch.arange(first, stop - length + 1, length)
    whole = included.unfold(1, length, 1).all(dim=2)[:, starts]
    contexts, which = whole.nonzero(as_tuple=True)
    if len(contexts) == 0:
        raise DataError("A special token stands in every window. Use a smaller --window or another --text.")
    return Windows(length=length, contexts=contexts, starts=starts[which], n_broken=int(whole.numel() - whole.sum()))
