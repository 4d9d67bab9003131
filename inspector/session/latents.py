"""What makes one latent active: its strongest examples, its density, its neighbours, and what was said about it.

Answered in short steps, as generations are: the contexts are searched once per SAE, for all of its latents, and a
search that was begun for one question goes on with the next. For each latent its strongest places are kept and some
drawn at random, at most one per context, and a histogram of its activations, so that a table has a size that does not
grow with the text. Tokens that are never fitted or scored (special ones, first positions) are not searched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import sae_error
from inspector.engine.directions import nearest_rows, random_like
from inspector.errors import InspectorError, UsageError, nearest
from inspector.session.cards import Across, Bin, LatentCard, LatentExample, Neighbour, Weight
from inspector.session.documents import packed, require_finite
from inspector.session.protocol import GetLatent, LatentView
from inspector.sources.sae import STREAM
from inspector.statistics.grouping import nearest_l0

if TYPE_CHECKING:
    from inspector.interp.outcome import Said
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import SaeRef

TABLE_BYTES = 256 * 1024 * 1024
FEWEST, MOST = 4, 24
"""Places per latent, strongest ones and drawn ones: 24 of each up to 350k latents, fewer beyond."""
_BYTES_PER_PLACE = 16
N_EXAMPLES = 12
QUANTILES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Of the activations drawn at random, at which an example is shown."""
OCTAVES = (-12, 20)
"""Powers of two between which activations have a bin of their own; the few beyond count in the last ones."""
HISTOGRAM_BYTES = 64 * 1024 * 1024
N_WEIGHTS = 10
N_ACROSS = 3
N_RANDOM = 20
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


class Places:
    """For each of m latents the places with the largest keys, at most one per context."""

    def __init__(self, m: int, n: int) -> None:
        self._keys, self._activations = torch.zeros(m, n), torch.zeros(m, n)
        self._contexts = torch.full((m, n), -1, dtype=torch.int32)
        self._positions = torch.zeros(m, n, dtype=torch.int32)

    @property
    def n_bytes(self) -> int:
        """Size of the table."""
        return 4 * self._keys.nbytes

    def take(self, context: int, keys: Tensor, activations: Tensor, positions: Tensor) -> None:
        """Put one context's places [m] where their keys are larger than the smallest known one."""
        smallest = self._keys.min(dim=1)
        chosen = (keys > smallest.values).nonzero()[:, 0]
        slots = smallest.indices[chosen]
        self._keys[chosen, slots] = keys[chosen]
        self._activations[chosen, slots] = activations[chosen]
        self._contexts[chosen, slots] = context
        self._positions[chosen, slots] = positions[chosen].int()

    def of(self, index: int) -> list[StrongPlace]:
        """Those of one latent, largest activation first; of equal ones that of the earlier context."""
        columns = (each[index].tolist() for each in (self._activations, self._contexts, self._positions))
        return [
            StrongPlace(context=context, position=position, activation=activation)
            for activation, context, position in sorted(zip(*columns, strict=True), key=lambda row: (-row[0], row[1]))
            if context >= 0
        ]


class LatentSearch:
    """The strongest places of every latent of one SAE, and what else its card needs, filled by `advance`.

    Args:
        loaded: whose contexts are searched.
        sae: one of its SAEs.
    """

    def __init__(self, loaded: Loaded, sae: LoadedSae) -> None:
        self._loaded, self._sae = loaded, sae
        self._included = loaded.plan.included
        d_sae, d_in = sae.ref.d_sae, sae.ref.d_in
        n_kept = min(MOST, max(FEWEST, TABLE_BYTES // (2 * _BYTES_PER_PLACE * d_sae)), len(self._included))
        self.strongest, self.drawn = Places(d_sae, n_kept), Places(d_sae, n_kept)
        self._counts = torch.zeros(d_sae, dtype=torch.int64)
        n_octaves = OCTAVES[1] - OCTAVES[0]
        self.per_octave = next((n for n in (4, 2) if 4 * d_sae * n * n_octaves <= HISTOGRAM_BYTES), 1)
        self._bins = torch.zeros(d_sae, self.per_octave * n_octaves, dtype=torch.int32)
        self._error_squares = torch.zeros(d_in, d_in, dtype=torch.float64)
        """[d, d] sum of the products of the sae_error's entries."""
        self._steps = self._run()
        self.n_tokens = 0
        """Searched so far."""
        self.finished = False

    @property
    def n_bytes(self) -> int:
        """Size of the tables."""
        kept = (self._counts, self._bins, self._error_squares)
        return self.strongest.n_bytes + self.drawn.n_bytes + sum(each.nbytes for each in kept)

    def advance(self) -> bool:
        """One short step: a context through the model, or a few hundred tokens through the SAE; False: it was over."""
        if not self.finished:
            self.finished = next(self._steps, "over") == "over"
        return not self.finished

    def density(self, index: int) -> float:
        """Share of the searched tokens at which the latent is active."""
        return float(self._counts[index]) / self.n_tokens if self.n_tokens else 0.0

    def histogram(self, index: int) -> list[Bin]:
        """Its activations above 0, from the lowest bin that has some to the highest."""
        counts = self._bins[index]
        held = counts.nonzero()[:, 0].tolist()
        edges = [2.0 ** (OCTAVES[0] + i / self.per_octave) for i in range(len(counts) + 1)]
        span = range(held[0], held[-1] + 1) if held else ()
        return [Bin(low=edges[i], high=edges[i + 1], n=int(counts[i])) for i in span]

    def error_shares(self, directions: Tensor) -> list[float]:
        """Share of the squared sae_error of all searched tokens along each of n directions [n, d]; none: no error."""
        whole = float(self._error_squares.trace())
        if not whole > 0.0:
            return []
        units = torch.nn.functional.normalize(directions.detach().cpu().double(), dim=1)
        return (((units @ self._error_squares) * units).sum(dim=1) / whole).tolist()

    # ---- how --------------------------------------------------------------------------------------------------

    def _run(self) -> Iterator[None]:
        generator = torch.Generator().manual_seed(self._loaded.target.seed)
        d_sae = self._sae.ref.d_sae
        for context in self._included.any(dim=1).nonzero()[:, 0].tolist():
            positions = self._included[context].nonzero()[:, 0]
            x = activations_of(self._loaded, context)[positions.to(self._loaded.model.device)]
            # One number per token decides which are drawn: every token of a latent is as likely as the others.
            lots = torch.rand(len(positions), generator=generator).clamp_min(1e-6)
            yield None
            best, at = torch.zeros(d_sae), torch.zeros(d_sae, dtype=torch.int64)
            lot, drawn, drawn_at = torch.zeros(d_sae), torch.zeros(d_sae), torch.zeros(d_sae, dtype=torch.int64)
            for rows, latents in self._sae.chunks(x):
                with torch.inference_mode():
                    self._add_error(x[rows], self._sae.decode(latents))
                    strongest = latents.max(dim=0)
                    values, own = strongest.values.float().cpu(), positions[rows][strongest.indices.cpu()]
                    best, at = torch.where(values > best, values, best), torch.where(values > best, own, at)
                    active = latents > 0
                    winner = torch.where(active, lots[rows].to(latents)[:, None], 0.0).max(dim=0)
                    values, own = winner.values.float().cpu(), positions[rows][winner.indices.cpu()]
                    found = latents.gather(0, winner.indices[None])[0].float().cpu()
                    drawn = torch.where(values > lot, found, drawn)
                    drawn_at = torch.where(values > lot, own, drawn_at)
                    lot = torch.maximum(values, lot)
                    self._counts += active.sum(dim=0).cpu()
                    self._add_bins(latents)
                yield None
            self.n_tokens += len(positions)
            self.strongest.take(context, best, best, at)
            self.drawn.take(context, lot, drawn, drawn_at)

    def _add_error(self, x: Tensor, x_hat: Tensor) -> None:
        error = sae_error(x.float(), x_hat.to(x.device)).float()
        self._error_squares += (error.T @ error).cpu().double()

    def _add_bins(self, latents: Tensor) -> None:
        tokens, indices = latents.nonzero(as_tuple=True)
        places = ((latents[tokens, indices].float().log2() - OCTAVES[0]) * self.per_octave).floor()
        n_bins = self._bins.shape[1]
        flat = (indices * n_bins + places.clamp(0, n_bins - 1).long()).cpu()
        self._bins.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=torch.int32))


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


class Steps(Protocol):
    """A search: it is filled by `advance`, and has a size."""

    def advance(self) -> bool:
        """One short step; False: it was over."""

    @property
    def n_bytes(self) -> int:
        """What it holds."""


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Steps)


class Searches(Generic[K, S]):
    """Searches by name; the one used longest ago goes when together they take too much."""

    def __init__(self) -> None:
        self._known: OrderedDict[K, S] = OrderedDict()

    def whole(self, key: K, make: Callable[[], S]) -> Generator[None, None, S]:
        """The search of this name, complete; one that was begun goes on."""
        search = self._known.get(key)
        if search is None:
            search = self._known[key] = make()
        self._known.move_to_end(key)
        while len(self._known) > 1 and sum(each.n_bytes for each in self._known.values()) > SEARCHES_BYTES:
            self._known.popitem(last=False)
        try:
            while search.advance():
                yield None
        except Exception:
            self._known.pop(key, None)  # it cannot go on; the next question begins anew
            raise
        return search


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
        self._searches: Searches[str, LatentSearch] = Searches()

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
        search = yield from self._searches.whole(sae.ref.sae_id, lambda: LatentSearch(self._loaded, sae))
        places = search.strongest.of(asked.index)[:N_EXAMPLES]
        examples = []
        for place in places:
            examples.append((yield from self._example(sae, asked.index, place)))
        row = rows_of(sae, [asked.index])[0]
        # One more, for the latent itself, which is the nearest of all unless its row is zero.
        indices, cosines = yield from nearest_rows(row[None], lambda: decoder_blocks(sae), N_NEIGHBOURS + 1)
        said = self._said(sae.ref, asked.index)
        yield LatentView(
            request=asked.request,
            sae_id=asked.sae_id,
            index=asked.index,
            density=search.density(asked.index),
            n_tokens=search.n_tokens,
            max_activation=places[0].activation if places else 0.0,
            examples=examples,
            neighbours=[each for each in told(indices[0], cosines[0]) if each.index != asked.index][:N_NEIGHBOURS],
            explanation="" if said is None else said[0],
            score=None if said is None else said[1],
            link=link_to(sae.ref, asked.index),
            card=(yield from self._card(sae, asked.index, row, search)),
        )

    def _card(self, sae: LoadedSae, index: int, row: Tensor, search: LatentSearch) -> Generator[None, None, LatentCard]:
        drawn = search.drawn.of(index)
        examples = []
        for quantile, place in _at_quantiles(drawn):
            examples.append((yield from self._example(sae, index, place, quantile)))
        top, bottom, why = self._weights(row)
        yield None
        seed = (self._loaded.target.seed, index)
        others = np.random.default_rng(seed).integers(0, sae.ref.d_sae, N_RANDOM).tolist()
        shares = search.error_shares(torch.cat([row[None], rows_of(sae, others)]))
        return LatentCard(
            histogram=search.histogram(index),
            drawn=examples,
            n_drawn=len(drawn),
            top=top,
            bottom=bottom,
            why_no_logits=why,
            error_share=shares[0] if shares else None,
            error_share_others=sum(shares[1:]) / N_RANDOM if shares else None,
            error_share_random=1.0 / sae.ref.d_in,
            across=(yield from self._across(sae, row, seed)),
        )

    def _weights(self, row: Tensor) -> tuple[list[Weight], list[Weight], str]:
        """The tokens whose logits the decoder row raises and lowers most, or why that is not known."""
        model = self._loaded.model
        if STREAM.match(self._loaded.hook_name) is None or not bool(row.any()):
            return [], [], f"{self._loaded.hook_name} does not write to the residual stream directly."
        try:
            logits = model.direct_logits(row[None])[0].cpu()[: len(model.tokenizer)]
        except InspectorError as error:
            return [], [], str(error)
        order = logits.argsort(descending=True).tolist()
        sides = (order[:N_WEIGHTS], order[::-1][:N_WEIGHTS])
        top, bottom = (
            [Weight(token=text, logit=float(logits[i])) for i, text in zip(ids, model.token_texts(ids), strict=True)]
            for ids in sides
        )
        return top, bottom, ""

    def _across(self, sae: LoadedSae, row: Tensor, seed: tuple[int, int]) -> Generator[None, None, list[Across]]:
        """The nearest rows of the SAEs of other widths."""
        vectors = torch.cat([row[None], random_like(row, N_RANDOM, seed)])
        found = []
        for other in nearest_l0(self._loaded.saes, sae.ref.nominal_l0 or 0.0):
            if other.ref.d_sae == sae.ref.d_sae:
                continue
            indices, cosines = yield from nearest_rows(vectors, lambda other=other: decoder_blocks(other), N_ACROSS)  # type: ignore[misc]
            found.append(
                Across(
                    sae_id=other.ref.sae_id,
                    d_sae=other.ref.d_sae,
                    nearest=told(indices[0], cosines[0]),
                    random_cosine=float(cosines[1:, 0].mean()),
                )
            )
        return found

    def _example(
        self, sae: LoadedSae, index: int, place: StrongPlace, quantile: float | None = None
    ) -> Generator[None, None, LatentExample]:
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
            quantile=quantile,
        )


def _at_quantiles(drawn: list[StrongPlace]) -> Iterator[tuple[float, StrongPlace]]:
    """Places at QUANTILES of what was drawn, largest first and each once, with its own quantile: its rank's middle."""
    n = len(drawn)
    ranks = dict.fromkeys(min(int((1.0 - quantile) * n), n - 1) for quantile in QUANTILES if n)
    for rank in ranks:
        yield 1.0 - (rank + 0.5) / n, drawn[rank]


def told(indices: Tensor, cosines: Tensor) -> list[Neighbour]:
    """As messages have them."""
    return [Neighbour(index=int(i), cosine=float(value)) for i, value in zip(indices, cosines, strict=True)]


def decoder_blocks(sae: LoadedSae) -> Iterator[tuple[int, Tensor]]:
    """(first index, rows) of the whole decoder, a few at a time; rows are good until the SAE is asked again."""
    start = 0
    for rows in sae.decoder_rows(DECODER_BYTES):
        yield start, rows
        start += len(rows)


def rows_of(sae: LoadedSae, latents: Sequence[int]) -> Tensor:
    """[k, d] float32 decoder rows, to keep."""
    order = sorted(range(len(latents)), key=lambda place: latents[place])
    rows = sae.rows_of(torch.tensor([latents[place] for place in order], dtype=torch.int64)).float()
    found = torch.empty_like(rows)
    found[torch.tensor(order, dtype=torch.int64, device=rows.device)] = rows
    return found
