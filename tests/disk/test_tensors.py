"""Tensors on disk in the library's own format, and not one byte of the file may change."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inspector.disk.sealed import file_digest
from inspector.disk.tensors import read_tensors, write_tensors
from inspector.errors import ResourceError


def some() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return {
        "wide": torch.randn(3, 5, dtype=torch.float64, generator=made),
        "turned": torch.randn(4, 3, generator=made).T,
        "counts": torch.tensor([1, -(2**40)]),
        "small": torch.tensor([7], dtype=torch.int32),
        "seen": torch.tensor([True, False, True]),
        "one": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 4, dtype=torch.float64),
    }


def test_they_come_back_in_every_bit_and_the_library_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "some.safetensors"
    sha256 = write_tensors(path, some())
    assert sha256 == file_digest(path)
    for found in (read_tensors(path, sha256), load_file(path)):
        assert found.keys() == some().keys()
        for name, values in some().items():
            assert found[name].dtype == values.dtype and found[name].shape == values.shape
            assert torch.equal(found[name], values)
    assert [each.name for each in path.parent.iterdir()] == ["some.safetensors"]
    assert all(values.data_ptr() % 16 == 0 for values in read_tensors(path, sha256).values())
    assert read_tensors(path, write_tensors(path, {})) == {}


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    sha256 = write_tensors(path, some())
    raw = path.read_bytes()
    chance = random.Random(1)
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="its checksum does not fit"):
            read_tensors(path, sha256)


def test_a_file_that_was_never_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(b"not tensors at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_tensors(path, file_digest(path))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.safetensors"
    sha256 = write_tensors(path, some())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        write_tensors(path, {"other": torch.ones(3)})
    assert read_tensors(path, sha256).keys() == some().keys()
    assert [each.name for each in tmp_path.iterdir()] == ["some.safetensors"]
