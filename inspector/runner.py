"""One run: any number of experiments over all SAEs of a hook, from one pass for moments and one for scores.

A generator: it yields events and returns the results. Nothing here prints, and nothing here knows a screen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from inspector.engine.plan import Plan, make_plan, with_everything
from inspector.engine.regression import Factorisation
from inspector.errors import DataError
from inspector.events import Event, Measured, Warned
from inspector.experiment import Experiment, FitParams, Outcome, ResultObject, parse_params
from inspector.experiments import choose
from inspector.spec import RunSpec
from inspector.statistics.grouping import MOST_GROUPS
from inspector.statistics.measured import Statistics, conclude
from inspector.statistics.measuring import Measuring
from inspector.statistics.needs import ERROR_COVARIANCE, Need
from inspector.statistics.passes import (
    Activations,
    Reconstruct,
    by_the_sae,
    collect_first,
    collect_second,
    contexts_with,
)
from inspector.statistics.profiles import PROTOCOLS, Protocol
from inspector.statistics.second_pass import SecondPass
from inspector.statistics.substitutes import DEFINITIONS, prepare
from inspector.statistics.token_rows import fitted_maps, rows_of_contexts, rows_of_generation, rows_of_prompt
from inspector.store.fingerprint import identity, provenance

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.sources.target import Loaded
    from inspector.statistics.first_pass import FirstPass, SaeMaps

TOKENS_PER_DIMENSION = 20
"""With fewer training tokens per dimension of x, overfitting moves variances by more than 5% (spec 1.4)."""
FEW_CONTEXTS = 10
"""Held-out contexts below which a percentile interval says little."""


def run(spec: RunSpec, loaded: Loaded) -> Generator[Event, None, list[dict[str, Any]]]:
    """Run the experiments of the spec on a loaded target; one result object each, in the order asked for.

    Each comes as `Measured` as soon as it is finished: first those the shared passes suffice for, then those that
    measure for themselves, both in the order asked for; `index` is the place in that order. Whoever keeps each as it
    comes loses none of them to what happens later.

    The numbers do not depend on `batch_size` or `shards` (to 1e-6); those change speed and memory.

    Args:
        spec: which experiments, with which parameters, profile and null. Its target is not looked at.
        loaded: the target.

    Raises:
        UsageError: unknown experiment or parameter.
        DataError: too few tokens, or an activation that is not finite.
    """
    experiments = choose(spec.experiments)
    params = parse_params(experiments, spec.params)
    protocol = PROTOCOLS[spec.profile]
    fit = next(iter(params.values()))  # parameters of the fit are given once for all experiments
    intercept = protocol.intercept if fit.intercept is None else fit.intercept
    plan = plan_of(loaded, protocol)
    require_enough(loaded, plan)
    again = any(experiment.measure is not None for experiment in experiments)
    shared = yield from _measure(
        spec,
        loaded,
        plan,
        protocol,
        {need for experiment in experiments for need in experiment.needs},
        intercept=intercept,
        fit=fit,
        again=again,
    )
    made_from = identity(loaded, spec, split=protocol.split or loaded.target.split, intercept=intercept)
    objects: dict[str, dict[str, Any]] = {}

    def finished(experiment: Experiment, statistics: Statistics) -> Iterator[Event]:
        """Compute one experiment, keep its object and tell it."""
        outcome = experiment.compute(statistics, params[experiment.id])
        own = {**made_from, "experiment": experiment.id, "params": asdict(params[experiment.id])}
        about = provenance(own, plan, d=statistics.d, fitted=asdict(replace(statistics, saes=(), own={})))
        about["gate"] = None if loaded.gate is None else loaded.gate.summary()
        warnings = _warnings(loaded, plan, statistics, outcome)
        found = dict(result_object(experiment, outcome, statistics, spec, about, warnings))
        for warning in outcome.warnings:
            yield Warned(message=warning)
        objects[experiment.id] = found
        place = [each.id for each in experiments].index(experiment.id)
        yield Measured(index=place, total=len(experiments), result=found)

    for experiment in experiments:
        if experiment.measure is None:
            yield from finished(experiment, shared.statistics)
    if again:
        measuring = yield from _measuring(spec, loaded, plan, protocol, shared, intercept=intercept, fit=fit)
        measured: dict[tuple[object, FitParams], object] = {}
        for experiment in experiments:
            if experiment.measure is None:
                continue
            if spec.null is not None:
                yield Warned(message=f"{experiment.id} measures for itself: --null {spec.null} does not reach it.")
            key = experiment.measure, params[experiment.id]
            if key not in measured:  # the same measurement with equal parameters once
                measured[key] = yield from experiment.measure(measuring, params[experiment.id])
            own = {experiment.id: measured[key]}
            yield from finished(experiment, replace(shared.statistics, own=own))
    return [objects[experiment.id] for experiment in experiments]


def token_table(
    loaded: Loaded,
    *,
    prompt: str | None = None,
    generate: int | None = None,
    temperature: float = 0.8,
    seed: int | None = None,
    batch_size: int = 8,
) -> Generator[Event, None, pa.Table]:
    """Every token with its loss and, for every SAE, its l0 and the norms of its error's parts; long form.

    The maps are always fitted on the target's own text. With a prompt, its tokens are scored instead of that text; with
    `generate`, so many tokens sampled after it (or after the beginning of a text) as well. Those belong to neither side
    of the split: they are 'excluded'.

    Args:
        loaded: the target.
        prompt: text to score.
        generate: tokens to sample; fewer come if the model ends its text or its context is full.
        temperature: of the sampling; 0 takes the likeliest token.
        seed: of the sampling; None: the target's.
        batch_size: contexts per batch. Changes no number.

    Returns:
        Columns context, position, token_id, token, split, loss (null at the last position), x_norm, sae, l0,
        sae_error_norm, linear_error_norm, nonlinear_error_norm, ordered by context, position and sae as loaded.

    Raises:
        DataError: too few tokens to fit on, an empty or too long prompt, or an activation that is not finite.
    """
    require_enough(loaded, loaded.plan)
    maps = yield from fitted_maps(loaded, batch_size)
    if generate is not None:
        seed = loaded.target.seed if seed is None else seed
        return rows_of_generation(loaded, maps, prompt or "", generate, temperature, seed)
    if prompt is not None:
        return rows_of_prompt(loaded, maps, prompt)
    return (yield from rows_of_contexts(loaded, maps, batch_size))


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
class Shared:
    """What the two passes gave that all experiments share."""

    statistics: Statistics
    activations: Activations
    """Some of them kept in memory."""
    first: FirstPass
    """What the maps were fitted from."""
    maps: Mapping[str, SaeMaps]
    """By sae_id."""


def _measure(
    spec: RunSpec,
    loaded: Loaded,
    plan: Plan,
    protocol: Protocol,
    needs: set[Need],
    *,
    intercept: bool,
    fit: FitParams,
    again: bool,
) -> Generator[Event, None, Shared]:
    """Both passes and what they conclude; `again`: activations of all contexts will be asked for afterwards."""
    scored = plan.included if _all(protocol) else plan.test
    kept = frozenset(contexts_with(plan.train)).intersection(contexts_with(scored))
    if again:
        kept = frozenset(contexts_with(plan.included))
    activations = Activations(loaded=loaded, batch_size=spec.batch_size, keep=kept)
    reconstruct: Reconstruct = by_the_sae
    if spec.null is not None:
        reconstruct = yield from prepare(spec.null, activations, plan, loaded.target.seed)
    first = yield from collect_first(
        activations, plan, reconstruct=reconstruct, covariance=ERROR_COVARIANCE in needs, shards=spec.shards
    )
    with torch.inference_mode():
        factorisation = Factorisation(first.moments)
        maps = first.fit_with(factorisation, intercept=intercept)
    passes = [partial(SecondPass, maps)]
    if _all(protocol):
        passes.append(partial(SecondPass, maps, scored="all"))
    seconds = yield from collect_second(activations, plan, passes, reconstruct=reconstruct, shards=spec.shards)
    with torch.inference_mode():
        sums = [each.finish() for each in seconds]
        assert sums[0] is not None, "the plan has held-out tokens; `require_enough` checked"
        statistics = conclude(
            refs={sae.ref.sae_id: sae.ref for sae in loaded.saes},
            first=first,
            factorisation=factorisation,
            maps=maps,
            held_out=sums[0],
            everything=sums[1] if len(sums) > 1 else None,
            needs=needs,
            intercept=intercept,
            seed=loaded.target.seed,
            n_resamples=fit.resamples,
        )
    return Shared(statistics=statistics, activations=activations, first=first, maps=maps)


def _measuring(
    spec: RunSpec, loaded: Loaded, plan: Plan, protocol: Protocol, shared: Shared, *, intercept: bool, fit: FitParams
) -> Generator[Event, None, Measuring]:
    """What experiments that measure for themselves may use."""
    activations, first, maps = shared.activations, shared.first, shared.maps
    if spec.null is not None:
        # A null stands in for x or for the SAEs; what measures for itself looks at the real ones.
        activations = Activations(loaded=loaded, batch_size=spec.batch_size, keep=activations.keep)
        first = yield from collect_first(activations, plan, covariance=first.covariance)
        with torch.inference_mode():
            maps = first.fit(intercept=intercept)
    return Measuring(
        loaded=loaded,
        plan=plan,
        activations=activations,
        first=first,
        maps=maps,
        protocol=protocol,
        intercept=intercept,
        seed=loaded.target.seed,
        batch_size=spec.batch_size,
        n_resamples=fit.resamples,
    )


def result_object(
    experiment: Experiment,
    outcome: Outcome,
    statistics: Statistics,
    spec: RunSpec,
    about: dict[str, Any],
    warnings: list[str],
) -> ResultObject:
    """What was measured, in the form of the contract."""
    protocol = PROTOCOLS[spec.profile]
    saes = []
    for sae, row in zip(statistics.saes, outcome.rows, strict=True) if outcome.rows else ():
        if row is None:
            continue
        common = {
            "sae": sae.ref.sae_id,
            "layer": sae.ref.layer,
            "hook_name": sae.ref.hook_name,
            "d_sae": sae.ref.d_sae,
            "nominal_l0": sae.ref.nominal_l0,
            "l0": sae.l0,
            "n_train": statistics.n_train,
            "n_test": statistics.n_test,
        }
        saes.append(common | _plain(row))
    definition = f"{experiment.definition} Profile {spec.profile}: {protocol.summary}"
    if spec.null is not None and experiment.measure is None:
        definition += f" {DEFINITIONS[spec.null]}"
    elif spec.null is not None:
        definition += f" It measures for itself, so --null {spec.null} does not reach it."
    return ResultObject(
        experiment=experiment.id,
        profile=spec.profile,
        definition=definition,
        provenance=about,
        saes=saes,
        result=_plain(outcome.result),
        intervals={
            sae_id: {name: None if ends is None else list(ends) for name, ends in own.items()}
            for sae_id, own in outcome.intervals.items()
        },
        controls=dict(outcome.controls),
        warnings=warnings,
    )


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON data: tuples become lists."""
    found: dict[str, Any] = asdict(value)
    return {name: list(item) if isinstance(item, tuple) else item for name, item in found.items()}


def _warnings(loaded: Loaded, plan: Plan, statistics: Statistics, outcome: Outcome) -> list[str]:
    found = [*loaded.warnings, *plan.notes]
    if statistics.n_test_contexts < FEW_CONTEXTS:
        found.append(
            f"Only {statistics.n_test_contexts} contexts are held out: intervals are too narrow and jump with the seed."
        )
    if statistics.n_test_contexts > MOST_GROUPS:
        found.append(
            f"{statistics.n_test_contexts:,} contexts are held out: intervals resample {MOST_GROUPS} blocks of "
            "neighbouring ones, so that memory does not grow with the text."
        )
    if statistics.effective_rank < statistics.d:
        found.append(f"x has {statistics.d} dimensions but only {statistics.effective_rank} independent ones.")
    return list(dict.fromkeys([*found, *outcome.warnings]))


def _all(protocol: Protocol) -> bool:
    return protocol.fvu_on == "all"
