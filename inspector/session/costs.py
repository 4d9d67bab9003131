"""What experiments would cost on a session's target, from what was measured on it; None where nothing was.

The background fit does the work of the passes that all experiments share, on the same tokens with the same SAEs, so its
time is theirs. What an experiment takes beside them is known once a job of this target has measured it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from inspector.errors import DataError
from inspector.experiment import Experiment
from inspector.experiments import choose, find
from inspector.session.jobs import refuse_too_many
from inspector.session.protocol import Cost, Costs, GetCosts, MapImproved

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
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


def costs(message: GetCosts, loaded: Loaded, jobs: Iterable[Job], fit_seconds: float | None) -> Costs:
    """Answer GetCosts.

    Args:
        message: the question.
        loaded: the target.
        jobs: of this target, newest first.
        fit_seconds: what the background fit takes in all; None: not known yet.

    Raises:
        UsageError: an experiment is unknown.
    """
    refuse_too_many(message.experiments)
    experiments = choose(message.experiments)
    measured = [job for job in jobs if job.seconds.keys() - {""}]
    shared = next((job.seconds[""] for job in measured if "" in job.seconds), fit_seconds)
    why_not = _why_not(loaded)
    took = _took(measured)
    return Costs(
        request=message.request,
        costs=[
            Cost(experiment=each.id, seconds=None if why_not else _seconds(each, took), why_not=why_not)
            for each in experiments
        ],
        shared_seconds=None if shared is None else _rounded(shared),
    )


def _seconds(experiment: Experiment, took: dict[str, float]) -> float | None:
    """What an experiment takes beside the shared passes; next to nothing if it measures nothing for itself."""
    if experiment.own_work is None:
        return _rounded(took.get(experiment.id, 0.0))
    # Experiments with one measurement share it: the first of a run has taken the time of all.
    same = [took[each.id] for each in map(find, took) if each.own_work is experiment.own_work]
    return _rounded(max(same)) if same else None


def _took(jobs: list[Job]) -> dict[str, float]:
    """Seconds by experiment, the newest job's first."""
    from inspector.experiments import ids

    known = set(ids())
    took: dict[str, float] = {}
    for job in jobs:
        for experiment, seconds in job.seconds.items():
            if experiment in known:
                took.setdefault(experiment, seconds)
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
