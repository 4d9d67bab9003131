"""Sizes of published models against what transformers builds from them, without memory for a weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inspector.errors import TargetError
from inspector.sources.model_shapes import SHAPES, expected_model, shape_of, width_at
from inspector.sources.target import resolve
from inspector.spec import TargetSpec

NAMES = ["google/gemma-2-2b", "google/gemma-2-9b", "meta-llama/Llama-3.1-8B", "google/gemma-3-27b-pt"]


@pytest.mark.parametrize("pattern", SHAPES)
def test_the_parameters_are_those_of_the_model_that_transformers_builds(pattern: str) -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = SHAPES[pattern]
    config = shape.config()
    kind = config.pop("model_type")
    if kind == "gpt2":  # which has names of its own
        config = {"n_embd": shape.d_model, "n_layer": shape.n_layers, "n_head": shape.n_heads, "n_inner": shape.d_ff}
        config |= {"vocab_size": shape.vocab_size, "n_positions": shape.n_ctx}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**config))
    assert sum(each.numel() for each in model.parameters()) == shape.n_parameters
    # Two or four bytes each, and for models that also see 0.4 billion more, which are fetched and not loaded.
    assert any(0.98 < shape.stored / (n * shape.n_parameters) < 1.3 for n in (2, 4))


def test_published_widths_are_known_at_every_hook() -> None:
    assert width_at("google/gemma-2-9b", "blocks.20.hook_resid_post") == 3584
    assert width_at("google/gemma-2-9b", "blocks.20.attn.hook_z") == 4096
    assert width_at("google/gemma-3-27b-pt", "blocks.31.attn.hook_z") == 4096
    assert width_at("nobody/nothing", "blocks.0.hook_resid_post") == 0
    assert shape_of("gemma-2-2b") is shape_of("google/gemma-2-2b")  # the registry's name for it


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_not_here_is_planned_with(name: str, tmp_path: Path) -> None:
    files = expected_model(name, str(tmp_path))
    shape = shape_of(name)
    assert shape is not None
    assert (files.expected, files.n_layers, files.d_model) == (shape.n_parameters, shape.n_layers, shape.d_model)
    target = TargetSpec(model=name, layers=(3,), cache_dir=str(tmp_path), offline=True)
    assert resolve(target, unseen=True).files.expected == shape.n_parameters
    with pytest.raises(TargetError, match="is neither a directory nor in the Hugging Face cache"):
        resolve(target)
    with pytest.raises(TargetError, match=rf"has layers 0 to {shape.n_layers - 1}|no layer 99|no SAE at"):
        resolve(replace(target, layers=(99,)), unseen=True)


def test_one_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"what it is made of is not known without its files\. Fetch it first"):
        expected_model("openai/gpt-oss-20b", str(tmp_path))
