"""Weights of SAEs: what headers say of tensors, tensors that are mapped, and what makes them an SAE in sae-lens' terms.

No file can run code, and a tensor is read only if its name, shape and type are those that its layout has. Matrices stay
in their files until they are wanted: whole, or by SAEs in slices a part at a time.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inspector.disk.files import MOST, open_file, parse_json
from inspector.errors import TargetError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inspector.spec import SaeRef

MAX_CONFIG = 1 << 20
"""Bytes; a configuration is a few hundred."""
MAX_HEADER = 100 << 20
"""Bytes; the limit of safetensors."""
_ROWS_AT_ONCE = 4096
_NUMBERS = {"F64": "<d", "F32": "<f", "F16": "<e"}
"""How `struct` unpacks the types of safetensors."""
Kept = Literal["in parts", "at once", "whole"]
"""Whether some latents' weights can be read from the files without the others; only all of them, to be taken apart in
memory; or whether the SAE can make nothing of a part of its latents."""


def tensor_entries(path: Path, most: int = MAX_CONFIG) -> tuple[dict[str, Mapping[str, Any]], int]:
    """What the header of a safetensors file says of its tensors by name, and where their numbers begin.

    Args:
        path: of the file.
        most: bytes that the header may have.

    Raises:
        OSError: it cannot be read.
        ValueError, struct.error: there is no such header.
    """
    with open_file(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > most:
            raise ValueError(f"the header of {path.name} is too long")
        raw = file.read(length)
    if len(raw) != length:
        raise ValueError("it ends within its header")
    header = parse_json(raw)
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise ValueError("an entry is no object")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length


def stored_shape(entries: Mapping[str, Mapping[str, Any]], name: str) -> tuple[int, ...]:
    """Shape of one of the tensors; see `tensor_entries`.

    Raises:
        KeyError, ValueError: there is no such tensor, or it has none.
    """
    shape = entries[name]["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < MOST for size in shape):
        raise ValueError(f"it gives {name} no shape")
    return tuple(shape)


def stored_number(path: Path, name: str) -> float:
    """The one number of a tensor in a safetensors file, without the file's other bytes.

    Raises:
        OSError, ValueError, KeyError, struct.error: it is not there, or more than one number.
    """
    entries, begin = tensor_entries(path)
    kind, (start, end) = entries[name]["dtype"], entries[name]["data_offsets"]
    with open_file(path) as file:
        file.seek(begin + start)
        raw = file.read(end - start) if 0 <= end - start <= 8 else b""
    return float(struct.unpack("<f", b"\0\0" + raw)[0] if kind == "BF16" else struct.unpack(_NUMBERS[kind], raw)[0])


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A matrix in a file, whose rows or columns can be read without the rest."""

    path: Path
    offset: int
    """Where its first number begins."""
    dtype: torch.dtype
    shape: tuple[int, int]
    """As it is meant."""
    transposed: bool = False
    """Whether the file has its columns one after the other, and not its rows."""
    whole: Callable[[], Tensor]
    """Reads all of it, checked as its layout checks."""


Fold = Callable[["Tensor", "slice | Tensor"], "Tensor"]
"""Of float32 columns [d_in, n] of W_enc or rows [n, d_in] of W_dec as they are stored, and of the latents that they
belong to: those of the SAE."""


class Folds(dict[str, Fold]):
    """By the name of a matrix, what makes its stored numbers those of the SAE; without an entry they are already."""

    def then(self, name: str, fold: Fold) -> None:
        """Fold what was folded so far once more."""
        before = self.get(name)
        self[name] = fold if before is None else lambda part, at: fold(before(part, at), at)

    def apply(self, name: str, part: Tensor, at: slice | Tensor) -> Tensor:
        """A part of a matrix, folded."""
        fold = self.get(name)
        return part if fold is None else fold(part, at)

    def row_norms(self, name: str, rows: Tensor) -> Tensor:
        """[n] float32 lengths of a matrix' rows once they are folded; no more than some of them is copied."""
        import torch

        starts = range(0, len(rows), _ROWS_AT_ONCE)
        parts = ((slice(start, start + _ROWS_AT_ONCE), rows[start : start + _ROWS_AT_ONCE]) for start in starts)
        return torch.cat([self.apply(name, part.float(), at).norm(dim=1) for at, part in parts])


@dataclass(frozen=True, kw_only=True)
class Converted:
    """An SAE in sae-lens' terms."""

    cfg: dict[str, Any]
    state: Mapping[str, Tensor | Stored]
    """W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc [d_sae], b_dec [d_in], and what its architecture has besides."""
    gate: str | None = None
    """How latents are let through, where that is not clear from the layout alone."""
    folds: Folds = field(default_factory=Folds)
    """What W_enc and W_dec of the state still need."""
    source: Weights | None = None
    """The file that the tensors of the state are mapped from; None: they are in memory."""

    def whole(self, name: str) -> Tensor:
        """One tensor of the state on the host, folded, or as it is stored if there is nothing to fold."""
        value = self.state[name]
        tensor = value.whole() if isinstance(value, Stored) else value
        return self.folds.apply(name, tensor.float(), slice(None)) if name in self.folds else tensor


def kept_of_torch(path: Path) -> Kept:
    """See `Layout.kept`, of a torch file: an archive can be mapped, the one stream of before torch 1.6 cannot."""
    return "in parts" if zipfile.is_zipfile(path) else "at once"


def config(architecture: str, ref: SaeRef, **more: Any) -> dict[str, Any]:
    """A sae-lens configuration. Heads come flattened and activations as they are."""
    return {
        "architecture": architecture,
        "d_in": ref.d_in,
        "d_sae": ref.d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": ref.model, "hook_name": ref.hook_name},
        **more,
    }


class Weights(dict[str, "Tensor"]):
    """The tensors of a file by name, on the CPU, as they are stored, mapped where the file allows it; and its path.

    Args:
        tensors: by name.
        path: of the file.
        offsets: where the numbers of each begin in the file, as far as they lie there one after the other.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path, offsets: Mapping[str, int] | None = None) -> None:
        super().__init__(tensors)
        self.path = path
        self._starts = {tensors[name].data_ptr(): offset for name, offset in (offsets or {}).items()}

    def place_of(self, matrix: Tensor) -> Stored | None:
        """Where one of the tensors, or its transpose, lies in the file; None: it is none of them, or not known."""
        start = self._starts.get(matrix.data_ptr())
        whole = matrix.is_contiguous() or matrix.T.is_contiguous()
        if start is None or matrix.ndim != 2 or not whole:
            return None
        rows, columns = matrix.shape
        return Stored(
            path=self.path,
            offset=start,
            dtype=matrix.dtype,
            shape=(rows, columns),
            transposed=not matrix.is_contiguous(),
            whole=lambda: matrix,
        )

    @classmethod
    def of_safetensors(cls, path: Path) -> Weights:
        """All tensors of a safetensors file.

        Raises:
            TargetError: the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors, (entries, begin) = load_file(path), tensor_entries(path, MAX_HEADER)
            return cls(tensors, path, {name: begin + entries[name]["data_offsets"][0] for name in tensors})
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise TargetError(
                f"{path} is not a whole safetensors file ({str(error)[:120]}). It was cut off."
            ) from error

    @classmethod
    def of_torch(cls, path: Path) -> Weights:
        """The tensors of a torch file. `weights_only` refuses whatever could run code.

        Raises:
            TargetError: it is missing, damaged, or holds anything but named tensors.
        """
        import torch

        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=kept_of_torch(path) == "in parts")
        except Exception as error:  # torch, zipfile and its restricted reader raise some ten kinds
            first = first_line(error, 120)
            raise TargetError(
                f"{path} is not a file of plain tensors ({first}). It is not loaded: other files could run code."
            ) from error
        if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
            raise TargetError(f"{path} holds something else than named tensors. It is not loaded.")
        return cls({str(name): value for name, value in found.items()}, path)

    def pick(self, *names: str) -> Tensor:
        """The first of these tensors that is there, of a floating type.

        Raises:
            TargetError: none is.
        """
        name = next((name for name in names if name in self), None)
        if name is None:
            raise TargetError(
                f"{self.path} has no tensor {names[0]!r} (it has {', '.join(list(self)[:6])}). Is it another layout?"
            )
        value = self[name]
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise TargetError(f"{self.path} stores {name} as {kind}, not as floating-point numbers. It cannot be used.")
        return value

    def matrix(self, plain: str, linear: str) -> Tensor:
        """A matrix that is stored as x is multiplied with it, or transposed, as the weight of a torch.nn.Linear.

        Which of the two is told by the name and never by the shape: a square one has the same shape both ways.
        """
        return self.pick(plain) if plain in self else self.pick(linear, plain).T
