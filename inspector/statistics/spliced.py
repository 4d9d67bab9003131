"""Run the model on with something else in the hook's place, and see what that does to its predictions.

All arms of a context are run beside the unhooked one, and x is taken from that same run: a cached x that differed would
make everything a splice of something else. Errors are those of held-out contexts, with maps fitted on training tokens.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import on_host
from inspector.engine.plan import random_part
from inspector.errors import DataError
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.forward import Outputs, loss_of
from inspector.sources.sae import LoadedSae
from inspector.statistics.grouping import drawn_together, nearest_l0
from inspector.statistics.passes import contexts_with, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import FIXED, LARGEST, Sums, shaped

ARMS = ("sae", "linear", "nonlinear", "both", "random", "difference")
"""x_hat; x_hat + linear_error; x_hat + nonlinear_error; x_hat + both, which is x; x + a random direction, and x + the
difference of two real activations, each of the length of sae_error at that token."""
PROBABILITY_ROWS = 64
"""Positions whose distributions are there at once, twice and their ratio: 262k tokens of vocabulary take 0.3 GB."""


@dataclass(kw_only=True)
class SplicedSae(Sums):
    """Sums of one SAE over the scored tokens of each of c contexts, [c] float64."""

    sae: str = field(metadata=FIXED)
    loss: dict[str, Tensor]
    """By arm: of the loss, in nats."""
    kl: dict[str, Tensor]
    """By arm: of KL(original || spliced), in nats."""
    error_sq: Tensor = shaped("c")
    linear_sq: Tensor = shaped("c")
    nonlinear_sq: Tensor = shaped("c")
    """Of squared norms."""
    error_norm: Tensor = shaped("c")
    linear_norm: Tensor = shaped("c")
    nonlinear_norm: Tensor = shaped("c")
    """Of norms."""


@dataclass(kw_only=True)
class Spliced(Sums):
    """Everything the splices gave."""

    n: Tensor = shaped("c")
    """[c] scored tokens."""
    original: Tensor = shaped("c")
    """[c] sum of the unhooked loss, in nats."""
    saes: dict[str, SplicedSae]
    loss_gap: float = field(default=0.0, metadata=LARGEST)
    """Largest difference of any token's loss between the unhooked run and one with x spliced in (S-24)."""
    before_gap: float = field(default=0.0, metadata=LARGEST)
    """Largest change of any loss before the first replaced position, over all arms (S-25)."""
    cache_gap: float = field(default=0.0, metadata=LARGEST)
    """Largest difference between x of this run and the one the maps were fitted on the like of."""
    groups: list[int] = field(metadata=FIXED)
    """[c] the document of each context, counted from 0: those of one are drawn together."""
    dtype: str = field(metadata=FIXED)
    seed: int = field(metadata=FIXED)
    """Of the run, for what is drawn from these numbers."""


def measure_splices(measuring: Measuring, *, contexts: int, l0: float, hook: str) -> Generator[Event, None, Spliced]:
    """Splice every arm of every SAE into held-out contexts.

    Args:
        measuring: the target.
        contexts: held-out contexts, at most, drawn by the seed; 0 takes all.
        l0: per width the SAE of the nearest nominal L0, and all of the narrowest width; 0 takes all.
        hook: must be the target's; a mistyped name raises instead of replacing nothing.
    """
    loaded = measuring.loaded
    hook_name = hook or loaded.hook_name
    if loaded.model.check_hook(hook_name) != loaded.model.check_hook(loaded.hook_name):
        raise DataError(f"Hook {hook_name} and {loaded.hook_name} differ in width. Splice where the SAEs read.")
    chosen = contexts_with(measuring.plan.test)
    documents = measuring.plan.documents
    chosen = random_part(chosen, contexts, measuring.seed, documents) if contexts else list(chosen)
    narrowest = min(sae.ref.d_sae for sae in loaded.saes)
    picks = nearest_l0(loaded.saes, l0)
    picks = [sae for sae in loaded.saes if sae in picks or sae.ref.d_sae == narrowest]
    places = {context: place for place, context in enumerate(chosen)}

    groups = drawn_together(measuring.plan.test, documents, chosen)

    def new() -> Spliced:
        c, saes = len(chosen), {}
        for sae_id in (sae.ref.sae_id for sae in picks):
            loss, kl = ({arm: torch.zeros(c, dtype=torch.float64) for arm in ARMS} for _ in range(2))
            saes[sae_id] = SplicedSae.zeros(c=c, sae=sae_id, loss=loss, kl=kl)
        dtype = str(loaded.model.dtype).split(".")[-1]
        return Spliced.zeros(c=c, saes=saes, groups=groups, dtype=dtype, seed=measuring.seed)

    def add(sums: Spliced, batch: ActivationBatch) -> Iterator[None]:
        return _one_context(measuring, picks, hook_name, batch, places[int(batch.contexts[0])], sums)

    return (yield from walk(measuring.activations, chosen, new, add, name="splices", at_once=1))


def _one_context(
    measuring: Measuring,
    picks: Sequence[LoadedSae],
    hook_name: str,
    cached: ActivationBatch,
    place: int,
    sums: Spliced,
) -> Iterator[None]:
    """Every arm of every SAE in one context; pauses after each, which is a forward pass.

    What came of them is looked at when all were run: a look at every number would wait for the device as often.
    """
    loaded = measuring.loaded
    index = int(cached.contexts[0])
    tokens = loaded.contexts.token_ids[index : index + 1]
    included = measuring.plan.included[index]
    scored = included.nonzero()[:, 0]
    start = int(scored[0])
    plain = loaded.model.forward(tokens, [hook_name])
    x = plain.activations[hook_name][0]
    places, ids = scored.to(x.device, non_blocking=True), tokens[0].to(x.device, non_blocking=True)
    unhooked = plain.outputs[0].kept()  # which every arm is compared with
    loss = loss_of(unhooked, ids)
    again = loss_of(loaded.model.splice(tokens, hook_name, x[None]).outputs[0], ids)
    gaps = [(cached.x.to(x) - x).abs().max(), (again - loss)[:-1].abs().max()]
    before, added = [], [(sums.original, loss[places].double().sum())]
    for sae in picks:
        own = sums.saes[sae.ref.sae_id]
        parts = decompose(x[places], sae.reconstruct(x[places]).x_hat.to(x), measuring.maps[sae.ref.sae_id].error_map)
        for part in ("error", "linear", "nonlinear"):
            squares = squared_norm(parts.sae_error if part == "error" else getattr(parts, f"{part}_error")).double()
            added.append((getattr(own, f"{part}_sq"), squares.sum()))
            added.append((getattr(own, f"{part}_norm"), squares.sqrt().sum()))
        for arm, value in _arms(parts, (measuring.seed, index)).items():
            replacement = x.clone()
            replacement[places] = value.to(x)
            outputs = loaded.model.splice(tokens, hook_name, replacement[None]).outputs[0].kept()
            spliced = loss_of(outputs, ids)
            added.append((own.loss[arm], spliced[places].double().sum()))
            added.append((own.kl[arm], _divergence(unhooked, outputs, scored)))
            if start:  # the loss at a position predicts the next token, from this and earlier positions alone
                before.append((spliced - loss)[:start].abs().max())
            yield
    found = [float(each) for each in on_host([*gaps, *(each for _, each in added), *before])]
    cache_gap, loss_gap, original, *_ = found
    if not math.isfinite(original):
        raise DataError(f"The loss of context {index} is not finite. Check the weights, or try --dtype float32.")
    sums.n[place] += len(places)
    sums.cache_gap, sums.loss_gap = max(sums.cache_gap, cache_gap), max(sums.loss_gap, loss_gap)
    sums.before_gap = max([sums.before_gap, *found[len(gaps) + len(added) :]])
    for (into, _), number in zip(added, found[len(gaps) :], strict=False):
        into[place] += number


def _arms(parts: Decomposition, seed: tuple[int, int]) -> dict[str, Tensor]:
    """What each arm puts at the replaced tokens, [n, d]."""
    own = parts.x
    length = squared_norm(parts.sae_error).sqrt().to(own)[:, None]
    rng = np.random.default_rng(seed)
    random = torch.from_numpy(rng.standard_normal(own.shape)).to(own.dtype).to(own.device, non_blocking=True)
    # Two other tokens of this context, which are in the model's own distribution as no random direction is.
    drawn = (torch.from_numpy(rng.permutation(len(own))) for _ in range(2))
    first, second = (each.to(own.device, non_blocking=True) for each in drawn)
    difference = own[first] - own[second]
    return {
        "sae": parts.x_hat,
        "linear": parts.x_hat + parts.linear_error,
        "nonlinear": parts.x_hat + parts.nonlinear_error,
        "both": parts.x_hat + parts.linear_error + parts.nonlinear_error,
        "random": own + length * random / random.norm(dim=1, keepdim=True),
        "difference": own + length * difference / difference.norm(dim=1, keepdim=True).clamp_min(1e-12),
    }


def _divergence(original: Outputs, spliced: Outputs, places: Tensor) -> Tensor:
    """Sum over the places, on the host, of KL(original || spliced) of the next-token distributions, in nats."""
    totals = []
    for (part, before), (_, after) in zip(original.parts(), spliced.parts(), strict=True):
        inside = places[(places >= part.start) & (places < part.stop)] - part.start
        for some in inside.to(before.device, non_blocking=True).split(PROBABILITY_ROWS):
            p, q = before[some].log_softmax(dim=-1), after[some].log_softmax(dim=-1)
            totals.append((p.exp() * (p - q)).sum(dtype=torch.float64))
    return torch.stack(totals).sum()
