"""Every architecture that the registry's SAEs were trained on: tiny checkpoints in the published form, hooks against
the model's own implementation.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import DataError, ExitCode, TargetError
from inspector.sources import loading
from inspector.sources.contexts import load_contexts
from inspector.sources.loading import load_model
from inspector.sources.memory_sizes import n_parameters
from inspector.sources.model import LanguageModel
from inspector.sources.model_files import (
    PUBLISHED,
    ModelFiles,
    find_model,
    published,
    refusal_of,
    require_known,
    supported_architectures,
    text_models,
)
from inspector.sources.registry import parse, registry_file
from inspector.spec import TargetSpec
from tests.toy import toy_tokenizer

ROWS, LAYERS = 300, 2
SMALL: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
WINDOW = {"sliding_window": 8}
"""Shorter than the text, so that the layers that see only so far are told from those that see everything."""
NO_HEAD_DIM = {key: value for key, value in SMALL.items() if key != "head_dim"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
SEES = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}


def gpt2(**more: Any) -> Any:
    import transformers as t

    return t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=128, **more)
    )


def made(name: str) -> Any:
    """A tiny model with random weights that matter."""
    import transformers as t

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees_small = vision | {"image_size": 8, "patch_size": 4}
    gemma = {"text_config": SMALL | WINDOW, "vision_config": sees_small}
    qwen = {"text_config": SMALL | LINEAR, "vision_config": SEES}
    qwen_moe = {
        "text_config": SMALL | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16},
        "vision_config": SEES,
    }
    makers: dict[str, Callable[[], Any]] = {
        "gpt2": gpt2,
        "gpt_neox": lambda: t.GPTNeoXForCausalLM(
            t.GPTNeoXConfig(**{k: v for k, v in NO_HEAD_DIM.items() if k != "num_key_value_heads"})
        ),
        "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**SMALL)),
        "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**SMALL, **WINDOW)),
        "gemma3_text": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**SMALL, **WINDOW)),
        "gemma3": lambda: t.Gemma3ForConditionalGeneration(t.Gemma3Config(**gemma, image_token_index=ROWS - 1)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**SMALL, **WINDOW)),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**NO_HEAD_DIM)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL)),
        "qwen3_moe": lambda: t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**SMALL, **EXPERTS)),
        "qwen3_5": lambda: t.Qwen3_5ForConditionalGeneration(t.Qwen3_5Config(**qwen)),
        "qwen3_5_moe": lambda: t.Qwen3_5MoeForConditionalGeneration(t.Qwen3_5MoeConfig(**qwen_moe)),
        "gpt_oss": lambda: t.GptOssForCausalLM(
            t.GptOssConfig(**SMALL, **WINDOW, num_local_experts=4, num_experts_per_tok=2)
        ),
        "mistral3": lambda: t.Mistral3ForConditionalGeneration(
            t.Mistral3Config(
                text_config=SMALL | {"model_type": "mistral"},
                vision_config=sees_small | {"model_type": "pixtral", "head_dim": 8},
                image_token_index=5,
            )
        ),
        "llama4": lambda: t.Llama4ForConditionalGeneration(
            t.Llama4Config(
                text_config=SMALL | {"intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1},
                vision_config=sees_small
                | {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
            )
        ),
        "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**NO_HEAD_DIM)),
        "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**NO_HEAD_DIM)),
        "cohere": lambda: t.CohereForCausalLM(t.CohereConfig(**NO_HEAD_DIM)),
    }
    return drawn(makers[name]())


def drawn(model: Any) -> Any:
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
        else:  # norms and biases, which would be ones and zeros
            weight.data += 0.2 * torch.randn_like(weight)
    return model.eval()


def written(model: Any, folder: Path, *, extra_tokens: int = 0) -> Path:
    """The model's files as they are published, with a tokenizer that may have more tokens than the model has rows."""
    from transformers import PreTrainedTokenizerFast

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=toy_tokenizer(ROWS), bos_token="<bos>", eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<image_{i}>" for i in range(extra_tokens)]})
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load_model(TargetSpec(model=str(folder), device="cpu"))


def own_values(model: Any, tokens: torch.Tensor, layer: int = LAYERS - 1) -> dict[str, torch.Tensor]:
    """What passes a block and its parts in the model's own implementation, by the names of the hooks that hold it."""
    text = getattr(model.base_model, "language_model", model.base_model)
    block = (text.layers if hasattr(text, "layers") else text.h)[layer]
    found: dict[str, torch.Tensor] = {}
    handles: list[Any] = []

    def keep_output(module: Any, name: str) -> None:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        handles.append(module.register_forward_hook(hook))

    def keep_input(module: Any, name: str) -> None:
        def hook(_module: Any, inputs: Any, named: dict[str, Any]) -> None:
            found[name] = inputs[0] if inputs else named["hidden_states"]

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def part(of: Any, *names: str) -> Any:
        return next(getattr(of, name) for name in names if hasattr(of, name))

    attention = part(block, "self_attn", "attn", "attention", "linear_attn")
    adds_normed = hasattr(block, "post_feedforward_layernorm")
    inside = f"blocks.{layer}."
    keep_output(model.get_input_embeddings(), "hook_embed")
    keep_input(block, inside + "hook_resid_pre")
    keep_output(block, inside + "hook_resid_post")
    keep_output(block.post_attention_layernorm if adds_normed else attention, inside + "hook_attn_out")
    keep_output(block.post_feedforward_layernorm if adds_normed else block.mlp, inside + "hook_mlp_out")
    keep_output(block.mlp, inside + "mlp.hook_out")
    keep_input(block.mlp, inside + "mlp.hook_in")
    keep_input(part(attention, "o_proj", "c_proj", "dense", "out_proj"), inside + "attn.hook_z")
    with torch.inference_mode():
        found["logits"] = model(tokens, use_cache=False).logits
    for handle in handles:
        handle.remove()
    if attention is getattr(block, "linear_attn", None):  # another kind of layer, with names of its own
        found[inside + "linear_attn.hook_out"] = found.pop(inside + "hook_attn_out")
        del found[inside + "attn.hook_z"]
    return found


LOADS = (
    "gpt2", "gpt_neox", "gemma", "gemma2", "gemma3_text", "gemma3", "mistral", "llama", "qwen2", "qwen3", "qwen3_moe",
    "qwen3_5", "qwen3_5_moe", "gpt_oss",
)  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_hooks_hold_what_the_models_own_implementation_computes(tmp_path: Path, name: str) -> None:
    own = made(name)
    model = loaded(written(own, tmp_path / name))
    tokens = torch.randint(0, ROWS, (1, 40), generator=torch.Generator().manual_seed(1))
    assert model.d_model == 32 and model.n_layers == LAYERS
    for layer in range(LAYERS):
        expected = own_values(own, tokens, layer)
        names = sorted(expected.keys() - {"logits"})
        assert len(names) >= 7
        found = model.forward(tokens, names)
        # Sums of 32 to 128 float32 products of values up to some tens, in another order.
        torch.testing.assert_close(found.logits, expected["logits"].float(), rtol=1e-4, atol=1e-3)
        for hook in names:
            own_value = expected[hook].reshape(1, 40, -1)
            torch.testing.assert_close(found.activations[hook], own_value, rtol=1e-4, atol=1e-3, msg=hook)
        at = found.activations
        before, after = (at[f"blocks.{layer}.hook_resid_{end}"] for end in ("pre", "post"))
        added = sum(
            at[name] for name in names if name.endswith(("hook_attn_out", "linear_attn.hook_out", "hook_mlp_out"))
        )
        torch.testing.assert_close(before + added, after, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3_text", "gemma3"])
def test_gemmas_embedding_is_scaled_where_its_saes_read_it(tmp_path: Path, name: str) -> None:
    """Gemma Scope's embedding SAEs read what enters block 0: rows of the table times the root of d_model."""
    own = made(name)
    model = loaded(written(own, tmp_path / name))
    tokens = torch.arange(5, 25)[None]
    rows = own.get_input_embeddings().weight.detach()[tokens]
    found = model.values(tokens, ["hook_embed", "blocks.0.hook_resid_pre"])
    torch.testing.assert_close(found["hook_embed"], rows * 32**0.5, rtol=1e-6, atol=0)
    torch.testing.assert_close(found["hook_embed"], found["blocks.0.hook_resid_pre"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mistral3", "llama4", "olmo2", "granite"])
def test_other_models_compute_the_same_and_their_parts_add_up(tmp_path: Path, name: str) -> None:
    """Mistral 3 says for the whole that its embedding is the output; OLMo 2 and Granite norm or scale what they add."""
    own = made(name)
    model = loaded(written(own, tmp_path / name))
    tokens = torch.arange(40)[None] + 5
    with torch.inference_mode():
        expected = own(tokens, use_cache=False).logits
    ends = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    found = model.forward(tokens, [f"blocks.1.{end}" for end in ends])
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-3)
    *parts, after = found.activations.values()
    torch.testing.assert_close(sum(parts), after, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_5", "llama4"])
def test_a_plan_counts_the_weights_that_are_loaded(tmp_path: Path, name: str) -> None:
    own = made(name)
    text = getattr(own.base_model, "language_model", own.base_model)
    weights = {each.data_ptr(): each.numel() for each in (*text.parameters(), own.get_output_embeddings().weight)}
    assert n_parameters(find_model(str(written(own, tmp_path / name)))) == sum(weights.values())


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_multimodal_weights_are_found_under_both_names_in_use(tmp_path: Path, prefix: str) -> None:
    own = made("gemma3")
    folder = written(own, tmp_path / "m")
    path = folder / "model.safetensors"
    text = own.model.language_model.state_dict()
    seen = {key: value for key, value in load_file(path).items() if "vision" in key or "projector" in key}
    save_file({**seen, **{f"{prefix}{key}": value.contiguous() for key, value in text.items()}}, path, {"format": "pt"})
    model = loaded(folder)
    assert "its text model is used alone" in model.warnings[0]
    tokens = torch.arange(10)[None] + 5
    with torch.inference_mode():
        expected = own(tokens, use_cache=False).logits
    torch.testing.assert_close(model.forward(tokens).logits, expected, rtol=1e-4, atol=1e-3)


def packed(weights: dict[str, torch.Tensor], seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Experts in gpt-oss's own format, and the numbers they stand for by OCP's specification of MXFP4: two numbers of
    four bits in a byte, the first in its low half, and a power of two for every 32."""
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float64)
    random = np.random.default_rng(seed)
    stored, numbers = dict(weights), dict(weights)
    for key in [key for key in weights if key.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, n_in, n_out = weights[key].shape
        codes = random.integers(0, 16, (experts, n_out, n_in // 32, 32))
        scales = random.integers(123, 128, (experts, n_out, n_in // 32))
        wide = (values[codes] * 2.0 ** (scales - 127)[..., None]).reshape(experts, n_out, n_in)
        numbers[key] = torch.from_numpy(wide.transpose(0, 2, 1).copy()).float()
        del stored[key]
        stored[f"{key}_blocks"] = torch.from_numpy((codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8))
        stored[f"{key}_scales"] = torch.from_numpy(scales.astype(np.uint8))
    return stored, numbers


def test_gpt_oss_loads_from_the_four_bits_in_which_it_is_published(tmp_path: Path) -> None:
    own = made("gpt_oss")
    folder = written(own, tmp_path / "m")
    stored, numbers = packed(load_file(folder / "model.safetensors"), 0)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    (folder / "config.json").write_text(json.dumps(config))
    own.load_state_dict(numbers)
    assert n_parameters(find_model(str(folder))) == sum(each.numel() for each in numbers.values())
    model = loaded(folder)
    assert model.dtype == torch.float32
    tokens = torch.arange(10)[None] + 5
    hook = f"blocks.{LAYERS - 1}.hook_resid_post"
    found, expected = model.forward(tokens, [hook]), own_values(own, tokens)
    torch.testing.assert_close(found.logits, expected["logits"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.activations[hook], expected[hook], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "make", "dtype", "room"),
    [
        ("cohere", lambda: made("cohere"), "float32", r"0\.001"),
        ("cohere", lambda: made("cohere"), "bfloat16", r"0\.1"),
        ("gpt2", lambda: drawn(gpt2(scale_attn_weights=False)), "float32", r"0\.001"),
        ("gpt2", lambda: drawn(gpt2(scale_attn_weights=False)), "bfloat16", r"0\.1"),
    ],
)
def test_what_transformer_lens_computes_otherwise_is_refused_with_its_size(
    tmp_path: Path, name: str, make: Callable[[], Any], dtype: str, room: str
) -> None:
    with pytest.raises(TargetError, match=rf"logits differ by 0\.\d+ of their spread, and rounding explains {room} "):
        load_model(TargetSpec(model=str(written(make(), tmp_path / name)), device="cpu", dtype=dtype))


@pytest.mark.parametrize("changed", [{"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True}])
def test_gpt2_with_its_other_switches_is_computed_as_its_own(tmp_path: Path, changed: dict[str, bool]) -> None:
    own = drawn(gpt2(**changed))
    tokens = torch.arange(20)[None] + 5
    with torch.inference_mode():
        expected = own(tokens, use_cache=False).logits
    found = loaded(written(own, tmp_path / "m")).forward(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_a_model_that_does_not_run_in_half_precision_says_what_does(tmp_path: Path) -> None:
    folder = written(made("olmo2"), tmp_path / "m")
    with pytest.raises(TargetError, match=r"does not run in half precision .* Use --dtype float32\."):
        load_model(TargetSpec(model=str(folder), device="cpu", dtype="bfloat16"))


@pytest.mark.parametrize(("name", "centred"), [("llama", False), ("gpt2", True)])
def test_a_norms_hook_is_before_its_weights(tmp_path: Path, name: str, centred: bool) -> None:
    own = made(name)
    tokens = torch.arange(20)[None] + 5
    hooks = ["blocks.1.hook_resid_mid", "blocks.1.ln2.hook_normalized", "blocks.1.ln2.hook_out"]
    x, normalised, given = loaded(written(own, tmp_path / "m")).forward(tokens, hooks).activations.values()
    x = x.double() - (x.double().mean(-1, keepdim=True) if centred else 0)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(normalised.double(), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(given, normalised, atol=0.01)


def test_the_comparison_is_made_once_for_each_set_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read: list[Path] = []
    real, real_digest = loading.Question.logits_of, ModelFiles.digest

    def counted(self: loading.Question, hf_model: Any) -> torch.Tensor:
        asked.append(self.files.name)
        return real(self, hf_model)

    def digested(self: ModelFiles) -> str:
        read.append(self.directory)
        return real_digest(self)

    monkeypatch.setattr(loading, "user_folder", lambda _: tmp_path / "kept")
    monkeypatch.setattr(loading.Question, "logits_of", counted)
    monkeypatch.setattr(ModelFiles, "digest", digested)
    folder = written(made("llama"), tmp_path / "m")
    loaded(folder)
    read.clear()
    loaded(folder)
    assert len(asked) == 1 and not read  # not even the weights' hash is computed again
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    loaded(copy)
    assert len(asked) == 1 and read  # the same weights elsewhere
    for kept in (tmp_path / "kept").rglob("*.json"):
        kept.write_text("{")
    loaded(folder)  # a damaged answer is asked again
    assert len(asked) == 2
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    loaded(copy)
    assert len(asked) == 3


def test_weights_that_were_replaced_are_not_taken_for_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was found to be the same, and then one in its place that is not."""
    monkeypatch.setattr(loading, "user_folder", lambda _: tmp_path / "kept")
    folder = written(drawn(gpt2()), tmp_path / "m")
    loaded(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"scale_attn_weights": False}))
    for _ in range(2):  # a refusal is no answer that is kept
        with pytest.raises(TargetError, match="the logits differ by"):
            loaded(folder)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"bos_token_id": 1, "eos_token_id": 2}, None),
        ({"bos_token_id": None, "eos_token_id": [7, 2]}, None),
        (
            {"bos_token_id": 7, "eos_token_id": 2},
            r"the beginning of a text is token 7 \('.'\), its tokenizer says 1 \('<bos>'\); the tokenizer's is used\.$",
        ),
        ({"bos_token_id": 1, "eos_token_id": [7, 999]}, r"end .* 7 \('.'\) or 999 \(which is no token\), .* says 2 .*"),
    ],
)
def test_special_ids_that_config_and_tokenizer_disagree_about_are_told(
    tmp_path: Path, said: dict[str, Any], told: str | None
) -> None:
    folder = written(made("llama"), tmp_path / "m")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    model = loaded(folder)
    assert model.bos_id == 1  # whatever the configuration says
    if told is None:
        assert not model.warnings
    else:
        (warning,) = model.warnings
        assert re.search(told, warning)


def test_a_token_without_a_row_does_no_harm_until_it_is_met(tmp_path: Path) -> None:
    model = loaded(written(made("gemma3_text"), tmp_path / "m", extra_tokens=2))
    assert (len(model.tokenizer), model.vocab_size) == (ROWS + 2, ROWS)
    ids = model.encode("a token and <image_1>")
    assert ids[-1] == ROWS + 1
    model.forward(torch.tensor([ids[:-1]]))
    place = f"Token '<image_1>' (id 301) at position {len(ids) - 1} of the text has no row"
    with pytest.raises(DataError, match=re.escape(place)):
        model.forward(torch.tensor([ids]))
    with pytest.raises(DataError, match=r"position 1 of text 2 of 2 has no row .* has 300"):
        model.values(torch.tensor([[1, 5], [1, 300]]), ["hook_embed"])


def test_a_text_with_a_token_without_a_row_is_refused_with_its_record(tmp_path: Path) -> None:
    folder = written(made("gemma3_text"), tmp_path / "m", extra_tokens=2)
    model, texts = loaded(folder), ["a token and another one of many more"] * 20
    target = TargetSpec(model=str(folder), text=str(tmp_path / "t.jsonl"), contexts=20, context_length=8, device="cpu")

    def write() -> None:
        (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    write()
    assert len(load_contexts(target, model).token_ids) == 20
    texts[12] = "a <image_0> of many more and some others"
    write()
    with pytest.raises(
        DataError, match=r"'<image_0>' \(id 300\) at position \d of t\.jsonl record 13 has no row"
    ) as caught:
        load_contexts(target, model)
    assert caught.value.exit_code == ExitCode.DATA


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "does not predict the next token"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "does not predict"),
        ({"architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {}}, "whose text model is no part of"),
        (
            {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "text_config": {"model_type": "qwen2_5_vl_text"}},
            r"whose text model \('qwen2_5_vl_text'\) transformers does not run on its own",
        ),
        ({"architectures": ["AriaForConditionalGeneration"], "text_config": {"model_type": "aria_text"}}, "AriaText"),
        ({"architectures": ["NewThingForCausalLM"]}, "which transformer-lens does not know"),
        ({"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq"}}, "'gptq'"),
        ({"architectures": ["GptOssForCausalLM"], "quantization_config": {}}, "unnamed method"),
    ],
)
def test_what_cannot_be_measured_is_refused_from_its_configuration(config: dict[str, Any], says: str) -> None:
    with pytest.raises(TargetError, match=says):
        require_known({"model_type": "x", **config}, "some/model")


def test_the_lists_of_architectures_are_the_libraries_own() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert {**text_models()} == {k: v for k, v in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if isinstance(v, str)}


def test_what_can_be_measured_is_let_through_and_the_list_is_transformer_lens_own() -> None:
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    assert supported_architectures() == frozenset(SUPPORTED_ARCHITECTURES)
    require_known({"architectures": ["LlamaForCausalLM"]}, "a")
    require_known({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}}, "a")
    require_known({"architectures": None}, "a")


ARCHITECTURE_OF = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "mistral": "MistralForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "gpt_oss": "GptOssForCausalLM",
}


def test_every_model_of_the_registry_is_of_an_architecture_that_was_tried() -> None:
    tried = {ARCHITECTURE_OF[name] for name in LOADS}
    models = {about["model"] for about in parse(registry_file().read_bytes()).values()}
    assert len(models) > 30
    unknown = {model for model in models if (found := published(model)) is None or found.architecture not in tried}
    assert not unknown
    assert not {model: refusal_of(model) for model in models if refusal_of(model)}
    assert refusal_of("somebody/anything") == "its architecture is not known here"


def test_what_a_published_model_is_matches_the_checkpoints_that_were_tried(tmp_path: Path) -> None:
    for about in PUBLISHED.values():
        (name,) = [name for name, architecture in ARCHITECTURE_OF.items() if architecture == about.architecture]
        config = made(name).config
        assert about.has_text_config == (config.get_text_config(decoder=True) is not config), name
