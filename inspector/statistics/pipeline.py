"""The order of the passes: what a null needs, moments of the training tokens, fits, scores, and what they conclude.

Every experiment shares the numbers that come of it. Those that measure for themselves go on from here: they are handed
the target, its activations and the fitted maps (`Measuring`), and walk the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from inspector.engine.nulls import gaussian_norm_r2, pca_moments
from inspector.engine.plan import Plan, make_plan, with_everything
from inspector.engine.resampling import Estimate, percentile_estimate, resampling_counts
from inspector.engine.scores import fvu_from_moments, r2_from_moments
from inspector.errors import DataError
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.target import Loaded
from inspector.spec import Null, SaeRef
from inspector.statistics.first_pass import (
    Fit,
    Reconstruct,
    Reconstructed,
    SaeMaps,
    by_the_sae,
    collect_first,
    error_name,
    norm_name,
)
from inspector.statistics.held_out import HookSums
from inspector.statistics.measured import OutliersFound, SaeStatistics, Scores, Statistics
from inspector.statistics.passes import Activations, Progress, contexts_with
from inspector.statistics.profiles import ERROR_COVARIANCE, ERROR_MAP, NORM_MAP, Need, Protocol
from inspector.statistics.second_pass import SecondPass, collect_second
from inspector.statistics.substitutes import prepare

TOKENS_PER_DIMENSION = 20
"""With fewer training tokens per dimension of x, overfitting moves variances by more than 5% (spec 1.4)."""


def plan_of(loaded: Loaded, protocol: Protocol) -> Plan:
    """The target's plan, or one with the profile's split: a named profile means its own."""
    target = loaded.target
    if protocol.split is None or protocol.split == target.split:
        return loaded.plan
    assert target.positions is not None, "open_target decides positions"
    plan = make_plan(
        loaded.contexts.token_ids,
        loaded.model.special_ids,
        target.positions,
        target.train_tokens,
        protocol.split,
        target.seed,
        loaded.contexts.documents,
    )
    return with_everything(plan, protocol.split, target.seed) if target.include_special else plan


def require_enough(loaded: Loaded, plan: Plan) -> None:
    """Refuse a regression that would mostly fit noise, before the model runs.

    Raises:
        DataError: fewer than 20 training tokens per dimension, or nothing held out.
    """
    d = loaded.model.check_hook(loaded.hook_name)
    if plan.n_train < TOKENS_PER_DIMENSION * d:
        raise DataError(
            f"The regression needs {TOKENS_PER_DIMENSION * d:,} training tokens ({TOKENS_PER_DIMENSION} for each of "
            f"the {d:,} dimensions at {loaded.hook_name}) and has {plan.n_train:,}. "
            "Raise --contexts or --train-tokens, give a longer --text, or let --positions begin earlier."
        )
    if plan.n_test == 0:
        raise DataError("No token is left to test on. Lower --train-tokens or give a longer --text.")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What an experiment's own measurement may use; handed to `Experiment.measure` once the shared passes are over."""

    activations: Activations
    """Batches of contexts, kept in memory while there is room; every walk goes over them."""
    plan: Plan
    """With the profile's split."""
    protocol: Protocol
    fit: Fit
    """Of the training tokens."""
    n_resamples: int
    """Bootstrap draws; 0 gives no intervals."""

    @property
    def loaded(self) -> Loaded:
        """The target."""
        return self.activations.loaded

    @property
    def maps(self) -> dict[str, SaeMaps]:
        """By sae_id, fitted on the training tokens."""
        return self.fit.maps

    @property
    def intercept(self) -> bool:
        """Of the maps."""
        return self.fit.intercept

    @property
    def seed(self) -> int:
        """Of whatever is drawn."""
        return self.loaded.target.seed


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the passes gave that all experiments share."""

    statistics: Statistics
    plan: Plan
    """Without outliers, where they are left out."""
    fit: Fit
    activations: Activations
    """Some of them kept in memory."""


def measure_shared(
    activations: Activations,
    plan: Plan,
    protocol: Protocol,
    needs: Collection[Need],
    *,
    null: Null | None = None,
    again: bool = False,
    n_resamples: int,
) -> Generator[Event, None, Shared]:
    """Both passes over a target and what they conclude.

    Args:
        activations: of the target; how many contexts at once, in how many shards, and where sums are kept.
        plan: with the protocol's split.
        protocol: as it is followed.
        needs: of all experiments.
        null: what is put in the place of the SAEs, their errors or x.
        again: activations of all contexts will be asked for afterwards.
        n_resamples: bootstrap draws; 0 gives no intervals.

    Raises:
        DataError: a number is not finite, or every held-out token is an outlier.
        ResourceError: memory or the disk of what is kept ran out.
    """
    loaded, apart, of_all = activations.loaded, protocol.outliers == "apart", protocol.fvu_on == "all"
    twice = frozenset(contexts_with(plan.train)).intersection(contexts_with(plan.included if of_all else plan.test))
    activations.keep = frozenset(contexts_with(plan.included)) if again else twice
    reconstruct: Reconstruct = by_the_sae
    if null is not None:
        reconstruct = yield from prepare(null, activations, plan, loaded.target.seed)
    of = Reconstructed.by(loaded.saes, reconstruct)
    first = yield from collect_first(activations, plan, of, covariance=ERROR_COVARIANCE in needs)
    fit = Fit.of(first.ordinary if apart else first.of_all_tokens(), intercept=protocol.intercept)
    with_outliers = fit
    if apart and first.outliers is not None:
        with_outliers = Fit.of(first.of_all_tokens(), intercept=protocol.intercept)
    passes = {"held out": partial(SecondPass, fit.maps, plan, tokens="ordinary" if apart else "all")}
    if of_all:
        passes["all"] = partial(SecondPass, fit.maps, plan, scored="all")
    if apart and with_outliers is fit:  # under the same maps their sums add up
        passes["outliers"] = partial(SecondPass, fit.maps, plan, tokens="outliers")
    elif apart:
        passes["outliers"] = partial(SecondPass, with_outliers.maps, plan)
    seconds = yield from collect_second(activations, passes, of)
    ordinary = _without(plan, torch.cat([first.places.found, seconds.places.found]))
    conclusion = partial(
        conclude,
        refs={sae.ref.sae_id: sae.ref for sae in loaded.saes},
        needs=needs,
        seed=loaded.target.seed,
        n_resamples=n_resamples,
    )
    with torch.inference_mode():
        if apart and with_outliers is fit:
            seconds.passes["outliers"].merge(seconds.passes["held out"])
        sums = {name: each.finish() for name, each in seconds.passes.items()}
        if sums["held out"] is None:
            raise DataError("Every held-out token is an outlier. Raise --outliers, or switch it off.")
        statistics = conclusion(fit=fit, held_out=sums["held out"], everything=sums.get("all"))
        if loaded.outliers is not None:
            n_train, n_test = plan.n_train - ordinary.n_train, plan.n_test - ordinary.n_test
            all_tokens = statistics if not n_train + n_test else None
            if apart and all_tokens is None:
                assert sums["outliers"] is not None, "it has more tokens than the first"
                all_tokens = conclusion(fit=with_outliers, held_out=sums["outliers"], everything=None)
            found = OutliersFound(
                factor=loaded.outliers.factor,
                median_norm=loaded.outliers.median_norm,
                n_train=n_train,
                n_test=n_test,
                left_out=apart,
            )
            statistics = replace(statistics, outliers=found, all_tokens=all_tokens if apart else None)
    return Shared(statistics=statistics, plan=ordinary if apart else plan, fit=fit, activations=activations)


def measuring_of(
    shared: Shared, protocol: Protocol, *, null: Null | None, n_resamples: int
) -> Generator[Event, None, Measuring]:
    """What experiments that measure for themselves may use: the real target, whatever null stood in for it."""
    activations, fit = shared.activations, shared.fit
    if null is not None:
        # Without marks: where outliers are left out, the plan is without them by now.
        activations = replace(activations, substitute=None, outliers=None)
        real = yield from collect_first(activations, shared.plan, covariance=fit.first.covariance, name="real")
        fit = Fit.of(real.ordinary, intercept=protocol.intercept)
    return Measuring(activations=activations, plan=shared.plan, protocol=protocol, fit=fit, n_resamples=n_resamples)


def _without(plan: Plan, places: Tensor) -> Plan:
    """The plan with some places [k, 2] of contexts and positions excluded."""
    if not len(places):
        return plan
    included = plan.included.clone()
    included[places[:, 0], places[:, 1]] = False
    train = plan.train & included
    n_train = int(train.sum())
    return replace(plan, included=included, train=train, n_train=n_train, n_test=int(included.sum()) - n_train)


# ---- conclusions ----------------------------------------------------------------------------------------------------


def conclude(
    *,
    refs: dict[str, SaeRef],
    fit: Fit,
    held_out: HookSums,
    everything: HookSums | None,
    needs: Collection[Need],
    seed: int,
    n_resamples: int,
) -> Statistics:
    """Turn the sums of both passes into numbers.

    Args:
        refs: of every SAE, in the order of the result.
        fit: of the first pass.
        held_out: sums over the held-out tokens.
        everything: sums over all included tokens, if fvu and fvu_nonlinear are to be over those.
        needs: scores that nothing needs are not computed.
        seed: of the bootstrap.
        n_resamples: bootstrap draws; 0 gives no intervals.
    """
    first, factorisation = fit.first, fit.factorisation

    def scored(sae_id: str, *, switched: bool = False) -> dict[str, Estimate]:
        """Every score; the point alone where the intercept is switched."""
        found: dict[str, Estimate] = {}
        for sums in (held_out, everything):
            if sums is not None:
                draws = 0 if switched else n_resamples
                counts = resampling_counts(len(sums.n), seed=seed, n_resamples=draws)
                own = _estimates(sums, sae_id, counts, needs, switched=switched)
                found |= {name: own[name] for name in own if sums is held_out or name.startswith("fvu")}
        return found

    saes = []
    for sae_id, ref in refs.items():
        estimates = scored(sae_id)
        error = error_name(sae_id)
        saes.append(
            SaeStatistics(
                ref=ref,
                l0=held_out.l0(sae_id),
                scores=Scores(**{name: estimate.value for name, estimate in estimates.items()}),
                intervals={name: estimate.interval for name, estimate in estimates.items()},
                train=_train_scores(fit, sae_id),
                switched=Scores(**{name: each.value for name, each in scored(sae_id, switched=True).items()}),
                gaussian_r2_norm=gaussian_norm_r2(first.moments.target(error), factorisation, error)
                if ERROR_COVARIANCE in needs
                else None,
                undefined_dims=held_out.undefined_dims(sae_id),
                weights=held_out.weights(sae_id),
            )
        )
    control = pca_moments(first.moments) if ERROR_MAP in needs else None
    return Statistics(
        d=first.moments.d,
        n_train=first.n_train,
        n_test=int(held_out.n.sum()),
        n_test_contexts=held_out.n_contexts,
        intercept=fit.intercept,
        fvu_on="held-out" if everything is None else "all",
        effective_rank=factorisation.effective_rank,
        condition_number=factorisation.condition_number,
        constant_share=factorisation.constant_share,
        affine_fvu=None if control is None else fvu_from_moments(control, None),
        affine_fvu_nonlinear=None if control is None else fvu_from_moments(control, factorisation.fit_moments(control)),
        saes=tuple(saes),
    )


def _estimates(
    sums: HookSums, sae_id: str, counts: Tensor, needs: Collection[Need], *, switched: bool
) -> dict[str, Estimate]:
    values = {} if switched else {"fvu": sums.fvu(sae_id, counts)}
    if NORM_MAP in needs:
        values["r2_norm"] = sums.r2_norm(sae_id, counts, switched=switched)
    if ERROR_MAP in needs:
        for score in (sums.fvu_nonlinear, sums.r2_pooled, sums.r2_mean_dims):
            values[score.__name__] = score(sae_id, counts, switched=switched)
    return {name: percentile_estimate(value) for name, value in values.items()}


def _train_scores(fit: Fit, sae_id: str) -> Scores:
    """In closed form from the moments."""
    moments, maps = fit.first.moments, fit.maps[sae_id]
    error, norm = moments.target(error_name(sae_id)), moments.target(norm_name(sae_id))
    pooled, mean_dims = r2_from_moments(error, maps.error_map)
    return Scores(
        fvu=fvu_from_moments(error, None),
        fvu_nonlinear=fvu_from_moments(error, maps.error_map),
        r2_norm=r2_from_moments(norm, maps.norm_map)[0],
        r2_pooled=pooled,
        r2_mean_dims=mean_dims,
    )


# ---- other reconstructions ------------------------------------------------------------------------------------------


Draws = tuple[float, ...]
"""A score: first as measured, then on every bootstrap draw of the held-out contexts."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Scores of one way to reconstruct x."""

    l0: float
    fvu: Draws
    fvu_nonlinear: Draws
    r2_pooled: Draws
    """Of the error on x."""
    variance: float
    """Sum of ‖x - mean(x)‖² over the scored tokens, per token."""


def regress(
    measuring: Measuring, plan: Plan, of: Reconstructed, *, name: str, on_all: bool
) -> Generator[Event, None, dict[str, Series]]:
    """Fit each reconstruction's error map on the plan's training tokens and score it on the others.

    The same two passes as those of the SAEs, so that every number means what it means there.

    Args:
        measuring: the target.
        plan: train and test.
        of: whose errors.
        name: of the passes.
        on_all: score training tokens too (D-04).
    """
    # The plan says which tokens are left out: none that it has is apart.
    of = replace(of, batch=of.batch or partial(_unmarked, measuring.activations))
    scored = plan.included if on_all else plan.test
    n_contexts = len(contexts_with(plan.train)) + len(contexts_with(scored))
    progress = Progress(name, n_contexts, plan.train.shape[1])
    first = yield from collect_first(measuring.activations, plan, of, name=name, progress=progress)
    maps = Fit.of(first.ordinary, intercept=measuring.intercept).maps
    passes = {"scored": partial(SecondPass, maps, plan, scored="all" if on_all else "test")}
    seconds = yield from collect_second(measuring.activations, passes, of, name=f"{name}, scores", progress=progress)
    with torch.inference_mode():
        sums = seconds.passes["scored"].finish()
        assert sums is not None, "a plan has held-out tokens"
        counts = resampling_counts(len(sums.n), seed=measuring.seed, n_resamples=measuring.n_resamples)
        x_sum, n = sums.x_sum.sum(dim=0), sums.n.sum()
        variance = float((sums.x_sq.sum(dim=0) - x_sum.square() / n).sum() / n)
        return {
            each: Series(
                fvu=tuple(sums.fvu(each, counts).tolist()),
                fvu_nonlinear=tuple(sums.fvu_nonlinear(each, counts).tolist()),
                r2_pooled=tuple(sums.r2_pooled(each, counts).tolist()),
                l0=sums.l0(each),
                variance=variance,
            )
            for each in of.names
        }


def _unmarked(activations: Activations, group: Sequence[int]) -> ActivationBatch:
    return replace(activations.batch(group), outlier=None)
