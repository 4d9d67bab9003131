"""Where every latent of an SAE is strongest: a table built in one pass over the contexts, in short steps.

For each latent only its strongest places are kept, at most one per context, so that a table has a size that does not
grow with the text. Tokens that are never fitted or scored (special ones, first positions) are not searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.session.documents import require_finite

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

TABLE_BYTES = 256 * 1024 * 1024
FEWEST, MOST = 4, 24
"""Places per latent: 24 up to 900k latents, fewer beyond, so that a table stays within its bytes."""
_BYTES_PER_PLACE = 12


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a latent is strong."""

    context: int
    position: int
    activation: float


class LatentSearch:
    """The strongest places of every latent of one SAE, filled by `advance`.

    Args:
        loaded: whose contexts are searched.
        sae: one of its SAEs.
    """

    def __init__(self, loaded: Loaded, sae: LoadedSae) -> None:
        self._loaded, self._sae = loaded, sae
        self._included = loaded.plan.included
        d_sae = sae.ref.d_sae
        n_kept = min(MOST, max(FEWEST, TABLE_BYTES // (_BYTES_PER_PLACE * d_sae)), len(self._included))
        self._values = torch.zeros(d_sae, n_kept)
        self._contexts = torch.full((d_sae, n_kept), -1, dtype=torch.int32)
        self._positions = torch.zeros(d_sae, n_kept, dtype=torch.int32)
        self._counts = torch.zeros(d_sae, dtype=torch.int64)
        self._steps = self._run()
        self.n_tokens = 0
        """Searched so far."""
        self.finished = False

    @property
    def n_bytes(self) -> int:
        """Size of the table."""
        return sum(each.nbytes for each in (self._values, self._contexts, self._positions, self._counts))

    def advance(self) -> bool:
        """One short step: a context through the model, or a few hundred tokens through the SAE; False: it was over."""
        if not self.finished:
            self.finished = next(self._steps, "over") == "over"
        return not self.finished

    def places(self, index: int, n: int) -> list[Place]:
        """The strongest places of one latent, strongest first; of equal ones that of the earlier context."""
        values, contexts = self._values[index], self._contexts[index]
        order = sorted(range(len(values)), key=lambda i: (-float(values[i]), int(contexts[i])))
        return [
            Place(context=int(contexts[i]), position=int(self._positions[index, i]), activation=float(values[i]))
            for i in order[:n]
            if int(contexts[i]) >= 0
        ]

    def density(self, index: int) -> float:
        """Share of the searched tokens at which the latent is active."""
        return float(self._counts[index]) / self.n_tokens if self.n_tokens else 0.0

    # ---- how --------------------------------------------------------------------------------------------------

    def _run(self) -> Iterator[None]:
        for context in self._included.any(dim=1).nonzero()[:, 0].tolist():
            positions = self._included[context].nonzero()[:, 0]
            x = activations_of(self._loaded, context)[positions.to(self._loaded.model.device)]
            yield None
            best, at = torch.zeros(self._sae.ref.d_sae), torch.zeros(self._sae.ref.d_sae, dtype=torch.int64)
            for rows, latents in self._sae.chunks(x):
                with torch.inference_mode():
                    strongest = latents.max(dim=0)
                    values, own = strongest.values.float().cpu(), positions[rows][strongest.indices.cpu()]
                    stronger = values > best
                    best = torch.where(stronger, values, best)
                    at = torch.where(stronger, own, at)
                    self._counts += (latents > 0).sum(dim=0).cpu()
                yield None
            self.n_tokens += len(positions)
            self._take(context, best, at)

    def _take(self, context: int, best: Tensor, at: Tensor) -> None:
        """Put one context's strongest places where they are stronger than the weakest known one."""
        weakest = self._values.min(dim=1)
        chosen = (best > weakest.values).nonzero()[:, 0]
        slots = weakest.indices[chosen]
        self._values[chosen, slots] = best[chosen]
        self._contexts[chosen, slots] = context
        self._positions[chosen, slots] = at[chosen].int()


def activations_of(loaded: Loaded, context: int) -> Tensor:
    """Activations [t, d] of one context, from the model.

    Raises:
        DataError: an activation is not finite.
    """
    with torch.inference_mode():
        x = loaded.model.activations(loaded.contexts.token_ids[context : context + 1], loaded.hook_name)[0]
        require_finite(x, loaded.hook_name, f"context {context} ({loaded.contexts.names[context]})")
    return x
