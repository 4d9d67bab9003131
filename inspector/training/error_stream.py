"""What SAEs on the parts of an error learn from: which SAE's error, which text, which noise, in which blocks."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.engine.plan import random_part
from inspector.errors import DataError, UsageError
from inspector.events import Event, Loading
from inspector.training.blocks import ActivationBlocks, Ids
from inspector.training.error_recipe import Recipe
from inspector.training.error_saes import NOISE, ErrorParts, Gaussian, map_hash

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

MAIN = ("linear_error", "nonlinear_error")
CONTROLS = ("x", "sae_error", *NOISE)
PROBED_CONTEXTS = 8
BLOCK_BYTES = 1 << 30
"""Of all parts of the tokens that are shuffled together."""
MOST_BLOCK_CONTEXTS = 128
MODEL_BATCH = 8
"""Contexts between two pauses."""


class ErrorStream:
    """The shared stream of one training. `find_text` first, then `prepare`.

    Args:
        loaded: the target.
        plan: what is held out, which nothing learns from.
        base: the SAE whose error it is.
        error_map: that splits it.
        recipe: of the training.
        seed: of the run.

    Raises:
        UsageError: the recipe wants more active latents than there are.
    """

    contexts: Ids
    """[c, t] that are learned from; none of them holds a held-out token."""
    parts: ErrorParts
    blocks: ActivationBlocks
    batch_tokens: int
    """Of every step."""

    def __init__(
        self, loaded: Loaded, plan: Plan, base: LoadedSae, error_map: LinearMap, recipe: Recipe, seed: int
    ) -> None:
        self.loaded, self.recipe, self.seed = loaded, recipe, seed
        self.base, self.error_map, self._plan = base, error_map, plan
        self.d_sae = recipe.expansion * loaded.model.check_hook(loaded.hook_name)
        if recipe.k > self.d_sae:
            raise UsageError(f"'k={recipe.k}' is more than the {self.d_sae:,} latents. Lower k, or raise expansion.")
        self.at_home = loaded.target.model == recipe.model and self.base.ref.layer == recipe.layer
        """Whether the target is the one the preset belongs to."""
        self.names = (*MAIN, *(CONTROLS if recipe.control_seeds else ()))
        """Of the parts."""
        found = int(loaded.plan.included.sum()) - int(plan.included.sum())
        self.outliers = loaded.outliers if found > 0 else None
        """Tokens that nothing learns from; None also where the target's own text has none, so that what was trained
        on it before is found again."""
        self.positions = loaded.target.positions or (0, None)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens before the text repeats."""
        return self.blocks.tokens_per_epoch

    def find_text(self) -> Generator[Event, None, None]:
        """Find the text to learn from.

        Raises:
            DataError: every context of the text holds a held-out token.
        """
        yield Loading(what="text", detail="to learn from")
        began = time.perf_counter()
        self.contexts, noticed = self._text(self._contexts_wanted())
        yield Loading(
            what="text",
            detail=f"to learn from, {len(self.contexts):,} contexts, none with held-out tokens{noticed}",
            seconds=time.perf_counter() - began,
        )

    def prepare(self, noise: Mapping[str, Gaussian]) -> None:
        """Lay out the blocks, with this noise among the controls."""
        loaded, recipe = self.loaded, self.recipe
        length = loaded.contexts.token_ids.shape[1]
        self.parts = ErrorParts(
            loaded.model,
            loaded.hook_name,
            self.base,
            self.error_map,
            self.names,
            noise,
            self.seed,
            outliers=self.outliers,
        )
        per_context = 4 * length * self.error_map.weight.shape[1] * len(self.names)
        step = recipe.batch_contexts or 1
        block = max(step, min(MOST_BLOCK_CONTEXTS, BLOCK_BYTES // per_context) // step * step)
        special = () if loaded.target.include_special else tuple(sorted(loaded.model.special_ids))
        self.blocks = ActivationBlocks(
            self.parts,
            self.contexts,
            block_contexts=min(block, max(1, self._contexts_wanted())),
            model_batch=MODEL_BATCH,
            special_ids=special,
            seed=self.seed,
            positions=self.positions,
        )
        # A little less than so many contexts hold, so that a block with a special token more loses no batch.
        of_contexts = int(0.98 * self.tokens_per_epoch / len(self.contexts) * recipe.batch_contexts)
        self.batch_tokens = min(recipe.tokens, of_contexts or recipe.batch_tokens)

    def _contexts_wanted(self) -> int:
        length = self.loaded.contexts.token_ids.shape[1]
        return math.ceil(self.recipe.tokens / len(range(*slice(*self.positions).indices(length))))

    def _text(self, wanted: int) -> tuple[Ids, str]:
        """Contexts [c, t] to learn from: of the target's text, without those that hold held-out tokens."""
        from inspector.sources.contexts import load_contexts

        loaded, plan = self.loaded, self._plan
        ids = loaded.contexts.token_ids
        tested = {row.numpy().tobytes() for row in ids[plan.test.any(dim=1)]}
        target = replace(loaded.target, contexts=wanted + len(ids), context_length=ids.shape[1])
        found = load_contexts(target, loaded.model).token_ids
        usable = [row for row in found if row.numpy().tobytes() not in tested]
        # In the order of the file: the first ones would leave out its end.
        kept = [usable[i] for i in random_part(range(len(usable)), wanted, self.seed)]
        if not kept:
            raise DataError(
                f"All {len(found)} contexts of the text hold held-out tokens, so there is nothing to learn from. "
                "Give a longer --text, or fewer --contexts."
            )
        short = "" if len(kept) >= wanted else f", to be read {wanted / len(kept):.1f} times"
        return torch.stack(kept).numpy(), short

    def probe(self) -> dict[str, Tensor]:
        """A few held-out contexts' parts [n, d], to watch the training by."""
        held_out = self._plan.test
        chosen = random_part(held_out.any(dim=1).nonzero()[:, 0].tolist(), PROBED_CONTEXTS, self.seed)
        values = self.parts(self.loaded.contexts.token_ids[chosen])
        rows = held_out[chosen].to(self.loaded.model.device)
        return {part: values[part][rows] for part in self.names}

    def identity(self) -> dict[str, Any]:
        """What the stream follows from, as plain JSON data."""
        loaded = self.loaded
        return {
            "model": loaded.model.weights_hash,
            "hook_name": loaded.hook_name,
            "sae": self.base.weights_hash,
            "map": map_hash(self.error_map),
            "text": hashlib.sha256(self.contexts.tobytes()).hexdigest(),
            "fitted_on": loaded.contexts.sha256,
            "positions": self.positions,
            "seed": self.seed,
            "dtype": str(loaded.model.dtype),
            **({} if self.outliers is None else {"outliers": self.outliers.threshold}),
        }
