"""Examples as text, with the tokens marked at which a latent is strongly active, or others in their place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from inspector.interp import prompts
from inspector.interp.examples import Example

MARKED_FROM = 0.6
"""Share of a window's largest activation above which a token is marked, as in the paper's code."""

Decode = Callable[[Sequence[int]], str]
"""The text of several tokens together."""


def strong(example: Example) -> npt.NDArray[np.bool_]:
    """[length] which tokens are marked; at least one where the latent is active, none where it is not."""
    return (example.activations > MARKED_FROM * example.peak) & (example.activations > 0)


def wrong(example: Example, chosen: random.Random, n_marked: int) -> npt.NDArray[np.bool_] | None:
    """[length] as many marks as wanted on tokens at which the latent is not active; None: there are too few."""
    free = np.flatnonzero(example.activations <= 0).tolist()
    if len(free) < n_marked:
        return None
    marks = np.zeros(len(example.activations), dtype=np.bool_)
    marks[chosen.sample(free, n_marked)] = True
    return marks


def plain_text(example: Example, decode: Decode) -> str:
    """The window without marks."""
    return prompts.plain([(decode(example.token_ids.tolist()), False)])


def marked_text(example: Example, marks: npt.NDArray[np.bool_], decode: Decode) -> str:
    """The window with marks; neighbours that are marked alike are decoded together, so that no letter is halved."""
    pieces = []
    for is_marked, group in groupby(range(len(marks)), key=lambda i: bool(marks[i])):
        pieces.append((decode([int(example.token_ids[i]) for i in group]), is_marked))
    return prompts.marked(pieces)
