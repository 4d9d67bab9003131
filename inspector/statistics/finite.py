"""A NaN or an infinity is found where it enters and named, never averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.errors import DataError

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch


def require_finite(values: Tensor, batch: ActivationBatch, what: str, rows: Tensor | None = None) -> None:
    """Raise if any number is NaN or infinite, naming the first token where it is.

    Args:
        values: [n, d] numbers of the batch's tokens, or of those in `rows`.
        batch: where they are from.
        what: 'activation', 'reconstruction of SAE ...': begins the message.
        rows: [n] bool over the batch, True for the tokens `values` has; None for all.

    Raises:
        DataError: with the context and position, whether it is NaN or infinite, and the hook, layer and dtype.
    """
    # One sum instead of a mask of the same size: it is finite unless a number is not, or they add up beyond 3e38.
    if bool(torch.isfinite(values.sum())):
        return
    bad = (~torch.isfinite(values)).any(dim=-1).nonzero()[:, 0]
    if len(bad) == 0:
        return
    contexts = batch.contexts if rows is None else batch.contexts[rows.to(batch.contexts.device)]
    positions = batch.positions if rows is None else batch.positions[rows.to(batch.positions.device)]
    first = int(bad[0])
    kind = "NaN" if bool(values[first].isnan().any()) else "infinite"
    origin = f"; {batch.origin}" if batch.origin else ""
    raise DataError(
        f"The {what} is not finite at context {int(contexts[first])}, position {int(positions[first])} "
        f"({kind}; {len(bad)} of {len(values)} tokens of its batch{origin}). "
        "Check the weights, or try --dtype float32."
    )
