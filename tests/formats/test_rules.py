"""What decides which function an SAE is, key by key: honoured with the numbers of NumPy, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import TargetError
from inspector.formats import LAYOUTS, layout_of
from inspector.formats.hooks import hook_of_module, hook_of_name, hook_of_point, hook_on, lacks
from inspector.sources.published import localised
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite, survey
from inspector.spec import SaeRef
from tests.checkpoints import (
    D_IN,
    D_SAE,
    LLAMA_NORM,
    Array,
    K,
    Weights,
    jumprelu,
    tensor,
    top_k,
    weights,
    write_gemma_scope,
    write_gemma_scope_2,
    write_llama_scope,
    write_sparsify,
)

CPU = torch.device("cpu")
RESID = "blocks.1.hook_resid_post"


def inputs(d: int = D_IN) -> Array:
    return np.random.default_rng(1).standard_normal((64, d)).astype(np.float32).astype(np.float64)


def agrees(ref: SaeRef, reference: Callable[[Array], tuple[Array, Array]]) -> None:
    """Reconstruction and active latents are the reference's; float32 sums of a dozen numbers of size one."""
    x = inputs(ref.d_in)
    made = load_sae(ref, CPU, ref.d_in).reconstruct(torch.from_numpy(x).float())
    x_hat, codes = reference(x)
    np.testing.assert_allclose(made.x_hat.numpy(), x_hat, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(made.l0.numpy(), (codes > 0).sum(axis=1))
    assert 0 < (codes > 0).mean() < 1


def only(root: Path, hook: str | None = None) -> SaeRef:
    (ref,) = list_suite(root, said_hook=hook)
    return ref


def reason(root: Path) -> str:
    with pytest.raises(TargetError) as caught:
        list_suite(root)
    return str(caught.value)


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# ---- hooks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "hook"),
    [
        ("layers.2", "blocks.2.hook_resid_post"),
        ("model.layers.12", "blocks.12.hook_resid_post"),
        ("h.2", "blocks.2.hook_resid_post"),
        ("transformer.h.2", "blocks.2.hook_resid_post"),
        ("gpt_neox.layers.5", "blocks.5.hook_resid_post"),
        ("model.language_model.layers.5.mlp", "blocks.5.hook_mlp_out"),
        ("layers.3.mlp", "blocks.3.hook_mlp_out"),
        ("layers.3.self_attn", "blocks.3.hook_attn_out"),
        ("gpt_neox.layers.3.attention", "blocks.3.hook_attn_out"),
        ("h.3.attn", "blocks.3.hook_attn_out"),
        ("embed_tokens", "hook_embed"),
        ("wte", "hook_embed"),
        ("gpt_neox.embed_in", "hook_embed"),
        ("layers.2.mlp.act", None),
        ("model.norm", None),
        ("lm_head", None),
    ],
)
def test_a_module_path_is_the_hook_that_holds_its_output(module: str, hook: str | None) -> None:
    assert hook_of_module(module) == hook


def test_sides_and_other_languages() -> None:
    assert hook_of_module("layers.2", "in") == "blocks.2.hook_resid_pre"
    assert hook_of_point("model.layers.9.output") == "blocks.9.hook_resid_post"
    assert hook_of_point("model.layers.9.self_attn.o_proj.input") == "blocks.9.attn.hook_z"
    assert hook_of_point("model.layers.9.post_feedforward_layernorm.output") == "blocks.9.hook_mlp_out"
    assert hook_of_point("model.layers.9.pre_feedforward_layernorm.output") is None
    assert hook_of_name("model.layers.2") == "blocks.2.hook_resid_post"
    assert hook_of_name("blocks.2.attn.hook_z") == "blocks.2.attn.hook_z"


def test_models_that_normalise_what_a_block_adds_have_the_modules_output_elsewhere() -> None:
    assert hook_on("layers.3.mlp", "blocks.3.hook_mlp_out", "llama") == "blocks.3.hook_mlp_out"
    assert hook_on("layers.3.mlp", "blocks.3.hook_mlp_out", "gemma2") == "blocks.3.mlp.hook_out"
    assert hook_on("layers.3", "blocks.3.hook_resid_post", "gemma2") == "blocks.3.hook_resid_post"
    assert lacks("model.layers.2.post_feedforward_layernorm", "llama") == "post_feedforward_layernorm"
    assert lacks("model.layers.2.post_feedforward_layernorm", "gemma3_text") is None


def test_names_above_the_suite_have_no_say_and_the_nearest_decides(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "TinyStories-1Layer-21M" / "layers.7", weights())
    assert only(tmp_path / "TinyStories-1Layer-21M").hook_name == RESID
    assert only(tmp_path / "TinyStories-1Layer-21M" / "layers.7" / "layers.1").hook_name == RESID


def test_one_refused_folder_is_one_row_and_the_others_load(tmp_path: Path) -> None:
    write_sparsify(tmp_path, weights())
    (tmp_path / "layers.1").rename(tmp_path / "layers.2.mlp.act")
    write_sparsify(tmp_path, weights())
    found = survey(tmp_path)
    assert [ref.hook_name for ref in found.refs] == [RESID]
    (refused,) = found.refused
    assert refused.sae_id == "layers.2.mlp.act"
    assert "'layers.2.mlp.act'" in refused.reason


def test_a_hook_that_the_files_do_not_say_can_be_said_for_one_sae_alone(tmp_path: Path) -> None:
    write_gemma_scope(tmp_path / "a", weights())
    lone = tmp_path / "lone"
    (tmp_path / "a" / "layer_1" / "width_40" / "average_l0_7").rename(lone)
    assert "does not say which hook" in reason(lone) and "--hook" in reason(lone)
    ref = only(lone, "blocks.4.hook_mlp_out")
    assert (ref.hook_name, ref.layer) == ("blocks.4.hook_mlp_out", 4)
    assert "blocks.4.hook_mlp_out is as you said" in ref.notes[-1]
    assert ref.notes[-1] in load_sae(ref, CPU, D_IN).notes
    write_gemma_scope(tmp_path / "b", weights())
    (tmp_path / "b" / "layer_1" / "width_40" / "average_l0_7").rename(tmp_path / "b" / "second")
    lone.rename(tmp_path / "b" / "first")
    assert len(survey(tmp_path / "b", said_hook=RESID).refused) == 2


def test_a_site_that_is_assumed_is_said(tmp_path: Path) -> None:
    write_gemma_scope(tmp_path, weights())
    assert "is assumed" in only(tmp_path).notes[0]
    write_gemma_scope(tmp_path / "gemma-scope-2b-pt-mlp", weights())
    ref = only(tmp_path / "gemma-scope-2b-pt-mlp")
    assert (ref.hook_name, ref.notes) == ("blocks.1.hook_mlp_out", ())


# ---- sparsify -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transcode", True),
        ("skip_connection", True),
        ("embed_skip", True),
        ("gram_lookup", "bigram"),
        ("signed", True),
        ("activation", "groupmax"),
    ],
)
def test_sparsify_keys_that_change_the_function_are_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder, reference = write_sparsify(tmp_path, weights())
    change(folder / "cfg.json", **{"activation": "topk", key: value})
    assert key in reason(tmp_path) or repr(value) in reason(tmp_path)
    change(folder / "cfg.json", **{key: False, "activation": "topk", "normalize_decoder": True, "multi_topk": False})
    agrees(only(tmp_path), reference)


def test_sparsifys_run_says_what_it_is_as_well(tmp_path: Path) -> None:
    write_sparsify(tmp_path, weights())
    (tmp_path / "config.json").write_text(json.dumps({"sae": {"transcode": True}, "model": "gpt2"}))
    assert "transcoder" in reason(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"sae": {"transcode": False}, "model": "gpt2"}))
    assert only(tmp_path).model == "gpt2"


def test_a_key_that_nobody_knows_is_named(tmp_path: Path) -> None:
    folder, _ = write_sparsify(tmp_path, weights())
    assert only(tmp_path).notes == ()
    change(folder / "cfg.json", new_trick=0.5)
    (note,) = only(tmp_path).notes
    assert note.endswith("keys that are not known here and were not used: new_trick.")


def test_sparsify_stores_rows_of_latents_whatever_the_shape(tmp_path: Path) -> None:
    """A square dictionary: only the names tell which way its matrices lie."""
    w, folder = square(), tmp_path / "layers.1"
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({"expansion_factor": 1, "num_latents": 24, "k": 5, "d_in": 24}))
    stored = {"encoder.weight": w.w_enc.T, "encoder.bias": w.b_enc, "W_dec": w.w_dec, "b_dec": w.b_dec}
    save_file({name: tensor(value) for name, value in stored.items()}, folder / "sae.safetensors")
    agrees(only(tmp_path), lambda x: top_k(w, x, 5))


def square(d: int = 24) -> Weights:
    rng = np.random.default_rng(3)

    def drawn(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    return Weights(
        w_enc=drawn(d, d), w_dec=drawn(d, d), b_enc=0.1 * drawn(d), b_dec=drawn(d), threshold=np.abs(drawn(d)) + 0.5
    )


# ---- dictionary_learning --------------------------------------------------------------------------------------------


def dictionary(
    folder: Path, kind: str, state: dict[str, Any], d: int, m: int, buffer: object = None, **keys: Any
) -> Path:
    folder.mkdir(parents=True)
    trainer = {"dict_class": kind, "activation_dim": d, "dict_size": m, "k": K, "layer": 1, **keys}
    trainer = {key: value for key, value in trainer.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer or {}}))
    torch.save({name: tensor(value) for name, value in state.items()}, folder / "ae.pt")
    return folder


def linear(w: Weights) -> dict[str, Any]:
    return {"encoder.weight": w.w_enc.T, "encoder.bias": w.b_enc, "decoder.weight": w.w_dec.T}


@pytest.mark.holds("dictionary-learning")
def test_autoencoder_new_has_its_bias_at_the_decoder_alone(tmp_path: Path) -> None:
    w = weights()

    def reference(x: Array, *, subtract: bool = False) -> tuple[Array, Array]:
        codes = np.maximum((x - w.b_dec * subtract) @ w.w_enc + w.b_enc, 0)
        return codes @ w.w_dec + w.b_dec, codes

    dictionary(tmp_path / "new", "AutoEncoderNew", linear(w) | {"decoder.bias": w.b_dec}, D_IN, D_SAE)
    agrees(only(tmp_path / "new"), reference)
    dictionary(tmp_path / "old", "AutoEncoder", linear(w) | {"bias": w.b_dec}, D_IN, D_SAE)
    agrees(only(tmp_path / "old"), lambda x: reference(x, subtract=True))


def test_dictionary_learnings_square_matrices_lie_as_their_names_say(tmp_path: Path) -> None:
    w = square()
    dictionary(tmp_path / "linear", "AutoEncoderTopK", linear(w) | {"b_dec": w.b_dec}, 24, 24)
    agrees(only(tmp_path / "linear"), lambda x: top_k(w, x, K))
    plain = {"W_enc": w.w_enc, "W_dec": w.w_dec, "b_enc": w.b_enc, "b_dec": w.b_dec, "threshold": w.threshold}
    dictionary(tmp_path / "plain", "JumpReluAutoEncoder", plain, 24, 24)
    agrees(only(tmp_path / "plain"), lambda x: jumprelu(w, x))


@pytest.mark.parametrize(
    ("keys", "buffer", "hook"),
    [
        ({"submodule_name": "resid_post_layer_7", "layer": 7}, {}, "blocks.7.hook_resid_post"),
        ({"submodule_name": "resid_post_layer_7", "layer": None}, {}, "blocks.7.hook_resid_post"),
        ({"submodule_name": "resid_pre_layer_7"}, {}, "blocks.7.hook_resid_pre"),
        ({"submodule_name": "mlp_out_layer_3"}, {"io": "out"}, "blocks.3.hook_mlp_out"),
        ({"submodule_name": "attn_out_layer_3"}, {"io": "out"}, "blocks.3.hook_attn_out"),
        ({"submodule_name": "mlp_layer_3"}, {"io": "in"}, "blocks.3.mlp.hook_in"),
        ({"submodule_name": "gpt_neox.layers.4"}, {"io": "in"}, "blocks.4.hook_resid_pre"),
        ({"submodule_name": None}, {}, RESID),
    ],
)
def test_dictionary_learnings_submodule_says_the_hook(
    tmp_path: Path, keys: dict[str, Any], buffer: dict[str, str], hook: str
) -> None:
    keys = {"layer": None, **keys} if keys["submodule_name"] else keys
    state = linear(weights()) | {"bias": weights().b_dec}
    dictionary(tmp_path / "a", "AutoEncoder", state, D_IN, D_SAE, buffer, **keys)
    assert only(tmp_path).hook_name == hook


def test_dictionary_learning_refuses_what_reads_two_places_or_none_that_is_known(tmp_path: Path) -> None:
    state = linear(weights()) | {"bias": weights().b_dec}
    dictionary(tmp_path / "a", "AutoEncoder", state, D_IN, D_SAE, {"io": "in_and_out"})
    assert "transcoder" in reason(tmp_path / "a")
    dictionary(
        tmp_path / "b", "AutoEncoder", state, D_IN, D_SAE, submodule_name="gpt_neox.final_layer_norm", layer=None
    )
    assert "'gpt_neox.final_layer_norm'" in reason(tmp_path / "b")
    dictionary(tmp_path / "c", "CrossCoder", state, D_IN, D_SAE)
    assert "'CrossCoder'" in reason(tmp_path / "c")
    dictionary(tmp_path / "d", "AutoEncoder", state, D_IN, D_SAE, submodule_name="resid_post_layer_5", layer=3)
    assert "the layer 3 and the submodule 'resid_post_layer_5'" in reason(tmp_path / "d")


def test_dictionary_learning_whose_files_disagree_or_are_not_finished_is_refused(tmp_path: Path) -> None:
    state = linear(weights()) | {"b_dec": weights().b_dec}
    dictionary(tmp_path / "k", "AutoEncoderTopK", state | {"k": np.array(K + 1)}, D_IN, D_SAE)
    with pytest.raises(TargetError, match=f"k {K} in config.json and {K + 1} in ae.pt"):
        load_sae(only(tmp_path / "k"), CPU, D_IN)
    dictionary(tmp_path / "whole", "AutoEncoderTopK", state | {"k": np.array(K)}, D_IN, D_SAE)
    agrees(only(tmp_path / "whole"), lambda x: top_k(weights(), x, K))
    for kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        dictionary(tmp_path / kind, kind, state | {"threshold": np.array(-1.0)}, D_IN, D_SAE)
        with pytest.raises(TargetError, match="threshold -1: training has not found one"):
            load_sae(only(tmp_path / kind), CPU, D_IN)


# ---- Gemma Scope 2 --------------------------------------------------------------------------------------------------


def gemma_2(root: Path, **about: Any) -> Path:
    folder, _ = write_gemma_scope_2(root, weights())
    moved = root / "mine"
    folder.rename(moved)
    (moved / "config.json").write_text(json.dumps({"architecture": "jump_relu", **about}))
    return moved


@pytest.mark.holds("gemma-scope-2")
@pytest.mark.parametrize(
    ("point", "hook"),
    [
        ("model.layers.4.output", "blocks.4.hook_resid_post"),
        ("model.layers.4.self_attn.o_proj.input", "blocks.4.attn.hook_z"),
        ("model.layers.4.post_feedforward_layernorm.output", "blocks.4.hook_mlp_out"),
    ],
)
def test_gemma_scope_2_is_believed_about_its_hook(tmp_path: Path, point: str, hook: str) -> None:
    gemma_2(tmp_path, hf_hook_point_in=point)
    ref = only(tmp_path)
    assert ref.hook_name == hook
    agrees(ref, lambda x: jumprelu(weights(), x))


def test_gemma_scope_2_twins_are_refused(tmp_path: Path) -> None:
    before, after = (
        "model.layers.4.pre_feedforward_layernorm.output",
        "model.layers.4.post_feedforward_layernorm.output",
    )
    gemma_2(tmp_path / "a", hf_hook_point_in=before, hf_hook_point_out=after)
    assert "transcoder" in reason(tmp_path / "a")
    gemma_2(tmp_path / "b", type="clt")
    assert "cross-layer" in reason(tmp_path / "b")
    gemma_2(tmp_path / "c", hf_hook_point_in=before)
    assert before in reason(tmp_path / "c")
    moved = gemma_2(tmp_path / "d" / "transcoder")
    (moved / "config.json").unlink()
    assert "transcoder" in reason(tmp_path / "d")
    gemma_2(tmp_path / "e", architecture="topk", hf_hook_point_in="model.layers.4.output")
    assert "'topk'" in reason(tmp_path / "e")
    moved = gemma_2(tmp_path / "f", hf_hook_point_in="model.layers.4.output")
    path = moved / "params.safetensors"
    save_file(load_file(path) | {"affine_skip_connection": torch.zeros(D_IN, D_IN)}, path)
    assert "transcoder" in reason(tmp_path / "f")


# ---- OpenMOSS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sparsity_include_decoder_norm", False),
        ("apply_decoder_bias_to_pre_encoder", True),
        ("norm_activation", "token-wise"),
        ("use_glu_encoder", True),
        ("act_fn", "prolu"),
        ("hook_point_out", "blocks.1.hook_mlp_out"),
        ("sae_type", "crosscoder"),
    ],
)
def test_openmoss_keys_that_change_the_function_are_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder, reference = write_llama_scope(tmp_path, weights())
    change(folder / "hyperparams.json", **{key: value})
    said = reason(tmp_path)
    assert key in said or str(value) in said
    change(
        folder / "hyperparams.json",
        sparsity_include_decoder_norm=True,
        apply_decoder_bias_to_pre_encoder=False,
        norm_activation="dataset-wise",
        use_glu_encoder=False,
        act_fn="jumprelu",
        hook_point_out=RESID,
        sae_type="sae",
    )
    agrees(only(tmp_path), reference)


def newer_openmoss(root: Path, w: Weights, **about: Any) -> Path:
    folder = root / "L1R"
    folder.mkdir(parents=True)
    known = {"d_model": D_IN, "d_sae": D_SAE, "hook_point_in": RESID, "hook_point_out": RESID, **about}
    (folder / "config.json").write_text(json.dumps(known))
    stored = {
        "encoder.weight": w.w_enc.T,
        "encoder.bias": w.b_enc,
        "decoder.weight": w.w_dec.T,
        "decoder.bias": w.b_dec,
    }
    stored |= {"log_jumprelu_threshold": np.log(w.threshold)}
    save_file({name: tensor(value) for name, value in stored.items()}, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.holds("openmoss")
def test_openmoss_newer_folders_have_a_threshold_per_latent_on_scaled_activations(tmp_path: Path) -> None:
    w = weights()
    newer_openmoss(tmp_path, w)
    factor = D_IN**0.5 / LLAMA_NORM

    def reference(x: Array) -> tuple[Array, Array]:
        norm = np.linalg.norm(w.w_dec, axis=1)
        scaled = (x * factor @ w.w_enc + w.b_enc) * norm
        codes = np.where(scaled > w.threshold, scaled, 0)
        return (codes @ (w.w_dec / norm[:, None]) + w.b_dec) / factor, codes

    with pytest.raises(TargetError, match="no registry gives it"):
        load_sae(only(tmp_path), CPU, D_IN)
    assert only(tmp_path).nominal_l0 is None  # 50 is Llama Scope's alone
    change(tmp_path / "L1R" / "config.json", top_k=50, act_fn="jumprelu")
    assert only(tmp_path).nominal_l0 is None  # every configuration has one, and only TopK reads it
    agrees(replace(only(tmp_path), norm_factor=factor), reference)
    asked = load_sae(replace(only(tmp_path), norm_factor=factor), CPU, D_IN, llama_gate="topk")
    assert asked.gate == "published JumpReLU threshold on unit-norm decoder rows"
    change(tmp_path / "L1R" / "config.json", top_k=7, act_fn="topk")
    assert only(tmp_path).nominal_l0 == 7


# ---- sae-lens -------------------------------------------------------------------------------------------------------


def lens(root: Path, state: dict[str, Any], **cfg: Any) -> Path:
    root.mkdir(parents=True)
    known = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", **cfg}
    known.setdefault("metadata", {"hook_name": RESID, "sae_lens_version": "6.54.0"})
    (root / "cfg.json").write_text(json.dumps(known))
    save_file({name: tensor(value) for name, value in state.items()}, root / "sae_weights.safetensors")
    return root


def plain(w: Weights) -> dict[str, Any]:
    return {"W_enc": w.w_enc, "W_dec": w.w_dec, "b_enc": w.b_enc, "b_dec": w.b_dec}


def relu(w: Weights, x: Array, *, subtract: bool = True) -> tuple[Array, Array]:
    codes = np.maximum((x - w.b_dec * subtract) @ w.w_enc + w.b_enc, 0)
    return codes @ w.w_dec + w.b_dec, codes


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str 'tanh-relu'"),
        ({"architecture": "transcoder"}, "transcoder"),
        ({"architecture": "jumprelu_skip_transcoder"}, "transcoder"),
        ({"architecture": "temporal"}, "temporal"),
        ({"architecture": "abstopk"}, "'abstopk'"),
        ({"metadata": {"hook_name": RESID, "hook_name_out": "blocks.1.hook_mlp_out"}}, "differ"),
        ({"metadata": {"hook_name": "model.layers.1.mlp.act"}}, "model.layers.1.mlp.act"),
        ({"metadata": {"hook_name": RESID, "hook_head_index": 0}}, "head 0 alone"),
        ({"hook_name": RESID, "hook_point_head_index": 3}, "head 3 alone"),
    ],
)
def test_sae_lens_refuses_by_name(tmp_path: Path, cfg: dict[str, Any], says: str) -> None:
    lens(tmp_path / "a", plain(weights()), **cfg)
    assert says in reason(tmp_path)


def test_sae_lens_hooks_in_hugging_face_words(tmp_path: Path) -> None:
    lens(tmp_path / "a", plain(weights()), metadata={"hook_name": "model.layers.2"})
    lens(tmp_path / "b", plain(weights()), metadata={"hf_hook_name": "model.layers.3.output"})
    assert [ref.hook_name for ref in list_suite(tmp_path)] == ["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"]


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_training_checkpoints_run_with_the_threshold_that_training_found(
    tmp_path: Path, architecture: str, rescaled: bool
) -> None:
    w = weights()
    state = plain(w) | {"topk_threshold": np.array(0.8)}
    lens(tmp_path / "a", state, architecture=architecture, k=5, rescale_acts_by_decoder_norm=rescaled)

    def reference(x: Array) -> tuple[Array, Array]:
        norm = np.linalg.norm(w.w_dec, axis=1) if rescaled else np.ones(D_SAE)
        z = ((x - w.b_dec) @ w.w_enc + w.b_enc) * norm
        codes = np.where(z > 0.8, z, 0)
        return codes @ (w.w_dec / norm[:, None]) + w.b_dec, codes

    agrees(only(tmp_path), reference)


def test_a_checkpoint_whose_threshold_was_not_found_yet_is_refused(tmp_path: Path) -> None:
    """sae-lens begins with 0, with which every positive latent is active. Its file tells that in the list."""
    folder = lens(tmp_path / "a", plain(weights()) | {"topk_threshold": np.array(0.0)}, architecture="batchtopk", k=5)
    assert "topk_threshold 0: training has not found one" in reason(tmp_path)
    path = folder / "sae_weights.safetensors"
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        for value in (-1.5, 0.75):
            save_file(load_file(path) | {"topk_threshold": torch.tensor(value, dtype=kind)}, path)
            assert only(tmp_path).d_sae == D_SAE if value > 0 else "topk_threshold -1.5:" in reason(tmp_path)


OLD_RUN = {
    "model_name": "gpt2-small", "hook_point": RESID, "hook_point_layer": 1, "hook_point_head_index": None,
    "dataset_path": "Skylion007/openwebtext", "is_dataset_tokenized": False, "context_size": 128,
    "use_cached_activations": False, "cached_activations_path": "activations", "from_pretrained_path": None,
    "dead_feature_threshold": 1e-8, "prepend_bos": True, "d_in": D_IN, "d_sae": D_SAE, "n_batches_in_buffer": 128,
    "total_training_tokens": 300_000_000, "store_batch_size": 32, "device": "cpu", "seed": 42, "dtype": "torch.float32",
    "b_dec_init_method": "geometric_median", "expansion_factor": 32, "l1_coefficient": 8e-5, "lr": 4e-4,
    "lr_scheduler_name": "constantwithwarmup", "lr_warm_up_steps": 5000, "train_batch_size": 4096,
    "use_ghost_grads": True, "feature_sampling_window": 1000, "feature_sampling_method": None,
    "resample_batches": 1028, "feature_reinit_scale": 0.2, "dead_feature_window": 5000,
    "dead_feature_estimation_method": "no_fire", "log_to_wandb": True, "wandb_project": "p", "wandb_entity": None,
    "wandb_log_frequency": 100, "n_checkpoints": 10, "checkpoint_path": "c", "tokens_per_buffer": 67_108_864,
    "run_name": "24576-L1-8e-05", "verbose": True, "eval_every_n_wandb_logs": 10, "hook_eval": "NOT_IN_USE",
    "normalize_sae_decoder": True, "noise_scale": 0.0, "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "model_from_pretrained_kwargs": {}, "sae_lens_training_version": "3.0.0", "finetuning_scaling_factor": False,
}  # fmt: skip
"""A configuration as versions 0 to 5 of sae-lens wrote it: the whole of a run, no metadata. The first keys, down to the
run's name, are those of gpt2-small-res-jb as it is published."""


def test_keys_of_old_runs_are_known_and_others_are_named(tmp_path: Path) -> None:
    folder = lens(tmp_path / "a", plain(weights()))
    (folder / "cfg.json").write_text(json.dumps(OLD_RUN))
    assert only(tmp_path).notes == () and only(tmp_path).hook_name == RESID
    change(folder / "cfg.json", new_trick=2)
    (note,) = only(tmp_path).notes
    assert note.endswith("cfg.json has keys that are not known here and were not used: new_trick.")
    change(folder / "cfg.json", metadata={})  # since version 6, a run has no say beside the metadata
    assert "b_dec_init_method" in only(tmp_path).notes[0]


def test_scaling_factors_of_fine_tuned_saes_are_used_or_asked_about(tmp_path: Path) -> None:
    w, factor = weights(), np.linspace(0.5, 1.5, D_SAE).astype(np.float32).astype(np.float64)

    def reference(x: Array) -> tuple[Array, Array]:
        _, codes = relu(w, x)
        return (codes * factor) @ w.w_dec + w.b_dec, codes

    lens(tmp_path / "on", plain(w) | {"scaling_factor": factor}, finetuning_scaling_factor=True)
    agrees(only(tmp_path / "on"), reference)
    lens(tmp_path / "ones", plain(w) | {"scaling_factor": np.ones(D_SAE)}, finetuning_scaling_factor=False)
    agrees(only(tmp_path / "ones"), lambda x: relu(w, x))
    lens(tmp_path / "off", plain(w) | {"scaling_factor": factor}, finetuning_scaling_factor=False)
    with pytest.raises(TargetError, match="stores scaling factors, but its finetuning_scaling_factor is off"):
        load_sae(only(tmp_path / "off"), CPU, D_IN)


@pytest.mark.holds("sae-lens")
def test_the_registrys_overrides_and_norm_factors_are_obeyed(tmp_path: Path) -> None:
    w = weights()
    lens(tmp_path / "a", plain(w), normalize_activations="none")
    overrides = json.dumps({"normalize_activations": "constant_norm_rescale"})

    def rescaled(x: Array) -> tuple[Array, Array]:
        factor = D_IN**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
        x_hat, codes = relu(w, x * factor)
        return x_hat / factor, codes

    agrees(replace(only(tmp_path), overrides=overrides), rescaled)
    lens(tmp_path / "b" / "b", plain(w), normalize_activations="expected_average_only_in")

    def folded(x: Array) -> tuple[Array, Array]:
        x_hat, codes = relu(w, x * 1.5)
        return x_hat / 1.5, codes

    agrees(replace(only(tmp_path / "b"), norm_factor=1.5), folded)
    with pytest.raises(TargetError, match="whose factor is not in the weights"):
        load_sae(only(tmp_path / "b"), CPU, D_IN)


def test_what_files_say_about_text_is_told(tmp_path: Path) -> None:
    said = {"hook_name": RESID, "prepend_bos": False, "seqpos_slice": [5, None]}
    lens(tmp_path / "a", plain(weights()), metadata=said, mystery=1)
    notes = " ".join(only(tmp_path).notes)
    assert "without a beginning-of-sequence token" in notes and "positions [5, None]" in notes and "mystery" in notes
    lens(tmp_path / "b" / "c", plain(weights()), metadata={"hook_name": RESID, "prepend_bos": True})
    assert only(tmp_path / "b").notes == ()


# ---- one torch file per SAE -----------------------------------------------------------------------------------------


def torch_ref(path: Path, name: str, **keys: Any) -> SaeRef:
    common = {"sae_id": "a", "release": "r", "layer": 1, "hook_name": RESID, "d_in": D_IN, "d_sae": D_SAE}
    return SaeRef(**{**common, "path": str(path), "format": name, **keys})


def saved(path: Path, **state: Any) -> Path:
    torch.save({name.replace("__", "."): tensor(value) for name, value in state.items()}, path)
    return path


@pytest.mark.holds("qwen-scope", "goodfire", "deepseek-r1", "attention-heads")
def test_suites_of_torch_files_are_what_their_publishers_define(tmp_path: Path) -> None:
    w = weights()
    path = saved(tmp_path / "layer1.sae.pt", W_enc=w.w_enc.T, W_dec=w.w_dec.T, b_enc=w.b_enc, b_dec=w.b_dec)
    repo = "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_5"
    agrees(torch_ref(path, "qwen-scope", repo=repo), lambda x: top_k(w, x, 5, subtract=False))
    names = {"encoder_linear__weight": w.w_enc.T, "decoder_linear__weight": w.w_dec.T}
    path = saved(tmp_path / "a.pth", **names, encoder_linear__bias=w.b_enc, decoder_linear__bias=w.b_dec)
    agrees(torch_ref(path, "goodfire"), lambda x: relu(w, x, subtract=False))
    names = {"encoder__weight": w.w_enc.T, "decoder__weight": w.w_dec.T}
    path = saved(tmp_path / "b.pt", **names, encoder__bias=w.b_enc, decoder__bias=w.b_dec)
    agrees(torch_ref(path, "deepseek-r1"), lambda x: relu(w, x, subtract=False))
    path = saved(tmp_path / "c.pt", W_enc=w.w_enc, W_dec=w.w_dec, b_enc=w.b_enc, b_dec=w.b_dec)
    (tmp_path / "c_cfg.json").write_text(json.dumps({"act_size": D_IN, "dict_size": D_SAE, "act_name": RESID}))
    agrees(torch_ref(path, "attention-heads"), lambda x: relu(w, x))
    assert "value biases" in localised(torch_ref(path, "attention-heads")).notes[0]


def test_torch_files_that_are_not_what_their_names_promise_are_refused(tmp_path: Path) -> None:
    w = weights()

    def refusal(ref: SaeRef) -> str:
        with pytest.raises(TargetError) as caught:
            load_sae(ref, CPU, D_IN)
        return str(caught.value)

    right = {"W_enc": w.w_enc.T, "W_dec": w.w_dec.T, "b_enc": w.b_enc, "b_dec": w.b_dec}
    path = saved(tmp_path / "layer1.sae.pt", **right)
    assert "does not say how many latents it keeps" in refusal(torch_ref(path, "qwen-scope"))
    swapped = saved(tmp_path / "swapped.pt", **{**right, "W_enc": w.w_enc, "W_dec": w.w_dec})
    repo = "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_5"
    assert "W_enc of shape [40, 12] instead of [12, 40]" in refusal(torch_ref(swapped, "qwen-scope", repo=repo))
    many = "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_99"
    assert "keeps the 99 largest of 40 latents" in refusal(torch_ref(path, "qwen-scope", repo=many))
    for name, tensor_name in (("goodfire", "encoder_linear.weight"), ("deepseek-r1", "encoder.weight")):
        assert f"has no tensor '{tensor_name}'" in refusal(torch_ref(path, name))
    whole = saved(tmp_path / "whole.pt", W_enc=w.w_enc, W_dec=w.w_dec, b_enc=w.b_enc, b_dec=w.b_dec)
    state = torch.load(whole, weights_only=True)
    torch.save({**state, "b_enc": state["b_enc"].long()}, whole)
    assert "stores b_enc as int64" in refusal(torch_ref(whole, "attention-heads"))
    (tmp_path / "whole_cfg.json").write_text(json.dumps({"act_size": D_IN, "dict_size": 2 * D_SAE}))
    with pytest.raises(TargetError, match="should have 40 latents but its files have 80"):
        localised(torch_ref(whole, "attention-heads"))


class Runs:
    """What a pickle could hold."""

    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_a_torch_file_that_could_run_code_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"encoder.weight": Runs()}, tmp_path / "a.pt")
    with pytest.raises(TargetError, match="other files could run code"):
        load_sae(torch_ref(tmp_path / "a.pt", "deepseek-r1"), CPU, D_IN)
    assert "ran" not in capsys.readouterr().out


def test_kinds_that_are_no_sae_of_one_hook_say_why(tmp_path: Path) -> None:
    for name in ("mwhanna-transcoder", "gemma-scope-transcoder", "clt-layer", "temporal"):
        assert layout_of(name).named("r", "p", "i", "r").refused
        with pytest.raises(TargetError, match="Choose an SAE of one hook"):
            load_sae(torch_ref(tmp_path, name), CPU, D_IN)
    with pytest.raises(TargetError, match="layout 'no-such' is not known"):
        layout_of("no-such")


def test_layouts_have_names_and_conversions_of_their_own() -> None:
    names = [layout.name for layout in LAYOUTS]
    conversions = [each for layout in LAYOUTS for each in layout.conversions]
    assert len(set(names)) == len(names) and len(set(conversions)) == len(conversions)


def test_gemma_scope_2_without_a_configuration_is_what_its_folders_are_called(tmp_path: Path) -> None:
    """As the registry's SAEs are taken from the hub's cache: some repositories have no config.json."""
    folder, reference = write_gemma_scope_2(tmp_path / "made", weights())
    there = tmp_path / "snapshot" / "attn_out_all" / "layer_1_width_40_l0_small"
    there.parent.mkdir(parents=True)
    folder.rename(there)
    (there / "config.json").unlink()
    ref = torch_ref(there, "gemma-scope-2", hook_name="blocks.1.attn.hook_z")
    agrees(localised(ref), reference)
    with pytest.raises(
        TargetError, match=r"listed at blocks.1.hook_resid_post, but its files say blocks.1.attn.hook_z"
    ):
        localised(replace(ref, hook_name=RESID))
    moved = there.rename(tmp_path / "snapshot" / "layer_1_width_40_l0_small_transcoder")
    with pytest.raises(TargetError, match="transcoder"):
        localised(replace(ref, path=str(moved)))


# ---- links, and runs with several seeds ------------------------------------------------------------------------------


def test_a_link_to_an_saes_folder_is_one_and_keeps_the_name_that_training_gave(tmp_path: Path) -> None:
    suite, away = tmp_path / "suite", tmp_path / "away"
    written, _ = write_sparsify(away, weights())
    written.rename(away / "anything")
    write_sparsify(away, weights())
    suite.mkdir()
    (suite / "layers.2").symlink_to(away / "anything")
    (suite / "layers.7").symlink_to(away / "layers.1")
    (suite / "back").symlink_to(suite)
    (suite / "nowhere").symlink_to(tmp_path / "nowhere")
    found = {ref.sae_id: ref.hook_name for ref in list_suite(suite)}
    assert found == {"layers.2": "blocks.2.hook_resid_post", "layers.7": RESID}


def test_the_run_above_the_seeds_is_read_too(tmp_path: Path) -> None:
    written, _ = write_sparsify(tmp_path, weights())
    moved = tmp_path / "moved"
    written.rename(moved)
    (tmp_path / "layers.1").mkdir()
    moved.rename(tmp_path / "layers.1" / "seed0")
    assert only(tmp_path).hook_name == RESID
    run = tmp_path / "config.json"
    run.write_text(json.dumps({"transcode": True}))
    assert "transcode in the run's config.json" in reason(tmp_path)
    run.write_text(json.dumps({"hook_mode": "input"}))
    assert "hook_mode 'input'" in reason(tmp_path)
    run.write_text(json.dumps({"hook_mode": "output"}))
    assert only(tmp_path).hook_name == RESID
