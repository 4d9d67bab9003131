"""What SAEs on the parts of an error learn from: which SAE's error, which text, which noise, in which blocks."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.engine.moments import Moments
from inspector.errors import DataError, TargetError, UsageError, nearest
from inspector.events import Event, Loading
from inspector.statistics.error_recipe import Recipe
from inspector.statistics.passes import Progress, contexts_with
from inspector.statistics.sampling import random_part
from inspector.training.blocks import ActivationBlocks, Ids
from inspector.training.error_saes import NOISE, ErrorParts, Gaussian, map_hash

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.pipeline import Measuring

MAIN = ("linear_error", "nonlinear_error")
CONTROLS = ("x", "sae_error", *NOISE)
PROBED_CONTEXTS = 8
BLOCK_BYTES = 1 << 30
"""Of all parts of the tokens that are shuffled together."""
MOST_BLOCK_CONTEXTS = 128
MODEL_BATCH = 8
"""Contexts between two pauses."""


class ErrorStream:
    """The shared stream of one training. `prepare` first.

    Args:
        measuring: the target.
        recipe: of the training.
        sae_id: the base SAE; empty: the one nearest to what the recipe names.

    Raises:
        TargetError: there is no such SAE.
        UsageError: the recipe wants more active latents than there are.
    """

    contexts: Ids
    """[c, t] that are learned from; none of them holds a held-out token."""
    parts: ErrorParts
    blocks: ActivationBlocks
    batch_tokens: int
    """Of every step."""

    def __init__(self, measuring: Measuring, recipe: Recipe, sae_id: str) -> None:
        loaded = measuring.loaded
        assert loaded is not None, "an error is an SAE's"
        self.measuring, self.loaded, self.recipe = measuring, loaded, recipe
        self.base = _pick(loaded.saes, recipe, sae_id)
        self.error_map = measuring.maps[self.base.ref.sae_id].error_map
        self.d_sae = recipe.expansion * loaded.model.check_hook(loaded.hook_name)
        if recipe.k > self.d_sae:
            raise UsageError(f"'k={recipe.k}' is more than the {self.d_sae:,} latents. Lower k, or raise expansion.")
        self.at_home = loaded.target.model == recipe.model and self.base.ref.layer == recipe.layer
        """Whether the target is the one the preset belongs to."""
        self.names = (*MAIN, *(CONTROLS if recipe.control_seeds else ()))
        """Of the parts."""
        found = int(loaded.plan.included.sum()) - int(measuring.plan.included.sum())
        self.outliers = loaded.outliers if found > 0 else None
        """Tokens that nothing learns from; None also where the target's own text has none, so that what was trained
        on it before is found again."""
        self.positions = loaded.target.positions or (0, None)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens before the text repeats."""
        return self.blocks.tokens_per_epoch

    def prepare(self) -> Generator[Event, None, None]:
        """Find the text and fit the noise.

        Raises:
            DataError: every context of the text holds a held-out token.
        """
        loaded, measuring, recipe = self.loaded, self.measuring, self.recipe
        length = loaded.contexts.token_ids.shape[1]
        usable = len(range(*slice(*self.positions).indices(length)))
        yield Loading(what="text", detail="to learn from")
        began = time.perf_counter()
        self.contexts, noticed = self._text(math.ceil(recipe.tokens / usable))
        yield Loading(
            what="text",
            detail=f"to learn from, {len(self.contexts):,} contexts, none with held-out tokens{noticed}",
            seconds=time.perf_counter() - began,
        )
        noise = (yield from self._noise()) if recipe.control_seeds else {}
        self.parts = ErrorParts(
            loaded.model,
            loaded.hook_name,
            self.base,
            self.error_map,
            self.names,
            noise,
            measuring.seed,
            outliers=self.outliers,
        )
        per_context = 4 * length * self.error_map.weight.shape[1] * len(self.names)
        step = recipe.batch_contexts or 1
        block = max(step, min(MOST_BLOCK_CONTEXTS, BLOCK_BYTES // per_context) // step * step)
        special = () if loaded.target.include_special else tuple(sorted(loaded.model.special_ids))
        self.blocks = ActivationBlocks(
            self.parts,
            self.contexts,
            block_contexts=min(block, max(1, math.ceil(recipe.tokens / usable))),
            model_batch=MODEL_BATCH,
            special_ids=special,
            seed=measuring.seed,
            positions=self.positions,
        )
        # A little less than so many contexts hold, so that a block with a special token more loses no batch.
        of_contexts = int(0.98 * self.tokens_per_epoch / len(self.contexts) * recipe.batch_contexts)
        self.batch_tokens = min(recipe.tokens, of_contexts or recipe.batch_tokens)

    def _text(self, wanted: int) -> tuple[Ids, str]:
        """Contexts [c, t] to learn from: of the target's text, without those that hold held-out tokens."""
        from inspector.sources.contexts import load_contexts

        loaded, plan = self.loaded, self.measuring.plan
        ids = loaded.contexts.token_ids
        tested = {row.numpy().tobytes() for row in ids[plan.test.any(dim=1)]}
        target = replace(loaded.target, contexts=wanted + len(ids), context_length=ids.shape[1])
        found = load_contexts(target, loaded.model).token_ids
        usable = [row for row in found if row.numpy().tobytes() not in tested]
        # In the order of the file: the first ones would leave out its end.
        kept = [usable[i] for i in random_part(range(len(usable)), wanted, self.measuring.seed)]
        if not kept:
            raise DataError(
                f"All {len(found)} contexts of the text hold held-out tokens, so there is nothing to learn from. "
                "Give a longer --text, or fewer --contexts."
            )
        short = "" if len(kept) >= wanted else f", to be read {wanted / len(kept):.1f} times"
        return torch.stack(kept).numpy(), short

    def _noise(self) -> Generator[Event, None, dict[str, Gaussian]]:
        """Mean and covariance of either part over the tokens that the map was fitted on."""
        plan = self.measuring.plan
        moments = {part: Moments(self.error_map.weight.shape[0]) for part in MAIN}
        plain = ErrorParts(self.loaded.model, self.loaded.hook_name, self.base, self.error_map, MAIN, {}, 0)
        chosen = contexts_with(plan.train)
        progress = Progress("covariance of the parts", len(chosen), plan.train.shape[1])
        for batch in self.measuring.activations.batches(chosen):
            with torch.inference_mode():
                rows = plan.train[batch.contexts, batch.positions].to(batch.x.device)
                own = plain.of_context(batch.token_ids, batch.x)
                for part in MAIN:
                    moments[part].update(own[part][rows])
            yield progress.advance(batch)
        return {
            name: Gaussian.of(moments[part].mean_x, moments[part].s_xx / max(1, moments[part].n))
            for name, part in NOISE.items()
        }

    def probe(self) -> dict[str, Tensor]:
        """A few held-out contexts' parts [n, d], to watch the training by."""
        plan, found = self.measuring.plan, []
        for index in random_part(contexts_with(plan.test), PROBED_CONTEXTS, self.measuring.seed):
            (batch,) = self.measuring.activations.batches([index])
            rows = plan.test[index].to(batch.x.device)
            own = self.parts.of_context(self.loaded.contexts.token_ids[index], batch.x)
            found.append({part: value[rows] for part, value in own.items()})
        return {part: torch.cat([each[part] for each in found]) for part in self.names}

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
            "seed": self.measuring.seed,
            "dtype": str(loaded.model.dtype),
            **({} if self.outliers is None else {"outliers": self.outliers.threshold}),
        }


def _pick(saes: Sequence[LoadedSae], recipe: Recipe, sae_id: str) -> LoadedSae:
    """The SAE that was named; else of the width nearest to the recipe's, the one of the nearest nominal L0."""
    by_id = {sae.ref.sae_id: sae for sae in saes}
    if sae_id:
        if sae_id not in by_id:
            raise TargetError(f"'sae={sae_id}' is not among the target's SAEs.{nearest(sae_id, by_id)}")
        return by_id[sae_id]
    return min(
        saes,
        key=lambda sae: (
            abs(math.log2(sae.ref.d_sae / recipe.width)),
            math.inf if sae.ref.nominal_l0 is None else abs(sae.ref.nominal_l0 - recipe.l0),
            sae.ref.sae_id,
        ),
    )
