"""One run: any number of experiments over all SAEs of a hook, from one pass for moments and one for scores.

A generator: it yields events and returns the results. Nothing here prints, and nothing here knows a screen.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from inspector.disk.sealed import digest
from inspector.errors import TargetError
from inspector.events import Event, Measured, Warned
from inspector.experiment import Experiment, FitParams, parse_params
from inspector.experiments import choose
from inspector.sources.records import mended, replaced_note
from inspector.sources.target import hashed, require_unchanged
from inspector.spec import TOKENS, RunSpec
from inspector.statistics.measured import Statistics
from inspector.statistics.passes import Activations
from inspector.statistics.pipeline import Shared, measure_shared, measuring_of, plan_of, require_enough
from inspector.statistics.profiles import PROTOCOLS
from inspector.statistics.sums import together
from inspector.statistics.token_table import (
    fitted_maps,
    rows_of_contexts,
    rows_of_generation,
    rows_of_prompts,
    rows_together,
)
from inspector.store.checkpoints import Checkpoints, checkpoints_for
from inspector.store.fingerprint import fit_facts, identity, provenance
from inspector.store.result_object import result_object, warnings_of, with_all_tokens

if TYPE_CHECKING:
    import pyarrow as pa

    from inspector.sources.target import Loaded
    from inspector.statistics.token_table import VectorFile

__all__ = [
    "checkpoints_for", "plan_of", "require_enough", "result_object", "resumed", "run", "table_checkpoints",
    "table_together", "token_table",
]  # fmt: skip

T = TypeVar("T")


def run(
    spec: RunSpec, loaded: Loaded | None, *, checkpoints: Checkpoints | None = None
) -> Generator[Event, None, list[dict[str, Any]]]:
    """Run the experiments of the spec on a loaded target; one result object each, in the order asked for.

    Each comes as `Measured` as soon as it is finished: first those that an interrupted run has finished, then those the
    shared passes suffice for, then those that measure for themselves, then simulations, always in the order asked for;
    `index` is the place in that order. A caller that keeps each as it comes loses none of them to what happens later.

    The numbers do not depend on `batch_size` or `shards` (to 1e-6); those change speed and memory. With checkpoints
    they are the same to the last bit whether or not the run was interrupted.

    Args:
        spec: which experiments, with which parameters, profile and null. Of its target simulations take the seed; the
            rest is not looked at.
        loaded: the target; None only where all are simulations.
        checkpoints: of `checkpoints_for(spec, loaded)`, where the run keeps what it has got and finds what it had;
            discarded once all is measured and the last `Measured` was dealt with. None: nothing is kept.

    Raises:
        UsageError: unknown experiment or parameter.
        DataError: too few tokens, or an activation that is not finite.
        TargetError: files of the weights changed under the run.
        ResourceError: out of memory, or the disk of the checkpoints is full; what they held is kept.
    """
    experiments = choose(spec.experiments)
    if not any(experiment.needs_target for experiment in experiments):
        return (yield from _simulations(spec, experiments))
    assert loaded is not None, "one of them needs it"
    under_way = _Run(spec, loaded, checkpoints)
    if checkpoints is None:
        return (yield from under_way.work())
    yield from hashed(loaded)  # which checkpoints are its own depends on it
    with checkpoints:
        objects = yield from _telling(under_way.work(), checkpoints)
        checkpoints.discard()
        return objects


def _simulations(spec: RunSpec, experiments: Sequence[Experiment]) -> Generator[Event, None, list[dict[str, Any]]]:
    """Experiments that look at no model, without one."""
    params = parse_params(experiments, spec.params)
    objects = []
    for index, experiment in enumerate(experiments):
        objects.append((yield from _simulated(spec, experiment, params[experiment.id])))
        yield Measured(index=index, total=len(experiments), result=objects[-1])
    return objects


def _simulated(spec: RunSpec, experiment: Experiment, params: FitParams) -> Generator[Event, None, dict[str, Any]]:
    """The result of a simulation. Its provenance names no model, so that it is the same beside whichever is loaded."""
    assert experiment.simulate is not None, "chosen for being one"
    if spec.null is not None:
        yield Warned(message=_not_reached(experiment, spec.null))
    outcome = yield from experiment.simulate(spec.target.seed, params)
    for warning in outcome.warnings:
        yield Warned(message=warning)
    made_from = {"seed": spec.target.seed, "profile": spec.profile, "null": spec.null}
    about = provenance(made_from | {"experiment": experiment.id, "params": asdict(params)})
    definition = experiment.defined(PROTOCOLS[spec.profile], params)
    warnings = list(outcome.warnings)
    return dict(result_object(experiment, outcome, None, spec, about, warnings, definition=definition))


def _not_reached(experiment: Experiment, null: str) -> str:
    return f"{experiment.id} measures for itself: --null {null} does not reach it."


def resumed(spec: RunSpec, loaded: Loaded | None) -> Generator[Event, None, list[dict[str, Any]]]:
    """`run` from what an earlier try of the same command has kept, if anything; as commands and jobs run."""
    return run(spec, loaded, checkpoints=None if loaded is None else checkpoints_for(spec, loaded))


class _Run:
    """One run under way.

    Args:
        spec: as of `run`; so the others.
        loaded: the target.
        checkpoints: opened.
    """

    def __init__(self, spec: RunSpec, loaded: Loaded, checkpoints: Checkpoints | None) -> None:
        self.spec, self.loaded, self.checkpoints = spec, loaded, checkpoints
        self.others = together(checkpoints)
        self.experiments = choose(spec.experiments)
        self.params = parse_params(self.experiments, spec.params)
        named = PROTOCOLS[spec.profile]
        self.fit = next(iter(self.params.values()))  # parameters of the fit are given once for all experiments
        self.intercept = named.intercept if self.fit.intercept is None else self.fit.intercept
        self.split = named.split or loaded.target.split
        self.protocol = replace(named, intercept=self.intercept, split=self.split)
        self.plan = plan_of(loaded, self.protocol)
        require_enough(loaded, self.plan)
        self.objects: dict[str, dict[str, Any]] = {}

    def work(self) -> Generator[Event, None, list[dict[str, Any]]]:
        """See `run`."""
        yield from self._earlier()
        missing = [experiment for experiment in self.experiments if experiment.id not in self.objects]
        own = [experiment for experiment in missing if experiment.measure is not None]
        if any(experiment.needs_target for experiment in missing):
            shared = yield from self._shared(again=bool(own))
            for experiment in self._dealt("conclusions", [each for each in missing if each.own_work is None]):
                yield from self._finished(experiment, shared.statistics)
            if own:
                yield from self._own(own, shared)
        for experiment in self._dealt("simulations", [each for each in missing if not each.needs_target]):
            found = yield from _simulated(self.spec, experiment, self.params[experiment.id])
            yield self._kept(experiment, found)
        return [self.objects[each.id] for each in self.experiments if each.id in self.objects]

    def _dealt(self, step: str, experiments: Sequence[Experiment]) -> Iterator[Experiment]:
        """Those that are this process's: all of them, unless others run the same program beside it."""
        others = self.others
        if others is None:
            yield from experiments
            return
        while experiments and (number := others.claim(step, len(experiments))) is not None:
            yield experiments[number]
            others.hand_in(step, number, {}, {})

    def _earlier(self) -> Iterator[Event]:
        """What an interrupted run has finished."""
        if self.checkpoints is None:
            return
        for experiment in self.experiments:
            found = self.checkpoints.finished(self._key(experiment))
            if found is not None:
                yield self._told(experiment, found)

    def _own(self, experiments: Sequence[Experiment], shared: Shared) -> Generator[Event, None, None]:
        """Experiments that measure for themselves; the same measurement with equal parameters once."""
        measuring = yield from measuring_of(shared, self.protocol, null=self.spec.null, n_resamples=self.fit.resamples)
        keys = [(experiment.measure, self.params[experiment.id]) for experiment in experiments]
        measured: dict[object, object] = {}
        for place, (experiment, key) in enumerate(zip(experiments, keys, strict=True)):
            if self.spec.null is not None:
                yield Warned(message=_not_reached(experiment, self.spec.null))
            measure, params = key
            assert measure is not None, "chosen for having one"
            name = f"own-{_digest(measure, params)}"
            if experiment.writes and self.others is not None:
                alone = replace(measuring, activations=replace(measuring.activations, keeper=None))
                for _ in self._dealt(name, [experiment]):
                    own = {experiment.id: (yield from measure(alone, params))}
                    yield from self._finished(experiment, replace(shared.statistics, own=own))
                continue
            if key not in measured:
                measuring.activations.kept_as = f"{name}-"
                measured[key] = yield from measure(measuring, params)
            own = {experiment.id: measured[key]}
            for _ in self._dealt(f"{name} {experiment.id}", [experiment]):
                yield from self._finished(experiment, replace(shared.statistics, own=own))
            if self.checkpoints is not None and key not in keys[place + 1 :]:
                self.checkpoints.forget(name)

    def _finished(self, experiment: Experiment, statistics: Statistics) -> Iterator[Event]:
        """Compute one experiment of the target, keep its object and tell it."""
        spec, loaded, plan = self.spec, self.loaded, self.plan
        assert experiment.compute is not None, "no simulation"
        outcome = experiment.compute(statistics, self.params[experiment.id])
        made_from = {
            **identity(loaded, spec, split=self.split, intercept=self.intercept),
            "experiment": experiment.id,
            "params": asdict(self.params[experiment.id]),
        }
        fitted = asdict(replace(statistics, saes=(), own={}, all_tokens=None))
        about = provenance(made_from, fit_facts(plan, d=statistics.d, fitted=fitted))
        if statistics.outliers is not None:
            about["outlier_tokens"] = fitted["outliers"]
        about["documents"] = len(set(loaded.contexts.documents))
        if loaded.effect is not None:
            about["precision"] = asdict(loaded.effect)
        about["gate"] = None if loaded.gate is None else loaded.gate.summary()
        warnings = warnings_of(loaded, plan, statistics, outcome)
        definition = f"{experiment.defined(self.protocol, self.params[experiment.id])} {self.protocol.summary}"
        told = result_object(experiment, outcome, statistics, spec, about, warnings, definition=definition)
        with_outliers = None
        if experiment.measure is None and statistics.all_tokens is not None:
            with_outliers = experiment.compute(statistics.all_tokens, self.params[experiment.id])
        with_all_tokens(told, statistics, with_outliers)
        for warning in outcome.warnings:
            yield Warned(message=warning)
        self._require_unchanged()
        yield self._kept(experiment, dict(told))

    def _require_unchanged(self) -> None:
        """Before anything is told: the weights' files are still those that were loaded.

        Raises:
            TargetError: they are not, and what was added up so far is worth nothing.
        """
        try:
            require_unchanged(self.loaded)
        except TargetError:
            if self.checkpoints is not None:
                self.checkpoints.discard()
            raise

    def _kept(self, experiment: Experiment, found: dict[str, Any]) -> Measured:
        if self.checkpoints is not None:
            self.checkpoints.finish(self._key(experiment), found)
        return self._told(experiment, found)

    def _told(self, experiment: Experiment, found: dict[str, Any]) -> Measured:
        self.objects[experiment.id] = found
        place = [each.id for each in self.experiments].index(experiment.id)
        return Measured(index=place, total=len(self.experiments), result=found)

    def _key(self, experiment: Experiment) -> str:
        """The experiment, its parameters and its file: one of the user's own may have been changed in between."""
        return f"{experiment.id}-{_digest(experiment.draw, self.params[experiment.id])}"

    def _shared(self, *, again: bool) -> Generator[Event, None, Shared]:
        """Both passes and what they conclude; `again`: activations of all contexts will be asked for afterwards."""
        spec, loaded = self.spec, self.loaded
        activations = Activations(
            loaded=loaded,
            batch_size=loaded.at_once(spec.batch_size),
            outliers=loaded.outliers,
            shards=spec.shards,
            keeper=self.checkpoints,
        )
        shared = yield from measure_shared(
            activations,
            self.plan,
            self.protocol,
            {need for experiment in self.experiments for need in experiment.needs},
            null=spec.null,
            again=again,
            n_resamples=self.fit.resamples,
        )
        self.plan = shared.plan
        return shared


def _digest(function: Callable[..., object], params: FitParams) -> str:
    """Of the parameters, and of a function of an experiment with the file that holds it."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    code = "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return digest([function.__qualname__, asdict(params), code])[:12]


def token_table(
    loaded: Loaded,
    *,
    prompts: Sequence[str] = (),
    generate: int | None = None,
    temperature: float = 0.8,
    seed: int | None = None,
    batch_size: int = 8,
    checkpoints: Checkpoints | None = None,
    vectors: VectorFile | None = None,
    keep_rows: bool = True,
) -> Generator[Event, None, pa.Table]:
    """Every token with its loss and, for every SAE, its l0 and the norms of its error's parts; long form.

    The maps are always fitted on the target's own text. With prompts, their tokens are scored instead of that text,
    as contexts 0, 1, ...; with `generate`, so many tokens sampled after one (or after the beginning of a text) as well.
    Those belong to neither side of the split: they are 'excluded'.

    Args:
        loaded: the target.
        prompts: texts to score; with `generate` at most one.
        generate: tokens to sample; fewer come if the model ends its text or its context is full.
        temperature: of the sampling; 0 takes the likeliest token.
        seed: of the sampling; None: the target's.
        batch_size: contexts per batch. Changes no number.
        checkpoints: of `table_checkpoints`, opened; the caller discards them once the table is where it belongs.
        vectors: takes the vectors of the same tokens.
        keep_rows: see `rows_of_contexts`.

    Returns:
        Columns context, position, token_id, token, split, loss (null at the last position), x_norm, sae, l0,
        sae_error_norm, linear_error_norm, nonlinear_error_norm, ordered by context, position and sae as loaded.

    Raises:
        DataError: too few tokens to fit on, an empty or too long prompt, or an activation that is not finite.
    """
    work = _table(loaded, prompts, generate, temperature, seed, batch_size, checkpoints, vectors, keep_rows)
    table = yield from work if checkpoints is None else _telling(work, checkpoints)
    require_unchanged(loaded)
    return table


def _table(
    loaded: Loaded,
    prompts: Sequence[str],
    generate: int | None,
    temperature: float,
    seed: int | None,
    batch_size: int,
    checkpoints: Checkpoints | None,
    vectors: VectorFile | None,
    keep_rows: bool,
) -> Generator[Event, None, pa.Table]:
    texts = []
    for prompt in prompts:
        text, n_replaced = mended(prompt)
        texts.append(text)
        if n_replaced:
            yield Warned(message=replaced_note("--prompt", n_replaced))
    require_enough(loaded, loaded.plan)
    maps = yield from fitted_maps(loaded, batch_size, keeper=checkpoints)
    if generate is not None:
        seed = loaded.target.seed if seed is None else seed
        return rows_of_generation(loaded, maps, "".join(texts[:1]), generate, temperature, seed, vectors)
    if texts:
        return rows_of_prompts(loaded, maps, texts, vectors)
    table = yield from rows_of_contexts(
        loaded, maps, batch_size, keeper=checkpoints, vectors=vectors, keep_rows=keep_rows
    )
    return table


def _telling(work: Generator[Event, None, T], checkpoints: Checkpoints) -> Generator[Event, None, T]:
    """The same work, with what its checkpoints find to tell of told before the next event."""
    with contextlib.closing(work):
        while True:
            try:
                event = next(work)
            except StopIteration as end:
                result: T = end.value
                break
            for problem in checkpoints.problems():
                yield Warned(message=problem)
            yield event
    for problem in checkpoints.problems():
        yield Warned(message=problem)
    return result


def table_together(
    spec: RunSpec, loaded: Loaded, *, checkpoints: Checkpoints
) -> Generator[Event, None, list[dict[str, Any]]]:
    """As `token_table` of the target's text, by processes that share it; see `token_table.rows_together`.

    Args:
        spec: batch size and shards.
        loaded: the target; so many copies of it as there are processes.
        checkpoints: that deal out work.

    Returns:
        No results; the rows were handed in.

    Raises:
        DataError: too few tokens to fit on, or an activation that is not finite.
    """
    others = together(checkpoints)
    assert others is not None, "there are others"
    require_enough(loaded, loaded.plan)
    yield from hashed(loaded)
    with checkpoints:
        maps = yield from fitted_maps(loaded, spec.batch_size, keeper=checkpoints, shards=spec.shards)
        yield from rows_together(loaded, maps, spec.batch_size, others, spec.shards)
    require_unchanged(loaded)
    return []


def table_checkpoints(loaded: Loaded, batch_size: int) -> Checkpoints:
    """Where `token_table` keeps what it has got of this target."""
    return checkpoints_for(RunSpec(target=loaded.target, experiments=(TOKENS,), batch_size=batch_size), loaded)
