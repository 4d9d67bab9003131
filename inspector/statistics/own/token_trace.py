"""Norms along some consecutive tokens of one context: the paper's picture of what averages hide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from inspector.engine.decomposition import decompose, squared_norm
from inspector.statistics.own.token_norms import Trace

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.measuring import Measuring


def place_of(plan: Plan, start: int, length: int) -> tuple[int, list[int]] | None:
    """(context, positions) of `length` included tokens from number `start` of all included ones.

    Counted round and round where there are fewer tokens. The stretch stays inside one context, and where whole contexts
    are held out it is taken from the next that is; None if no such context has so many tokens.
    """
    per_context = plan.included.sum(dim=1)
    ends = per_context.cumsum(dim=0)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return None
    number = start % total
    context = int(torch.searchsorted(ends, number, right=True))
    offset = number - int(ends[context] - per_context[context])
    fits = (per_context >= length) & plan.test.any(dim=1)
    order = [(context + step) % len(per_context) for step in range(len(per_context))]
    chosen = next((each for each in order if bool(fits[each])), None)
    if chosen is None:
        return None
    positions: list[int] = plan.included[chosen].nonzero()[:, 0].tolist()
    first = min(offset, len(positions) - length)
    return chosen, positions[first : first + length]


@torch.inference_mode()
def trace(measuring: Measuring, series: Sequence[LoadedSae], start: int, length: int) -> Trace | None:
    """Norms of x and of the errors of some SAEs along the stretch that `place_of` names."""
    loaded = measuring.loaded
    assert loaded is not None, "tokens need a target"
    found = place_of(measuring.plan, start, length) if length else None
    if found is None:
        return None
    context, positions = found
    (batch,) = measuring.activations.batches([context])
    x = batch.x[torch.tensor(positions).to(batch.x.device)]
    norms: dict[str, dict[str, tuple[float, ...]]] = {"sae_error": {}, "linear_error": {}, "nonlinear_error": {}}
    for sae in series:
        parts = decompose(x, sae.reconstruct(x).x_hat.to(x), measuring.maps[sae.ref.sae_id].error_map)
        for name, own in norms.items():
            own[sae.ref.sae_id] = tuple(getattr(parts, f"{name}_norm").tolist())
    # A token may hold half a character; a lone surrogate cannot be stored.
    ids = loaded.contexts.token_ids[context, positions].tolist()
    texts = [text.encode("utf-8", "replace").decode() for text in loaded.model.token_texts(ids)]
    return Trace(
        context=context,
        positions=tuple(positions),
        tokens=tuple(texts),
        train=tuple(measuring.plan.train[context, positions].tolist()),
        x=tuple(squared_norm(x).sqrt().tolist()),
        **norms,
    )
