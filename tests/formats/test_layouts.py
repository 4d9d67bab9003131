"""Every published layout against its definition in NumPy, and files that are not what they say."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import TargetError
from inspector.sources.sae import LoadedSae
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from tests.checkpoints import (
    D_IN,
    D_SAE,
    LLAMA_NORM,
    LLAMA_THRESHOLD,
    WRITERS,
    llama_folded,
    llama_scope,
    weights,
    write_gemma_scope,
    write_llama_scope,
)

CPU = torch.device("cpu")
N = 300
"""More than one chunk of tokens."""


def inputs() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((N, D_IN)).astype(np.float32).astype(np.float64)


def load(root: Path, **options: str) -> LoadedSae:
    (ref,) = list_suite(root)
    return load_sae(ref, CPU, D_IN, **options)  # type: ignore[arg-type]


@pytest.mark.holds("gemma-scope", "gemma-scope-2", "llama-scope", "dictionary-learning")
@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_is_recognised_and_computes_what_it_defines(tmp_path: Path, layout: str) -> None:
    _, reference = WRITERS[layout](tmp_path, weights())
    sae = load(tmp_path)
    assert sae.ref.format == layout.split(maxsplit=1)[0]
    assert (sae.ref.d_in, sae.ref.d_sae, sae.ref.hook_name, sae.ref.layer) == (
        D_IN,
        D_SAE,
        "blocks.1.hook_resid_post",
        1,
    )
    x = inputs()
    made = sae.reconstruct(torch.from_numpy(x).float())
    x_hat, codes = reference(x)
    # float32 sums of twelve numbers of size one.
    np.testing.assert_allclose(made.x_hat.numpy(), x_hat, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made.l0.numpy(), (codes > 0).sum(axis=1))
    assert 0 < (codes > 0).mean() < 1
    assert len(sae.weights_hash) == 64
    assert not [note for note in sae.ref.notes if "not known" in note], "keys as they are published are known"


@pytest.mark.parametrize("layout", WRITERS)
def test_other_weights_would_be_noticed(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, weights(seed=3))
    _, reference = WRITERS[layout](tmp_path / "other", weights(seed=4))
    sae = load_sae(next(ref for ref in list_suite(tmp_path) if "other" not in ref.sae_id), CPU, D_IN)
    x = inputs()
    assert np.abs(sae.reconstruct(torch.from_numpy(x).float()).x_hat.numpy() - reference(x)[0]).max() > 0.1


def test_nominal_l0_and_model_are_read_where_the_layout_has_them(tmp_path: Path) -> None:
    found = {}
    for layout, write in WRITERS.items():
        write(tmp_path / layout.replace(" ", "-"), weights())
        (ref,) = list_suite(tmp_path / layout.replace(" ", "-"))
        found[layout] = (ref.nominal_l0, ref.model)
    assert found["gemma-scope"] == (7.0, None)
    assert found["gemma-scope-2"] == (10.0, "gemma-v3-1b-pt")
    assert found["llama-scope"] == (50.0, None)
    assert found["sparsify"] == (5.0, None)
    assert found["dictionary-learning BatchTopKSAE"] == (5.0, "EleutherAI/pythia-70m-deduped")


# ---- Llama Scope ----------------------------------------------------------------------------------------------------


def test_llama_scope_without_its_decoder_norm_step_lets_other_latents_through(tmp_path: Path) -> None:
    w = weights()
    write_llama_scope(tmp_path, w)
    x = inputs()
    l0 = load(tmp_path).reconstruct(torch.from_numpy(x).float()).l0.numpy()
    factor = D_IN**0.5 / LLAMA_NORM
    without = (x @ (w.w_enc * factor) + w.b_enc > LLAMA_THRESHOLD * factor).sum(axis=1)
    assert (l0 != without).mean() > 0.5

    norm = np.linalg.norm(w.w_dec, axis=1)[:, None]
    unit = replace(w, w_dec=(w.w_dec / norm).astype(np.float32).astype(np.float64))
    agreeing = (llama_scope(unit, x)[1] > 0).sum(axis=1)
    plain = (x @ (unit.w_enc * factor) + unit.b_enc > LLAMA_THRESHOLD * factor).sum(axis=1)
    np.testing.assert_array_equal(agreeing, plain)


def test_llama_scope_as_top_k_keeps_the_largest_of_unit_norm_rows(tmp_path: Path) -> None:
    w = weights()
    write_llama_scope(tmp_path, w)
    sae = load(tmp_path, llama_gate="topk")
    assert sae.gate == "the 50 largest on unit-norm decoder rows"
    x = inputs()
    z, w_dec, b_dec = llama_folded(w, x)
    made = sae.reconstruct(torch.from_numpy(x).float()).x_hat.numpy()
    # 40 latents are fewer than 50: all positive ones are kept.
    np.testing.assert_allclose(made, np.maximum(z, 0) @ w_dec + b_dec, rtol=1e-5, atol=1e-5)


def test_the_gate_in_use_has_a_name(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, weights())
    assert load(tmp_path).gate == "published JumpReLU threshold on unit-norm decoder rows"


def test_a_registry_factor_that_disagrees_is_refused(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, weights())
    (ref,) = list_suite(tmp_path)
    factor = D_IN**0.5 / LLAMA_NORM
    load_sae(replace(ref, norm_factor=factor * 1.001), CPU, D_IN)
    with pytest.raises(TargetError, match=r"norm factor of 0\.4949, but the registry 0\.9897"):
        load_sae(replace(ref, norm_factor=2 * factor), CPU, D_IN)


# ---- files that are not what they say -------------------------------------------------------------------------------


def damaged_npz(folder: Path, **changes: object) -> None:
    path = folder / "params.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays.update(changes)  # type: ignore[arg-type]
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": None}, "has no array 'threshold'"),
        ({"b_enc": np.zeros(3, np.float32)}, r"has b_enc.npy of shape \[3\] instead of \[40\]"),
        ({"W_dec": np.zeros((D_IN, D_SAE), np.float32)}, r"has W_dec.npy of shape \[12, 40\] instead of \[40, 12\]"),
        ({"b_dec": np.zeros(D_IN, np.int32)}, "stores b_dec.npy as int32"),
        ({"b_dec": np.full(D_IN, np.nan, np.float32)}, "not finite"),
        ({"b_dec": np.array([None] * D_IN, dtype=object)}, "stores b_dec.npy as object"),
    ],
)
def test_a_wrong_array_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder, _ = write_gemma_scope(tmp_path, weights())
    damaged_npz(folder, **changes)
    with pytest.raises(TargetError, match=message):
        load(tmp_path)


def test_an_array_that_is_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """And one that would unpack to far more than an SAE has is not unpacked: its header is compared first."""
    folder, _ = write_gemma_scope(tmp_path, weights())
    path = folder / "params.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["W_dec.npy"] = members["W_dec.npy"][:-100]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(TargetError, match=r"ends within W_dec\.npy"):
        load(tmp_path)


def test_a_file_cut_off_is_refused(tmp_path: Path) -> None:
    folder, _ = write_gemma_scope(tmp_path, weights())
    (ref,) = list_suite(tmp_path)
    path = folder / "params.npz"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(TargetError, match="is not a whole npz file"):
        load_sae(ref, CPU, D_IN)
    with pytest.raises(TargetError, match="is not of a whole SAE of the layout gemma-scope"):
        list_suite(tmp_path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    folder, _ = WRITERS["dictionary-learning AutoEncoder"](tmp_path, weights())
    sprung = tmp_path / "sprung"
    for payload in (_torch_file({"W_enc": Trap(sprung)}), pickle.dumps(Trap(sprung))):
        (folder / "ae.pt").write_bytes(payload)
        with pytest.raises(TargetError, match="not a file of plain tensors"):
            load(tmp_path)
        assert not sprung.exists()


def _torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    folder, _ = WRITERS["dictionary-learning AutoEncoder"](tmp_path, weights())
    (folder / "ae.pt").write_bytes(_torch_file({"W_enc": [1, 2]}))
    with pytest.raises(TargetError, match="something else than named tensors"):
        load(tmp_path)


def test_transcoders_are_refused(tmp_path: Path) -> None:
    folder, _ = WRITERS["gemma-scope-2"](tmp_path, weights())
    path = folder / "params.safetensors"
    save_file(load_file(path) | {"affine_skip_connection": torch.zeros(D_IN, D_IN)}, path)
    with pytest.raises(TargetError, match="is a transcoder"):
        load(tmp_path)


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    w = weights()
    folder, _ = WRITERS["sparsify"](tmp_path, w)
    path = folder / "sae.safetensors"
    save_file({name: value.to(torch.bfloat16) for name, value in load_file(path).items()}, path)
    made = load(tmp_path).reconstruct(torch.from_numpy(inputs()).float())
    assert made.x_hat.dtype == torch.float32


def test_a_configuration_that_is_no_object_is_named(tmp_path: Path) -> None:
    folder, _ = write_llama_scope(tmp_path, weights())
    (ref,) = list_suite(tmp_path)
    (folder / "hyperparams.json").write_text(json.dumps([1]))
    with pytest.raises(TargetError, match="holds no JSON object"):
        load_sae(ref, CPU, D_IN)
