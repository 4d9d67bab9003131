"""Sizes that a memory plan is made from: headers and configurations are not trusted, a container's limit counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.errors import TargetError
from inspector.sources import memory_sizes
from inspector.sources.model_files import ModelFiles


def files_of(path: Path) -> ModelFiles:
    return ModelFiles(name="m", directory=path.parent, config={}, weights=(path,))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 8,
        (5).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (8).to_bytes(8, "little") + b'{"a": 1}',
        (40).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [-1, 3]}}'[:40],
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_a_header_that_is_none_is_said(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(TargetError, match=r"model\.safetensors"):
        memory_sizes.n_parameters(files_of(path))


def test_negative_and_huge_shapes_are_said(tmp_path: Path) -> None:
    for shape in ("[-1, 3]", "[1.5]", "[true]", f"[{2**70}]", '"x"', "{}"):
        header = f'{{"a": {{"dtype": "F32", "shape": {shape}}}}}'.encode()
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(TargetError, match="has a tensor of shape"):
            memory_sizes.n_parameters(files_of(path))


def test_sizes_of_a_configuration_are_not_trusted() -> None:
    for value in (-4, 0, 2**70, True, 1.5, "12", None, [12]):
        assert memory_sizes._known({"num_attention_heads": value}, ("num_attention_heads",)) == 0
    assert memory_sizes._known({"n_head": 12}, ("num_attention_heads", "n_head")) == 12
    assert memory_sizes._known({"text_config": {"n_head": 12}}, ("n_head",)) == 12


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "groups" / "mine"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("900000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    (tmp_path / "groups" / "memory.max").write_text("max\n")
    (tmp_path / "cgroup").write_text("0::/mine\n")
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:     4096 kB\n")
    known: dict[str, Path] = {
        "/proc/meminfo": tmp_path / "meminfo",
        "/proc/self/cgroup": tmp_path / "cgroup",
        "/sys/fs/cgroup": tmp_path / "groups",
    }
    path_of: Callable[..., Path] = lambda *parts: known.get(str(parts[0]), Path(*parts))  # noqa: E731
    monkeypatch.setattr(memory_sizes, "Path", path_of)
    assert memory_sizes.host_free() == 150_000
    (group / "memory.max").write_text("max\n")
    assert memory_sizes.host_free() == 4096 * 1024
    (tmp_path / "cgroup").unlink()
    (tmp_path / "meminfo").write_text("nonsense")
    assert memory_sizes.host_free() > 1 << 28  # all of the machine's
