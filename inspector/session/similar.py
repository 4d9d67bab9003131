"""Where else an SAE fails in the same way: the tokens of the contexts whose nonlinear_error points most as one does.

The errors of one SAE are searched once per map and kept, as unit vectors; the next questions are a product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import decompose
from inspector.engine.directions import random_like
from inspector.errors import DataError
from inspector.session import documents
from inspector.session.cards import SimilarCard, SimilarToken
from inspector.session.latents import Searches, activations_of
from inspector.session.protocol import GetSimilar, SimilarErrors

if TYPE_CHECKING:
    from inspector.engine.decomposition import Decomposition
    from inspector.session.documents import Document
    from inspector.session.fitting import PolicyFit
    from inspector.session.protocol import GetDetail
    from inspector.session.texts import Texts
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

N_RANDOM = 20
"""Random vectors of every control; the mean of so many shares has a fifth of one's spread."""
N_SIMILAR = 12
SIMILAR_BYTES = 256 * 1024 * 1024
"""For the errors of the searched tokens of one SAE, in float32: 500,000 tokens of 128 dimensions, 29,000 of 2304."""
PART_TOKENS = 256
"""Through the SAE in one step."""
AROUND = 8
"""Tokens before and after a similar one that are told."""


def split_at(texts: Texts, view: int, asked: GetDetail) -> tuple[Document, LoadedSae, PolicyFit]:
    """The text, the SAE and the maps of now, whatever is fitted until the answer is made.

    Raises:
        UsageError: there is no such text, position or SAE.
        DataError: the SAE's map is not fitted yet.
    """
    document, sae, fit = texts.at(view, asked)
    if asked.sae_id not in fit.maps:
        raise DataError(
            f"The affine map of SAE {asked.sae_id} is not fitted yet, so its error has no two parts. Wait until the "
            "header says from how many tokens it is."
        )
    return document, sae, replace(fit)


def parts_of(document: Document, sae: LoadedSae, fit: PolicyFit, n_saes: int) -> Decomposition:
    """The SAE's error at every token of a text; `n_saes`: as `documents.reconstruct` has it."""
    _, x_hat = documents.reconstruct(document, sae, n_saes)
    with torch.inference_mode():
        return decompose(document.x, x_hat, fit.maps[sae.ref.sae_id])


class Similar:
    """Answers GetSimilar about the texts of one loaded target."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._tables: Searches[tuple[str, str, int], ErrorTable] = Searches()

    def answer(self, view: int, asked: GetSimilar) -> Iterator[SimilarErrors | None]:
        """One item per step, the last one the answer; what is checked is checked at once, before the first item.

        Raises:
            UsageError, DataError: see `split_at`.
        """
        return self._answer(*split_at(self._texts, view, asked), asked)

    def _answer(
        self, document: Document, sae: LoadedSae, fit: PolicyFit, asked: GetSimilar
    ) -> Iterator[SimilarErrors | None]:
        loaded = self._texts.loaded
        key = (sae.ref.sae_id, fit.policy, fit.epoch)
        table = yield from self._tables.whole(key, lambda: ErrorTable(loaded, sae, fit))
        own = parts_of(document, sae, fit, len(loaded.saes)).nonlinear_error[asked.position]
        yield None
        found = table.nearest(own, (asked.context, asked.position) if asked.source == "context" else None)
        same = table.token_ids == document.token_ids[asked.position]
        random = random_like(own, N_RANDOM, (loaded.target.seed, asked.context, asked.position))
        card = SimilarCard(
            found=[self._told(table, place, cosine) for place, cosine in found],
            n_searched=len(table.norms),
            n_scored=table.n_scored,
            random_cosine=table.largest(random),
            n_same=sum(bool(same[place]) for place, _ in found),
            share_same=float(same.float().mean()) if len(same) else 0.0,
        )
        yield SimilarErrors(request=asked.request, asked=asked, card=card)

    def _told(self, table: ErrorTable, place: int, cosine: float) -> SimilarToken:
        loaded = self._texts.loaded
        context, position = int(table.contexts[place]), int(table.positions[place])
        start = max(0, position - AROUND)
        around = loaded.model.token_texts(loaded.contexts.token_ids[context][start : position + 1 + AROUND].tolist())
        return SimilarToken(
            context=context,
            position=position,
            cosine=cosine,
            norm=float(table.norms[place]),
            before="".join(around[: position - start]),
            token=around[position - start],
            after="".join(around[position - start + 1 :]),
        )


class ErrorTable:
    """The nonlinear errors of one SAE at the scored tokens of the contexts, of as many as there is room for.

    Exact, in float32 and as unit vectors; where they do not all fit, those of whole contexts that are drawn by the
    target's seed, so a similar token may be missed and none is invented. Filled by `advance`.

    Args:
        loaded: whose contexts are searched.
        sae: one of its SAEs.
        fit: whose map splits the error, and which tokens are scored.
    """

    def __init__(self, loaded: Loaded, sae: LoadedSae, fit: PolicyFit) -> None:
        self._loaded, self._sae, self._map = loaded, sae, fit.maps[sae.ref.sae_id]
        self._included = fit.plan.included
        self.n_scored = int(self._included.sum())
        """Of all contexts; outliers, which are no ordinary errors, are found on the way and left out."""
        d = loaded.model.check_hook(loaded.hook_name)
        per_context = self._included.sum(dim=1)
        contexts = per_context.nonzero()[:, 0]
        if 4 * d * self.n_scored > SIMILAR_BYTES:
            contexts = contexts[np.random.default_rng(loaded.target.seed).permutation(len(contexts))]
            fits = per_context[contexts].cumsum(dim=0) * 4 * d <= SIMILAR_BYTES
            contexts = contexts[fits].sort().values
        n = int(per_context[contexts].sum())
        self.vectors = torch.zeros(n, d)
        self.norms = torch.zeros(n)
        self.contexts, self.positions, self.token_ids = (torch.zeros(n, dtype=torch.int64) for _ in range(3))
        self._n = 0
        self._steps = self._run(contexts.tolist())
        self.finished = False

    @property
    def n_bytes(self) -> int:
        """Size of the table."""
        return self.vectors.nbytes + 4 * self.norms.nbytes

    def advance(self) -> bool:
        """One short step; False: it was over."""
        if not self.finished:
            self.finished = next(self._steps, "over") == "over"
        return not self.finished

    def _run(self, contexts: list[int]) -> Iterator[None]:
        for context in contexts:
            positions = self._included[context].nonzero()[:, 0]
            x = activations_of(self._loaded, context)
            if self._loaded.outliers is not None:
                positions = positions[~self._loaded.outliers.among(x).cpu()[positions]]
            yield None
            for part in torch.split(positions, PART_TOKENS):
                rows = x[part.to(x.device)]
                with torch.inference_mode():
                    made = decompose(rows, self._sae.reconstruct(rows).x_hat, self._map).nonlinear_error
                    here = slice(self._n, self._n + len(part))
                    self.vectors[here] = torch.nn.functional.normalize(made, dim=1).float().cpu()
                    self.norms[here] = made.norm(dim=1).float().cpu()
                self.contexts[here], self.positions[here] = context, part
                self.token_ids[here] = self._loaded.contexts.token_ids[context][part]
                self._n += len(part)
                yield None
        for name in ("vectors", "norms", "contexts", "positions", "token_ids"):
            setattr(self, name, getattr(self, name)[: self._n])

    def nearest(self, vector: Tensor, here: tuple[int, int] | None) -> list[tuple[int, float]]:
        """Place in the table and cosine of the nearest tokens, one per context, without the token `here` itself."""
        cosines = self.vectors @ torch.nn.functional.normalize(vector.detach().float().cpu(), dim=0)
        if here is not None:
            cosines[(self.contexts == here[0]) & (self.positions == here[1])] = -torch.inf
        found: dict[int, tuple[int, float]] = {}
        for place in cosines.argsort(descending=True).tolist():
            if len(found) == N_SIMILAR or cosines[place] == -torch.inf:
                break
            found.setdefault(int(self.contexts[place]), (place, float(cosines[place])))
        return list(found.values())

    def largest(self, vectors: Tensor) -> float:
        """Mean over vectors [n, d] of the largest cosine that each finds."""
        if not len(self.vectors):
            return 0.0
        units = torch.nn.functional.normalize(vectors.detach().float().cpu(), dim=1)
        return float((self.vectors @ units.T).amax(dim=0).mean())
