"""The vectors behind the per-token table: x, the SAE error and its two parts, in a safetensors file.

They are `d` times the size of the table, so no more than one context's is ever held. The header of the format says
where each tensor begins, so it is written first, and every row goes to its place.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from inspector.disk.tensors import header_of
from inspector.errors import ResourceError
from inspector.training.error_saes import map_hash

if TYPE_CHECKING:
    from inspector.engine.decomposition import Decomposition
    from inspector.engine.regression import LinearMap
    from inspector.sources.activations import ActivationBatch

VectorKind = Literal["x", "error", "linear", "nonlinear"]
KINDS: tuple[VectorKind, ...] = get_args(VectorKind)
"""x; x - x_hat; what the map predicts of it; what is left. x = x_hat + linear + nonlinear."""
_PARTS: dict[VectorKind, str] = {
    "x": "x", "error": "sae_error", "linear": "linear_error", "nonlinear": "nonlinear_error"
}  # fmt: skip
"""What a kind is called in a `Decomposition`."""
FORMAT = "dm-inspect error vectors 1"
INDEX = ("context", "position", "token_id")
"""[tokens] int64 each, as in the per-token table."""
SPLITS = ("excluded", "train", "test")
"""Of the tensor `split` [tokens] uint8."""
DEFINITION = (
    "error = x - x_hat; linear = W x + b, the affine map of x to error that was fitted on the tokens whose split is 1; "
    "nonlinear = error - linear. Row i of every tensor is the same token."
)
_SPARE = 64 << 20
"""Bytes that must be left on the disk."""


def names_of(kinds: Sequence[VectorKind], sae_ids: Sequence[str]) -> list[str]:
    """Names of the tensors [tokens, d]: 'x', and 'error/SAE' and so on for each SAE."""
    names = ["x"] if "x" in kinds else []
    return names + [f"{kind}/{sae_id}" for sae_id in sae_ids for kind in kinds if kind != "x"]


def size_of(kinds: Sequence[VectorKind], sae_ids: Sequence[str], n_tokens: int, d: int) -> int:
    """Bytes of the file, but for its header."""
    return n_tokens * (4 * d * len(names_of(kinds, sae_ids)) + 8 * len(INDEX) + 1)


def require_room(path: Path, n_bytes: int, name: str) -> None:
    """Before anything is computed for it.

    Raises:
        ResourceError: the disk has less room than a file of so many bytes takes.
    """
    free = shutil.disk_usage(path.parent).free
    if n_bytes + _SPARE > free:
        raise ResourceError(
            f"{name} would take {n_bytes / 1e6:,.0f} MB of the {free / 1e6:,.0f} MB left on its disk, where "
            f"{_SPARE / 1e6:.0f} MB are to stay free. Take fewer SAEs, --contexts or --vectors, or another disk."
        )


class VectorFile:
    """A file under way. It takes the vectors in the order of the table, in which each token has a row per SAE.

    Args:
        path: where it is written; the caller moves it to its place when it is whole.
        kinds: of vectors.
        sae_ids: in the order of the table.
        d: width of x.
        about: what its metadata say beside what this class knows.
        name: of the file, for errors.
    """

    def __init__(
        self,
        path: Path,
        kinds: Sequence[VectorKind],
        sae_ids: Sequence[str],
        d: int,
        about: Mapping[str, Any],
        *,
        name: str,
    ) -> None:
        self._name = name
        self._path, self._kinds, self._sae_ids, self._d, self._about = path, kinds, sae_ids, d, about
        self._file: IO[bytes] | None = None
        self._places: dict[str, int] = {}
        self._first = self._n_here = 0
        self._n_tokens = 0

    def begin(self, n_tokens: int, maps: Mapping[str, LinearMap]) -> None:
        """Write the header: so many tokens will come, and these maps are applied to them."""
        require_room(self._path, size_of(self._kinds, self._sae_ids, n_tokens, self._d), self._name)
        self._n_tokens = n_tokens
        types: dict[str, tuple[str, list[int]]] = {name: ("I64", [n_tokens]) for name in INDEX}
        types |= {name: ("F32", [n_tokens, self._d]) for name in names_of(self._kinds, self._sae_ids)}
        types["split"] = ("U8", [n_tokens])
        header, self._places, n_bytes = header_of(types, self._metadata(maps))
        with self._told():
            self._file = self._path.open("wb")
            self._file.write(header)
            self._file.truncate(n_bytes)

    def tokens(self, batch: ActivationBatch, splits: Tensor) -> None:
        """The next tokens, with 0 for excluded, 1 for train, 2 for test; their SAEs follow."""
        self._first += self._n_here
        self._n_here = len(splits)
        for name, values in zip(INDEX, (batch.contexts, batch.positions, batch.token_ids), strict=True):
            self._rows(name, values.to(torch.int64))
        self._rows("split", splits.to(torch.uint8))

    def take(self, sae_id: str, parts: Decomposition) -> None:
        """One SAE's vectors of these tokens."""
        for kind in self._kinds:
            if kind != "x" or sae_id == self._sae_ids[0]:
                name = kind if kind == "x" else f"{kind}/{sae_id}"
                self._rows(name, getattr(parts, _PARTS[kind]).to(torch.float32))

    def close(self) -> None:
        """No more will come."""
        file, self._file = self._file, None
        if file is not None:
            with self._told():
                file.close()

    def finish(self) -> int:
        """Close the file, which is whole; returns its number of bytes."""
        assert self._first + self._n_here == self._n_tokens, "every token that was announced has come"
        self.close()
        return self._path.stat().st_size

    def _rows(self, name: str, values: Tensor) -> None:
        assert self._file is not None, "begin comes first"
        raw = values.detach().cpu().contiguous().numpy()
        assert len(raw) == self._n_here
        with self._told():
            self._file.seek(self._places[name] + self._first * (raw.nbytes // max(1, len(raw))))
            self._file.write(raw.data)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """An error of the disk as one sentence, with the name of the file."""
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{self._name} could not be written: {error.strerror}. Make room there, or choose another place."
            ) from error

    def _metadata(self, maps: Mapping[str, LinearMap]) -> dict[str, str]:
        fitted = {
            sae_id: {
                "sha256": map_hash(found),
                "n_train": found.n_train,
                "intercept": found.intercept,
                "effective_rank": found.effective_rank,
            }
            for sae_id, found in maps.items()
        }
        about = {
            "format": FORMAT, "definition": DEFINITION, "splits": SPLITS, "saes": list(self._sae_ids), "maps": fitted,
            **self._about,
        }  # fmt: skip
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
