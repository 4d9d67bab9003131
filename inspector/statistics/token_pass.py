"""One pass over all tokens for everything that is asked about single ones; see `token_norms` for what is kept.

The model runs to its end, because the loss is one of the things an error's size is compared with. Training contexts
come first and are fitted, held-out ones are then scored: each token is seen once where whole contexts are held out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.regression import Factorisation
from inspector.engine.resampling import resampling_counts
from inspector.engine.scores import ratio, zero_if_constant
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.statistics import token_fits
from inspector.statistics.first_pass import collect_first, error_name
from inspector.statistics.passes import Progress, contexts_with, require_finite
from inspector.statistics.sampling import nearest_l0
from inspector.statistics.token_fits import TARGETS, Fits, TokenClasses, TokenFits, X, sizes_of
from inspector.statistics.token_norms import NORMS, SIZES, Products, SaeTokens, TokenNorms, Trace
from inspector.statistics.token_numbers import (
    KINDS,
    Scalings,
    compared,
    part_sums,
    predictions,
    products_of,
    regression_sums,
    scaling_rests,
    shrinkage_sums,
    sizes,
    token_sums,
)
from inspector.statistics.token_sums import Blocks, ClassSums, GroupProducts, GroupSums, RowSums, Runs

if TYPE_CHECKING:
    from inspector.engine.plan import Plan
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.first_pass import SaeMaps
    from inspector.statistics.pipeline import Measuring


def measure_tokens(measuring: Measuring, *, l0: float, start: int, length: int) -> Generator[Event, None, TokenNorms]:
    """Fit on the training tokens, score on the held-out ones.

    Args:
        measuring: the target, with the maps of every SAE.
        l0: per width, the SAE whose nominal L0 is nearest is in the series; 0 takes all into it.
        start: number of the trace's first token among all included ones.
        length: tokens of the trace; 0: none.

    Raises:
        DataError: an activation, a reconstruction or a loss is not finite; the message says where.
    """
    plan = measuring.plan
    tested = None
    if measuring.protocol.norm_test_map_on == "all":
        tested = yield from _maps_of_all(measuring)
    work = TokenWork(measuring, l0, tested)
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("token norms", len(training) + len(testing), plan.train.shape[1])
    for batch, loss in _scored(measuring, training):
        with torch.inference_mode():
            work.train(*_chosen(batch, loss, plan.train))
        yield progress.advance(batch)
    with torch.inference_mode():
        work.fit()
    for batch, loss in _scored(measuring, testing):
        with torch.inference_mode():
            work.test(*_chosen(batch, loss, plan.test))
        yield progress.advance(batch)
    with torch.inference_mode():
        return work.finish(start, length)


def _maps_of_all(measuring: Measuring) -> Generator[Event, None, Mapping[str, SaeMaps]]:
    """Maps fitted on training and held-out tokens, as the public code has them for the norm test."""
    assert measuring.first is not None, "tokens need a target"
    held_out = replace(measuring.plan, train=measuring.plan.test, n_train=measuring.plan.n_test)
    collected = yield from collect_first(
        measuring.activations, held_out, covariance=measuring.first.covariance, name="moments of all tokens"
    )
    with torch.inference_mode():
        everything = collected.of_all_tokens()
        everything.merge(measuring.first)
        return everything.fit(intercept=measuring.intercept)


def _scored(measuring: Measuring, indices: Sequence[int]) -> Iterator[tuple[ActivationBatch, Tensor]]:
    """Batches of whole contexts with the loss at every token, [n]."""
    loaded = measuring.loaded
    assert loaded is not None, "tokens need a target"
    for first in range(0, len(indices), measuring.batch_size):
        group = torch.tensor(list(indices[first : first + measuring.batch_size]), dtype=torch.int64)
        tokens = loaded.contexts.token_ids[group]
        scored = loaded.model.score(tokens, [loaded.hook_name])
        yield (
            ActivationBatch(
                contexts=group.repeat_interleave(tokens.shape[1]),
                positions=torch.arange(tokens.shape[1]).repeat(len(group)),
                token_ids=tokens.flatten(),
                x=scored.activations[loaded.hook_name].flatten(0, 1),
            ),
            scored.loss.flatten(),
        )


def _chosen(batch: ActivationBatch, loss: Tensor, mask: Tensor) -> tuple[ActivationBatch, Tensor]:
    """The batch's tokens of the [c, t] mask; what is wrong with any of them is raised."""
    rows = mask[batch.contexts, batch.positions]
    chosen, loss = batch.rows(rows), to_float64(loss[rows.to(loss.device)])
    require_finite(chosen.x, chosen, "activation")
    require_finite(loss[:, None], chosen, "loss")
    return chosen, loss


EVERYTHING: Runs = ((0, slice(None)),)
"""All rows into the one group of the training tokens."""


class TokenWork:
    """Everything that is added up, for all SAEs.

    Args:
        measuring: the target, with the maps that split every error.
        l0: see `measure_tokens`.
        tested: maps that split the errors for the norm test alone; None: the same.
    """

    def __init__(self, measuring: Measuring, l0: float, tested: Mapping[str, SaeMaps] | None = None) -> None:
        loaded = measuring.loaded
        assert loaded is not None and measuring.first is not None, "tokens need a target"
        self._measuring, self._first, self._tested = measuring, measuring.first, tested
        self._saes = {sae.ref.sae_id: sae for sae in loaded.saes}
        picks = sorted(nearest_l0(loaded.saes, l0), key=lambda sae: (sae.ref.d_sae, sae.ref.nominal_l0 or 0.0))
        self._series = {sae.ref.sae_id: sae for sae in picks}
        moments = measuring.first.moments
        self._classes = TokenClasses(loaded.contexts.token_ids, measuring.plan)
        self._fitting = TokenFits(moments.d, moments.mean_x, list(self._saes), self._classes)
        self._groups = groups = Blocks(measuring.plan.test, measuring.plan.documents)
        self._all_ids = ClassSums(self._classes.n_ids)
        self._trained = {sae_id: GroupProducts(1) for sae_id in self._saes}
        self._trained_series = {kind: GroupProducts(1) for kind in KINDS}
        self._x_sums = GroupSums(groups.n)
        self._sums = {sae_id: GroupSums(groups.n) for sae_id in self._saes}
        self._products = {sae_id: GroupProducts(groups.n) for sae_id in self._saes}
        self._series_products = {kind: GroupProducts(groups.n) for kind in KINDS}
        self._errors = {sae_id: RowSums(groups.n, moments.d) for sae_id in self._saes}
        self._squares: dict[str, dict[str, Tensor]] = {sae_id: {} for sae_id in self._saes}
        self._n = torch.zeros(groups.n, dtype=torch.float64)
        self._fits: Fits | None = None
        self._scalings: dict[str, tuple[Scalings, Scalings]] = {}

    def train(self, batch: ActivationBatch, loss: Tensor) -> None:
        """Add training tokens."""
        numbers = {X: _of_x(batch.x)}
        targets = {X: numbers[X]}
        for sae_id in self._saes:
            parts, l0 = self._parts(sae_id, batch)
            numbers[sae_id] = sizes(parts)
            targets[sae_id] = self._targets(sae_id, parts, numbers[sae_id])
            self._trained[sae_id].update(_rivals(numbers, sae_id, loss, l0), EVERYTHING)
        self._fitting.update(batch.x, batch.token_ids, batch.positions, targets)
        self._all_ids.update(self._classes.by_id(batch.token_ids), sizes_of(numbers, list(self._saes)))
        for kind, products in self._trained_series.items():
            products.update(compared(kind, numbers, list(self._series)), EVERYTHING)

    def fit(self) -> None:
        """Conclude from the training tokens."""
        self._fits = self._fitting.finish(intercept=self._measuring.intercept)
        for sae_id in self._saes:
            target = self._first.moments.target(error_name(sae_id))
            self._scalings[sae_id] = Scalings.fit(target, intercept=True), Scalings.fit(target, intercept=False)

    def test(self, batch: ActivationBatch, loss: Tensor) -> None:
        """Add held-out tokens."""
        fits, measuring = self._fits, self._measuring
        assert fits is not None, "fitted before anything is scored"
        runs = self._groups.runs(batch.contexts)
        for group, rows in runs:
            self._n[group] += rows.stop - rows.start
        wide = to_float64(batch.x)
        wide = wide - fits.centre.to(wide)
        by_id = self._classes.by_id(batch.token_ids).to(wide.device)
        by_class = self._classes.by_frequency(batch.token_ids).to(wide.device)
        position = to_float64(batch.positions).to(wide)
        numbers = {X: _of_x(batch.x)}
        self._x_sums.update(regression_sums(fits, X, numbers[X], wide), runs)
        for place, sae_id in enumerate(self._saes):
            maps = measuring.maps[sae_id]
            parts, l0 = self._parts(sae_id, batch)
            own = numbers[sae_id] = sizes(parts)
            g = maps.constant_direction.to(wide)
            h = 1.0 - g @ fits.centre.to(wide) - wide @ g
            rests = scaling_rests(parts, maps.mean_error, *self._scalings[sae_id])
            self._sums[sae_id].update(
                regression_sums(fits, sae_id, self._targets(sae_id, parts, own), wide)
                | token_sums(fits, place, own, by_id, by_class, position, wide)
                | shrinkage_sums(parts, maps, fits.centre.to(wide))
                | part_sums(parts, maps, h)
                | {name: rest.sum(dim=1) for name, rest in rests.items()},
                runs,
            )
            self._errors[sae_id].update(to_float64(parts.sae_error) - maps.mean_error.to(wide), runs)
            kept = self._squares[sae_id]
            for name, rest in rests.items():
                kept[name] = kept[name] + rest.sum(dim=0) if name in kept else rest.sum(dim=0)
            self._products[sae_id].update(_rivals(numbers, sae_id, loss, l0), runs)
            if sae_id in self._series:
                probe = predictions(fits, sae_id, wide, intercept=True)  # a baseline gets its best chance
                own |= {f"probe {kind}": probe[:, TARGETS.index(name)] for kind, name in KINDS.items()}
        self._all_ids.update(self._classes.by_id(batch.token_ids), sizes_of(numbers, list(self._saes)))
        for kind, products in self._series_products.items():
            products.update(compared(kind, numbers, list(self._series), probes=True), runs)

    def finish(self, start: int, length: int) -> TokenNorms:
        """What all tokens together say."""
        fits, measuring, first = self._fits, self._measuring, self._first
        assert fits is not None, "fitted before anything is scored"
        covered = first.covariance
        factorisation = Factorisation(first.moments) if covered else None
        counts = resampling_counts(self._groups.n, seed=measuring.seed, n_resamples=measuring.n_resamples)
        saes = []
        for place, (sae_id, sae) in enumerate(self._saes.items()):
            error_map = (self._tested or measuring.maps)[sae_id].error_map
            null = (
                {}
                if factorisation is None
                else token_fits.gaussian_r2_of_parts(first, factorisation, sae_id, error_map)
            )
            saes.append(self._sae(place, sae, null))
        return TokenNorms(
            protocol=measuring.protocol,
            intercept=measuring.intercept,
            n_train=fits.moments.n,
            n_test=int(self._n.sum()),
            n_contexts=self._groups.n_contexts,
            counts=counts.numpy(),
            n=self._n.numpy(),
            x=self._x_sums.finish(),
            x_train_r2=fits.train_r2[X][0],
            x_gaussian_r2=token_fits.gaussian_r2_of_x(first) if covered else None,
            saes=tuple(saes),
            series=tuple(self._series),
            **self._of_series(fits),
            trace=trace(measuring, list(self._series.values()), start, length),
            classes=self._classes.n_frequent,
        )

    def _of_series(self, fits: Fits) -> dict[str, Products]:
        """By kind."""
        return {
            kind: products_of(
                kind,
                self._series_products[kind],
                self._trained_series[kind],
                list(self._series),
                fits,
            )
            for kind in KINDS
        }

    def _parts(self, sae_id: str, batch: ActivationBatch) -> tuple[Decomposition, Tensor]:
        """The split error of a batch's tokens, and l0 [n]."""
        made = self._saes[sae_id].reconstruct(batch.x)
        require_finite(made.x_hat, batch, f"reconstruction of SAE '{sae_id}'")
        return decompose(batch.x, made.x_hat.to(batch.x), self._measuring.maps[sae_id].error_map), made.l0

    def _targets(self, sae_id: str, parts: Decomposition, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sizes that are regressed on x: `own`, or those of the parts that the norm test's own map makes."""
        if self._tested is None:
            return own
        return sizes(decompose(parts.x, parts.x_hat, self._tested[sae_id].error_map))

    def _sae(self, place: int, sae: LoadedSae, null: Mapping[str, float | None]) -> SaeTokens:
        sae_id = sae.ref.sae_id
        assert self._fits is not None
        test, train = self._products[sae_id], self._trained[sae_id]
        sums = self._errors[sae_id].values
        squares = dict(self._squares[sae_id])
        total = sums.sum(dim=0)
        mean = self._measuring.maps[sae_id].mean_error.cpu()
        squares["total"] = zero_if_constant(
            squares["total"].cpu() - total.square() / self._n.sum(), mean, self._n.sum()
        )
        return SaeTokens(
            sae=sae_id,
            d_sae=sae.ref.d_sae,
            nominal_l0=sae.ref.nominal_l0,
            sums=self._sums[sae_id].finish(),
            products=Products(names=test.names, train=train.values[0].numpy(), test=test.values.numpy()),
            train_r2=dict(zip(NORMS, self._fits.train_r2[sae_id], strict=False)),
            in_sample_token_r2=self._in_sample(place, sae_id),
            gaussian_r2=null,
            scalar=self._scalings[sae_id][0 if self._measuring.intercept else 1].scalar,
            squares={name: values.cpu().numpy() for name, values in squares.items()},
            error_sum=sums.numpy(),
        )

    def _in_sample(self, place: int, sae_id: str) -> dict[str, float | None]:
        """R-squared of means per id over training and held-out tokens, each predicted by a mean it is part of."""
        n, found = self._all_ids.n, {}
        both = self._products[sae_id].values.sum(dim=0) + self._trained[sae_id].values[0]
        names = self._products[sae_id].names
        for i, size in enumerate(SIZES):
            own = self._all_ids.values[:, len(SIZES) * place + i]
            level = own.sum().square() / n.sum()
            at = names.index(size)
            total = float(both[at, at]) - float(level)
            between = float((own.square() / n.clamp_min(1.0)).sum()) - float(level)
            found[size] = ratio(between, total if total > 1e-13 * float(both[at, at]) else 0.0)
        return found


def _of_x(x: Tensor) -> dict[str, Tensor]:
    return {"x_sq": to_float64(squared_norm(x))}


def _rivals(numbers: Mapping[str, Mapping[str, Tensor]], sae_id: str, loss: Tensor, l0: Tensor) -> dict[str, Tensor]:
    """Simple rivals of x as predictors, and the sizes they are to predict."""
    own = numbers[sae_id]
    rivals = {X: numbers[X]["x_sq"].sqrt(), "loss": loss, "l0": to_float64(l0)}
    return rivals | {size: own[size] for size in SIZES}


def place_of(plan: Plan, start: int, length: int) -> tuple[int, list[int]] | None:
    """(context, positions) of `length` included tokens from number `start` of all included ones.

    Counted round and round where there are fewer tokens. The stretch stays inside one context, and where whole contexts
    are held out it is taken from the next that is; None if no such context has so many tokens.
    """
    per_context = plan.included.sum(dim=1)
    ends = per_context.cumsum(dim=0)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return None
    number = start % total
    context = int(torch.searchsorted(ends, number, right=True))
    offset = number - int(ends[context] - per_context[context])
    fits = (per_context >= length) & plan.test.any(dim=1)
    order = [(context + step) % len(per_context) for step in range(len(per_context))]
    chosen = next((each for each in order if bool(fits[each])), None)
    if chosen is None:
        return None
    positions: list[int] = plan.included[chosen].nonzero()[:, 0].tolist()
    first = min(offset, len(positions) - length)
    return chosen, positions[first : first + length]


@torch.inference_mode()
def trace(measuring: Measuring, series: Sequence[LoadedSae], start: int, length: int) -> Trace | None:
    """Norms of x and of the errors of some SAEs along the stretch that `place_of` names."""
    loaded = measuring.loaded
    assert loaded is not None, "tokens need a target"
    found = place_of(measuring.plan, start, length) if length else None
    if found is None:
        return None
    context, positions = found
    (batch,) = measuring.activations.batches([context])
    x = batch.x[torch.tensor(positions).to(batch.x.device)]
    norms: dict[str, dict[str, tuple[float, ...]]] = {"sae_error": {}, "linear_error": {}, "nonlinear_error": {}}
    for sae in series:
        parts = decompose(x, sae.reconstruct(x).x_hat.to(x), measuring.maps[sae.ref.sae_id].error_map)
        for name, own in norms.items():
            own[sae.ref.sae_id] = tuple(getattr(parts, f"{name}_norm").tolist())
    # A token may hold half a character; a lone surrogate cannot be stored.
    ids = loaded.contexts.token_ids[context, positions].tolist()
    texts = [text.encode("utf-8", "replace").decode() for text in loaded.model.token_texts(ids)]
    return Trace(
        context=context,
        positions=tuple(positions),
        tokens=tuple(texts),
        train=tuple(measuring.plan.train[context, positions].tolist()),
        x=tuple(squared_norm(x).sqrt().tolist()),
        **norms,
    )
