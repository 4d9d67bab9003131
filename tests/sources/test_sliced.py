"""SAEs in slices of latents: every layout and architecture gives the whole SAE's numbers and active latents, from the
host's memory and from its files, whatever the slices' size; files may not change, and what is damaged is said.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import ResourceError, TargetError
from inspector.formats import layout_of
from inspector.sources.memory_sums import latents_per_slice
from inspector.sources.sae import LoadedSae, largest
from inspector.sources.sae_loading import load_sae
from inspector.sources.sliced import SlicedSae
from inspector.sources.slices import Slices
from inspector.sources.suites import list_suite
from inspector.spec import SaeRef
from tests.checkpoints import D_IN, D_SAE, WRITERS, K, Reference, Weights, tensor, weights, write_gemma_scope

CPU = torch.device("cpu")
HOOK = "blocks.1.hook_resid_post"
SLICES = (4, 7, 17, 64)
"""Latents in float32: of sizes that do not divide 40, and of more than there are."""
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
"""Sums of forty numbers of size one, in another order."""


@dataclass(frozen=True)
class Case:
    """An SAE on disk."""

    ref: SaeRef
    in_parts: bool = True


def listed(folder: Path) -> SaeRef:
    (ref,) = list_suite(folder)
    return ref


def sae_lens(folder: Path, architecture: str, dtype: torch.dtype = torch.float32, **more: Any) -> SaeRef:
    w, rng = weights(), np.random.default_rng(5)
    state = {name: tensor(value, dtype) for name, value in vars(w).items()}
    state = {"W_enc": state["w_enc"], "W_dec": state["w_dec"], "b_enc": state["b_enc"], "b_dec": state["b_dec"]}
    vector = tensor(0.2 * rng.standard_normal(D_SAE), dtype)
    cfg: dict[str, Any] = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "hook_name": HOOK}
    match architecture:
        case "jumprelu":
            state["threshold"] = tensor(w.threshold, dtype)
        case "gated":
            state |= {"b_gate": vector, "b_mag": state.pop("b_enc"), "r_mag": vector.flip(0).contiguous()}
        case "topk":
            cfg["k"] = K
        case "batchtopk":
            state["topk_threshold"] = torch.tensor(0.5)
            cfg["k"] = K
    if more.get("finetuning_scaling_factor"):
        state["finetuning_scaling_factor"] = 1.0 + vector
    folder.mkdir(parents=True)
    save_file(state, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg | {"apply_b_dec_to_input": True} | more))
    return listed(folder)


def npz(root: Path, save: Callable[..., None], change: Callable[[np.ndarray], np.ndarray]) -> SaeRef:
    folder, _ = write_gemma_scope(root, weights())
    with np.load(folder / "params.npz") as found:
        arrays = {name: change(found[name]) for name in found}
    save(folder / "params.npz", **arrays)
    return listed(root)


def torch_file(layout: str, repo: str, root: Path, state: dict[str, torch.Tensor], *, old: bool = False) -> SaeRef:
    root.mkdir(exist_ok=True)
    path = root / "sae.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    return SaeRef(
        sae_id="s", release="r", layer=1, hook_name=HOOK, d_in=D_IN, d_sae=D_SAE, format=layout, repo=repo,
        path=str(path),
    )  # fmt: skip


def linear(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    w = weights()
    return {
        "encoder.weight": tensor(w.w_enc.T, dtype), "decoder.weight": tensor(w.w_dec.T, dtype),
        "encoder.bias": tensor(w.b_enc, dtype), "decoder.bias": tensor(w.b_dec, dtype),
    }  # fmt: skip


def qwen(root: Path, **more: Any) -> SaeRef:
    w = weights()
    state = {"W_enc": tensor(w.w_enc.T), "W_dec": tensor(w.w_dec.T), "b_enc": tensor(w.b_enc), "b_dec": tensor(w.b_dec)}
    return torch_file("qwen-scope", f"Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_{K}", root, state, **more)


def from_registry(root: Path) -> SaeRef:
    ref = sae_lens(root, "standard", normalize_activations="expected_average_only_in")
    return replace(ref, norm_factor=1.7)


def published(write: Callable[[Path, Weights], tuple[Path, Reference]]) -> Callable[[Path], Case]:
    return lambda root: Case(listed(write(root, weights())[0]))


CASES: dict[str, Callable[[Path], Case]] = {
    **{layout: published(write) for layout, write in WRITERS.items()},
    "sae-lens standard": lambda root: Case(sae_lens(root / "a", "standard")),
    "sae-lens gated": lambda root: Case(sae_lens(root / "a", "gated")),
    "sae-lens jumprelu": lambda root: Case(sae_lens(root / "a", "jumprelu")),
    "sae-lens topk": lambda root: Case(sae_lens(root / "a", "topk")),
    "sae-lens topk by norm": lambda root: Case(sae_lens(root / "a", "topk", rescale_acts_by_decoder_norm=True)),
    "sae-lens batchtopk": lambda root: Case(sae_lens(root / "a", "batchtopk", rescale_acts_by_decoder_norm=True)),
    "sae-lens scaled": lambda root: Case(sae_lens(root / "a", "standard", finetuning_scaling_factor=True)),
    "sae-lens data set's norm": lambda root: Case(from_registry(root / "a")),
    "sae-lens layer norm": lambda root: Case(sae_lens(root / "a", "standard", normalize_activations="layer_norm")),
    "sae-lens constant norm": lambda root: Case(
        sae_lens(root / "a", "topk", normalize_activations="constant_norm_rescale")
    ),
    "sae-lens centred": lambda root: Case(
        sae_lens(root / "a", "jumprelu", model_from_pretrained_kwargs={"center_writing_weights": True})
    ),
    "sae-lens bfloat16": lambda root: Case(sae_lens(root / "a", "jumprelu", torch.bfloat16)),
    "sae-lens float16": lambda root: Case(sae_lens(root / "a", "topk", torch.float16)),
    "npz float16": lambda root: Case(npz(root, np.savez, lambda a: a.astype(np.float16))),
    "npz float64": lambda root: Case(npz(root, np.savez, lambda a: a.astype(np.float64))),
    "npz in columns": lambda root: Case(npz(root, np.savez, np.asfortranarray)),
    "npz packed": lambda root: Case(npz(root, np.savez_compressed, np.asarray), in_parts=False),
    "qwen-scope": lambda root: Case(qwen(root)),
    "qwen-scope, one stream": lambda root: Case(qwen(root, old=True), in_parts=False),
    "deepseek-r1": lambda root: Case(torch_file("deepseek-r1", "", root, linear(torch.bfloat16))),
}  # fmt: skip
"""By name, every layout that is read here, every architecture, and what may be done to its weights on the way."""


def some_x(n: int = 300) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1))


def sliced(ref: SaeRef, n: int, *, hold: bool, spare: int = 1 << 20, **more: Any) -> SlicedSae:
    found = load_sae(ref, CPU, D_IN, slices=Slices(CPU, 4 * D_IN * n, spare), hold=hold, **more)
    assert isinstance(found, SlicedSae)
    return found


def activations(sae: LoadedSae, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([latents.clone() for _, latents in sae.chunks(x)])


@pytest.mark.parametrize("hold", [False, True], ids=["disk", "host"])
@pytest.mark.parametrize("name", CASES)
def test_the_whole_saes_numbers_and_active_latents(name: str, hold: bool, tmp_path: Path) -> None:
    case, x = CASES[name](tmp_path), some_x()
    ref = case.ref
    assert (layout_of(ref.format).kept(Path(ref.path or "")) == "in parts") == case.in_parts
    whole = load_sae(ref, CPU, D_IN)
    expected, latents = whole.reconstruct(x), activations(whole, x)
    assert 0 < float((latents > 0).float().mean()) < 1
    for n in SLICES:
        found = sliced(ref, n, hold=hold)
        made = found.reconstruct(x)
        assert torch.equal(made.l0, expected.l0), n
        torch.testing.assert_close(made.x_hat, expected.x_hat, **FLOAT32)
        own = activations(found, x)
        assert torch.equal(own > 0, latents > 0), n
        torch.testing.assert_close(own, latents, **FLOAT32)
        for token in (0, 17):
            one, other = found.active_latents(x[token]), whole.active_latents(x[token])
            assert [i for i, _ in one] == [i for i, _ in other]
            assert [value for _, value in one] == pytest.approx([value for _, value in other], abs=1e-5)


@pytest.mark.parametrize("hold", [False, True], ids=["disk", "host"])
@pytest.mark.parametrize("name", CASES)
def test_everything_else_that_is_asked_of_an_sae(name: str, hold: bool, tmp_path: Path) -> None:
    ref, x = CASES[name](tmp_path).ref, some_x()
    whole, found = load_sae(ref, CPU, D_IN), sliced(ref, 7, hold=hold)
    rows = whole.whole_decoder()
    torch.testing.assert_close(found.bias, whole.bias, rtol=0, atol=0)
    torch.testing.assert_close(found.whole_decoder(), rows, **FLOAT32)
    torch.testing.assert_close(torch.cat([part.clone() for part in found.decoder_rows(200)]), rows, **FLOAT32)
    some = torch.tensor([0, 3, 4, 39])
    torch.testing.assert_close(found.rows_of(some), rows[some], **FLOAT32)
    # Latents that were changed, chunk by chunk, as `synthetic` and the splices do.
    for (rows_of, mine), (_, theirs) in zip(found.chunks(x), whole.chunks(x), strict=True):
        with torch.inference_mode():
            for latents in (mine, theirs):
                latents[:, ::3] = 0.0
        torch.testing.assert_close(found.decode(mine), whole.decode(theirs), **FLOAT32)
        assert rows_of.stop - rows_of.start == len(mine)
    for attribute in ("notes", "gate", "model_name", "chunk_tokens", "is_plain", "is_centred", "context_size"):
        assert getattr(found, attribute) == getattr(whole, attribute), attribute
    assert found.weights_hash == whole.weights_hash


# ---- TopK -----------------------------------------------------------------------------------------------------------


def twins(folder: Path) -> SaeRef:
    """TopK whose latents 20 to 39 are those of 0 to 19 again: every pre-activation is there twice."""
    ref = sae_lens(folder, "topk")
    path = folder / "sae_weights.safetensors"
    state = load_file(path)
    state["W_enc"][:, 20:], state["b_enc"][20:] = state["W_enc"][:, :20].clone(), state["b_enc"][:20].clone()
    save_file(state, path)
    return ref


def test_of_equal_pre_activations_the_lower_index_is_active(tmp_path: Path) -> None:
    ref, x = twins(tmp_path / "a"), some_x()
    whole = load_sae(ref, CPU, D_IN)
    expected = activations(whole, x)
    # K is odd, so that at each token a pair is torn, if enough are positive: its lower half stays.
    low, high = expected[:, :20] > 0, expected[:, 20:] > 0
    assert bool((high <= low).all())
    assert float(((low.sum(1) == 3) & (high.sum(1) == 2)).float().mean()) > 0.8
    for n in SLICES:
        found = sliced(ref, n, hold=False)
        assert torch.equal(activations(found, x) > 0, expected > 0), n
        assert torch.equal(found.reconstruct(x).l0, whole.reconstruct(x).l0)


def test_the_largest_are_those_of_a_full_sort() -> None:
    """Against a stable sort of everything, with many equal values, zeros of both signs and negative ones."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(-3, 4, (50, 90), generator=generator).float() * 0.5
    coarse[coarse == 0] *= torch.where(torch.rand(int((coarse == 0).sum()), generator=generator) < 0.5, 1.0, -1.0)
    for values in (coarse, torch.randn(50, 90, generator=generator)):
        for k in (1, 7, 89, 90):
            found, places = largest(values, k)
            order = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
            assert torch.equal(places.sort(dim=1).values, order.sort(dim=1).values), k
            assert torch.equal(found, values.gather(1, places))


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_more_active_latents_than_there_is_room_for_go_in_fewer_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = sae_lens(tmp_path / "a", "standard", normalize_activations="layer_norm")
    x = some_x(321)  # a lone row is left behind whole chunks
    expected = load_sae(ref, CPU, D_IN)
    for most in (10, 3000):
        monkeypatch.setattr("inspector.sources.sliced.CODES_BYTES", 56 * most)
        found = sliced(ref, 16, hold=False)
        found.chunk_tokens = expected.chunk_tokens = 32
        made = found.reconstruct(x)
        torch.testing.assert_close(made.x_hat, expected.reconstruct(x).x_hat, **FLOAT32)
        assert torch.equal(made.l0, expected.reconstruct(x).l0)
        assert [rows for rows, _ in found.chunks(x)] == [rows for rows, _ in expected.chunks(x)]


def test_a_decoder_that_has_to_be_whole_finds_room_or_is_refused(tmp_path: Path) -> None:
    ref = sae_lens(tmp_path / "a", "standard")
    needed = 4 * D_IN * D_SAE
    assert sliced(ref, 7, hold=False, spare=needed).whole_decoder().shape == (D_SAE, D_IN)
    with pytest.raises(ResourceError, match=r"has to be there whole for this, and 0\.0 GB are left beside"):
        sliced(ref, 7, hold=False, spare=needed - 1).whole_decoder()


def test_slices_are_aligned_where_they_can_be() -> None:
    assert [latents_per_slice(10, n) for n in (0, 400, 40 * 63, 40 * 64, 40 * 130)] == [1, 10, 63, 64, 128]


def test_in_a_gradient_free_pass_and_out_of_it(tmp_path: Path) -> None:
    """Weights come inside and outside of inference mode; a parameter of one cannot be changed in the other."""
    found, x = sliced(sae_lens(tmp_path / "a", "gated"), 7, hold=False), some_x()
    with torch.inference_mode():
        found.reconstruct(x)
    found.reconstruct(x)
    list(found.chunks(x))
    with torch.inference_mode():
        found.reconstruct(x)
    found.whole_decoder().mul(2.0)


def test_two_in_turn_with_one_room_change_nothing(tmp_path: Path) -> None:
    refs = [sae_lens(tmp_path / "a", "jumprelu"), sae_lens(tmp_path / "b", "topk")]
    slices, x = Slices(CPU, 4 * D_IN * 7), some_x()
    saes = [load_sae(ref, CPU, D_IN, slices=slices) for ref in refs]
    alone = [sliced(ref, 7, hold=False) for ref in refs]
    for sae in (*saes, *alone):
        sae.chunk_tokens = 64
    for (_, a), (_, b), (_, expected), (_, wanted) in zip(*(sae.chunks(x) for sae in (*saes, *alone)), strict=True):
        assert torch.equal(a, expected) and torch.equal(b, wanted)
        assert torch.equal(saes[1].decode(b), alone[1].decode(wanted))
        assert torch.equal(saes[0].decode(a), alone[0].decode(expected))


# ---- damage ---------------------------------------------------------------------------------------------------------


def test_files_that_change_while_in_use_are_refused(tmp_path: Path) -> None:
    sae = sliced(sae_lens(tmp_path / "a", "standard"), 7, hold=False)
    path = tmp_path / "a" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(TargetError, match="changed while it was in use"):
        sae.reconstruct(some_x())


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "threshold", "b_dec"])
@pytest.mark.parametrize("hold", [False, True], ids=["disk", "host"])
def test_weights_that_are_not_finite_are_said(name: str, hold: bool, tmp_path: Path) -> None:
    ref = sae_lens(tmp_path / "a", "jumprelu")
    path = tmp_path / "a" / "sae_weights.safetensors"
    state = load_file(path)
    state[name].view(-1)[-1] = float("inf")
    save_file(state, path)

    def used() -> None:
        sae = sliced(ref, 7, hold=hold)
        if not hold and name in ("W_enc", "W_dec"):  # found when it is read
            sae.whole_decoder()
            sae.reconstruct(some_x())

    with pytest.raises(TargetError, match=f"weights that are not finite, in {name}"):
        used()


def test_a_file_that_ends_early_is_said_and_does_not_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.sources.sliced.require_same", lambda before: None)  # cut off between look and read
    sae = sliced(sae_lens(tmp_path / "a", "standard"), 7, hold=False)
    path = tmp_path / "a" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(TargetError, match="ends within its numbers"):
        sae.reconstruct(some_x())


def test_an_archive_that_lies_about_its_members_is_read_as_it_always_was(tmp_path: Path) -> None:
    """No part of it is read at a place that the archive does not have."""
    folder, _ = write_gemma_scope(tmp_path, weights())
    path = folder / "params.npz"
    short = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(short, "w") as other:
        for info in archive.infolist():
            raw = archive.read(info)
            other.writestr(info.filename, raw[:-40] if info.filename.startswith("W_enc") else raw)
    path.write_bytes(short.getvalue())
    with pytest.raises(TargetError, match="ends within W_enc"):
        sliced(listed(tmp_path), 7, hold=False)
