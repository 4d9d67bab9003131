"""Soft-capped next-token loss without ever holding all logits.

Eight thousand tokens times 4096 logits in float32, and their gradients, pass the memory bus a dozen times in the plain
formulation; on a CPU that costs more than the model. Here 512 rows at a time become loss and gradients while they are
in cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 512
SOFT_CAP = 30.0
"""Gemma 2's `final_logit_softcapping`."""


def _rows(hidden: Tensor, weight: Tensor, targets: Tensor, n_tokens: float) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss of some rows, and the gradients of the mean loss in `hidden` and `weight`."""
    squashed = torch.tanh((hidden @ weight.t()).float() / SOFT_CAP)
    logits = SOFT_CAP * squashed
    normaliser = torch.logsumexp(logits, -1)
    picked = logits.gather(1, targets[:, None])[:, 0]
    is_target = torch.arange(weight.shape[0])[None] == targets[:, None]
    # d loss / d raw = (softmax - one_hot) * d cap / d raw, and d cap / d raw = 1 - tanh^2.
    slope = (torch.exp(logits - normaliser[:, None]) - is_target.float()) * (1 - squashed * squashed) / n_tokens
    slope = slope.to(hidden.dtype)
    return (normaliser - picked).sum(), slope @ weight, slope.t() @ hidden


_compiled_rows = torch.compile(_rows, dynamic=False)


class SoftCappedLoss(torch.autograd.Function):
    """Mean cross entropy in nats per token of `cap(hidden @ weight.T)`; products in bfloat16 or as `dtype` says."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, fast: bool) -> Tensor:
        """`hidden` [tokens, d_model], `weight` [vocab, d_model], `targets` [tokens]; `fast` compiles the inner part."""
        rows = _compiled_rows if fast else _rows
        n_tokens = hidden.shape[0]
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        hidden_slope = torch.empty_like(hidden, dtype=torch.float32)
        weight_slope = torch.zeros_like(weight)
        total = torch.zeros(())
        for first in range(0, n_tokens, ROWS):
            here = slice(first, first + ROWS)
            loss, of_hidden, of_weight = rows(low_hidden[here], low_weight, targets[here], float(n_tokens))
            total = total + loss
            hidden_slope[here] = of_hidden
            weight_slope += of_weight
        ctx.save_for_backward(hidden_slope, weight_slope)
        return total / n_tokens

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale the gradients made on the way forward."""
        hidden_slope, weight_slope = ctx.saved_tensors
        return hidden_slope * slope, weight_slope * slope, None, None, None
