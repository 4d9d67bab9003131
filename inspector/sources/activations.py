"""Activations of many contexts, streamed in batches that fit into memory.

Numbers do not depend on the batch size, bit for bit, because nothing that computes sees it: the model runs one context
at a time (`model.py`) and SAEs encode fixed chunks of tokens (`sae.py`). Measured on a CPU with AVX-512 (float32,
stories260K and both toys): passes over 1, 3, 8 and 24 contexts at once agree in every bit too, but bare matrix products
of 1 row, and with two threads those of 7 rows, differ by 1e-5 from those of 64 or more; one shape is the only promise
that holds on every machine. Its cost was within the noise (2 cores, d_model 128, 256 tokens).

What may still move the last bits: another machine, number of threads, or version of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.errors import UsageError

if TYPE_CHECKING:
    from inspector.sources.contexts import Contexts
    from inspector.sources.model import LanguageModel


class Rows:
    """Some rows of what is on a device. A mask there would have to be waited for, because nobody knows how many it has.

    Args:
        chosen: [n] bool, on the host.
        device: of the values.
    """

    def __init__(self, chosen: Tensor, device: torch.device) -> None:
        chosen = chosen.cpu()
        self.are_all = bool(chosen.all())
        self.places = chosen.nonzero()[:, 0]
        """[k] int64, on the host."""
        self._there = self.places.to(device, non_blocking=True)

    def of(self, values: Tensor) -> Tensor:
        """[k, ...] of values [n, ...]."""
        return values if self.are_all else values[self._there]


@dataclass(frozen=True, kw_only=True)
class ActivationBatch:
    """All positions of some contexts, flattened context by context."""

    contexts: Tensor
    """[n] int64, index of the context."""
    positions: Tensor
    """[n] int64, place in the context."""
    token_ids: Tensor
    """[n] int64."""
    x: Tensor
    """[n, d] float32, on the model's device. An inference tensor: clone it to change it in place or to train on it."""
    origin: str = ""
    """Hook, layer and the dtype the model computes in, for messages; see `origin_of`."""
    outlier: Tensor | None = None
    """[n] bool, on the CPU: tokens that outweigh all others (`engine.plan`); None: none is counted apart."""

    def rows(self, chosen: Tensor) -> ActivationBatch:
        """The tokens where `chosen` [n] bool is True."""
        rows = Rows(chosen, self.x.device)
        if rows.are_all:
            return self
        return replace(
            self,
            contexts=self.contexts[rows.places],
            positions=self.positions[rows.places],
            token_ids=self.token_ids[rows.places],
            x=rows.of(self.x),
            outlier=None if self.outlier is None else self.outlier[rows.places],
        )

    def ordinary(self, mask: Tensor) -> Tensor:
        """A mask [n] of these tokens without outliers."""
        return mask if self.outlier is None else mask & ~self.outlier.to(mask.device)


def origin_of(model: LanguageModel, hook_name: str) -> str:
    """`blocks.3.hook_resid_post, layer 3, bfloat16`: where an activation is from, for messages about faults."""
    layer = re.search(r"\bblocks\.(\d+)\.", hook_name)
    dtype = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return ", ".join(part for part in (hook_name, f"layer {layer[1]}" if layer else "", dtype) if part)


def stream(
    model: LanguageModel, contexts: Contexts, hook_name: str, indices: Sequence[int], batch_size: int
) -> Iterator[ActivationBatch]:
    """Activations of the contexts with these indices, in this order, `batch_size` contexts at a time.

    Raises:
        UsageError: when the batch size is not positive.
        TargetError: when the model has no such hook.
    """
    if batch_size < 1:
        raise UsageError(f"A batch of {batch_size} contexts holds nothing. Use 1 or more.")
    length, origin = contexts.token_ids.shape[1], origin_of(model, hook_name)
    for first in range(0, len(indices), batch_size):
        chosen = torch.tensor(list(indices[first : first + batch_size]), dtype=torch.int64)
        tokens = contexts.token_ids[chosen]
        x = model.activations(tokens, hook_name)
        yield ActivationBatch(
            contexts=chosen.repeat_interleave(length),
            positions=torch.arange(length).repeat(len(chosen)),
            token_ids=tokens.flatten(),
            x=x.flatten(0, 1),
            origin=origin,
        )
