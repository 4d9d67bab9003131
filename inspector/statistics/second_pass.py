"""The pass over held-out tokens: per context, the sums from which every score and its interval follow.

Kept are sums per context and dimension, around the training means so that subtracting the held-out mean later loses
nothing; nothing of the size of the tokens. Resampling contexts is then a matrix product (`engine.resampling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.plan import Plan
from inspector.statistics.finite import require_finite
from inspector.statistics.first_pass import Reconstructions, SaeMaps, pairs

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch


@dataclass(frozen=True, kw_only=True)
class SaeSums:
    """Sums over the scored tokens of each of c contexts, float64 on the CPU."""

    l0: Tensor
    """[c] of active latents."""
    norm_sum: Tensor
    """[c] of y = |sae_error|^2, around its training mean."""
    norm_sq: Tensor
    """[c] of the squares of those."""
    norm_rest_sq: Tensor
    """[c] of the squared residual of the norm map."""
    norm_rest_h: Tensor
    """[c] of that residual times h = 1 - g x."""
    error_sum: Tensor
    """[c, d] of sae_error, around its training mean."""
    error_sq: Tensor
    """[c, d] of the squares of those."""
    rest_sq: Tensor
    """[c, d] of the squares of nonlinear_error."""
    rest_h: Tensor
    """[c, d] of nonlinear_error times h."""


@dataclass(frozen=True, kw_only=True)
class HookSums:
    """Sums over the scored tokens of each of c contexts that all SAEs share, and the SAEs' own. Sorted by context."""

    contexts: Tensor
    """[c] int64 index of the context."""
    n: Tensor
    """[c] float64 scored tokens."""
    x_sum: Tensor
    """[c, d] of x, around its training mean."""
    x_sq: Tensor
    """[c, d] of the squares of those."""
    h_sq: Tensor
    """[c] of h^2 with h = 1 - g x, what an intercept adds to what x expresses of the constant."""
    saes: dict[str, SaeSums]
    maps: Mapping[str, SaeMaps]
    """The maps that were scored."""


class SecondPass:
    """Accumulator over scored tokens, with the maps held fixed.

    Args:
        maps: of every SAE, from one fit.
        scored: 'test' scores the plan's held-out tokens, 'all' the training tokens too (D-04).
    """

    def __init__(self, maps: Mapping[str, SaeMaps], *, scored: Literal["test", "all"] = "test") -> None:
        self.maps = dict(maps)
        self.scored = scored
        self._hook: list[dict[str, Tensor]] = []
        self._saes: dict[str, list[dict[str, Tensor]]] = {sae_id: [] for sae_id in maps}

    def mask(self, batch: ActivationBatch, plan: Plan) -> Tensor:
        """[n] bool: the batch's tokens that this pass scores."""
        places = batch.contexts.cpu(), batch.positions.cpu()
        return (plan.test if self.scored == "test" else plan.included)[places]

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions, plan: Plan) -> None:
        """Add a batch's scored tokens; a context may come in several batches.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
            ValueError: an SAE is missing.
        """
        mask = self.mask(batch, plan)
        if not bool(mask.any()):
            return
        rows = mask.to(batch.x.device)
        x = batch.x[rows]
        require_finite(x, batch, "activation", rows)
        contexts, counts = torch.unique_consecutive(batch.contexts.cpu()[mask], return_counts=True)
        runs: list[int] = counts.tolist()
        any_maps = next(iter(self.maps.values()))
        wide = to_float64(x)
        wide = wide - any_maps.error_map.centre.to(wide.device)
        # h = 1 - g x, computed around the mean of x like every prediction.
        g = any_maps.constant_direction.to(wide.device)
        h = 1.0 - g @ any_maps.error_map.centre.to(wide.device) - wide @ g
        self._hook.append(
            {
                "contexts": contexts,
                "n": counts.double(),
                "x_sum": _run_sums(wide, runs),
                "x_sq": _run_sums(wide.square(), runs),
                "h_sq": _run_sums(h.square(), runs),
            }
        )
        seen = 0
        for sae_id, reconstruction in pairs(reconstructions):
            x_hat = reconstruction.x_hat[rows]
            require_finite(x_hat, batch, f"reconstruction of SAE '{sae_id}'", rows)
            sums = _sae_sums(self.maps[sae_id], x, x_hat, wide, h, runs)
            sums["l0"] = _run_sums(to_float64(reconstruction.l0[rows]), runs)
            self._saes[sae_id].append(sums)
            seen += 1
        if seen != len(self.maps):
            raise ValueError(f"{seen} reconstructions came for {len(self.maps)} SAEs.")

    def merge(self, other: SecondPass) -> None:
        """Add what another pass with the same maps has seen."""
        self._hook += other._hook
        for sae_id, parts in other._saes.items():
            self._saes[sae_id] += parts

    def finish(self) -> HookSums | None:
        """All sums, sorted by context whatever the order they came in; None if no token was scored."""
        if not self._hook:
            return None
        contexts, place = torch.unique(torch.cat([part["contexts"] for part in self._hook]), return_inverse=True)

        def joined(parts: list[dict[str, Tensor]], name: str) -> Tensor:
            values = torch.cat([part[name] for part in parts])
            return torch.zeros(len(contexts), *values.shape[1:], dtype=values.dtype).index_add_(0, place, values)

        return HookSums(
            contexts=contexts,
            **{name: joined(self._hook, name) for name in ("n", "x_sum", "x_sq", "h_sq")},
            saes={
                sae_id: SaeSums(**{name: joined(parts, name) for name in SaeSums.__dataclass_fields__})
                for sae_id, parts in self._saes.items()
            },
            maps=self.maps,
        )


def _sae_sums(maps: SaeMaps, x: Tensor, x_hat: Tensor, wide: Tensor, h: Tensor, runs: list[int]) -> dict[str, Tensor]:
    """The per-context sums of one SAE; x and x_hat [n, d], wide is x around its training mean in float64, h [n]."""
    parts = decompose(x, x_hat, maps.error_map)
    rest = to_float64(parts.nonlinear_error)
    error = to_float64(parts.sae_error) - maps.mean_error.to(wide.device)
    norm_sq = to_float64(squared_norm(parts.sae_error))
    # One output only: float64 costs nothing here, and squared norms span more digits than float32 has.
    weight, centre = maps.norm_map.weight[0].to(wide), maps.norm_map.centre.to(wide)
    norm_rest = norm_sq - (wide @ weight + weight @ centre + maps.norm_map.bias.to(wide))
    norm = norm_sq - maps.mean_norm_sq.to(wide)
    return {
        "norm_sum": _run_sums(norm, runs),
        "norm_sq": _run_sums(norm.square(), runs),
        "norm_rest_sq": _run_sums(norm_rest.square(), runs),
        "norm_rest_h": _run_sums(norm_rest * h, runs),
        "error_sum": _run_sums(error, runs),
        "error_sq": _run_sums(error.square_(), runs),
        "rest_h": _run_sums(rest * h[:, None], runs),
        "rest_sq": _run_sums(rest.square_(), runs),
    }


def _run_sums(values: Tensor, runs: list[int]) -> Tensor:
    """Sums of consecutive rows, as many at a time as `runs` says; on the CPU."""
    return torch.stack([part.sum(dim=0) for part in torch.split(values, runs)]).cpu()
