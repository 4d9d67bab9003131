"""SAEs that take turns: every number is that of an SAE that stays, one is there at a time, files may not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.errors import TargetError
from inspector.formats import read_ref, recognise
from inspector.sources import memory_sizes
from inspector.sources import sae_loading as sae_module
from inspector.sources.model_files import ModelFiles
from inspector.sources.sae import LoadedSae, Stage, StreamedSae
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from inspector.spec import SaeRef
from tests.checkpoints import D_IN, WRITERS, weights
from tests.toy import write_toy_sae

CPU = torch.device("cpu")


def ref_of(folder: Path) -> SaeRef:
    if (folder / "sae_weights.safetensors").is_file():
        return list_suite(folder)[0]
    kind = recognise([path.name for path in folder.iterdir()])
    assert kind is not None
    return read_ref(kind, folder, folder)


def some_x(d: int = D_IN, n: int = 300) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["files", "memory"])
def kept_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where streamed SAEs wait. With the CPU as the device they wait in files; a GPU's are in the host's memory."""
    if request.param == "memory":
        real = sae_module.load_sae

        def in_memory(ref: SaeRef, device: torch.device, d_in: int, *, stage: Stage, **more: Any) -> LoadedSae:
            made = real(ref, device, d_in, stage=stage, **more)
            module, gate = sae_module._read_or_explain(ref, device, more.get("llama_gate", "published"))
            return StreamedSae(ref, module, device=device, stage=stage, read=None, notes=made.notes, gate=gate)

        monkeypatch.setattr(sae_module, "load_sae", in_memory)
    return str(request.param)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_numbers_are_those_of_an_sae_that_stays(layout: str, tmp_path: Path, kept_in: str) -> None:
    folder, _ = WRITERS[layout](tmp_path, weights())
    ref = ref_of(folder)
    stays = load_sae(ref, CPU, D_IN)
    turns = sae_module.load_sae(ref, CPU, D_IN, stage=Stage())
    x = some_x()
    expected, found = stays.reconstruct(x), turns.reconstruct(x)
    assert torch.equal(found.x_hat, expected.x_hat)
    assert torch.equal(found.l0, expected.l0)
    assert turns.active_latents(x[0]) == stays.active_latents(x[0])
    assert all(torch.equal(a, b) for a, b in zip(turns.decoder, stays.decoder, strict=True))
    assert (turns.notes, turns.gate, turns.model_name, turns.chunk_tokens, turns.weights_hash) == (
        stays.notes,
        stays.gate,
        stays.model_name,
        stays.chunk_tokens,
        stays.weights_hash,
    )


@pytest.fixture
def two(tmp_path: Path) -> list[SaeRef]:
    return [
        ref_of(write_toy_sae(tmp_path / f"w{d_sae}", d_in=D_IN, d_sae=d_sae, k=4, hook_name="blocks.1.hook_resid_post"))
        for d_sae in (32, 64)
    ]


def test_one_at_a_time_is_there(two: list[SaeRef], kept_in: str) -> None:
    stage = Stage()
    saes = [sae_module.load_sae(ref, CPU, D_IN, stage=stage) for ref in two]
    assert stage.n_turns == 0
    x = some_x()
    for turn in range(3):
        for i, sae in enumerate(saes):
            assert isinstance(sae, StreamedSae)
            sae.reconstruct(x)
            sae.reconstruct(x)  # still there
            assert stage.n_turns == 2 * turn + i + 1
            assert [other.is_here for other in saes if isinstance(other, StreamedSae)] == [i == 0, i == 1]
            if kept_in == "files":
                assert [other._module is None for other in saes] == [i == 1, i == 0]
    stage.clear()
    assert not any(sae.is_here for sae in saes if isinstance(sae, StreamedSae))


def test_turns_taken_between_two_chunks_change_nothing(
    two: list[SaeRef], kept_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()
    saes = [sae_module.load_sae(ref, CPU, D_IN, stage=stage) for ref in two]
    alone = [load_sae(ref, CPU, D_IN) for ref in two]
    for sae in (*saes, *alone):
        sae.chunk_tokens = 64
    x = some_x()
    for (rows, latents), (_, others), (_, expected), (_, wanted) in zip(
        *(sae.chunks(x) for sae in (*saes, *alone)), strict=True
    ):
        assert torch.equal(latents, expected) and torch.equal(others, wanted)
        assert torch.equal(saes[0].decode(latents), alone[0].decode(expected)), rows


def test_in_a_gradient_free_pass_and_out_of_it(two: list[SaeRef], kept_in: str) -> None:
    """Weights come and go inside and outside of inference mode; a parameter of one cannot be changed in the other."""
    stage = Stage()
    first, second = (sae_module.load_sae(ref, CPU, D_IN, stage=stage) for ref in two)
    x = some_x()
    with torch.inference_mode():
        first.reconstruct(x)
        second.reconstruct(x)
    first.reconstruct(x)
    with torch.inference_mode():
        second.reconstruct(x)
    first.decoder[0].mul(2.0)


def test_files_that_change_while_in_use_are_refused(two: list[SaeRef]) -> None:
    sae = load_sae(two[0], CPU, D_IN, stage=Stage())
    path = Path(two[0].path or "") / "sae_weights.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw + b" ")
    with pytest.raises(TargetError, match="changed while it was in use"):
        sae.reconstruct(some_x())


def test_a_damaged_sae_is_refused_when_it_is_loaded_and_not_at_its_turn(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_toy_sae(tmp_path / "a", d_in=D_IN, d_sae=32, k=4, hook_name="blocks.1.hook_resid_post")
    path = folder / "sae_weights.safetensors"
    stored = load_file(path)
    stored["W_dec"][3, 4] = float("nan")
    save_file(stored, path)
    with pytest.raises(TargetError, match="not finite"):
        load_sae(ref_of(folder), CPU, D_IN, stage=Stage())


# ---- sizes ----------------------------------------------------------------------------------------------------------


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
