"""Tensors in a safetensors file whose checksum is known as it is written.

Written here tensor by tensor, and not by the library, for two reasons: nothing of the size of all of them is held
beside them, and a full disk is an error of the operating system with its number. The library reads it: what is on disk
is its format (a length, a JSON header, the numbers).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inspector.disk.files import require_file, writing_whole
from inspector.disk.sealed import file_digest

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_SIZES = {name: dtype.itemsize for dtype, name in _NAMES.items()}


def header_of(
    tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int], int]:
    """The first bytes of a file, where each tensor begins in it, and how many bytes it has in all.

    Args:
        tensors: type, in the words of the format, and shape of each, in the order they lie.
        metadata: texts by name.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + _SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8, as the format wants
    first = 8 + len(text)
    return (
        len(text).to_bytes(8, "little") + text,
        {n: first + header[n]["data_offsets"][0] for n in tensors},
        first + end,
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write them, whole or not at all; returns the sha256 of the file.

    Args:
        path: of the file.
        tensors: by name, on any device, of the types in _NAMES.

    Raises:
        ResourceError: the disk is full or cannot be written to.
    """
    header, _, _ = header_of({name: (_NAMES[values.dtype], values.shape) for name, values in tensors.items()})
    digest = hashlib.sha256(header)
    with writing_whole(path) as file:
        file.write(header)
        for values in tensors.values():
            raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            digest.update(raw)
            file.write(raw)
    return digest.hexdigest()


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own on the CPU.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not the file with this checksum.
    """
    if file_digest(path) != sha256:
        raise ValueError("its checksum does not fit")
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            # Cloned: memory that torch gave is aligned, and some matrix products depend on that in their last bit.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file ({error})") from error
