"""The pass over held-out tokens: per context, the sums from which every score and its interval follow.

Kept are sums per context and dimension, around the training means so that subtracting the held-out mean later loses
nothing; nothing of the size of the tokens, because many contexts share their sums in blocks (`grouping`). Resampling
contexts is then a matrix product (`engine.resampling`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.plan import Plan
from inspector.events import Event
from inspector.statistics import heaviest
from inspector.statistics.first_pass import (
    Reconstruct,
    Reconstruction,
    Reconstructions,
    SaeMaps,
    by_the_sae,
    no_places,
    one_by_one,
    pairs,
    places_of,
)
from inspector.statistics.grouping import Groups, groups_of
from inspector.statistics.passes import Activations, State, contexts_with, require_finite, walk
from inspector.statistics.passes import Sums as WalkSums

if TYPE_CHECKING:
    from inspector.sources.activations import ActivationBatch
    from inspector.statistics.passes import Keeper


@dataclass(frozen=True, kw_only=True)
class SaeSums:
    """Sums over the scored tokens of each of c contexts, or blocks of contexts, float64 on the CPU."""

    l0: Tensor
    """[c] of active latents."""
    norm_sum: Tensor
    """[c] of y = ‖sae_error‖², around its training mean."""
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
    top: Mapping[str, Tensor] = field(default_factory=dict)
    """By SAE: the scored tokens of the largest errors; see `heaviest`."""


_OF_CONTEXT = ("n", "h_sq", "l0", "norm_sum", "norm_sq", "norm_rest_sq", "norm_rest_h")
"""Sums that are one number per context; the others are [d]."""
_SHARED = ("n", "x_sum", "x_sq", "h_sq")
Sums = dict[str, Tensor]
Tokens = Literal["all", "ordinary", "outliers"]


class SecondPass:
    """Accumulator over scored tokens, with the maps held fixed.

    Args:
        maps: of every SAE, from one fit.
        scored: 'test' scores the plan's held-out tokens, 'all' the training tokens too (D-04).
        tokens: of those, all, or the ordinary ones, or the outliers that the batches mark.
    """

    def __init__(
        self, maps: Mapping[str, SaeMaps], *, scored: Literal["test", "all"] = "test", tokens: Tokens = "all"
    ) -> None:
        self.maps = dict(maps)
        self.scored = scored
        self.tokens: Tokens = tokens
        self._plan: Plan | None = None
        self._groups: Groups | None = None
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._shared: Sums = {}
        self._saes: dict[str, Sums] = {}
        self._top: dict[str, Tensor] = {}

    def mask(self, batch: ActivationBatch, plan: Plan) -> Tensor:
        """[n] bool: the batch's tokens that this pass scores."""
        places = batch.contexts.cpu(), batch.positions.cpu()
        mask = (plan.test if self.scored == "test" else plan.included)[places]
        if self.tokens == "all":
            return mask
        if self.tokens == "ordinary":
            return batch.ordinary(mask)
        return torch.zeros_like(mask) if batch.outlier is None else mask & batch.outlier

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions, plan: Plan) -> None:
        """Add a batch's scored tokens; a context may come in several batches. All of it is added, or nothing.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
            ValueError: an SAE is missing, or the plan is not that of the first batch.
        """
        adding = self.adding(batch, plan)
        if adding is not None:
            for sae_id, reconstruction in pairs(reconstructions):
                adding.take(sae_id, reconstruction)
            adding.done()

    def adding(self, batch: ActivationBatch, plan: Plan) -> Adding | None:
        """A batch to be added, for which the SAEs' reconstructions come one by one; None if nothing of it is scored.

        Raises:
            DataError: an activation is NaN or infinite; the message says where.
        """
        mask = self.mask(batch, plan)
        return Adding(self, batch, plan, mask) if bool(mask.any()) else None

    def n_top(self, plan: Plan) -> int:
        """How many tokens of the largest errors are kept."""
        return heaviest.n_kept(int((plan.test if self.scored == "test" else plan.included).sum()))

    def add(
        self, plan: Plan, contexts: Tensor, shared: Sums, saes: Mapping[str, Sums], tops: Mapping[str, Tensor]
    ) -> None:
        """Add the sums of a batch, one row for each of its contexts [c]."""
        groups = self._prepared(plan, shared["x_sum"].shape[1])
        place = groups.of_context[contexts]
        self._seen[contexts] = True
        _add(self._shared, shared, place)
        for sae_id, sums in saes.items():
            _add(self._saes[sae_id], sums, place)
            self._top[sae_id] = heaviest.merged(self._top[sae_id], tops[sae_id])

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
        for sae_id, top in other._top.items():
            self._top[sae_id] = heaviest.merged(self._top[sae_id], top)

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
            top=dict(self._top),
        )

    def state(self) -> dict[str, Tensor]:
        """The sums by name, to be stored and given to `restore`; they share memory with the pass."""
        found = {"seen": self._seen} if self._plan is not None else {}
        found |= {f"shared {name}": values for name, values in self._shared.items()}
        for place, sae_id in enumerate(self.maps):
            found |= {f"{place} {name}": values for name, values in self._saes.get(sae_id, {}).items()}
            found |= {f"{place} top": self._top[sae_id]} if sae_id in self._top else {}
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
            self._groups = groups_of(plan.test if self.scored == "test" else plan.included, plan.documents)
            n = len(self._groups.first)
            self._seen = torch.zeros(len(self._groups.of_context), dtype=torch.bool)
            self._shared = _zeros(_SHARED, n, d)
            self._top = {sae_id: heaviest.none_yet(self.n_top(plan)) for sae_id in self.maps}
            self._saes = {sae_id: _zeros(SaeSums.__dataclass_fields__, n, d) for sae_id in self.maps}
        elif plan is not self._plan:
            raise ValueError("The plan is not that of the first batch.")
        return self._groups


class Adding:
    """A batch on its way into a `SecondPass`: added whole once every SAE has come, or not at all.

    Args:
        into: the pass.
        batch: x [n, d] with the place of every token.
        plan: what is scored.
        mask: [n] bool, as of `SecondPass.mask`.
    """

    @torch.inference_mode()  # sums made in one mode cannot be added to in another: always this one
    def __init__(self, into: SecondPass, batch: ActivationBatch, plan: Plan, mask: Tensor) -> None:
        self._into, self._batch, self._plan = into, batch, plan
        self._rows = mask.to(batch.x.device)
        self._x = batch.x[self._rows]
        require_finite(self._x, batch, "activation", self._rows)
        places = batch.contexts.cpu()[mask]
        self._contexts, counts = torch.unique_consecutive(places, return_counts=True)
        self._runs: list[int] = counts.tolist()
        any_maps = next(iter(into.maps.values()))
        wide = to_float64(self._x)
        centre = any_maps.error_map.centre.to(wide.device)
        self._places = heaviest.placed(places, batch.positions.cpu()[mask], wide)
        self._wide = wide = wide - centre
        # h = 1 - g x, computed around the mean of x like every prediction.
        g = any_maps.constant_direction.to(wide.device)
        self._h = 1.0 - g @ centre - wide @ g
        self._shared = {
            "n": counts.double(),
            "x_sum": _run_sums(wide, self._runs),
            "x_sq": _run_sums(wide.square(), self._runs),
            "h_sq": _run_sums(self._h.square(), self._runs),
        }
        self._saes: dict[str, Sums] = {}
        self._tops: dict[str, Tensor] = {}

    @torch.inference_mode()
    def take(self, sae_id: str, reconstruction: Reconstruction) -> None:
        """What an SAE makes of the batch's tokens, scored or not.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
        """
        x_hat = reconstruction.x_hat[self._rows]
        require_finite(x_hat, self._batch, f"reconstruction of SAE '{sae_id}'", self._rows)
        sums, norm_sq = _sae_sums(self._into.maps[sae_id], self._x, x_hat, self._wide, self._h, self._runs)
        sums["l0"] = _run_sums(to_float64(reconstruction.l0[self._rows]), self._runs)
        self._saes[sae_id] = sums
        self._tops[sae_id] = heaviest.candidates(norm_sq, self._places, self._into.n_top(self._plan))

    @torch.inference_mode()
    def done(self) -> None:
        """Every SAE has come; only now, so that a batch that did not fit into memory can come again in halves.

        Raises:
            ValueError: an SAE is missing, or the plan is not that of the first batch.
        """
        if len(self._saes) != len(self._into.maps):
            raise ValueError(f"{len(self._saes)} reconstructions came for {len(self._into.maps)} SAEs.")
        self._into.add(self._plan, self._contexts, self._shared, self._saes, self._tops)


def _zeros(names: Iterable[str], n: int, d: int) -> Sums:
    return {name: torch.zeros((n,) if name in _OF_CONTEXT else (n, d), dtype=torch.float64) for name in names}


def _add(into: Sums, values: Sums, place: Tensor) -> None:
    """Add rows to the rows that `place` names, in their order."""
    for name, total in into.items():
        total.index_add_(0, place, values[name])


def _sae_sums(maps: SaeMaps, x: Tensor, x_hat: Tensor, wide: Tensor, h: Tensor, runs: list[int]) -> tuple[Sums, Tensor]:
    """The per-context sums of one SAE, and |sae_error|^2 [n].

    x and x_hat are [n, d], wide is x around its training mean in float64, h is [n].
    """
    parts = decompose(x, x_hat, maps.error_map)
    rest = to_float64(parts.nonlinear_error)
    error = to_float64(parts.sae_error) - maps.mean_error.to(wide.device)
    norm_sq = to_float64(squared_norm(parts.sae_error))
    # One output only: float64 costs nothing here, and squared norms span more digits than float32 has.
    weight, centre = maps.norm_map.weight[0].to(wide), maps.norm_map.centre.to(wide)
    norm_rest = norm_sq - (wide @ weight + weight @ centre + maps.norm_map.bias.to(wide))
    norm = norm_sq - maps.mean_norm_sq.to(wide)
    sums = {
        "norm_sum": _run_sums(norm, runs),
        "norm_sq": _run_sums(norm.square(), runs),
        "norm_rest_sq": _run_sums(norm_rest.square(), runs),
        "norm_rest_h": _run_sums(norm_rest * h, runs),
        "error_sum": _run_sums(error, runs),
        "error_sq": _run_sums(error.square_(), runs),
        "rest_h": _run_sums(rest * h[:, None], runs),
        "rest_sq": _run_sums(rest.square_(), runs),
    }
    return sums, norm_sq


def _run_sums(values: Tensor, runs: list[int]) -> Tensor:
    """Sums of consecutive rows, as many at a time as `runs` says; on the CPU."""
    return torch.stack([part.sum(dim=0) for part in torch.split(values, runs)]).cpu()


class Together:
    """Accumulators that see the same batches.

    Args:
        passes: any number of them.
    """

    def __init__(self, passes: list[SecondPass]) -> None:
        self.passes = passes
        self.places = no_places()
        """[k, 2] int64 context and position of the outliers among what was scored."""

    def update(self, batch: ActivationBatch, made: Iterable[tuple[str, Reconstruction]], plan: Plan) -> None:
        """Add a batch to all of them."""
        adding = [one for each in self.passes if (one := each.adding(batch, plan)) is not None]
        for sae_id, reconstruction in made if adding else ():
            for one in adding:
                one.take(sae_id, reconstruction)
        for one in adding:
            one.done()
        self.places = torch.cat([self.places, places_of(batch)])

    def merge(self, other: Together) -> None:
        """Add what others of the same kinds have seen."""
        for mine, theirs in zip(self.passes, other.passes, strict=True):
            mine.merge(theirs)
        self.places = torch.cat([self.places, other.places])

    def state(self) -> State:
        """See `passes.Sums`."""
        states = [each.state() for each in self.passes]
        tensors = {f"{i} {name}": values for i, state in enumerate(states) for name, values in state.items()}
        return tensors | {"places": self.places}, {"scored": [[each.scored, each.tokens] for each in self.passes]}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], plan: Plan) -> None:
        """See `passes.Sums`."""
        if facts["scored"] != [[each.scored, each.tokens] for each in self.passes]:
            raise ValueError("The stored sums are of other passes.")
        for i, each in enumerate(self.passes):
            own = {name.removeprefix(f"{i} "): v for name, v in tensors.items() if name.startswith(f"{i} ")}
            each.restore(own, plan)
        self.places = tensors["places"].clone()


def collect_second(
    activations: Activations,
    plan: Plan,
    passes: Sequence[Callable[[], SecondPass]],
    *,
    reconstruct: Reconstruct = by_the_sae,
    shards: int = 1,
    name: str = "scores",
    keeper: Keeper | None = None,
) -> Generator[Event, None, Together]:
    """Sums over the scored tokens for one or more accumulators (held out; all) from one run over the contexts.

    They share each reconstruction, one of which is alive at a time.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    saes = {sae.ref.sae_id: sae for sae in activations.loaded.saes}

    def new() -> Together:
        return Together([make() for make in passes])

    scored = plan.included if any(each.scored == "all" for each in new().passes) else plan.test

    def add(part: Together, whole: ActivationBatch) -> None:
        batch = whole.rows(scored[whole.contexts, whole.positions])
        part.update(batch, one_by_one(saes, batch, reconstruct), plan)

    def restored(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Together:
        found = new()
        found.restore(tensors, facts, plan)
        return found

    # Two accumulators may be left with one of them fed.
    sums = WalkSums(new=new, add=add, state=Together.state, restored=restored, whole_batches=len(passes) == 1)
    together = yield from walk(
        activations,
        contexts_with(scored),
        sums,
        name=name,
        tokens_per_context=plan.train.shape[1],
        shards=shards,
        keeper=keeper,
    )
    return together
