"""Activations that SAEs learn from: where they come from, which are left out, and their shuffled blocks.

A block is a pure function of the contexts, the seed and its number. Nothing but that number has to be remembered to
continue a run, and SAEs trained apart see the same batches as SAEs trained together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspector.engine.plan import Outliers, outliers_of
from inspector.errors import DataError

if TYPE_CHECKING:
    from inspector.sources.model import LanguageModel

ActivationSource = Callable[[Tensor], dict[str, Tensor]]
"""Token ids [contexts, positions] to activations [contexts, positions, d_in] by hook name; heads already flattened."""

Ids = npt.NDArray[np.int64]


LEFT_OUT = "left out"
"""Among what a source gives by hook: marks [contexts, positions] bool of tokens that nothing learns from."""


def chosen_rows(made: dict[str, Tensor], mask: Tensor) -> tuple[dict[str, Tensor], int]:
    """Activations [tokens, d_in] float32 by hook where a mask [contexts, positions] is True and nothing is left out.

    Returns:
        They, and how many tokens of the mask are left out.
    """
    marks = made.get(LEFT_OUT)
    kept = mask if marks is None else mask & ~marks
    rows = {hook: x[kept.to(x.device)].float() for hook, x in made.items() if hook != LEFT_OUT}
    return rows, int(mask.sum()) - int(kept.sum())


def is_ordinary(ids: Ids, special_ids: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Mask of the shape of `ids`: True where the token is not special."""
    return ~np.isin(ids, special_ids)


def text_fingerprint(contexts: Ids) -> str:
    """SHA-256 of the token ids."""
    return hashlib.sha256(np.ascontiguousarray(contexts).tobytes()).hexdigest()


class ActivationBlocks:
    """Blocks of activations without end; contexts are read again in another order once all were read.

    Args:
        source: the model.
        contexts: [contexts, positions] token ids.
        block_contexts: contexts per block.
        model_batch: contexts per model pass.
        special_ids: tokens whose activations are left out.
        seed: of all orders.
        positions: half-open range of the positions that are kept; None: all.
        first_contexts: of the first block, so that learning begins sooner; None: as many as of the others.

    Raises:
        DataError: if there are no contexts, or only special tokens in them.
    """

    def __init__(
        self,
        source: ActivationSource,
        contexts: Ids,
        *,
        block_contexts: int,
        model_batch: int,
        special_ids: tuple[int, ...],
        seed: int,
        positions: tuple[int, int | None] | None = None,
        first_contexts: int | None = None,
    ) -> None:
        self._special_ids, self._positions = special_ids, slice(*(positions or (0, None)))
        n_ordinary = int(self._kept(contexts).sum())
        if not n_ordinary:
            raise DataError(f"{len(contexts)} contexts hold no ordinary token to train on. Give --text a longer file.")
        self._source, self._contexts = source, contexts
        self._block_contexts, self._model_batch, self._seed = block_contexts, model_batch, seed
        self._first_contexts = first_contexts or block_contexts
        self.tokens_per_epoch = n_ordinary
        """Activations before contexts repeat, those that the source leaves out among them."""
        self.left_out: dict[int, tuple[int, int]] = {}
        """By block made: tokens that the source left out, and all of them."""

    def __call__(self, block: int) -> dict[str, Tensor]:
        """The block's activations [tokens, d_in] float32 by hook, shuffled the same way at every hook."""
        work = self.pieces(block)
        while True:
            try:
                next(work)
            except StopIteration as end:
                made: dict[str, Tensor] = end.value
                return made

    def pieces(self, block: int) -> Generator[tuple[int, int], None, dict[str, Tensor]]:
        """As a call, with a pause after each model pass, so that others can be answered or can stop it.

        Yields:
            Contexts that are done, and those of the block.
        """
        rows = self._rows(block)
        parts: dict[str, list[Tensor]] = {}
        n_left_out = n_all = 0
        for first in range(0, len(rows), self._model_batch):
            ids = self._contexts[rows[first : first + self._model_batch]]
            ordinary = torch.from_numpy(self._kept(ids))
            made, n_without = chosen_rows(self._source(torch.from_numpy(ids)), ordinary)
            n_left_out, n_all = n_left_out + n_without, n_all + int(ordinary.sum())
            for hook, x in made.items():
                parts.setdefault(hook, []).append(x)
            yield min(first + self._model_batch, len(rows)), len(rows)
        self.left_out[block] = n_left_out, n_all
        joined = {hook: torch.cat(part) for hook, part in parts.items()}
        n_tokens = len(next(iter(joined.values())))
        order = torch.from_numpy(np.random.default_rng([self._seed, 1, block]).permutation(n_tokens))
        return {hook: x[order.to(x.device)] for hook, x in joined.items()}

    def n_left_out(self) -> tuple[int, int]:
        """Tokens that the source left out of the blocks made so far, and all of them; each block once."""
        return sum(out for out, _ in self.left_out.values()), sum(n for _, n in self.left_out.values())

    def _kept(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Mask of the tokens that are learned from."""
        here = np.zeros(ids.shape[1], dtype=np.bool_)
        here[self._positions] = True
        kept: npt.NDArray[np.bool_] = is_ordinary(ids, self._special_ids) & here
        return kept

    def _rows(self, block: int) -> npt.NDArray[np.int64]:
        total = len(self._contexts)
        ends = [max(0, self._first_contexts + number * self._block_contexts) for number in (block - 1, block)]
        places = np.arange(ends[0] if block else 0, ends[1])
        epochs, within = np.divmod(places, total)
        orders = {
            int(epoch): np.random.default_rng([self._seed, 0, int(epoch)]).permutation(total)
            for epoch in np.unique(epochs)
        }
        return np.asarray([orders[int(epoch)][place] for epoch, place in zip(epochs, within, strict=True)])


def source_of(model: LanguageModel, hook_names: Sequence[str]) -> ActivationSource:
    """The model's values at these hooks: one pass serves all of them and ends with the last."""
    return lambda ids: model.values(ids, hook_names)


class OutlierMarks:
    """An `ActivationSource` that says which of its tokens are outliers, at any of its hooks.

    Args:
        source: the model.
        factor: how many times the median norm makes an outlier.
        ids: [contexts, positions] token ids whose norms give the median of each hook, once.
        special_ids: tokens that do not count for it.
    """

    def __init__(self, source: ActivationSource, factor: float, ids: Ids, special_ids: tuple[int, ...]) -> None:
        self._source = source
        ordinary = torch.from_numpy(is_ordinary(ids, special_ids))
        self.rules: dict[str, Outliers] = {}
        """By hook; a hook whose median norm is 0 has none."""
        for hook, x in source(torch.from_numpy(ids)).items():
            norms = x[ordinary.to(x.device)].float().norm(dim=-1)
            rule = outliers_of(factor, float(norms.median())) if len(norms) else None
            if rule is not None:
                self.rules[hook] = rule

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """As the source, and the marks [contexts, positions] under LEFT_OUT."""
        made = self._source(ids)
        marks = torch.zeros(ids.shape, dtype=torch.bool)
        for hook, rule in self.rules.items():
            marks |= rule.among(made[hook])
        return {**made, LEFT_OUT: marks}
