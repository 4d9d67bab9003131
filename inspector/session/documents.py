"""One text with everything that was computed of it, and what of that a message carries.

The activations of a text are kept, so that its tokens recolour after a new fit without running the model again; the
SAEs' reconstructions are kept too where they are small. All of it is bounded: see `Kept`. A generation is told a few
tokens to a message: a terminal shows eight changes a second as a stream, and thirty would cost a slow line four times
as much for the same words.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, sae_error, squared_norm
from inspector.errors import DataError
from inspector.session.protocol import ContextScores, Floats, Generated, Guess, Policy, SaeScores

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.model import Step
    from inspector.sources.sae import LoadedSae

N_GUESSES = 5
KEPT_BYTES = 512 * 1024 * 1024
"""Activations and reconstructions of texts looked at, on the model's device."""
RECONSTRUCTIONS_BYTES = 32 * 1024 * 1024
"""Per text; 15 SAEs on 256 tokens of 128 dimensions take 2 MB, 34 on 1024 of 3584 would take 500 and are made anew."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """The likeliest next tokens at every position."""

    token_ids: Tensor
    """[t, N_GUESSES] int64, likeliest first."""
    probabilities: Tensor
    """[t, N_GUESSES] float32."""

    def at(self, position: int, text_of: Callable[[int], str]) -> list[Guess]:
        """As the message has them."""
        return [
            Guess(token=text_of(token), probability=probability)
            for token, probability in zip(
                self.token_ids[position].tolist(), self.probabilities[position].tolist(), strict=True
            )
        ]


def guesses_of(logits: Tensor, chunk: int = 256) -> Guesses:
    """From logits [t, v]; in chunks, because a float32 copy of a whole context's logits can be a gigabyte."""
    ids, probabilities = [], []
    for part in torch.split(logits, chunk):
        top = part.float().topk(min(N_GUESSES, part.shape[-1]), dim=-1)
        probabilities.append((top.values - part.float().logsumexp(dim=-1, keepdim=True)).exp().cpu())
        ids.append(top.indices.cpu())
    return Guesses(token_ids=torch.cat(ids), probabilities=torch.cat(probabilities))


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What one SAE makes of a text; changes with no fit."""

    l0: Floats
    sae_error_norm: Floats
    x_hat: Tensor | None
    """[t, d] on the device of x; None where that would take too much."""


@dataclass(kw_only=True)
class Document:
    """One text: its tokens, what the model did with them, and what each SAE made of it, as far as it was asked."""

    source: str
    context: int
    name: str
    token_ids: list[int]
    tokens: list[str]
    splits: Mapping[Policy, str]
    """As ContextScores.split, by policy."""
    x: Tensor
    """[t, d] float32 activations of the hook, on the model's device."""
    loss: Tensor
    """[t] float32, nats for the next token; NaN at the last."""
    guesses: Guesses
    """The model's own."""
    reconstructed: dict[str, Reconstructed] = field(default_factory=dict)
    """By sae_id; filled by `reconstruct`."""
    with_sae: dict[tuple[str, Policy], tuple[int, dict[str, Guesses]]] = field(default_factory=dict)
    """Guesses with each replacement and the epoch of the maps they were made with, by sae_id and policy."""

    def spliced(self, policy: Policy) -> Tensor:
        """[t] bool: where an SAE's output takes the place of x when guesses are made with it."""
        return torch.tensor([letter in "th" for letter in self.splits[policy]])

    @property
    def n_bytes(self) -> int:
        """What it holds of the device's memory."""
        kept = sum(made.x_hat.nbytes for made in self.reconstructed.values() if made.x_hat is not None)
        return self.x.nbytes + kept


def reconstruct(document: Document, sae: LoadedSae, n_saes: int) -> tuple[Reconstructed, Tensor]:
    """The SAE's view of the text, kept in it, and its x_hat [t, d], computed if it was not kept."""
    sae_id = sae.ref.sae_id
    known = document.reconstructed.get(sae_id)
    if known is not None and known.x_hat is not None:
        return known, known.x_hat
    made = sae.reconstruct(document.x)
    if known is None:
        known = Reconstructed(
            l0=packed(made.l0),
            sae_error_norm=packed(squared_norm(sae_error(document.x, made.x_hat)).sqrt()),
            x_hat=made.x_hat if document.x.nbytes * n_saes <= RECONSTRUCTIONS_BYTES else None,
        )
        document.reconstructed[sae_id] = known
    return known, made.x_hat


def reconstruct_singly(document: Document, saes: Sequence[LoadedSae]) -> None:
    """`reconstruct` for all SAEs on a document of a few tokens, one by one."""
    rows = torch.split(document.x, 1)
    for sae in saes:
        made = [sae.reconstruct(row) for row in rows]
        x_hat = torch.cat([one.x_hat for one in made])
        document.reconstructed[sae.ref.sae_id] = Reconstructed(
            l0=packed(torch.cat([one.l0 for one in made])),
            sae_error_norm=packed(squared_norm(sae_error(document.x, x_hat)).sqrt()),
            x_hat=x_hat,
        )


def scores_of(document: Document, saes: Sequence[LoadedSae], maps: Mapping[str, LinearMap]) -> list[SaeScores]:
    """Scores of every token for every SAE, with NaN for the two parts of the error where no map is there yet."""
    return [_scores(document, sae, maps.get(sae.ref.sae_id), len(saes)) for sae in saes]


def _scores(document: Document, sae: LoadedSae, error_map: LinearMap | None, n_saes: int) -> SaeScores:
    known, x_hat = reconstruct(document, sae, n_saes)
    if error_map is None:
        linear = nonlinear = packed(torch.full((len(document.token_ids),), torch.nan))
    else:
        parts = decompose(document.x, x_hat, error_map)
        linear, nonlinear = packed(parts.linear_error_norm), packed(parts.nonlinear_error_norm)
    return SaeScores(
        l0=known.l0, sae_error_norm=known.sae_error_norm, linear_error_norm=linear, nonlinear_error_norm=nonlinear
    )


def scores_message(
    document: Document,
    saes: Sequence[LoadedSae],
    maps: Mapping[str, LinearMap],
    *,
    policy: Policy,
    epoch: int,
    request: int,
) -> ContextScores:
    """The whole text as a view gets it, with the maps of a policy and epoch."""
    return ContextScores(
        request=request,
        source=document.source,
        context=document.context,
        epoch=epoch,
        policy=policy,
        name=document.name,
        token_ids=document.token_ids,
        tokens=document.tokens,
        split=document.splits[policy],
        loss=packed(document.loss),
        x_norm=packed(squared_norm(document.x).sqrt()),
        saes=scores_of(document, saes, maps),
    )


def packed(values: Tensor) -> Floats:
    """Any numbers [t] as they travel."""
    array: Floats = values.detach().to("cpu", torch.float32).numpy().astype(np.dtype("<f4"), copy=False).tobytes()
    return array


def require_finite(x: Tensor, hook_name: str, where: str) -> None:
    """Raise for the first NaN or infinity among activations [t, d]: shown as a colour, it would be a wrong one.

    Raises:
        DataError: with the place, the value and the dtype.
    """
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        position, dimension = (int(i) for i in bad.nonzero()[0])
        raise DataError(
            f"{hook_name} is {float(x[position, dimension])} at {where}, position {position}, dimension {dimension} "
            f"({str(x.dtype).removeprefix('torch.')}). Try --dtype float32, or another text."
        )


class Kept:
    """Documents by name, the least recently used dropped when together they take more than a limit."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._documents: OrderedDict[tuple[str, int, int], Document] = OrderedDict()

    def get(self, key: tuple[str, int, int]) -> Document | None:
        """The document of (source, view or 0, context), now the most recently used."""
        document = self._documents.get(key)
        if document is not None:
            self._documents.move_to_end(key)
        return document

    def put(self, key: tuple[str, int, int], document: Document) -> None:
        """Keep it, in the place of an older one of that name."""
        self._documents[key] = document
        self._documents.move_to_end(key)
        self.shrink()

    def shrink(self) -> None:
        """Drop the oldest until the limit holds; the newest stays, however large."""
        total = sum(document.n_bytes for document in self._documents.values())
        while total > self.limit and len(self._documents) > 1:
            _, dropped = self._documents.popitem(last=False)
            total -= dropped.n_bytes

    def drop(self, chosen: Callable[[tuple[str, int, int]], bool]) -> None:
        """Forget every document whose name is chosen."""
        for key in [key for key in self._documents if chosen(key)]:
            del self._documents[key]


MESSAGE_SECONDS = 1 / 8
"""Between two messages, at least."""


Score = Callable[[list[int], Tensor, int], "Scored"]
"""From ids, x [n, d] and the position of the first: what a message says about these tokens."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """New tokens, scored."""

    tokens: list[str]
    split: str
    x_norm: Floats
    saes: list[SaeScores]


def messages(
    steps: Iterator[Step],
    score: Score,
    *,
    request: int,
    epoch: int,
    policy: Policy = "excluded",
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Generated | None]:
    """One item per sampled token: a message that is due, or None. The last item is the message with `finished`.

    The newest step always waits for the next one, so that there is something left to say when there is none.

    Args:
        steps: of LanguageModel.generate, the prompt first.
        score: scores new tokens.
        request: number of the request that is answered.
        epoch: of the maps `score` uses.
        policy: of those maps.
        clock: seconds.
    """
    waiting: list[Step] = []
    start = 0
    last = -math.inf
    for step in steps:
        if waiting and clock() - last >= MESSAGE_SECONDS:
            last = clock()
            told = _message(waiting, score, request=request, epoch=epoch, policy=policy, start=start, finished=False)
            yield told
            start += len(told.token_ids)
            waiting = []
        else:
            yield None
        waiting.append(step)
    if waiting:
        yield _message(waiting, score, request=request, epoch=epoch, policy=policy, start=start, finished=True)


def _message(
    steps: list[Step], score: Score, *, request: int, epoch: int, policy: Policy, start: int, finished: bool
) -> Generated:
    ids = [token for step in steps for token in step.token_ids]
    loss = torch.cat([step.loss.detach().float().cpu() for step in steps])
    # A step knows the loss of the position before it: within the message that place is here, before it in the last one.
    at = len(steps[0].token_ids)
    for step in steps[1:]:
        if step.loss_before is not None:
            loss[at - 1] = step.loss_before
        at += len(step.token_ids)
    scored = score(ids, torch.cat([step.x for step in steps]), start)
    return Generated(
        request=request,
        start=start,
        token_ids=ids,
        tokens=scored.tokens,
        split=scored.split,
        loss=packed(loss),
        loss_before=steps[0].loss_before,
        x_norm=scored.x_norm,
        saes=scored.saes,
        epoch=epoch,
        policy=policy,
        finished=finished,
    )
