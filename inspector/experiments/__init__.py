"""One file per experiment; the file name, with dashes, is the id.

Found by looking into this folder, so that adding an experiment changes one file; and into the folder that
DM_INSPECT_EXPERIMENTS_DIR names, so that a user's own need no change here at all. Such files are Python and run with
the user's rights: nothing is looked for where the user did not point. Nothing here imports torch or numpy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from inspector.disk.folders import EXPERIMENTS_VARIABLE as VARIABLE
from inspector.errors import UsageError, nearest

if TYPE_CHECKING:
    from types import ModuleType

    from inspector.experiment import Experiment

ALL = "all"
ELSEWHERE = {"interp": "dm-inspect interp", "interp-error-saes": "dm-inspect interp --error-saes DIR"}
"""Ids of results that another command measures: found to be shown, never run or listed."""


def files() -> dict[str, str]:
    """The file of every experiment by its id, sorted by id; opens none of them.

    Raises:
        UsageError: the user's folder is none, or a file there has the id of an experiment of the program.
    """
    own = _files(os.path.dirname(__file__))
    folder = os.environ.get(VARIABLE)
    if not folder:
        return own
    try:
        further = _files(os.path.abspath(folder))
        for path in (os.path.abspath(folder), *further.values()):
            if os.stat(path).st_mode & 0o002:  # whoever writes there acts with the rights of who runs it
                raise UsageError(
                    f"Everybody on this machine can write to {path}, and what is there runs as you. "
                    "Take that right away with chmod o-w, or unset " + VARIABLE + "."
                )
    except OSError as error:
        raise UsageError(
            f"{VARIABLE} names {folder}, which cannot be listed ({error.strerror}). Name a folder, or unset it."
        ) from error
    for experiment_id in further:
        if experiment_id in own:
            raise UsageError(
                f"{further[experiment_id]} has the id of the program's experiment '{experiment_id}'. Rename the file."
            )
    return dict(sorted({**own, **further}.items()))


def _files(folder: str) -> dict[str, str]:
    names = [name for name in os.listdir(folder) if name.endswith(".py") and name[0].isalpha()]
    return {name.removesuffix(".py").replace("_", "-"): os.path.join(folder, name) for name in sorted(names)}


def ids() -> list[str]:
    """Ids of all experiments, sorted; imports none of them."""
    return list(files())


def find(experiment_id: str, among: Mapping[str, str] | None = None) -> Experiment:
    """The experiment with this id.

    Args:
        experiment_id: as `ids` gives it.
        among: what `files` gave, where it was asked already.

    Raises:
        UsageError: there is none (the message has the nearest ids), or the user's file cannot be used.
    """
    if among is None and experiment_id in ELSEWHERE:
        from inspector.experiments._interpretability import EXPERIMENTS

        return EXPERIMENTS[experiment_id]
    known = files() if among is None else among
    if experiment_id in ELSEWHERE:
        raise UsageError(f"'{experiment_id}' is not measured by `run`. Use `{ELSEWHERE[experiment_id]}`.")
    if experiment_id not in known:
        raise UsageError(f"There is no experiment '{experiment_id}'.{nearest(experiment_id, known)}")
    path = known[experiment_id]
    if os.path.dirname(path) == os.path.dirname(__file__):
        found: Experiment = import_module(f"{__name__}.{experiment_id.replace('-', '_')}").EXPERIMENT
        return found
    return _checked(_module_of(path), experiment_id, path)


def _module_of(path: str) -> ModuleType:
    """The user's file, run once per process."""
    from importlib.util import module_from_spec, spec_from_file_location

    name = f"inspector_experiments_of_the_user.{os.path.basename(path).removesuffix('.py')}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == path:
        return known
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "it ends in .py"
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(
            f"{path} cannot be used as an experiment: {type(error).__name__}: {error}. Mend it, or move it out of "
            f"{VARIABLE}."
        ) from error
    return module


def _checked(module: ModuleType, experiment_id: str, path: str) -> Experiment:
    from inspector.experiment import Experiment

    found = getattr(module, "EXPERIMENT", None)
    if not isinstance(found, Experiment) or found.id != experiment_id:
        has = f"the id '{found.id}'" if isinstance(found, Experiment) else "no EXPERIMENT"
        raise UsageError(f"{path} has {has}. It must declare EXPERIMENT = Experiment(id='{experiment_id}', ...).")
    return found


def discover() -> dict[str, Experiment]:
    """All experiments by id, sorted."""
    known = files()
    return {experiment_id: find(experiment_id, known) for experiment_id in known}


def choose(wanted: Sequence[str]) -> list[Experiment]:
    """The experiments of a command line, each once, in its order; 'all' stands for every one.

    Raises:
        UsageError: an id is unknown, or none was given.
    """
    known = files()
    if not wanted:
        raise UsageError(f"No experiment was named.{nearest('', known)}")
    expanded = [each for name in wanted for each in (list(known) if name == ALL else [name])]
    return [find(experiment_id, known) for experiment_id in dict.fromkeys(expanded)]
