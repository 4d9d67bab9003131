"""Gemma Scope: `params.npz`, JumpReLU with a threshold per latent, no subtraction of b_dec at the input.

The files hold arrays and nothing else. Which layer, width and site they are of is in the names of their folders,
`gemma-scope-9b-pt-res/layer_20/width_16k/average_l0_58`.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.disk.files import MOST
from inspector.errors import TargetError
from inspector.formats.layout import Facts, Folder, Layout, Named, Refused
from inspector.formats.weights import Converted, Kept, Stored, config
from inspector.options import WIDTH_OF_LABEL
from inspector.spec import Site, hook_name_of

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.spec import SaeRef

FILE = "params.npz"
_LAYER = re.compile(r"layer_(\d+)")
_L0 = re.compile(r"average_l0_(\d+(?:\.\d+)?)")
_WIDTH = re.compile(r"width_(\d+[km]?)(?=$|[/_])")
_SITES: tuple[tuple[re.Pattern[str], Site], ...] = (
    (re.compile(r"(?:^|[-_])(?:att|attn|attention)(?:$|[-_])"), "attn"),
    (re.compile(r"(?:^|[-_])mlp(?:$|[-_])"), "mlp"),
    (re.compile(r"(?:^|[-_])(?:res|resid|residual)(?:$|[-_])"), "resid"),
)
_LONGEST_HEADER = 10_000
"""Bytes of the header of an array; numpy's limit, too."""
_ENCRYPTED = 0x1
"""Flag of a member of an archive."""
_LOWER = {"w_enc": "W_enc", "w_dec": "W_dec"}
"""Some files spell the matrices so."""


def site_of(name: str) -> Site | None:
    """The site that a folder's or repository's name ends in: -res, -mlp, -att."""
    return next((site for pattern, site in _SITES if pattern.search(name)), None)


def _facts(folder: Folder) -> Facts:
    if any("transcoder" in part for part in folder.parts):
        raise Refused(f"{folder.path} is a transcoder by its name: it does not reconstruct its own input.")
    path = folder.path / FILE
    with _damage_told(), zipfile.ZipFile(path) as archive:
        member = next((name for name in ("W_enc.npy", "w_enc.npy") if name in archive.namelist()), None)
        if member is None:
            raise ValueError(f"{FILE} has no W_enc")
        with archive.open(member) as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("W_enc is no array")
            wide = file.read(2)[0] > 1
            (length,) = struct.unpack("<I" if wide else "<H", file.read(4 if wide else 2))
            if length > _LONGEST_HEADER:
                raise ValueError("the header of W_enc is too long")
            header = ast.literal_eval(file.read(length).decode("latin1"))
    d_in, d_sae = header["shape"]
    if not all(type(size) is int and 0 < size < MOST for size in (d_in, d_sae)):
        raise ValueError(f"W_enc has the shape {d_in!r} x {d_sae!r}")
    hook_name, notes = _hook(folder)
    return Facts(d_in=int(d_in), d_sae=int(d_sae), hook_name=hook_name, weights=path, l0=_l0(folder.parts), notes=notes)


def _l0(parts: Sequence[str]) -> float | None:
    """From the last folder that is called average_l0_N."""
    found = [float(match[1]) for part in parts if (match := _L0.fullmatch(part))]
    return found[-1] if found else None


def _hook(folder: Folder) -> tuple[str | None, tuple[str, ...]]:
    """From the nearest folder that is called layer_N, and from the nearest that names a site."""
    if any(part == "embedding" for part in folder.parts):
        return "hook_embed", ()
    layer = next((int(found[1]) for part in reversed(folder.parts) if (found := _LAYER.fullmatch(part))), None)
    if layer is None:
        return None, ()
    site = next((site for part in reversed(folder.parts) if (site := site_of(part))), None)
    if site is None:
        hook_name = hook_name_of("resid", layer)
        assumed = f"No folder's name says which site {folder.name} reads; {hook_name} is assumed. --hook says another."
        return hook_name, (assumed,)
    return hook_name_of(site, layer), ()


def _named(repo: str, path: str, _sae_id: str, _release: str) -> Named:
    if "transcoder" in repo:
        return Named(refused="a transcoder: it does not reconstruct its own input")
    width = _WIDTH.search(path)
    match, site = re.match(r"layer_(\d+)/", path), site_of(repo.rpartition("/")[2])
    hook_name = hook_name_of(site, int(match[1])) if match and site else None
    return Named(
        hook_name="hook_embed" if path.startswith("embedding") else hook_name,
        d_sae=WIDTH_OF_LABEL.get(width[1]) if width else None,
        nominal_l0=_l0(path.split("/")),
    )


def _model(repo: str, model: str) -> str:
    """gemma-scope-9b-it-res names the base model, but its repository and its canonical twin the instruct one."""
    return f"{model}-it" if "-it-" in repo and not model.endswith("-it") else model


def _read(ref: SaeRef, folder: Path, _gate: str) -> Converted:
    path = folder / FILE
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
            state: dict[str, Tensor | Stored] = {}
            for name, shape in wanted.items():
                place = _place(members[name], shape, path) if len(shape) == 2 else None
                state[name] = _array(archive, members[name], shape, path) if place is None else place
    except FileNotFoundError as error:
        raise TargetError(f"There is no {path}. The SAE was moved or deleted after it was listed.") from error
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise TargetError(f"{path} is not a whole npz file ({str(error)[:120]}). It was cut off.") from error
    return Converted(cfg=config("jumprelu", ref), state=state)


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Python's parser calls a header of brackets a lack of memory, and zipfile calls a password a runtime error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        raise ValueError(f"its headers cannot be read ({type(error).__name__})") from error


def _name(member: str) -> str:
    stem = member.removesuffix(".npy")
    return _LOWER.get(stem, stem)


def _kept(folder: Path) -> Kept:
    try:
        with zipfile.ZipFile(folder / FILE) as archive:
            packed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        packed = True  # what is wrong with it is said when it is read
    return "at once" if packed else "in parts"


def _place(info: zipfile.ZipInfo, shape: tuple[int, ...], path: Path) -> Stored | None:
    """Where a matrix lies in the file; None: it is packed, or another array than it must be."""
    import numpy as np
    import torch
    from numpy.lib import format as npy

    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        return None
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            return None
        file.seek(sum(struct.unpack("<HH", local[26:30])), os.SEEK_CUR)
        begin = file.tell()
        with _damage_told():
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
        offset = file.tell()
    found, transposed, dtype = header
    types = {np.dtype("<f2"): torch.float16, np.dtype("<f4"): torch.float32, np.dtype("<f8"): torch.float64}
    if (
        tuple(found) != shape
        or dtype not in types
        or offset - begin + dtype.itemsize * math.prod(shape) > info.file_size
    ):
        return None

    def whole() -> Tensor:
        with zipfile.ZipFile(path) as archive:
            return _array(archive, info, shape, path)

    rows, columns = shape
    return Stored(
        path=path, offset=offset, dtype=types[dtype], shape=(rows, columns), transposed=bool(transposed), whole=whole
    )


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, ...], path: Path) -> Tensor:
    """One array, after its header was found to be what it must be.

    Read by numpy piece by piece into one array: the whole of its bytes and a copy would need three times the memory of
    a 1M-latent SAE.
    """
    import numpy as np
    import torch
    from numpy.lib import format as npy

    with _damage_told(), archive.open(info) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    found, _, dtype = header
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise TargetError(
            f"{path} stores {info.filename} as {dtype}, not as floating-point numbers. It cannot be used."
        )
    if tuple(found) != shape:
        raise TargetError(
            f"{path} has {info.filename} of shape {list(found)} instead of {list(shape)}. "
            "It is another SAE's, or damaged."
        )
    short = TargetError(f"{path} ends within {info.filename}. It was cut off.")
    if int(np.prod(shape)) * dtype.itemsize > info.file_size:  # before there is memory for what will not come
        raise short
    with _damage_told(), archive.open(info) as file:
        try:
            array = npy.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise short from error
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


LAYOUTS = (
    Layout(
        name="gemma-scope",
        files=(FILE,),
        facts=_facts,
        read=_read,
        conversions=("gemma_2",),
        named=_named,
        model_of=_model,
        is_family=True,
        stored_bytes=4,
        kept=_kept,
        loading_halves=0,  # arrays are read to where they stay
    ),
)
