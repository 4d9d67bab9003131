"""What experiments cost on a session's target: counted from its sizes, scaled by what passes have taken on it.

The background fit does the work of the passes that all experiments share, on the same tokens with the same SAEs, so its
time is theirs, and what it took over what was expected is how much slower than counted this target is here. What an
experiment takes beside them is known better still once a job of this target has measured it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from inspector.errors import DataError
from inspector.events import Cost
from inspector.experiment import parse_params
from inspector.experiments import choose, find, ids
from inspector.session.jobs import refuse_too_many
from inspector.session.protocol import Costs, GetCosts, MapImproved
from inspector.statistics.costs import Ahead, Estimate, Rates, Workload, estimate, passes_of, shared_passes

if TYPE_CHECKING:
    from inspector.experiment import Experiment
    from inspector.sources.target import Loaded
    from inspector.spec import RunSpec
    from inspector.store.jobs import Job


class FitClock:
    """How long the background fit has taken for how much of its work."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._whole: float | None = None
        self._over = False

    def worked(self, seconds: float) -> None:
        """A step took so long."""
        self._seconds += seconds

    def improved(self, message: MapImproved) -> None:
        """A fit came out. Those of another policy begin when a view asks for them, and are no longer counted."""
        if self._over or message.policy != "excluded":
            return
        share = message.n_tokens / max(message.n_tokens_goal, 1)
        if message.finished:
            self._over, self._whole = True, self._seconds
        elif 0 < share < 1:  # one with all tokens has not scored all of them: no measure of the whole
            self._whole = self._seconds / share

    @property
    def seconds(self) -> float | None:
        """For the whole; None before the first fit."""
        return self._whole


class Costing:
    """What things cost on one target.

    Args:
        loaded: the target.
        clock: of its background fit.
    """

    def __init__(self, loaded: Loaded, clock: FitClock) -> None:
        self._loaded, self._clock = loaded, clock

    @cached_property
    def work(self) -> Workload:
        """Its sizes."""
        from inspector.sources.memory_sizes import sizes_of
        from inspector.sources.model_files import find_model

        loaded, target = self._loaded, self._loaded.target
        files = find_model(target.model, target.cache_dir)
        refs = [sae.ref for sae in loaded.saes]
        sizes = sizes_of(files, refs, target, dtype_bytes=loaded.model.dtype.itemsize, session=True, on_host=False)
        work = Workload.of_plan(sizes, loaded.plan, layer=loaded.layer, n_layers=files.n_layers)
        return replace(work, memory=loaded.memory)

    @cached_property
    def _nominal(self) -> Rates:
        """Of this machine, timed when it is first asked for."""
        from inspector.statistics.costs import measured_rates

        return measured_rates(self.work, self._loaded.model.device, self._loaded.model.dtype)

    def rates(self, shared_took: float | None) -> Rates:
        """As the target has been computed on so far, if it has.

        Args:
            shared_took: seconds of the passes that all experiments share; None: not known yet.
        """
        expected = sum(each.seconds(self._nominal) for each in shared_passes(self.work, ()))
        return self._nominal if not shared_took else self._nominal.slower(shared_took / max(expected, 1e-9))

    def answer(self, message: GetCosts, jobs: Sequence[Job]) -> Costs:
        """Answer GetCosts.

        Args:
            message: the question.
            jobs: of this target, newest first.

        Raises:
            UsageError: an experiment or a parameter is unknown.
        """
        refuse_too_many(message.experiments)
        experiments = choose(message.experiments)
        params = parse_params(experiments, message.params)
        why_not = _why_not(self._loaded)
        if why_not:
            refused = [Cost(experiment=each.id, seconds=None, why_not=why_not) for each in experiments]
            return Costs(request=message.request, costs=refused, shared_seconds=None)
        shared_took = self._shared_took(jobs)
        took = _took(experiments, [job for job in jobs if job.spec.params == message.params])
        found, shared = estimate(
            experiments, params, self.work, self.rates(shared_took), took=took, shared_took=shared_took
        )
        return Costs(request=message.request, costs=list(map(_cost, found)), shared_seconds=_rounded(shared))

    def ahead(self, spec: RunSpec, jobs: Sequence[Job]) -> Ahead:
        """The passes of a run, to tell what is left of it."""
        experiments = choose(spec.experiments)
        passes = passes_of(experiments, parse_params(experiments, spec.params), self.work)
        return Ahead(passes, self.rates(self._shared_took(jobs)), self.work.sizes.length)

    def _shared_took(self, jobs: Sequence[Job]) -> float | None:
        took = (job.seconds[""] for job in jobs if job.state == "done" and "" in job.seconds)
        return next(took, self._clock.seconds)


def _cost(found: Estimate) -> Cost:
    return Cost(
        experiment=found.experiment,
        seconds=None if found.own_seconds is None else _rounded(found.own_seconds),
        alone=None if found.seconds is None else _rounded(found.seconds),
        measured=found.measured,
    )


def _took(experiments: Sequence[Experiment], jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds by experiment beside the shared passes, the newest job's first."""
    known = set(ids())
    newest: dict[str, float] = {}
    for job in jobs:
        for experiment_id in job.seconds.keys() & known:
            newest.setdefault(experiment_id, job.seconds[experiment_id])
    measurements = {experiment_id: find(experiment_id).own_work for experiment_id in newest}
    took = {}
    for experiment in experiments:
        # Experiments with one measurement share it: the first of a run has taken the time of all.
        same = [newest[each] for each, work in measurements.items() if work is not None and work is experiment.own_work]
        if same or experiment.id in newest:
            took[experiment.id] = max(same, default=newest.get(experiment.id, 0.0))
    return took


def _why_not(loaded: Loaded) -> str:
    """What every run on this target would be refused with."""
    from inspector.statistics.pipeline import require_enough

    try:
        require_enough(loaded, loaded.plan)
    except DataError as error:
        return str(error)
    return ""


def _rounded(seconds: float) -> float:
    """Two digits: more would promise what a busy machine does not keep."""
    return seconds if seconds <= 0 else round(seconds, 1 - math.floor(math.log10(seconds)))
