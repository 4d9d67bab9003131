"""The pass over held-out tokens, with the maps of the first held fixed; see `held_out` for what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose, squared_norm
from inspector.engine.moments import on_host, to_float64
from inspector.engine.plan import Plan
from inspector.events import Event
from inspector.sources.activations import ActivationBatch, Rows
from inspector.statistics.first_pass import Places, Reconstructed, Reconstruction, Reconstructions, SaeMaps, pairs
from inspector.statistics.grouping import Runs, groups_of
from inspector.statistics.held_out import HookSums, SaeSums, placed
from inspector.statistics.passes import Activations, Progress, Watch, contexts_with, walk
from inspector.statistics.sums import State, Sums

Tokens = Literal["all", "ordinary", "outliers"]


class SecondPass:
    """Accumulator over scored tokens.

    Args:
        maps: of every SAE, from one fit.
        plan: what is held out.
        scored: 'test' scores the plan's held-out tokens, 'all' the training tokens too (D-04).
        tokens: of those, all, or the ordinary ones, or the outliers that the batches mark.
    """

    def __init__(
        self,
        maps: Mapping[str, SaeMaps],
        plan: Plan,
        *,
        scored: Literal["test", "all"] = "test",
        tokens: Tokens = "all",
    ) -> None:
        self.maps = dict(maps)
        self.tokens: Tokens = tokens
        self.scored = plan.test if scored == "test" else plan.included
        """[c, t] bool."""
        self._groups = groups_of(self.scored, plan.documents)
        self._sums = HookSums.of_nothing(self.maps, self.scored, self._groups.first)

    def mask(self, batch: ActivationBatch) -> Tensor:
        """[n] bool: the batch's tokens that this pass scores."""
        mask = self.scored[batch.contexts.cpu(), batch.positions.cpu()]
        if self.tokens == "all":
            return mask
        if self.tokens == "ordinary":
            return batch.ordinary(mask)
        return torch.zeros_like(mask) if batch.outlier is None else mask & batch.outlier

    def update(self, batch: ActivationBatch, reconstructions: Reconstructions) -> None:
        """Add a batch's scored tokens; a context may come in several batches. All of it is added, or nothing.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
            ValueError: an SAE is missing.
        """
        adding = self.adding(batch)
        if adding is not None:
            for sae_id, reconstruction in pairs(reconstructions):
                adding.take(sae_id, reconstruction)
            adding.done()

    def adding(self, batch: ActivationBatch) -> Adding | None:
        """A batch to be added, for which the SAEs' reconstructions come one by one; None if nothing of it is scored."""
        mask = self.mask(batch)
        if not bool(mask.any()):
            return None
        return Adding(self._sums, batch, mask, self._groups.runs(batch.contexts.cpu()[mask]))

    @torch.inference_mode()
    def merge(self, other: SecondPass) -> None:
        """Add what another pass with the same maps and plan has seen."""
        self._sums.merge(other._sums)

    def state(self) -> State:
        """See `sums.Accumulator`."""
        return self._sums.state()

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `sums.Accumulator`."""
        self._sums.restore(tensors, facts, device)

    def finish(self) -> HookSums | None:
        """All sums, sorted by context whatever the order they came in; None if no token was scored."""
        there = self._sums.n > 0
        return self._sums.of_contexts(there) if bool(there.any()) else None


class Adding:
    """A batch on its way into a `SecondPass`: added whole once every SAE has come, or not at all.

    Args:
        into: sums of the pass.
        batch: x [n, d] with the place of every token.
        mask: [n] bool, as of `SecondPass.mask`.
        runs: of the tokens in the mask.
    """

    @torch.inference_mode()  # sums made in one mode cannot be added to in another: always this one
    def __init__(self, into: HookSums, batch: ActivationBatch, mask: Tensor, runs: Runs) -> None:
        maps = into.maps
        self._maps, self._into, self._runs = maps, into, runs
        self._rows = Rows(mask, batch.x.device)
        self._x = self._rows.of(batch.x)
        self._watch = Watch(batch, self._rows.places)
        self._watch.add(self._x, "activation")
        self._contexts, self._positions = batch.contexts.cpu()[mask], batch.positions.cpu()[mask]
        any_maps = next(iter(maps.values()))
        wide = to_float64(self._x)
        centre = any_maps.error_map.centre.to(wide.device)
        self._x_norm = wide.norm(dim=1)
        self._wide = wide = wide - centre
        # h = 1 - g x, computed around the mean of x like every prediction.
        g = any_maps.constant_direction.to(wide.device)
        self._h = 1.0 - g @ centre - wide @ g
        self._shared = {
            "n": torch.tensor(runs.lengths, dtype=torch.float64),
            "x_sum": runs.sums(wide),
            "x_sq": runs.sums(wide.square()),
            "h_sq": runs.sums(self._h.square()),
        }
        self._made: dict[str, list[Tensor]] = {}
        """By SAE: the fields of `SaeSums` in their order, and the squared norm of every token's error; where x is."""

    @torch.inference_mode()
    def take(self, sae_id: str, reconstruction: Reconstruction) -> None:
        """What an SAE makes of the batch's tokens, scored or not."""
        x_hat = self._rows.of(reconstruction.x_hat)
        self._watch.add(x_hat, f"reconstruction of SAE '{sae_id}'")
        maps, wide, h, run = self._maps[sae_id], self._wide, self._h, self._runs.sums
        parts = decompose(self._x, x_hat, maps.error_map)
        rest = to_float64(parts.nonlinear_error)
        error = to_float64(parts.sae_error) - maps.mean_error.to(wide.device)
        norm_sq = to_float64(squared_norm(parts.sae_error))
        # One output only: float64 costs nothing here, and squared norms span more digits than float32 has.
        weight, centre = maps.norm_map.weight[0].to(wide), maps.norm_map.centre.to(wide)
        norm_rest = norm_sq - (wide @ weight + weight @ centre + maps.norm_map.bias.to(wide))
        norm = norm_sq - maps.mean_norm_sq.to(wide)
        sums = SaeSums(
            l0=run(to_float64(self._rows.of(reconstruction.l0))),
            norm_sum=run(norm),
            norm_sq=run(norm.square()),
            norm_rest_sq=run(norm_rest.square()),
            norm_rest_h=run(norm_rest * h),
            error_sum=run(error),
            error_sq=run(error.square_()),
            rest_h=run(rest * h[:, None]),
            rest_sq=run(rest.square_()),
        )
        self._made[sae_id] = [*(getattr(sums, each.name) for each in fields(sums)), norm_sq]

    @torch.inference_mode()
    def done(self) -> None:
        """Every SAE has come; only now, so that a batch that did not fit into memory can come again in halves.

        The device is waited for here and nowhere else.

        Raises:
            DataError: a number is NaN or infinite; the message says where.
            ValueError: an SAE is missing.
        """
        if len(self._made) != len(self._maps):
            raise ValueError(f"{len(self._made)} reconstructions came for {len(self._maps)} SAEs.")
        made = [each for values in self._made.values() for each in values]
        watched, x_norm, *rest = on_host([self._watch.sums, self._x_norm, *self._shared.values(), *made])
        self._watch.require(watched)
        into, groups, came = self._into, self._runs.groups, iter(rest)
        into.seen[self._contexts] = True
        for name in self._shared:
            getattr(into, name).index_add_(0, groups, next(came))
        places = placed(self._contexts, self._positions, x_norm)
        for sae_id in self._made:
            for each in fields(SaeSums):
                getattr(into.saes[sae_id], each.name).index_add_(0, groups, next(came))
            top = into.top[sae_id]
            top.add(top.candidates(next(came), places))


@dataclass(kw_only=True)
class Together(Sums):
    """Accumulators that see the same batches."""

    passes: dict[str, SecondPass]
    places: Places = field(default_factory=Places)
    """Of the outliers among what was scored."""

    def update(self, batch: ActivationBatch, made: Reconstructions) -> None:
        """Add a batch to all of them."""
        adding = [one for each in self.passes.values() if (one := each.adding(batch)) is not None]
        for sae_id, reconstruction in pairs(made) if adding else ():
            for one in adding:
                one.take(sae_id, reconstruction)
        for one in adding:
            one.done()
        self.places.update(batch)


def collect_second(
    activations: Activations,
    passes: Mapping[str, Callable[[], SecondPass]],
    of: Reconstructed | None = None,
    *,
    name: str = "scores",
    progress: Progress | None = None,
) -> Generator[Event, None, Together]:
    """Sums over the scored tokens for one or more accumulators (held out; all) from one run over the contexts.

    They share each reconstruction, one of which is alive at a time.

    Args:
        activations: of the target.
        passes: by what each is for.
        of: whose errors; None: of all SAEs of the target.
        name: of the pass, in events and for what is kept.
        progress: as of `walk`.

    Raises:
        DataError: an activation or a reconstruction is not finite; the message says where.
        ResourceError: memory ran out with one context at a time, or there is no room for what is kept.
    """
    of = of or Reconstructed.by(activations.loaded.saes)

    def new() -> Together:
        return Together(passes={name: make() for name, make in passes.items()})

    scored = torch.stack([each.scored for each in new().passes.values()]).any(dim=0)

    def add(part: Together, whole: ActivationBatch) -> None:
        rows = scored[whole.contexts, whole.positions]
        part.update(whole.rows(rows), of.made(whole, rows))

    return (
        yield from walk(
            activations,
            contexts_with(scored),
            new,
            add,
            name=name,
            batch=of.batch,
            at_once=of.at_once,
            progress=progress,
            whole_batches=len(passes) == 1,  # two may be left with one of them fed
        )
    )
