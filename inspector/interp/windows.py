"""Short windows of the contexts, all of one length, from the positions an SAE is judged on anyway.

The paper's code judges on the first 128 tokens of a text SAEs that were trained on positions from 200 on (D-14), and
its negatives are shorter than its positives. Here windows tile the target's own positions, and all are equally long.

Of those that go by, `Reservoir` keeps a bounded sample for each latent that does not depend on how they came in
batches: every (latent, window) has a fixed random key, and of each latent the windows with the smallest keys stay. That
is a uniform sample without replacement, the same for every batch size and order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
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

    def tokens(self, token_ids: Tensor) -> Tensor:
        """[w, length] the tokens of each, from those [contexts, positions] of all contexts."""
        return token_ids[self.contexts[:, None], self.starts[:, None] + torch.arange(self.length)]


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


def keys_of(seed: int, latents: npt.NDArray[np.int64], windows: npt.NDArray[np.int64]) -> Tensor:
    """[n_latents, n_windows] float64, uniform in [0, 1), a function of seed, latent and window alone."""
    mixed = _mixed(latents.astype(np.uint64) + _mixed(np.asarray([seed], dtype=np.uint64)))
    bits = _mixed(mixed[:, None] ^ _mixed(windows.astype(np.uint64))[None, :])
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the value (finalizer of splitmix64)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Reservoir:
    """For each of n latents the items with the smallest keys, with their activations if wanted.

    Args:
        n_latents: n.
        size: items kept of each.
        length: activations of an item, one per token; 0: none are kept.
    """

    def __init__(self, n_latents: int, size: int, length: int = 0) -> None:
        self.keys = torch.full((n_latents, size), torch.inf, dtype=torch.float64)
        """[n, size], infinite where there is no item."""
        self.windows = torch.full((n_latents, size), -1, dtype=torch.int64)
        """[n, size] index of each item's window."""
        self.activations = torch.zeros(n_latents, size, length)
        """[n, size, length] float32."""

    def offer(self, keys: Tensor, windows: Tensor, activations: Tensor | None = None) -> None:
        """Look at more items.

        Args:
            keys: [n, w] float64; infinite where the latent does not want the window.
            windows: [w] their indices.
            activations: [n, w, length].
        """
        size = self.keys.shape[1]
        joined = torch.cat([self.keys, keys], dim=1)
        kept = torch.zeros_like(joined, dtype=torch.bool)
        kept.scatter_(1, joined.topk(size, dim=1, largest=False).indices, True)
        # As many come in as go out of each row, and both lists are in the order of the rows.
        row, column = kept[:, size:].nonzero(as_tuple=True)
        _, slot = (~kept[:, :size]).nonzero(as_tuple=True)
        self.keys[row, slot] = keys[row, column]
        self.windows[row, slot] = windows[column]
        if activations is not None:
            self.activations[row, slot] = activations[row, column]

    def items(self, latent: int) -> tuple[Tensor, Tensor]:
        """Places in the row, and their windows, in the order of the keys."""
        keys = self.keys[latent]
        order = keys.argsort(stable=True)[: int(keys.isfinite().sum())]
        return order, self.windows[latent, order]
