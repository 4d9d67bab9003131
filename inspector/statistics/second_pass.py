"""The pass over held-out tokens: per context, the sums from which every score and its interval follow.

Kept are sums per context and dimension, around the training means so that subtracting the held-out mean later loses
nothing; nothing of the size of the tokens, because many contexts share their sums in blocks (`grouping`). Resampling
contexts is then a matrix product (`engine.resampling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.plan import Plan
from inspector.statistics.finite import require_finite
from inspector.statistics.first_pass import Reconstructions, SaeMaps, pairs
from inspector.statistics.grouping import Groups, groups_of

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch


@dataclass(frozen=True, kw_only=True)
class SaeSums:
    """Sums over the scored tokens of each of c contexts, or blocks of contexts, float64 on the CPU."""

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
    """Sums over the scored tokens of each of c contexts that all SAEs share, and the SAEs' own. Sorted by context.

    Beyond `grouping.MOST_GROUPS` contexts c counts blocks of them. Shares memory with the pass, which may go on.
    """

    contexts: Tensor
    """[c] int64 index of the context, or of the first of its block."""
    n_contexts: int
    """With scored tokens, in all blocks."""
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


_OF_CONTEXT = ("n", "h_sq", "l0", "norm_sum", "norm_sq", "norm_rest_sq", "norm_rest_h")
"""Sums that are one number per context; the others are [d]."""
_SHARED = ("n", "x_sum", "x_sq", "h_sq")
Sums = dict[str, Tensor]


class SecondPass:
    """Accumulator over scored tokens, with the maps held fixed.

    Args:
        maps: of every SAE, from one fit.
        scored: 'test' scores the plan's held-out tokens, 'all' the training tokens too (D-04).
    """

    def __init__(self, maps: Mapping[str, SaeMaps], *, scored: Literal["test", "all"] = "test") -> None:
        self.maps = dict(maps)
        self.scored = scored
        self._plan: Plan | None = None
        self._groups: Groups | None = None
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._shared: Sums = {}
        self._saes: dict[str, Sums] = {}

    def mask(self, batch: ActivationBatch, plan: Plan) -> Tensor:
        """[n] bool: the batch's tokens that this pass scores."""
        places = batch.contexts.cpu(), batch.positions.cpu()
        return (plan.test if self.scored == "test" else plan.included)[places]

    @torch.inference_mode()  # sums made in one mode cannot be added to in another: always this one
    def update(self, batch: ActivationBatch, reconstructions: Reconstructions, plan: Plan) -> None:
        """Add a batch's scored tokens; a context may come in several batches. All of it is added, or nothing.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
            ValueError: an SAE is missing, or the plan is not that of the first batch.
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
        shared = {
            "n": counts.double(),
            "x_sum": _run_sums(wide, runs),
            "x_sq": _run_sums(wide.square(), runs),
            "h_sq": _run_sums(h.square(), runs),
        }
        saes: dict[str, Sums] = {}
        for sae_id, reconstruction in pairs(reconstructions):
            x_hat = reconstruction.x_hat[rows]
            require_finite(x_hat, batch, f"reconstruction of SAE '{sae_id}'", rows)
            sums = _sae_sums(self.maps[sae_id], x, x_hat, wide, h, runs)
            sums["l0"] = _run_sums(to_float64(reconstruction.l0[rows]), runs)
            saes[sae_id] = sums
        if len(saes) != len(self.maps):
            raise ValueError(f"{len(saes)} reconstructions came for {len(self.maps)} SAEs.")
        # Only now, so that a batch that did not fit into memory can come again in halves.
        groups = self._prepared(plan, x.shape[1])
        place = groups.of_context[contexts]
        self._seen[contexts] = True
        _add(self._shared, shared, place)
        for sae_id, sums in saes.items():
            _add(self._saes[sae_id], sums, place)

    @torch.inference_mode()
    def merge(self, other: SecondPass) -> None:
        """Add what another pass with the same maps and plan has seen."""
        if other._plan is None:
            return
        self._prepared(other._plan, other._shared["x_sum"].shape[1])
        self._seen |= other._seen
        for mine, theirs in (
            (self._shared, other._shared),
            *((self._saes[sae_id], sums) for sae_id, sums in other._saes.items()),
        ):
            for name, values in theirs.items():
                mine[name] += values

    def finish(self) -> HookSums | None:
        """All sums, sorted by context whatever the order they came in; None if no token was scored."""
        if self._groups is None or not bool(self._seen.any()):
            return None
        there = self._shared["n"] > 0
        complete = bool(there.all())

        def chosen(sums: Sums) -> Sums:
            return dict(sums) if complete else {name: values[there] for name, values in sums.items()}

        return HookSums(
            contexts=self._groups.first[there],
            n_contexts=int(self._seen.sum()),
            **chosen(self._shared),
            saes={sae_id: SaeSums(**chosen(sums)) for sae_id, sums in self._saes.items()},
            maps=self.maps,
        )

    def state(self) -> dict[str, Tensor]:
        """The sums by name, to be stored and given to `restore`; they share memory with the pass."""
        found = {"seen": self._seen} if self._plan is not None else {}
        found |= {f"shared {name}": values for name, values in self._shared.items()}
        for place, sae_id in enumerate(self.maps):
            found |= {f"{place} {name}": values for name, values in self._saes.get(sae_id, {}).items()}
        return found

    @torch.inference_mode()
    def restore(self, state: Mapping[str, Tensor], plan: Plan) -> None:
        """Take over the sums of a pass with the same maps and plan; this pass must be new.

        Raises:
            ValueError: they are not the sums of such a pass.
        """
        if not state:
            return
        self._prepared(plan, state["shared x_sum"].shape[1])
        mine = self.state()
        if {name: values.shape for name, values in mine.items()} != {name: v.shape for name, v in state.items()}:
            raise ValueError("The stored sums are of another pass.")
        for name, values in mine.items():
            values.copy_(state[name])

    def _prepared(self, plan: Plan, d: int) -> Groups:
        """The groups of the plan's contexts, with sums of zero if this is the first batch."""
        if self._groups is None:
            self._plan = plan
            self._groups = groups_of(plan.test if self.scored == "test" else plan.included)
            n = len(self._groups.first)
            self._seen = torch.zeros(len(self._groups.of_context), dtype=torch.bool)
            self._shared = _zeros(_SHARED, n, d)
            self._saes = {sae_id: _zeros(SaeSums.__dataclass_fields__, n, d) for sae_id in self.maps}
        elif plan is not self._plan:
            raise ValueError("The plan is not that of the first batch.")
        return self._groups


def _zeros(names: Iterable[str], n: int, d: int) -> Sums:
    return {name: torch.zeros((n,) if name in _OF_CONTEXT else (n, d), dtype=torch.float64) for name in names}


def _add(into: Sums, values: Sums, place: Tensor) -> None:
    """Add rows to the rows that `place` names, in their order."""
    for name, total in into.items():
        total.index_add_(0, place, values[name])


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
