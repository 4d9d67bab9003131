"""npz and safetensors files whose headers lie: one sentence, soon, and no memory for what never comes."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.errors import TargetError
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite, survey

D_IN, D_SAE = 16, 64
SHAPES = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,), "threshold": (D_SAE,)}


def place(root: Path) -> Path:
    folder = root / "gemma-scope-res" / "layer_1" / "width_64" / "average_l0_4"
    folder.mkdir(parents=True)
    return folder


def array(shape: object, descr: str = "<f4", data: bytes | None = None) -> bytes:
    """A numpy array whose header says anything; `shape` may be the whole header as text."""
    text = shape if isinstance(shape, str) else f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    raw = text.encode("latin1")
    body = bytes(4 * D_IN * D_SAE) if data is None else data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + body


def npz(folder: Path, how: int = zipfile.ZIP_STORED, **instead: bytes) -> Path:
    """A whole file, but for the members given."""
    path = folder / "params.npz"
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, shape in SHAPES.items():
            whole = io.BytesIO()
            np.save(whole, np.zeros(shape, np.float32))
            archive.writestr(f"{name}.npy", instead.get(name, whole.getvalue()))
    return path


def load(root: Path) -> None:
    for ref in list_suite(root):
        load_sae(ref, torch.device("cpu"), D_IN)


@pytest.mark.parametrize(
    "header",
    [
        *(array(shape) for shape in ((10**9, 10**9), (-16, 64), (16, 10**30), (16,), (0, 64), (16.5, 64), None, "ab")),
        *(array(text) for text in ("(" * 9000, "-" * 9000 + "1", "{" * 9000, "__import__('os').abort()", "1" * 9000)),
        *(array((D_IN, D_SAE), descr) for descr in ("|O", "<i4", "<U8", "|V4", "<c8", "x")),
        array("{'shape': (16, 64), " + " " * 60_000 + "}"),
        array((D_IN, D_SAE), data=b"short"),
        b"",
        b"\x93NUMPY\x01\x00\xff\xff",
    ],
)
@pytest.mark.parametrize("name", ["W_enc", "threshold"])
def test_an_npz_array_that_lies_is_refused(tmp_path: Path, name: str, header: bytes) -> None:
    npz(place(tmp_path), **{name: header})
    with pytest.raises(TargetError):
        load(tmp_path)


def test_a_password_is_said(tmp_path: Path) -> None:
    path = npz(place(tmp_path))
    raw, at = bytearray(path.read_bytes()), 0
    while (at := raw.find(b"PK\x01\x02", at)) >= 0:
        raw[at + 8] |= 1
        at += 4
    path.write_bytes(raw)
    with pytest.raises(TargetError, match="its headers cannot be read"):
        load(tmp_path)


def test_memory_is_taken_only_for_what_is_there(tmp_path: Path) -> None:
    """All five arrays say 2**28 latents; the file has 5 kB. Traced is what Python and numpy allocate."""
    many = 1 << 28
    said = {"W_enc": (D_IN, many), "W_dec": (many, D_IN), "b_enc": (many,), "b_dec": (D_IN,), "threshold": (many,)}
    npz(place(tmp_path), zipfile.ZIP_DEFLATED, **{name: array(shape) for name, shape in said.items()})
    tracemalloc.start()
    try:
        with pytest.raises(TargetError, match="ends within"):
            load(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def safetensors(folder: Path, header: object, size: int = 8512) -> Path:
    cfg = {"d_in": D_IN, "d_sae": D_SAE, "hook_name": "blocks.1.hook_resid_post", "architecture": "topk", "k": 4}
    (folder / "cfg.json").write_text(json.dumps({**cfg, "dtype": "float32"}))
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "sae_weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(size))
    return path


def entries() -> dict[str, dict[str, object]]:
    found, at = {}, 0
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        end = at + 4 * int(np.prod(SHAPES[name]))
        found[name] = {"dtype": "F32", "shape": list(SHAPES[name]), "data_offsets": [at, end]}
        at = end
    return found


def test_the_whole_file_is_read(tmp_path: Path) -> None:
    """Or the refusals below would prove nothing."""
    safetensors(place(tmp_path), entries())
    load(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        *({"shape": shape} for shape in ([10**12, 10**12], [-16, 64], [2**63, 2], [16], "ab", None)),
        *({"data_offsets": ends} for ends in ([10**15, 10**15 + 4096], [0, 4], [4096, 0], [], "x")),
        *({"dtype": kind} for kind in ("X", "I32", None, 3)),
    ],
)
def test_a_safetensors_entry_that_lies_is_refused(tmp_path: Path, entry: dict[str, object]) -> None:
    header = entries()
    header["W_enc"] |= entry
    safetensors(place(tmp_path), header)
    with pytest.raises(TargetError):
        load(tmp_path)


@pytest.mark.parametrize("raw", [b"\x7b\x22a\x22:" * 100_000, b"[]", b"null", b"", b"\xff"])
def test_a_safetensors_header_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = safetensors(place(tmp_path), raw)
    with pytest.raises(TargetError):
        load(tmp_path)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(TargetError):
        load(tmp_path)


@pytest.mark.parametrize(("name", "about"), [("params.npz", None), ("params.safetensors", "config.json")])
def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path, name: str, about: str | None) -> None:
    """These layouts open their weights for a list, and opening a pipe waits for whoever writes."""
    folder = place(tmp_path)
    os.mkfifo(folder / name)
    if about:
        (folder / about).write_text(json.dumps({"architecture": "jump_relu"}))
    with pytest.raises(TargetError, match="is not a regular file"):
        list_suite(tmp_path)


def test_a_link_to_weights_that_are_gone_is_one_row_and_the_others_load(tmp_path: Path) -> None:
    """As a cache leaves behind whose large files were pruned."""
    safetensors(place(tmp_path), entries())
    gone = safetensors(place(tmp_path / "gone"), entries())
    gone.unlink()
    gone.symlink_to(tmp_path / "nothing")
    found = survey(tmp_path)
    assert len(found.refs) == 1
    assert [f"{gone} is not there, or is a link to nothing" in each.reason for each in found.refused] == [True]


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_flipped_bits_in_headers_end_in_a_sentence_or_in_an_sae(tmp_path: Path, kind: str) -> None:
    """Seeded; never another exception, whatever the bits say."""
    folder, chance = place(tmp_path), random.Random(kind)
    path = npz(folder) if kind == "npz" else safetensors(folder, entries())
    raw, n_refused = path.read_bytes(), 0
    for _ in range(60):
        changed = bytearray(raw)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(600)] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            load(tmp_path)
        except TargetError:
            n_refused += 1
    assert n_refused > 20
