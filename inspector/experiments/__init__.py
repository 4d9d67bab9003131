"""One file per experiment; the file name, with dashes, is the id.

Found by looking into this folder, so that adding an experiment changes one file. Nothing here imports torch or numpy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from inspector.errors import UsageError, nearest
from inspector.experiment import Experiment

ALL = "all"


def ids() -> list[str]:
    """Ids of all experiments, sorted; imports none of them."""
    names = [name.removesuffix(".py") for name in os.listdir(os.path.dirname(__file__)) if name.endswith(".py")]
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def find(experiment_id: str) -> Experiment:
    """The experiment with this id.

    Raises:
        UsageError: there is none; the message has the nearest ids.
    """
    known = ids()
    if experiment_id not in known:
        raise UsageError(f"There is no experiment '{experiment_id}'.{nearest(experiment_id, known)}")
    found = import_module(f"{__name__}.{experiment_id.replace('-', '_')}").EXPERIMENT
    assert isinstance(found, Experiment)
    return found


def discover() -> dict[str, Experiment]:
    """All experiments by id, sorted."""
    return {experiment_id: find(experiment_id) for experiment_id in ids()}


def choose(wanted: Sequence[str]) -> list[Experiment]:
    """The experiments of a command line, each once, in its order; 'all' stands for every one.

    Raises:
        UsageError: an id is unknown, or none was given.
    """
    if not wanted:
        raise UsageError(f"No experiment was named.{nearest('', ids())}")
    expanded = [each for name in wanted for each in (ids() if name == ALL else [name])]
    return [find(experiment_id) for experiment_id in dict.fromkeys(expanded)]
