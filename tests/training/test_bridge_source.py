"""Training activations: the same numbers from the bridge and from the application's model, and no silent misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from inspector.errors import TargetError
from inspector.sources.loading import load_model
from inspector.sources.model import LanguageModel
from inspector.spec import TargetSpec
from inspector.training.blocks import BridgeSource
from tests.toy import write_toy_model

HOOKS = ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("toy"), "gemma2")


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(TargetSpec(model=str(folder), device="cpu", offline=True))


@pytest.fixture(scope="module")
def bridge(folder: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(folder))


def ids() -> torch.Tensor:
    return torch.randint(3, 200, (5, 20), generator=torch.Generator().manual_seed(0))


def test_bridge_gives_what_hugging_face_computes(bridge: Any, folder: Path) -> None:
    found = BridgeSource(bridge, HOOKS)(ids())
    assert list(found) == HOOKS
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    states = plain(ids(), output_hidden_states=True).hidden_states
    # The same operations in another batch order: float32 rounding.
    torch.testing.assert_close(found[HOOKS[0]], states[2], rtol=1e-4, atol=1e-5)
    assert found["blocks.1.attn.hook_z"].shape == (5, 20, 24)


def test_bridge_and_model_agree(bridge: Any, model: LanguageModel) -> None:
    fast = BridgeSource(bridge, HOOKS)(ids())
    for hook in HOOKS:
        torch.testing.assert_close(fast[hook], model.activations(ids(), hook), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(fast[HOOKS[0]], fast[HOOKS[1]])


def test_an_unknown_hook_is_refused(bridge: Any) -> None:
    with pytest.raises(TargetError, match=r"has no hook 'blocks.1.hook_resid_pots'. Nearest: blocks.1.hook_resid_p"):
        BridgeSource(bridge, ["blocks.1.hook_resid_pots"])(ids())
