"""Run the model on with something else in the hook's place, and see what that does to its predictions.

All arms of a context are run beside the unhooked one, and x is taken from that same run: a cached x that differed would
make everything a splice of something else. Errors are those of held-out contexts, with maps fitted on training tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.errors import DataError
from inspector.events import Event
from inspector.sources.model import loss_per_token
from inspector.statistics.grouping import drawn_together
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.sampling import nearest_l0, random_part

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.first_pass import SaeMaps
    from inspector.statistics.pipeline import Measuring

ARMS = ("sae", "linear", "nonlinear", "both", "random", "difference")
"""x_hat; x_hat + linear_error; x_hat + nonlinear_error; x_hat + both, which is x; x + a random direction, and x + the
difference of two real activations, each of the length of sae_error at that token."""
PROBABILITY_ROWS = 256


@dataclass(kw_only=True)
class SplicedSae:
    """Sums per context of one SAE, in the order of the contexts."""

    sae: str
    loss: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    """By arm: sum over the scored tokens of the loss, in nats."""
    kl: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    """By arm: sum of KL(original || spliced), in nats."""
    error_sq: list[float] = field(default_factory=list)
    linear_sq: list[float] = field(default_factory=list)
    nonlinear_sq: list[float] = field(default_factory=list)
    """Sums of squared norms."""
    error_norm: list[float] = field(default_factory=list)
    linear_norm: list[float] = field(default_factory=list)
    nonlinear_norm: list[float] = field(default_factory=list)
    """Sums of norms."""


@dataclass(kw_only=True)
class Spliced:
    """Everything the splices gave."""

    n: list[int] = field(default_factory=list)
    """Scored tokens per context."""
    groups: list[int] = field(default_factory=list)
    """The document of each context, counted from 0: those of one are drawn together."""
    original: list[float] = field(default_factory=list)
    """Sum of the unhooked loss per context, in nats."""
    loss_gap: float = 0.0
    """Largest difference of any token's loss between the unhooked run and one with x spliced in (S-24)."""
    before_gap: float = 0.0
    """Largest change of any loss before the first replaced position, over all arms (S-25)."""
    cache_gap: float = 0.0
    """Largest difference between x of this run and the one the maps were fitted on the like of."""
    saes: list[SplicedSae] = field(default_factory=list)
    dtype: str = "float32"
    seed: int = 0
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
    assert loaded is not None, "a splice needs a target"
    hook_name = hook or loaded.hook_name
    if loaded.model.check_hook(hook_name) != loaded.model.check_hook(loaded.hook_name):
        raise DataError(f"Hook {hook_name} and {loaded.hook_name} differ in width. Splice where the SAEs read.")
    chosen = contexts_with(measuring.plan.test)
    chosen = random_part(chosen, contexts, measuring.seed) if contexts else list(chosen)
    narrowest = min(sae.ref.d_sae for sae in loaded.saes)
    picks = nearest_l0(loaded.saes, l0)
    picks = [sae for sae in loaded.saes if sae in picks or sae.ref.d_sae == narrowest]
    found = Spliced(
        groups=drawn_together(measuring.plan.test, measuring.plan.documents, chosen),
        saes=[SplicedSae(sae=sae.ref.sae_id) for sae in picks],
        dtype=str(loaded.model.dtype).split(".")[-1],
        seed=measuring.seed,
    )
    progress = Progress("splices", len(chosen), measuring.plan.train.shape[1])
    for index in chosen:
        for _ in _one_context(measuring, picks, hook_name, index, found):
            yield progress.advance_by(0)  # an arm is a forward pass: a session answers its views between two
        yield progress.advance_by(1)
    return found


@torch.inference_mode()
def _one_context(
    measuring: Measuring, picks: Sequence[LoadedSae], hook_name: str, index: int, found: Spliced
) -> Iterator[None]:
    """Every arm of every SAE in one context; yields after each."""
    loaded = measuring.loaded
    assert loaded is not None
    tokens = loaded.contexts.token_ids[index : index + 1]
    included = measuring.plan.included[index]
    places = included.nonzero()[:, 0]
    start = int(places[0])
    plain = loaded.model.forward(tokens, [hook_name])
    x = plain.activations[hook_name][0]
    (cached,) = measuring.activations.batches([index])
    found.cache_gap = max(found.cache_gap, float((cached.x.to(x) - x).abs().max()))
    loss = loss_per_token(plain.logits, tokens)[0]
    _check(loss[places], index)
    again = loss_per_token(loaded.model.splice(tokens, hook_name, x[None]), tokens)[0]
    found.loss_gap = max(found.loss_gap, float((again - loss)[:-1].abs().max()))
    found.n.append(len(places))
    found.original.append(float(loss[places].double().sum()))
    rows = included.to(x.device)
    for sae, sums in zip(picks, found.saes, strict=True):
        arms = _arms(x, rows, sae, measuring.maps[sae.ref.sae_id], sums, (measuring.seed, index))
        for arm, value in arms.items():
            replacement = x.clone()
            replacement[rows] = value.to(x)
            logits = loaded.model.splice(tokens, hook_name, replacement[None])
            spliced = loss_per_token(logits, tokens)[0]
            sums.loss[arm].append(float(spliced[places].double().sum()))
            sums.kl[arm].append(_divergence(plain.logits[0], logits[0], places))
            # The loss at a position predicts the next token, from this and earlier positions alone.
            found.before_gap = max(found.before_gap, _largest((spliced - loss)[:start]))
            yield


def _arms(
    x: Tensor, rows: Tensor, sae: LoadedSae, maps: SaeMaps, sums: SplicedSae, seed: tuple[int, int]
) -> dict[str, Tensor]:
    """What each arm puts at the replaced tokens, [n, d]."""
    own = x[rows]
    parts = decompose(own, sae.reconstruct(own).x_hat.to(own), maps.error_map)
    squares = {
        "error": squared_norm(parts.sae_error),
        "linear": squared_norm(parts.linear_error),
        "nonlinear": squared_norm(parts.nonlinear_error),
    }
    for name, values in squares.items():
        getattr(sums, f"{name}_sq").append(float(values.double().sum()))
        getattr(sums, f"{name}_norm").append(float(values.double().sqrt().sum()))
    length = squares["error"].sqrt().to(own)[:, None]
    rng = np.random.default_rng(seed)
    random = torch.from_numpy(rng.standard_normal(own.shape)).to(own)
    # Two other tokens of this context, which are in the model's own distribution as no random direction is.
    first, second = (torch.from_numpy(rng.permutation(len(own))).to(own.device) for _ in range(2))
    difference = own[first] - own[second]
    return {
        "sae": parts.x_hat,
        "linear": parts.x_hat + parts.linear_error,
        "nonlinear": parts.x_hat + parts.nonlinear_error,
        "both": parts.x_hat + parts.linear_error + parts.nonlinear_error,
        "random": own + length * random / random.norm(dim=1, keepdim=True),
        "difference": own + length * difference / difference.norm(dim=1, keepdim=True).clamp_min(1e-12),
    }


def _divergence(original: Tensor, spliced: Tensor, places: Tensor) -> float:
    """Sum over the places of KL(original || spliced) of the next-token distributions [t, v], in nats."""
    total = 0.0
    for first in range(0, len(places), PROBABILITY_ROWS):
        part = places[first : first + PROBABILITY_ROWS]
        p, q = original[part].log_softmax(dim=-1), spliced[part].log_softmax(dim=-1)
        total += float((p.exp() * (p - q)).sum(dtype=torch.float64))
    return total


def _largest(values: Tensor) -> float:
    """Largest magnitude; 0 of nothing."""
    return float(values.abs().max()) if len(values) else 0.0


def _check(loss: Tensor, index: int) -> None:
    if not bool(torch.isfinite(loss).all()):
        raise DataError(f"The loss of context {index} is not finite. Check the weights, or try --dtype float32.")
