"""Sampling with a key-value cache, one token at a time, each with its own activation.

transformer-lens' own loop never feeds the last sampled token, which then has no activation. Here it is fed in one more
step, so that every token on the screen can be scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.errors import DataError, UsageError

if TYPE_CHECKING:
    from inspector.sources.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Step:
    """The tokens fed in one step; the first step is the whole prompt."""

    token_ids: list[int]
    """n tokens."""
    x: Tensor
    """[n, d] float32, their activations."""
    loss_before: float | None
    """Nats of this step's first token as seen from the position before; None for the prompt."""
    loss: Tensor
    """[n] float32, nats of the NEXT token; NaN at the last, whose next token is not known yet."""


def generate(
    model: LanguageModel, tokens: Sequence[int], hook_name: str, *, max_tokens: int, temperature: float, seed: int
) -> Iterator[Step]:
    """Sample up to `max_tokens` after the prompt.

    Ends early, without error, at an end-of-text token or when the model's context is full. Close the iterator to stop.

    Args:
        model: is used step by step; leave it alone until the iterator ends.
        tokens: the prompt, at least one token.
        hook_name: whose values `Step.x` holds.
        max_tokens: to sample; 0 gives the prompt's step alone.
        temperature: 0 takes the likeliest token; above 0, logits are divided by it.
        seed: same seed, same text, on the same device.

    Raises:
        DataError: when the prompt is empty or longer than the model's context.
        UsageError: for a negative or infinite temperature.
    """
    if not tokens:
        raise DataError("The prompt holds no token and the model has no beginning-of-sequence token. Type some text.")
    if not 0 <= temperature < float("inf"):
        raise UsageError(
            f"Temperature {temperature} is not 0 or more. Use 0 for the likeliest token, 1 for the model's odds."
        )
    fed = model.check_tokens(torch.tensor([list(tokens)], dtype=torch.int64))
    return _steps(model, fed, hook_name, max_tokens, temperature, seed)


def _steps(
    model: LanguageModel, fed: Tensor, hook_name: str, max_tokens: int, temperature: float, seed: int
) -> Iterator[Step]:
    from inspector.sources.model import loss_per_token

    generator = torch.Generator().manual_seed(seed)
    length, n_sampled = fed.shape[1], 0
    loss_before: float | None = None
    cache = None
    while True:
        logits, x, cache = model.step(fed, hook_name, cache)
        token_ids = fed[0].tolist()
        yield Step(token_ids=token_ids, x=x, loss_before=loss_before, loss=loss_per_token(logits[None], fed)[0])
        ended = n_sampled > 0 and token_ids[-1] in model.end_ids
        if ended or n_sampled >= max_tokens or length >= model.n_ctx:
            return
        last = logits[-1].cpu()
        token = _sample(last, temperature, generator)
        loss_before = float(last.logsumexp(dim=-1) - last[token])
        fed = torch.tensor([[token]], dtype=torch.int64, device=model.device)
        length += 1
        n_sampled += 1


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """One token id from logits [v]."""
    if temperature == 0:
        return int(logits.argmax())
    # In float64 and relative to the largest: a tiny temperature then ends in the likeliest token and not in NaN.
    scaled = (logits.double() - logits.max()) / temperature
    return int(torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator))
