"""What makes one latent active: its strongest examples, its density, its neighbours, and what was said about it.

Answered in short steps, as generations are: the contexts are searched once per SAE, for all of its latents, and a
search that was begun for one question goes on with the next. For each latent only its strongest places are kept, at
most one per context, so that a table has a size that does not grow with the text. Tokens that are never fitted or
scored (special ones, first positions) are not searched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.errors import UsageError, nearest
from inspector.session.documents import packed, require_finite
from inspector.session.protocol import GetLatent, LatentExample, LatentView, Neighbour

if TYPE_CHECKING:
    from inspector.interp.outcome import Said
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import SaeRef

TABLE_BYTES = 256 * 1024 * 1024
FEWEST, MOST = 4, 24
"""Places per latent: 24 up to 900k latents, fewer beyond, so that a table stays within its bytes."""
_BYTES_PER_PLACE = 12
N_EXAMPLES = 12
WINDOW_BEFORE, WINDOW_AFTER = 20, 11
"""Tokens shown around the strongest one; what made it active stands before it."""
N_NEIGHBOURS = 10
SEARCHES_BYTES = 512 * 1024 * 1024
"""For tables of several SAEs; the one used longest ago goes first."""
DECODER_BYTES = 64 * 1024 * 1024
"""Of the decoder per step."""
NEURONPEDIA = "https://www.neuronpedia.org"


@dataclass(frozen=True, kw_only=True)
class StrongPlace:
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

    def places(self, index: int, n: int) -> list[StrongPlace]:
        """The strongest places of one latent, strongest first; of equal ones that of the earlier context."""
        values, contexts = self._values[index], self._contexts[index]
        order = sorted(range(len(values)), key=lambda i: (-float(values[i]), int(contexts[i])))
        return [
            StrongPlace(context=int(contexts[i]), position=int(self._positions[index, i]), activation=float(values[i]))
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


def link_to(ref: SaeRef, index: int) -> str:
    """Where to read about a latent; empty if no page is known."""
    return "" if ref.neuronpedia is None else f"{NEURONPEDIA}/{ref.neuronpedia}/{index}"


class Latents:
    """Answers GetLatent about one loaded target.

    Args:
        loaded: the target.
        said: looks up what is stored about a latent; None: among the stored results.
    """

    def __init__(self, loaded: Loaded, said: Callable[[SaeRef, int], Said | None] | None = None) -> None:
        from inspector.interp.outcome import KnownLatents

        self._loaded = loaded
        self._said = said or KnownLatents(loaded.model.name, loaded.hook_name).find
        self._saes = {sae.ref.sae_id: sae for sae in loaded.saes}
        self._searches: OrderedDict[str, LatentSearch] = OrderedDict()

    def answer(self, asked: GetLatent) -> Iterator[LatentView | None]:
        """One item per step, the last one the answer; what is checked is checked at once, before the first item.

        Raises:
            UsageError: the SAE is not loaded, or has no such latent.
        """
        sae = self._saes.get(asked.sae_id)
        if sae is None:
            raise UsageError(f"The SAE {asked.sae_id!r} is not loaded.{nearest(asked.sae_id, self._saes)}")
        if not 0 <= asked.index < sae.ref.d_sae:
            raise UsageError(
                f"SAE {asked.sae_id} has no latent {asked.index}. Its latents are 0 to {sae.ref.d_sae - 1:,}."
            )
        return self._answer(asked, sae)

    def _answer(self, asked: GetLatent, sae: LoadedSae) -> Iterator[LatentView | None]:
        search = yield from self._searched(sae)
        places = search.places(asked.index, N_EXAMPLES)
        examples = []
        for place in places:
            examples.append((yield from self._example(sae, asked.index, place)))
        neighbours = yield from _neighbours(sae, asked.index)
        said = self._said(sae.ref, asked.index)
        yield LatentView(
            request=asked.request,
            sae_id=asked.sae_id,
            index=asked.index,
            density=search.density(asked.index),
            n_tokens=search.n_tokens,
            max_activation=places[0].activation if places else 0.0,
            examples=examples,
            neighbours=neighbours,
            explanation="" if said is None else said[0],
            score=None if said is None else said[1],
            link=link_to(sae.ref, asked.index),
        )

    def _searched(self, sae: LoadedSae) -> Generator[None, None, LatentSearch]:
        """The SAE's table, complete."""
        sae_id = sae.ref.sae_id
        search = self._searches.get(sae_id)
        if search is None:
            search = self._searches[sae_id] = LatentSearch(self._loaded, sae)
        self._searches.move_to_end(sae_id)
        while len(self._searches) > 1 and sum(each.n_bytes for each in self._searches.values()) > SEARCHES_BYTES:
            self._searches.popitem(last=False)
        try:
            while search.advance():
                yield None
        except Exception:
            self._searches.pop(sae_id, None)  # it cannot go on; the next question begins anew
            raise
        return search

    def _example(self, sae: LoadedSae, index: int, place: StrongPlace) -> Generator[None, None, LatentExample]:
        """The window around a place, with the latent's activation at each of its tokens."""
        ids = self._loaded.contexts.token_ids[place.context]
        start = max(0, place.position - WINDOW_BEFORE)
        stop = min(len(ids), place.position + WINDOW_AFTER + 1)
        x = activations_of(self._loaded, place.context)[start:stop]
        yield None
        with torch.inference_mode():
            own = torch.cat([latents[:, index] for _, latents in sae.chunks(x)])
        yield None
        return LatentExample(
            context=place.context,
            position=place.position,
            start=start,
            tokens=self._loaded.model.token_texts(ids[start:stop].tolist()),
            activations=packed(own),
        )


def _neighbours(sae: LoadedSae, index: int) -> Generator[None, None, list[Neighbour]]:
    """The latents whose decoder rows point most in the same direction, the latent itself left out."""
    with torch.inference_mode():
        own = torch.nn.functional.normalize(sae.rows_of(torch.tensor([index]))[0].float(), dim=0)
    cosines = []
    for part in sae.decoder_rows(DECODER_BYTES):
        with torch.inference_mode():
            # A row of zeros points nowhere; its cosine is 0.
            cosines.append((torch.nn.functional.normalize(part.float(), dim=1) @ own).cpu())
        yield None
    cosine = torch.cat(cosines)
    cosine[index] = -torch.inf
    top = cosine.topk(min(N_NEIGHBOURS, len(cosine) - 1))
    return [Neighbour(index=int(i), cosine=float(value)) for i, value in zip(top.indices, top.values, strict=True)]
