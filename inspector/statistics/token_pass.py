"""One pass over all tokens for everything that is asked about single ones; see `token_norms` for what is kept.

The model runs to its end, because the loss is one of the things an error's size is compared with. Training contexts
come first and are fitted, held-out ones are then scored: each token is seen once where whole contexts are held out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, decompose, squared_norm
from inspector.engine.moments import sums_device, to_float64
from inspector.engine.regression import Factorisation
from inspector.engine.resampling import resampling_counts
from inspector.engine.scores import ratio, zero_if_constant
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.sae import LoadedSae
from inspector.statistics.first_pass import SaeMaps, collect_first, error_name
from inspector.statistics.grouping import Runs, groups_of, nearest_l0
from inspector.statistics.passes import Progress, contexts_with, require_finite, walk
from inspector.statistics.pipeline import Measuring
from inspector.statistics.sums import Sums
from inspector.statistics.token_fits import (
    NORMS,
    SIZES,
    TARGETS,
    ClassSums,
    Fits,
    Sizes,
    TokenClasses,
    TokenFits,
    X,
    gaussian_r2_of_parts,
    gaussian_r2_of_x,
    sizes_of,
)
from inspector.statistics.token_norms import ONE, Column, Products, SaeTokens, TokenNorms, Trace, trace
from inspector.statistics.token_numbers import (
    Held,
    Rests,
    SaeNumbers,
    Scalings,
    Target,
    from_table,
    numbers_of,
    predictions,
    table_of,
    targets_of,
    width_of,
)

PARTS = {"error": "sae_error_sq", "linear": "linear_error_sq", "nonlinear": "nonlinear_error_sq"}
"""What is kept of each SAE of the series, and which of its sizes that is."""
KINDS = {"squared": SIZES[0], "plain": SIZES[1]}
"""Norms squared or not, and the size of the error that is meant."""
RIVALS = tuple(Column(what) for what in (X, "loss", "l0", *SIZES))
"""Simple rivals of x as predictors, and the sizes they are to predict."""


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
    plan, activations = measuring.plan, measuring.activations
    tested = None
    if measuring.protocol.norm_test_map_on == "all":
        tested = yield from _maps_of_all(measuring)
    work = _Work(measuring, l0, tested)
    training, testing = contexts_with(plan.train), contexts_with(plan.test)
    progress = Progress("token norms", len(training) + len(testing), plan.train.shape[1])
    trained = yield from walk(
        activations, training, work.no_training, work.train, name="token norms", batch=work.batch, progress=progress
    )
    with torch.inference_mode():
        work.fit(trained)
    scored = yield from walk(
        activations,
        testing,
        work.nothing_scored,
        work.test,
        name="token norms, held out",
        batch=work.batch,
        progress=progress,
        first=lambda: work.after_training(trained),
    )
    with torch.inference_mode():
        return work.conclude(trained, scored, trace(measuring, work.series, start, length))


def _maps_of_all(measuring: Measuring) -> Generator[Event, None, Mapping[str, SaeMaps]]:
    """Maps fitted on training and held-out tokens, as the public code has them for the norm test."""
    held_out = replace(measuring.plan, train=measuring.plan.test, n_train=measuring.plan.n_test)
    collected = yield from collect_first(
        measuring.activations, held_out, covariance=measuring.fit.first.covariance, name="moments of all tokens"
    )
    everything = collected.of_all_tokens()
    everything.merge(measuring.fit.first)
    return everything.fit(intercept=measuring.intercept)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Tokens of whole contexts with the loss at each, [n]."""

    tokens: ActivationBatch
    loss: Tensor

    def chosen(self, mask: Tensor) -> _Batch:
        """Those of the [c, t] mask, the loss in float64; what is wrong with any of them is raised."""
        rows = mask[self.tokens.contexts, self.tokens.positions]
        tokens, loss = self.tokens.rows(rows), to_float64(self.loss[rows.to(self.loss.device)])
        require_finite(tokens.x, tokens, "activation")
        require_finite(loss[:, None], tokens, "loss")
        return _Batch(tokens=tokens, loss=loss)


@dataclass(kw_only=True)
class _Trained(Sums):
    """Over training tokens; products as of `Products`, [1, columns, columns]."""

    fits: TokenFits
    rivals: dict[str, Tensor]
    """By sae_id, over RIVALS."""
    series: dict[str, Tensor]
    """By kind, without the probes."""


@dataclass(kw_only=True)
class _SaeScored(Sums):
    """Held-out sums of one SAE."""

    numbers: Tensor
    """[g, k] the table of `SaeNumbers`."""
    rivals: Tensor
    """[g, columns, columns] over RIVALS."""
    error: Tensor
    """[g, d] of sae_error, around its training mean."""
    squares: Tensor
    """[6, d] the `Rests` by dimension, over all groups; where the tokens are."""


@dataclass(kw_only=True)
class _Scored(Sums):
    """Over held-out tokens."""

    n: Tensor
    """[g] tokens."""
    x_sq: Tensor
    """[g, 4] the table of a `Target`."""
    saes: dict[str, _SaeScored]
    series: dict[str, Tensor]
    """[g, columns, columns] by kind."""
    all_ids: ClassSums
    """Sizes by token id, over the training tokens as well."""


class _Work:
    """How the sums of a target's tokens are made, fed and concluded from.

    Args:
        measuring: the target, with the maps that split every error.
        l0: see `measure_tokens`.
        tested: maps that split the errors for the norm test alone; None: the same.
    """

    def __init__(self, measuring: Measuring, l0: float, tested: Mapping[str, SaeMaps] | None) -> None:
        loaded = measuring.loaded
        self._measuring, self._loaded, self._first, self._tested = measuring, loaded, measuring.fit.first, tested
        self._plan, self._d = measuring.plan, measuring.fit.first.moments.d
        self._device = sums_device(loaded.model.device)
        self._saes = {sae.ref.sae_id: sae for sae in loaded.saes}
        self.series = sorted(nearest_l0(loaded.saes, l0), key=lambda sae: (sae.ref.d_sae, sae.ref.nominal_l0 or 0.0))
        ids = [sae.ref.sae_id for sae in self.series]
        self._columns = (Column(X), *(Column(what, sae_id) for sae_id in ids for what in PARTS))
        self._probes = tuple(Column("probe", sae_id) for sae_id in ids)
        self._classes = TokenClasses(loaded.contexts.token_ids, self._plan)
        self._groups = groups_of(self._plan.test, self._plan.documents)
        # About the mean: sums per class are kept around it. As it is now, for the moments may go on.
        self._centre = measuring.fit.first.moments.mean_x
        self._fits: Fits | None = None
        self._scalings: dict[str, tuple[Scalings, Scalings]] = {}

    def batch(self, group: Sequence[int]) -> _Batch:
        """The contexts with these indices."""
        loaded, chosen = self._loaded, torch.tensor(list(group), dtype=torch.int64)
        token_ids = loaded.contexts.token_ids[chosen]
        scored = loaded.model.score(token_ids, [loaded.hook_name])
        tokens = ActivationBatch(
            contexts=chosen.repeat_interleave(token_ids.shape[1]),
            positions=torch.arange(token_ids.shape[1]).repeat(len(group)),
            token_ids=token_ids.flatten(),
            x=scored.activations[loaded.hook_name].flatten(0, 1),
        )
        return _Batch(tokens=tokens, loss=scored.loss.flatten())

    # ---- training tokens ---------------------------------------------------------------------------------------------

    def no_training(self) -> _Trained:
        """Sums of nothing."""
        return _Trained(
            fits=TokenFits.of_nothing(self._d, len(self._saes), self._classes, self._device),
            rivals={sae_id: _no_products(1, 1 + len(RIVALS)) for sae_id in self._saes},
            series={kind: _no_products(1, 1 + len(self._columns)) for kind in KINDS},
        )

    def train(self, sums: _Trained, whole: _Batch) -> None:
        """Add training tokens."""
        batch = whole.chosen(self._plan.train)
        tokens, x_sq = batch.tokens, to_float64(squared_norm(batch.tokens.x))
        everything = Runs(groups=torch.zeros(1, dtype=torch.int64), lengths=[len(x_sq)])
        sizes, targets = {}, {}
        for sae_id in self._saes:
            parts, l0 = self._parts(sae_id, tokens)
            sizes[sae_id] = Sizes.of(parts)
            targets[sae_id] = self._targets(sae_id, parts, sizes[sae_id])
            _add_products(sums.rivals[sae_id], _rivals(x_sq, batch.loss, l0, sizes[sae_id]), everything)
        classes = self._classes.by_id(tokens.token_ids), self._classes.by_frequency(tokens.token_ids)
        sums.fits.update(tokens.x, self._centre, tokens.positions, classes, x_sq, targets)
        for kind, products in sums.series.items():
            _add_products(products, self._compared(kind, x_sq, sizes), everything)

    def fit(self, sums: _Trained) -> None:
        """Conclude from the training tokens."""
        self._fits = sums.fits.fit(self._centre, list(self._saes), intercept=self._measuring.intercept)
        for sae_id in self._saes:
            target = self._first.moments.target(error_name(sae_id))
            self._scalings[sae_id] = Scalings.fit(target, intercept=True), Scalings.fit(target, intercept=False)

    # ---- held-out tokens ---------------------------------------------------------------------------------------------

    def nothing_scored(self) -> _Scored:
        """Sums of nothing."""
        g, d = self._groups.n, self._d

        def none(*shape: int) -> Tensor:
            return torch.zeros(g, *shape, dtype=torch.float64)

        return _Scored(
            n=none(),
            x_sq=none(width_of(Target)),
            saes={
                sae_id: _SaeScored(
                    numbers=none(width_of(SaeNumbers)),
                    rivals=_no_products(g, 1 + len(RIVALS)),
                    error=none(d),
                    squares=torch.zeros(width_of(Rests), d, dtype=torch.float64, device=self._device),
                )
                for sae_id in self._saes
            },
            series={kind: _no_products(g, 1 + len(self._columns) + len(self._probes)) for kind in KINDS},
            all_ids=ClassSums.zeros(classes=self._classes.n_ids, q=len(SIZES) * len(self._saes), device=self._device),
        )

    def after_training(self, trained: _Trained) -> _Scored:
        """Sums of nothing but the sizes by token id, which go on from the training tokens."""
        sums, by_id = self.nothing_scored(), trained.fits.by_id
        sums.all_ids.n += by_id.n
        sums.all_ids.values += by_id.values[:, : sums.all_ids.values.shape[1]]
        return sums

    def test(self, sums: _Scored, whole: _Batch) -> None:
        """Add held-out tokens."""
        fits, measuring, batch = self._fits, self._measuring, whole.chosen(self._plan.test)
        assert fits is not None, "fitted before anything is scored"
        tokens, x_sq = batch.tokens, to_float64(squared_norm(batch.tokens.x))
        runs = self._groups.runs(tokens.contexts)
        wide = to_float64(tokens.x)
        wide = wide - fits.centre.to(wide)
        held = Held(
            fits=fits,
            wide=wide,
            by_id=self._classes.by_id(tokens.token_ids).to(wide.device),
            by_class=self._classes.by_frequency(tokens.token_ids).to(wide.device),
            position=to_float64(tokens.positions).to(wide),
        )
        sums.n.index_add_(0, runs.groups, torch.tensor(runs.lengths, dtype=torch.float64))
        runs.add(sums.x_sq, table_of(targets_of(held, X, x_sq)["x_sq"]))
        sizes = {}
        for place, (sae_id, own) in enumerate(sums.saes.items()):
            maps = measuring.maps[sae_id]
            parts, l0 = self._parts(sae_id, tokens)
            sizes[sae_id] = Sizes.of(parts)
            tested = self._targets(sae_id, parts, sizes[sae_id])
            rests = Rests.of(parts, maps.mean_error, *self._scalings[sae_id])
            numbers = numbers_of(held, place, sae_id, maps, parts, sizes[sae_id], tested, rests)
            runs.add(own.numbers, table_of(numbers))
            runs.add(own.error, to_float64(parts.sae_error) - maps.mean_error.to(wide))
            for i, each in enumerate(fields(rests)):
                own.squares[i] += getattr(rests, each.name).sum(dim=0)
            _add_products(own.rivals, _rivals(x_sq, batch.loss, l0, sizes[sae_id]), runs)
        sums.all_ids.update(self._classes.by_id(tokens.token_ids), sizes_of(sizes))
        # A baseline gets its best chance: always with an intercept.
        probes = [predictions(fits, column.sae, wide, intercept=True) for column in self._probes]
        for kind, products in sums.series.items():
            own_probes = [probe[:, TARGETS.index(KINDS[kind])] for probe in probes]
            _add_products(products, [*self._compared(kind, x_sq, sizes), *own_probes], runs)

    # ---- conclusions -------------------------------------------------------------------------------------------------

    def conclude(self, trained: _Trained, sums: _Scored, shown: Trace | None) -> TokenNorms:
        """What all tokens together say."""
        fits, measuring, first = self._fits, self._measuring, self._first
        assert fits is not None, "fitted before anything is scored"
        factorisation = Factorisation(first.moments) if first.covariance else None
        counts = resampling_counts(self._groups.n, seed=measuring.seed, n_resamples=measuring.n_resamples)
        saes = []
        for place, (sae_id, sae) in enumerate(self._saes.items()):
            error_map = (self._tested or measuring.maps)[sae_id].error_map
            gaussian = factorisation and gaussian_r2_of_parts(first, factorisation, sae_id, error_map)
            saes.append(self._sae(place, sae, gaussian or {}, trained, sums))
        return TokenNorms(
            protocol=measuring.protocol,
            intercept=measuring.intercept,
            n_train=fits.moments.n,
            n_test=int(sums.n.sum()),
            n_contexts=self._groups.n_contexts,
            counts=counts.numpy(),
            n=sums.n.numpy(),
            x_sq=from_table(Target, iter(sums.x_sq.numpy().T)),
            x_train_r2=fits.train_r2[X][0],
            x_gaussian_r2=gaussian_r2_of_x(first) if first.covariance else None,
            saes=tuple(saes),
            series=tuple(column.sae for column in self._probes),
            squared=self._products("squared", trained, sums),
            plain=self._products("plain", trained, sums),
            trace=shown,
            classes=self._classes.n_frequent,
        )

    def _sae(
        self,
        place: int,
        sae: LoadedSae,
        gaussian: Mapping[str, float | None],
        trained: _Trained,
        sums: _Scored,
    ) -> SaeTokens:
        sae_id = sae.ref.sae_id
        assert self._fits is not None
        own, n = sums.saes[sae_id], sums.n.sum()
        mean = self._measuring.maps[sae_id].mean_error.cpu()
        squares = own.squares.cpu().clone()
        squares[0] = zero_if_constant(squares[0] - own.error.sum(dim=0).square() / n, mean, n)
        train = trained.rivals[sae_id][0]
        return SaeTokens(
            sae=sae_id,
            d_sae=sae.ref.d_sae,
            nominal_l0=sae.ref.nominal_l0,
            sums=from_table(SaeNumbers, iter(own.numbers.numpy().T)),
            products=Products(columns=(ONE, *RIVALS), train=train.numpy(), test=own.rivals.numpy()),
            train_r2=dict(zip(NORMS, self._fits.train_r2[sae_id], strict=False)),
            in_sample_token_r2=self._in_sample(place, sums.all_ids, own.rivals.sum(dim=0) + train),
            gaussian_r2=gaussian,
            scalar=self._scalings[sae_id][0 if self._measuring.intercept else 1].scalar,
            squares=from_table(Rests, iter(squares.numpy())),
            error_sum=own.error.numpy(),
        )

    def _in_sample(self, place: int, all_ids: ClassSums, both: Tensor) -> dict[str, float | None]:
        """R-squared of means per id over training and held-out tokens, each predicted by a mean it is part of."""
        n, found = all_ids.n, {}
        for i, size in enumerate(SIZES):
            own = all_ids.values[:, len(SIZES) * place + i]
            level = own.sum().square() / n.sum()
            at = 1 + RIVALS.index(Column(size))
            total = float(both[at, at]) - float(level)
            between = float((own.square() / n.clamp_min(1.0)).sum()) - float(level)
            found[size] = ratio(between, total if total > 1e-13 * float(both[at, at]) else 0.0)
        return found

    def _products(self, kind: str, trained: _Trained, sums: _Scored) -> Products:
        """The products of the series; over training tokens those of the probes with errors come in closed form.

        A probe is fitted from all training tokens, so that none of them could be asked for its prediction on the way.
        """
        fits, known = self._fits, trained.series[kind][0]
        assert fits is not None
        columns = (ONE, *self._columns, *self._probes)
        train = torch.full((len(columns), len(columns)), torch.nan, dtype=torch.float64)
        train[: len(known), : len(known)] = known
        index = TARGETS.index(KINDS[kind])
        n, mean_x = fits.moments.n, fits.moments.mean_x
        for probe in self._probes:
            i = columns.index(probe)
            weight, bias = fits.on[probe.sae].weight[index], fits.on[probe.sae].bias[index]
            mean = float(weight @ mean_x + bias)
            train[i, 0] = train[0, i] = n * mean
            train[i, i] = float(weight @ fits.moments.s_xx @ weight) + n * mean**2
            for other in self._probes:
                j = columns.index(Column("error", other.sae))
                target = fits.moments.target(other.sae)
                crossed = float(weight @ target.s_xy[:, index]) + n * mean * float(target.mean_y[index])
                train[i, j] = train[j, i] = crossed
        return Products(columns=columns, train=train.numpy(), test=sums.series[kind].numpy())

    # ---- of a batch --------------------------------------------------------------------------------------------------

    def _parts(self, sae_id: str, batch: ActivationBatch) -> tuple[Decomposition, Tensor]:
        """The split error of a batch's tokens, and l0 [n]."""
        made = self._saes[sae_id].reconstruct(batch.x)
        require_finite(made.x_hat, batch, f"reconstruction of SAE '{sae_id}'")
        return decompose(batch.x, made.x_hat.to(batch.x), self._measuring.maps[sae_id].error_map), made.l0

    def _targets(self, sae_id: str, parts: Decomposition, own: Sizes) -> Sizes:
        """The sizes that are regressed on x: `own`, or those of the parts that the norm test's own map makes."""
        if self._tested is None:
            return own
        return Sizes.of(decompose(parts.x, parts.x_hat, self._tested[sae_id].error_map))

    def _compared(self, kind: str, x_sq: Tensor, sizes: Mapping[str, Sizes]) -> Iterator[Tensor]:
        """[n] ‖x‖ and the norms of each SAE's error and its parts, squared or not; in the order of the columns."""
        for column in self._columns:
            value = x_sq if column.what == X else getattr(sizes[column.sae], PARTS[column.what])
            yield value if kind == "squared" else value.sqrt()


def _rivals(x_sq: Tensor, loss: Tensor, l0: Tensor, sizes: Sizes) -> list[Tensor]:
    """In the order of RIVALS."""
    return [x_sq.sqrt(), loss, to_float64(l0), *(getattr(sizes, size) for size in SIZES)]


def _no_products(g: int, k: int) -> Tensor:
    return torch.zeros(g, k, k, dtype=torch.float64)


def _add_products(into: Tensor, numbers: Iterable[Tensor], runs: Runs) -> None:
    """Add the products of any two of 1 and some numbers [n] to those of each group, on the CPU."""
    table = torch.stack([to_float64(each) for each in numbers], dim=1).cpu()
    table = torch.cat([torch.ones(len(table), 1, dtype=torch.float64), table], dim=1)
    for group, part in zip(runs.groups.tolist(), torch.split(table, runs.lengths), strict=True):
        into[group] += part.T @ part
