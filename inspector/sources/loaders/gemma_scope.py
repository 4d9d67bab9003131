"""Gemma Scope: `params.npz` of five float32 arrays. JumpReLU with a threshold per latent, no `b_dec` at the input.

An npz file is a zip of arrays, and an array may be a pickle: sizes and types are read from the headers and compared
with what the SAE must have before any array is.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted, config
from inspector.spec import SaeRef

FILES = layouts.FILES["gemma-scope"]
NAMES = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
_LOWER = {"w_enc": "W_enc", "w_dec": "W_dec"}
"""Some of the files spell the matrices so."""


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder; see the module.

    Raises:
        TargetError: the file is missing, damaged, or holds anything but these arrays.
    """
    path = folder / FILES[0]
    wanted = {
        "W_enc": (ref.d_in, ref.d_sae),
        "W_dec": (ref.d_sae, ref.d_in),
        "b_enc": (ref.d_sae,),
        "b_dec": (ref.d_in,),
        "threshold": (ref.d_sae,),
    }
    try:
        with zipfile.ZipFile(path) as archive:
            members = {_name(info.filename): info for info in archive.infolist()}
            missing = [name for name in wanted if name not in members]
            if missing:
                raise TargetError(
                    f"{path} has no array {missing[0]!r}. It is not an SAE of Gemma Scope, or was cut off."
                )
            state = {name: _array(archive, members[name], shape, path) for name, shape in wanted.items()}
    except FileNotFoundError as error:
        raise TargetError(f"There is no {path}. Fetch the SAE again.") from error
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise TargetError(f"{path} is not a whole npz file ({str(error)[:120]}). Fetch it again.") from error
    return Converted(
        cfg=config("jumprelu", d_in=ref.d_in, d_sae=ref.d_sae, hook_name=ref.hook_name, model=ref.model), state=state
    )


def _name(member: str) -> str:
    stem = member.removesuffix(".npy")
    return _LOWER.get(stem, stem)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, ...], path: Path) -> Tensor:
    """One array, after its header was found to be what it must be."""
    with archive.open(info) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
        found, fortran, dtype = header
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise TargetError(
                f"{path} stores {info.filename} as {dtype}, not as floating-point numbers. Fetch it again."
            )
        if tuple(found) != shape:
            raise TargetError(
                f"{path} has {info.filename} of shape {list(found)} instead of {list(shape)}. "
                "It is another SAE's, or damaged; fetch it again."
            )
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        # Into one buffer: read() of the whole and a copy of it would need three times the memory of a 1M-latent SAE.
        buffer = bytearray(n_bytes)
        view, done = memoryview(buffer), 0
        while done < n_bytes:
            part = file.read(min(1 << 24, n_bytes - done))
            if not part:
                raise TargetError(f"{path} ends within {info.filename}. Fetch it again.")
            view[done : done + len(part)] = part
            done += len(part)
    array = np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
