"""What the pass over single tokens adds up, for all SAEs of a target: first to fit, then to score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import to_float64
from inspector.engine.regression import Factorisation
from inspector.engine.resampling import resampling_counts
from inspector.engine.scores import ratio, zero_if_constant
from inspector.sources.activations import ActivationBatch
from inspector.statistics.finite import require_finite
from inspector.statistics.first_pass import error_name
from inspector.statistics.own import token_null
from inspector.statistics.own.sampling import nearest_l0
from inspector.statistics.own.token_classes import TokenClasses
from inspector.statistics.own.token_fits import TARGETS, Fits, TokenFits, X, sizes_of
from inspector.statistics.own.token_norms import NORMS, SIZES, Products, SaeTokens, TokenNorms
from inspector.statistics.own.token_scoring import (
    Scalings,
    part_sums,
    predictions,
    regression_sums,
    scaling_rests,
    shrinkage_sums,
    sizes,
    token_sums,
)
from inspector.statistics.own.token_series import KINDS, compared, products_of
from inspector.statistics.own.token_sums import Blocks, ClassSums, GroupProducts, GroupSums, RowSums, Runs
from inspector.statistics.own.token_trace import trace

if TYPE_CHECKING:
    from inspector.sources.sae import LoadedSae
    from inspector.statistics.first_pass import SaeMaps
    from inspector.statistics.measuring import Measuring

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
            null = {} if factorisation is None else token_null.of_parts(first, factorisation, sae_id, error_map)
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
            x_gaussian_r2=token_null.of_x(first) if covered else None,
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
