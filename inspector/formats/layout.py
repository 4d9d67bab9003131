"""What an SAE layout is: which files it has, how it is recognised, what it says of itself, how its weights are read.

Lists of SAEs are made while a user waits, so nothing of a layout but `read` may import torch or numpy or read a weight.
Nothing in a file is trusted: a tensor is read only if its name, shape and type are those that the layout has, and no
file can run code. What a file does not say is not guessed: a hook that is unknown stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from inspector.disk.files import MOST
from inspector.disk.files import read_json as regular_json
from inspector.errors import TargetError
from inspector.formats.weights import MAX_CONFIG, Converted, Kept

if TYPE_CHECKING:
    from inspector.spec import SaeRef

TRANSCODER = "a transcoder: it does not reconstruct its own input"
CROSS_LAYER = "a cross-layer transcoder: it reads one layer and writes to several"
TEMPORAL = "a temporal SAE: what it makes of a token depends on the tokens before it"


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
    """Told by the names; None: as the registry says."""
    refused: str | None = None
    """Why it is none that can be measured."""


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
    model_of: Callable[[str, str], str] = field(default=lambda repo, model: model)
    """Of a repository and the model that the registry names for it: the Hugging Face id that is meant."""
    is_family: bool = False
    """Suites of many widths and L0s: all releases of a site together are their model's default."""
    rank: int = 1
    """A folder that could be of several layouts is of the one with the lowest."""
    stored_bytes: int = 0
    """Per number, where the published files always have it so; 0: unknown before they are there."""
    loading_halves: int = 2
    """Halves of its weights in float32 that are there twice while it is read: the file, transposed or wider copies."""
    kept: Callable[[Path], Kept] = field(default=lambda path: "in parts")
    """How the files of an SAE on disk let its latents be read; of its folder or file."""
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


class Settings(dict[str, Any]):
    """What a small JSON file holds, or a part of it, and the file's path for messages.

    Args:
        found: by key; values may be of any kind.
        path: of the file.
    """

    def __init__(self, found: Mapping[str, Any], path: Path) -> None:
        super().__init__(found)
        self.path = path

    @classmethod
    def read(cls, path: Path) -> Settings:
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
        return cls(found, path)

    def whole(self, key: str) -> int:
        """A positive whole number.

        Raises:
            TargetError: it is missing or something else.
        """
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST or value != int(value):
            raise TargetError(
                f"{self.path} has no positive whole number {key!r} but {value!r}. Is it an SAE of another layout?"
            )
        return int(value)

    def text(self, key: str) -> str | None:
        """A string that is not empty; None for anything else."""
        value = self.get(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str) -> float | None:
        """A positive finite number; None for anything else."""
        return number_of(self.get(key))

    def part(self, key: str) -> Settings:
        """An object inside; an empty one if there is none."""
        found = self.get(key)
        return Settings(found if isinstance(found, Mapping) else {}, self.path)

    def unknown(self, known: Collection[str], where: str = "") -> tuple[str, ...]:
        """A note that names keys which are not known here: one of them may change what the SAE computes."""
        odd = sorted(str(key)[:40] for key in self if key not in known)
        if not odd:
            return ()
        named = ", ".join(odd[:6]) + (", ..." if len(odd) > 6 else "")
        return (f"{where}{self.path} has keys that are not known here and were not used: {named}.",)


def number_of(value: object) -> float | None:
    """A positive finite number; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return float(value) if known else None  # type: ignore[arg-type]
