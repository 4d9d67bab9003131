"""Every folder this program keeps something in, and the environment variables that name others: the one list of both.

A checkout keeps results, jobs and the like in its own `cache/`; an installed program in the user's data or cache
folder. Looking makes no folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import inspector

APP = "dm-inspect"
RUNTIME_VARIABLE = "DM_INSPECT_RUNTIME_DIR"
"""Sockets of sessions; without it a folder in the system's temporary one, see `session.discovery`."""
EXPERIMENTS_VARIABLE = "DM_INSPECT_EXPERIMENTS_DIR"
"""The user's own experiments; without it there are none."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One folder of the program's."""

    name: str
    """Below `cache/` of a checkout, or below the user's folder."""
    variable: str = ""
    """Names another folder; empty: none does."""
    user: Literal["cache", "data"] = "cache"
    """Which of the user's folders: `cache` is what can be made again, if at a cost."""
    beside: Folder | None = None
    """Where the variable of this one names a folder, it lies in that, so that a whole disk can be chosen at once."""

    def path(self) -> Path:
        """Where it is; it need not be there."""
        if self.variable and (named := os.environ.get(self.variable)):
            return Path(named).absolute()
        if self.beside is not None and os.environ.get(self.beside.variable):
            return self.beside.path() / self.name
        checkout = Path(inspector.__file__).parents[1]
        if (checkout / "cache" / "README.md").is_file() and (checkout / "pyproject.toml").is_file():
            return checkout / "cache" / self.name
        return user_folder(self.user) / self.name


RESULTS = Folder(name="results", variable="DM_INSPECT_RESULTS_DIR", user="data")
JOBS = Folder(name="jobs", variable="DM_INSPECT_JOBS_DIR", user="data")
ANSWERS = Folder(name="judge", variable="DM_INSPECT_ANSWERS_DIR")
ERROR_SAES = Folder(name="error-saes", variable="DM_INSPECT_ERROR_SAES_DIR", beside=RESULTS)
DEQUANTISED = Folder(name="dequantised", variable="DM_INSPECT_DEQUANTISED_DIR")
"""One folder per GGUF that was opened: four bytes per weight."""
CHECKPOINTS = Folder(name="checkpoints", beside=RESULTS)
NOTES = Folder(name="notes", user="data", beside=RESULTS)
VARIABLES = (
    RUNTIME_VARIABLE,
    EXPERIMENTS_VARIABLE,
    *(each.variable for each in (RESULTS, JOBS, ANSWERS, ERROR_SAES, DEQUANTISED)),
)
"""All that name a folder."""


def user_folder(kind: Literal["cache", "data", "config", "log"]) -> Path:
    """The user's folder for this program, as the system has it. `cache` also holds lists that are quick to read."""
    import platformdirs

    return Path(getattr(platformdirs, f"user_{kind}_path")(APP))


def child_environment() -> dict[str, str]:
    """The environment of a process that this one starts and that may work in another folder.

    Folders are named from the root, so that both mean the same one; the package's own is named because in a checkout
    nothing else makes it importable.
    """
    found = dict(os.environ)
    home = str(Path(inspector.__file__).resolve().parents[1])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (home, found.get("PYTHONPATH"))))
    for name in VARIABLES:
        if found.get(name):
            found[name] = str(Path(found[name]).absolute())
    return found
