"""Each layout's weights against sae-lens' own loader of it, on the same files; where sae-lens differs, the difference.

An independent reading of what the publishers mean: names of tensors, orientation, which biases, which activation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inspector.formats import layout_of_conversion
from inspector.spec import SaeRef
from tests.checkpoints import (
    D_IN,
    D_SAE,
    weights,
    write_gemma_scope,
    write_gemma_scope_2,
    write_llama_scope,
)
from tests.formats.test_rules import RESID, dictionary, lens, linear, newer_openmoss, plain, saved

Case = tuple[str, str, Path, dict[str, Any]]
"""Repository, path in it, where its files are made, and what else the reference says."""


def gemma_2(root: Path) -> Case:
    folder, _ = write_gemma_scope(root, weights())
    return "google/gemma-scope-2b-pt-res", folder.relative_to(root).as_posix(), root, {}


def gemma_3(root: Path) -> Case:
    made, _ = write_gemma_scope_2(root / "made", weights())
    folder = root / "resid_post" / "layer_1_width_16k_l0_small"
    folder.parent.mkdir()
    made.rename(folder)
    about = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.1.output"}
    (folder / "config.json").write_text(json.dumps(about))
    return "google/gemma-scope-2-1b-pt", folder.relative_to(root).as_posix(), root, {}


def llama_scope(root: Path) -> Case:
    folder, _ = write_llama_scope(root, weights())
    return "fnlp/Llama3_1-8B-Base-LXR-8x", folder.relative_to(root).as_posix(), root, {}


def r1_distill(root: Path) -> Case:
    folder = newer_openmoss(root, weights(), expansion_factor=D_SAE / D_IN)
    return "fnlp/Llama-Scope-R1-Distill", folder.relative_to(root).as_posix(), root, {"norm_factor": 1.0}


def of_class(kind: str, **state: Any) -> Callable[[Path], Case]:
    def make(root: Path) -> Case:
        buffer = {"ctx_len": 128, "io": "out"}
        known = linear(weights()) | state
        known = {name: value for name, value in known.items() if value is not None}
        dictionary(root / "trainer_0", kind, known, D_IN, D_SAE, buffer, lm_name="EleutherAI/pythia-70m-deduped")
        return "someone/dictionaries", "trainer_0", root, {}

    return make


def sae_lens(root: Path) -> Case:
    lens(root / "blocks.1.hook_resid_post", plain(weights()), apply_b_dec_to_input=True)
    return "someone/saes", "blocks.1.hook_resid_post", root, {}


def qwen(root: Path) -> Case:
    w = weights()
    saved(root / "layer1.sae.pt", W_enc=w.w_enc.T, W_dec=w.w_dec.T, b_enc=w.b_enc, b_dec=w.b_dec)
    return "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50", "layer1.sae.pt", root, {}


def named(repo: str, file: str, enc: str, dec: str) -> Callable[[Path], Case]:
    def make(root: Path) -> Case:
        w = weights()
        state = {f"{enc}__weight": w.w_enc.T, f"{dec}__weight": w.w_dec.T}
        saved(root / file, **state, **{f"{enc}__bias": w.b_enc, f"{dec}__bias": w.b_dec})
        return repo, file, root, {}

    return make


def heads(root: Path) -> Case:
    w, file = weights(), "gpt2-small_L1_Hcat_z_ds40_v5.pt"
    saved(root / file, W_enc=w.w_enc, W_dec=w.w_dec, b_enc=w.b_enc, b_dec=w.b_dec)
    about = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.1.attn.hook_z"}
    (root / file.replace(".pt", "_cfg.json")).write_text(json.dumps(about))
    return "ckkissane/attn-saes-gpt2-small-all-layers", file, root, {}


b_dec, threshold = weights().b_dec, weights().threshold
GATED = {"encoder.bias": None, "mag_bias": weights().b_enc, "gate_bias": 2 * weights().b_enc, "r_mag": threshold}
GOODFIRE = "Llama-3.1-8B-Instruct-SAE-l19"
DEEPSEEK = "DeepSeek-R1-Distill-Llama-8B-SAE-l19"
CASES: dict[str, tuple[str | None, Callable[[Path], Case]]] = {
    "gemma_2": ("gemma_2", gemma_2),
    "gemma_3": ("gemma_3", gemma_3),
    "sae_lens": (None, sae_lens),
    "qwen_scope": ("qwen_scope", qwen),
    "goodfire": ("goodfire", named(f"Goodfire/{GOODFIRE}", f"{GOODFIRE}.pth", "encoder_linear", "decoder_linear")),
    "deepseek_r1": ("deepseek_r1", named("someone/r1", f"{DEEPSEEK}.pt", "encoder", "decoder")),
    "connor_rob_hook_z": ("connor_rob_hook_z", heads),
    "AutoEncoder": ("dictionary_learning_1", of_class("AutoEncoder", bias=b_dec)),
    "AutoEncoderTopK": ("dictionary_learning_1", of_class("AutoEncoderTopK", b_dec=b_dec, threshold=np.array(0.5))),
    "BatchTopKSAE": ("dictionary_learning_1", of_class("BatchTopKSAE", b_dec=b_dec, threshold=np.array(0.5))),
    "GatedAutoEncoder": ("dictionary_learning_1", of_class("GatedAutoEncoder", decoder_bias=b_dec, **GATED)),
}  # fmt: skip
"""By what it is called in a failure: the registry's word, and what makes it."""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None, Case], Any]]:
    """sae-lens' loader, which finds the files where they were made instead of on the hub."""
    from sae_lens.loading import pretrained_sae_loaders as upstream  # seconds, which collecting tests need not take

    def read(conversion: str | None, case: Case) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        repo, path, root, _ = case

        def download(repo_id: str, filename: str, subfolder: str = "", force_download: bool = False) -> str:
            assert repo_id == repo and not force_download
            found = root / subfolder / filename
            if not found.is_file():
                raise upstream.EntryNotFoundError(f"no {filename}")
            return str(found)

        def shapes(_repo: str, filename: str) -> dict[str, list[int]]:
            stored = upstream.load_safetensors_weights(str(root / filename))
            return {name: list(value.shape) for name, value in stored.items()}

        monkeypatch.setattr(upstream, "hf_hub_download", download)
        monkeypatch.setattr(upstream, "get_safetensors_tensor_shapes", shapes)
        overrides = {"dtype": "float32"} if conversion == "llama_scope" else None  # it would read bfloat16
        loader = upstream.NAMED_PRETRAINED_SAE_LOADERS[conversion or "sae_lens"]
        cfg, state, _ = loader(repo, path, device="cpu", cfg_overrides=overrides)
        return upstream.handle_config_defaulting(cfg), state

    yield read


def ours(conversion: str | None, case: Case, hook: str = RESID) -> Any:
    repo, path, root, more = case
    layout = layout_of_conversion(conversion)
    assert layout is not None
    ref = SaeRef(
        sae_id="a", release="r", layer=1, hook_name=hook, d_in=D_IN, d_sae=D_SAE, repo=repo, path=str(root / path),
        format=layout.name, **more,
    )  # fmt: skip
    return layout.read(ref, root / path, "published")


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_that_sae_lens_reads(
    tmp_path: Path, theirs: Callable[[str | None, Case], Any], name: str
) -> None:
    conversion, make = CASES[name]
    case = make(tmp_path)
    cfg, state = theirs(conversion, case)
    found = ours(conversion, case)
    assert found.cfg["architecture"] == cfg["architecture"]
    assert found.cfg.get("apply_b_dec_to_input", True) == cfg["apply_b_dec_to_input"]
    assert found.cfg.get("k") == cfg.get("k")
    assert set(found.state) == {name for name, value in state.items() if value is not None}
    for key, value in state.items():
        torch.testing.assert_close(found.whole(key).float(), value.float(), rtol=0, atol=0, msg=f"{name} {key}")


@pytest.mark.parametrize(("conversion", "make"), [("llama_scope", llama_scope), ("llama_scope_r1_distill", r1_distill)])
def test_openmoss_suites_differ_by_the_norms_of_decoder_rows_alone(
    tmp_path: Path, theirs: Callable[[str | None, Case], Any], conversion: str, make: Callable[[Path], Case]
) -> None:
    """What sae-lens leaves out: with decoder rows of unit norm it would read the same function."""
    case = make(tmp_path)
    _, state = theirs(conversion, case)
    found = ours(conversion, case)
    theirs_dec = state["W_dec"].float()
    norm = theirs_dec.norm(dim=1)
    assert float((norm - 1).abs().max()) > 0.1
    torch.testing.assert_close(found.whole("W_dec"), theirs_dec / norm[:, None])
    # Its threshold is of activations that are not scaled by those norms; the ratio is one number for all latents.
    ratio = found.whole("W_enc") / (state["W_enc"].float() * norm)
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4, atol=0)
