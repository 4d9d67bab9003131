"""One text with everything that was computed of it, and what of that a message carries.

The activations of a text are kept, so that its tokens recolour after a new fit without running the model again; the
SAEs' reconstructions are kept too where they are small. All of it is bounded: see `KeptDocuments`. A generation is told
a few tokens to a message: a terminal shows eight changes a second as a stream, and thirty would cost a slow line four
times as much for the same words.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, sae_error, squared_norm
from inspector.errors import DataError
from inspector.session.cards import Guess, SaeScores
from inspector.session.protocol import Floats, Generated, Policy
from inspector.sources.sliced import SlicedSae
from inspector.sources.tokenizer import HALF

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.session.fitting import PolicyFit
    from inspector.sources.forward import Outputs
    from inspector.sources.model import Step
    from inspector.sources.sae import LoadedSae
    from inspector.sources.sliced import Codes

N_GUESSES = 5
KEPT_BYTES = 512 * 1024 * 1024
"""Activations and reconstructions of texts looked at, on the model's device."""
RECONSTRUCTIONS_BYTES = 32 * 1024 * 1024
"""Per text; 15 SAEs on 256 tokens of 128 dimensions take 2 MB, 34 on 1024 of 3584 would take 500 and are made anew."""
MESSAGE_SECONDS = 1 / 8
"""Between two messages of a generation, at least."""
BYTES_PER_CHARACTER = 4
"""At most, in UTF-8; a token is a byte at least."""


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


NO_GUESSES = Guesses(token_ids=torch.zeros(0, 0), probabilities=torch.zeros(0, 0))
"""Of a text that is still being generated: its details are asked for when it is read again as a whole."""


def guesses_of(outputs: Outputs) -> Guesses:
    """The likeliest tokens of what the model predicts for a text."""
    ids, probabilities = [], []
    for _, part in outputs.parts():
        top = part.topk(min(N_GUESSES, part.shape[-1]), dim=-1)
        probabilities.append((top.values - part.logsumexp(dim=-1, keepdim=True)).exp().cpu())
        ids.append(top.indices.cpu())
    return Guesses(token_ids=torch.cat(ids), probabilities=torch.cat(probabilities))


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What one SAE makes of a text; changes with no fit."""

    l0: Floats
    sae_error_norm: Floats
    x_hat: Tensor | None
    """[t, d] on the device of x; None where that would take too much."""
    codes: Codes | None = None
    """Active latents, of an SAE in slices: to find those of one token again it would bring its whole encoder."""


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
        codes = sum(made.codes.n_bytes for made in self.reconstructed.values() if made.codes is not None)
        return self.x.nbytes + kept + codes


def reconstruct(
    document: Document, sae: LoadedSae, n_saes: int, *, singly: bool = False
) -> tuple[Reconstructed, Tensor]:
    """The SAE's view of the text, kept in it, and its x_hat [t, d], computed if it was not kept.

    Args:
        document: the text.
        sae: what reconstructs it.
        n_saes: how many do, which decides whether x_hat is kept.
        singly: token by token, if that does not bring the SAE for each.
    """
    sae_id = sae.ref.sae_id
    known = document.reconstructed.get(sae_id)
    if known is not None and known.x_hat is not None:
        return known, known.x_hat
    codes = None
    if isinstance(sae, SlicedSae):
        whole, codes = sae.reconstruct_with_codes(document.x)
        made = [whole]
    else:
        made = [sae.reconstruct(rows) for rows in (torch.split(document.x, 1) if singly else (document.x,))]
    x_hat = made[0].x_hat if len(made) == 1 else torch.cat([one.x_hat for one in made])
    if known is None:
        known = document.reconstructed[sae_id] = Reconstructed(
            l0=packed(torch.cat([one.l0 for one in made])),
            sae_error_norm=packed(squared_norm(sae_error(document.x, x_hat)).sqrt()),
            # One in slices is not brought again for each better map; `KeptDocuments` bounds it all.
            x_hat=x_hat if sae.comes_in_slices or document.x.nbytes * n_saes <= RECONSTRUCTIONS_BYTES else None,
            codes=codes,
        )
    return known, x_hat


def active_latents(document: Document, sae: LoadedSae, position: int) -> list[tuple[int, float]]:
    """As `LoadedSae.active_latents` at one token, from what was found with the text's x_hat where that is kept."""
    known = document.reconstructed.get(sae.ref.sae_id)
    if known is None or known.codes is None:
        return sae.active_latents(document.x[position])
    return known.codes.rows(position, position + 1).strongest_first()


def has(document: Document, sae: LoadedSae) -> bool:
    """Whether the SAE need not be asked again about the text."""
    known = document.reconstructed.get(sae.ref.sae_id)
    return known is not None and known.x_hat is not None


def token_scores(
    document: Document,
    saes: Sequence[LoadedSae],
    fit: PolicyFit,
    *,
    singly: bool = False,
    without: Collection[LoadedSae] = (),
) -> dict[str, Any]:
    """The fields of TokenScores: every token for every SAE, with NaN for the two parts of the error where no map is
    there yet, and for all numbers of the SAEs `without` which they are made; `singly`: see `reconstruct`.
    """
    scores = []
    unknown = packed(torch.full((len(document.token_ids),), torch.nan))
    for sae in saes:
        if sae in without:
            names = ("l0", "sae_error_norm", "linear_error_norm", "nonlinear_error_norm")
            scores.append(SaeScores(**dict.fromkeys(names, unknown)))
            continue
        known, x_hat = reconstruct(document, sae, len(saes), singly=singly)
        linear, nonlinear = _parts(document, x_hat, fit.maps.get(sae.ref.sae_id))
        scores.append(
            SaeScores(
                l0=known.l0,
                sae_error_norm=known.sae_error_norm,
                linear_error_norm=linear,
                nonlinear_error_norm=nonlinear,
            )
        )
    return {
        "token_ids": document.token_ids,
        "tokens": document.tokens,
        "split": document.splits[fit.policy],
        "loss": packed(document.loss),
        "x_norm": packed(squared_norm(document.x).sqrt()),
        "saes": scores,
        "epoch": fit.epoch,
        "policy": fit.policy,
    }


def _parts(document: Document, x_hat: Tensor, error_map: LinearMap | None) -> tuple[Floats, Floats]:
    if error_map is None:
        unknown = packed(torch.full((len(document.token_ids),), torch.nan))
        return unknown, unknown
    parts = decompose(document.x, x_hat, error_map)
    return packed(parts.linear_error_norm), packed(parts.nonlinear_error_norm)


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


class KeptDocuments:
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


def in_messages(
    steps: Iterator[Step],
    message: Callable[[list[Step], int, bool], Generated],
    n_whole: Callable[[list[Step]], int] = len,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Generated | None]:
    """One item per sampled token: a message that is due, or None. The last item is the message that finishes.

    The newest step always waits for the next one, so that there is something left to say when there is none.

    Args:
        steps: of LanguageModel.generate, the prompt first.
        message: what is told of consecutive steps, the position of the first token, and whether they are the last.
        n_whole: how many of the waiting steps may be told: a character is not cut between two messages.
        clock: seconds.
    """
    waiting: list[Step] = []
    start = 0
    last = -math.inf
    for step in steps:
        if waiting and clock() - last >= MESSAGE_SECONDS and (n := n_whole(waiting)):
            last = clock()
            yield message(waiting[:n], start, False)
            start += sum(len(each.token_ids) for each in waiting[:n])
            waiting = waiting[n:]
        else:
            yield None
        waiting.append(step)
    if waiting:
        yield message(waiting, start, True)


def n_whole(steps: Sequence[Step], spelled: Callable[[Sequence[int]], Sequence[str]]) -> int:
    """How many steps to tell so that no character is cut: those at the end may be the beginning of one, but not more
    than three. `spelled` gives the texts of tokens as they follow each other.
    """
    texts = spelled([token for step in steps for token in step.token_ids])
    n_half = next((n for n, text in enumerate(reversed(texts)) if not text.endswith(HALF)), len(texts))
    return max(len(steps) - n_half, 0) if n_half < BYTES_PER_CHARACTER else len(steps)


def losses_of(steps: Sequence[Step]) -> Tensor:
    """Losses [t] of consecutive steps; each step but the first fills in the loss of the position before it."""
    loss = torch.cat([step.loss.detach().float().cpu() for step in steps])
    at = len(steps[0].token_ids)
    for step in steps[1:]:
        if step.loss_before is not None:
            loss[at - 1] = step.loss_before
        at += len(step.token_ids)
    return loss
