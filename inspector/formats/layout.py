"""What an SAE layout is: which files it has, how it is recognised, what it says of itself, how its weights are read.

Lists of SAEs are made while a user waits, so nothing of a layout but `read` may import torch or numpy or read a weight.
Nothing in a file is trusted: a tensor is read only if its name, shape and type are those that the layout has, and no
file can run code. What a file does not say is not guessed: a hook that is unknown stays unknown.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from inspector.disk.files import MOST
from inspector.disk.files import read_json as regular_json
from inspector.errors import TargetError

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import SaeRef

MAX_CONFIG = 1 << 20
"""Bytes; a configuration is a few hundred."""


class Refused(TargetError):
    """An SAE that is whole but cannot be measured: a transcoder, an activation that is not known, ..."""


class NoHook(TargetError):
    """The files do not say which hook the SAE reads; `--hook` can."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where the files of an SAE lie."""

    path: Path
    """The folder."""
    root: Path
    """Of the suite: names above it say nothing about the SAE."""
    stem: str = ""
    """Of a layout whose SAEs are files of one folder: the file's name. Empty: the folder is the SAE."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names from the suite's own folder down to the SAE's; of a lone SAE its own name and the two above it.

        Behind the name of a link stands that of the folder it leads to, which is what training called it.
        """
        below = self.path.relative_to(self.root).parts
        path, root = self.path.resolve(), self.root.resolve()
        behind = (path.name,) if below and self.path.is_symlink() else ()
        found = (root.name, *below, *behind) if below else path.parts[-3:]
        return (*found, self.stem) if self.stem else found

    @property
    def name(self) -> str:
        """Its parts as one path."""
        return "/".join(self.parts)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What small files and names say of an SAE."""

    d_in: int
    d_sae: int
    hook_name: str | None
    """None: nothing says it."""
    weights: Path
    l0: float | None = None
    """Nominal; None is unknown, never 0."""
    model: str | None = None
    """As the files name it."""
    module: str | None = None
    """Path of the module whose output it reads, where the files name that and no hook."""
    notes: tuple[str, ...] = ()
    """What a user should know: keys that are not understood, statements about text, what was assumed."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the names of a published SAE say, before any of its files is there."""

    hook_name: str | None = None
    d_sae: int | None = None
    d_in: int | None = None
    """None: the model's width at the hook."""
    nominal_l0: float | None = None
    """None: as the registry says."""
    refused: str | None = None
    """Why it is none that can be measured."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """An SAE in sae-lens' terms."""

    cfg: dict[str, Any]
    state: dict[str, Tensor]
    """W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc [d_sae], b_dec [d_in], and what its architecture has besides."""
    gate: str | None = None
    """How latents are let through, where that is not clear from the layout alone."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout."""

    name: str
    files: tuple[str, ...]
    """Below the SAE's folder: small files first, weights last."""
    facts: Callable[[Folder], Facts] | None
    """Raises Refused, or one of the errors of broken files. None: its names say everything."""
    read: Callable[[SaeRef, Path, str], Converted]
    """Of a reference, its folder, and the gate asked for where the layout has several."""
    optional: tuple[str, ...] = ()
    """Of its files, those that some SAEs are published without."""
    marks: tuple[str, ...] = ()
    """Names of files and folders that a folder of this layout holds; empty: its files'."""
    conversions: tuple[str | None, ...] = ()
    """What sae-lens' registry calls this layout."""
    named: Callable[[str, str, str, str], Named] = field(default=lambda repo, path, sae_id, release: Named())
    """Of a repository, a path in it, an id and a release of the registry."""
    stored_bytes: int = 0
    """Per number, where the published files always have it so; 0: unknown before they are there."""
    loading_halves: int = 2
    """Halves of its weights in float32 that are there twice while it is read: the file, transposed or wider copies."""
    is_file: bool = False
    """The published path is the weights' file itself, and no folder: there is nothing to recognise in one."""
    beside: Callable[[str], tuple[str, ...]] = field(default=lambda path: ())
    """Of the weights' file: small files that belong to it, where `is_file`."""

    def paths(self, published: str) -> tuple[str, ...]:
        """Paths in a repository of the SAE published as a folder or file, weights last."""
        if self.is_file:
            return (*self.beside(published), published)
        return tuple(f"{published}/{name}" for name in self.files)

    def may_lack(self, published: str) -> frozenset[str]:
        """Of `paths`, those that may be missing."""
        return frozenset(f"{published}/{name}" for name in self.optional)

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a folder with these files and folders in it is an SAE of this layout."""
        marks = self.marks or tuple(PurePosixPath(name).parts[0] for name in self.files)
        return bool(marks) and all(name in names for name in marks)


# ---- reading small files --------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        TargetError: it is missing, too large, or no object.
    """
    try:
        found = regular_json(path, MAX_CONFIG)
    except OSError as error:
        raise TargetError(
            f"{path} cannot be read ({error.strerror}). Check that it is there and its permissions."
        ) from error
    except ValueError as error:
        raise TargetError(f"{path} is not JSON ({str(error)[:120]}). It was cut off or replaced.") from error
    if not isinstance(found, dict):
        raise TargetError(f"{path} holds no JSON object. It is another file than an SAE's configuration.")
    return found


def whole_number(found: Mapping[str, Any], key: str, path: Path) -> int:
    """A positive whole number of a configuration.

    Raises:
        TargetError: it is missing or something else.
    """
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST or value != int(value):
        raise TargetError(f"{path} has no positive whole number {key!r} but {value!r}. Is it an SAE of another layout?")
    return int(value)


def text_of(value: object) -> str | None:
    """A string that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


def number_of(value: object) -> float | None:
    """A positive finite number; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return float(value) if known else None  # type: ignore[arg-type]


def stored_shape(path: Path, name: str) -> tuple[int, ...]:
    """Shape of one tensor, from the header of a safetensors file.

    Raises:
        ValueError: there is no such tensor, or no such header.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_CONFIG:
            raise ValueError(f"the header of {path.name} is too long")
        shape = json.loads(file.read(length))[name]["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < MOST for size in shape):
        raise ValueError(f"{path.name} gives {name} no shape")
    return tuple(shape)


def stored_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, from its header; see `stored_shape`."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_CONFIG:
            raise ValueError(f"the header of {path.name} is too long")
        return set(json.loads(file.read(length))) - {"__metadata__"}


def unknown_keys(about: Mapping[str, Any], known: Collection[str], where: str) -> tuple[str, ...]:
    """A note that names keys nobody here understands: one of them may change what the SAE computes."""
    odd = sorted(str(key)[:40] for key in about if key not in known)
    if not odd:
        return ()
    named = ", ".join(odd[:6]) + (", ..." if len(odd) > 6 else "")
    return (f"{where} has keys that are not known here and were not used: {named}.",)


# ---- turning weights into sae-lens' terms ---------------------------------------------------------------------------


def config(
    architecture: str, *, d_in: int, d_sae: int, hook_name: str, model: str | None, **more: Any
) -> dict[str, Any]:
    """A sae-lens configuration. Heads come flattened and activations as they are."""
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": model, "hook_name": hook_name},
        **more,
    }


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, as they are stored.

    Raises:
        TargetError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TargetError(f"{path} is not a whole safetensors file ({str(error)[:120]}). It was cut off.") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file by name. `weights_only` refuses whatever could run code.

    Raises:
        TargetError: it is missing, damaged, or holds anything but named tensors.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and its restricted reader raise some ten kinds
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise TargetError(
            f"{path} is not a file of plain tensors ({first}). It is not loaded: other files could run code."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise TargetError(f"{path} holds something else than named tensors. It is not loaded.")
    return {str(name): value for name, value in found.items()}


def pick(state: Mapping[str, Tensor], names: Iterable[str], path: Path) -> Tensor:
    """The first of these tensors that is there, of a floating type.

    Raises:
        TargetError: none is.
    """
    names = list(names)
    for name in names:
        if name in state:
            value = state[name]
            if not value.is_floating_point():
                kind = str(value.dtype).removeprefix("torch.")
                raise TargetError(f"{path} stores {name} as {kind}, not as floating-point numbers. It cannot be used.")
            return value
    raise TargetError(f"{path} has no tensor {names[0]!r} (it has {', '.join(list(state)[:6])}). Is it another layout?")


def pick_matrix(state: Mapping[str, Tensor], plain: str, linear: str, path: Path) -> Tensor:
    """A matrix that is stored as x is multiplied with it, or transposed, as the weight of a torch.nn.Linear.

    Which of the two is told by the name and never by the shape: a square one has the same shape both ways.
    """
    return pick(state, (plain,), path) if plain in state else pick(state, (linear, plain), path).T
