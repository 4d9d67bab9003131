"""Sizes of published models, to plan with before anything of them is on the disk.

What their config.json says, as far as memory and time depend on it, and how many bytes their weights are to fetch. A
test builds each from its configuration with transformers, without memory for the weights, and counts its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.errors import TargetError
from inspector.sources.built_in import weights_of
from inspector.sources.model_files import ModelFiles, find_model, hub_id


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a published model is made of; its text model, if it also sees."""

    kind: str
    """`model_type` of transformers."""
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    n_ctx: int
    n_parameters: int
    """Numbers that are loaded."""
    stored: int
    """Bytes of the weights to fetch, about."""
    ties: bool = True
    """Whether the embedding is the output as well."""

    @property
    def d_heads(self) -> int:
        """Width of hook_z, heads flattened."""
        return self.n_heads * self.head_dim

    def config(self) -> dict[str, Any]:
        """As config.json writes it, for those who read sizes there."""
        return {
            "model_type": self.kind,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.d_ff,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.n_ctx,
            "tie_word_embeddings": self.ties,
        }


def _shape(kind: str, sizes: str, parameters: int, stored: float, *, ties: bool = True) -> ModelShape:
    """Sizes in the order of the class: d_model, layers, heads, their keys', width of a head, d_ff, tokens, context."""
    d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ff, vocab_size, n_ctx = map(int, sizes.split())
    return ModelShape(
        kind=kind, d_model=d_model, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim,
        d_ff=d_ff, vocab_size=vocab_size, n_ctx=n_ctx, n_parameters=parameters, stored=round(stored * 1e9), ties=ties,
    )  # fmt: skip


_LLAMA_8B = _shape("llama", "4096 32 32 8 128 14336 128256 131072", 8_030_261_248, 16.1, ties=False)
SHAPES: Mapping[str, ModelShape] = {
    r"openai-community/gpt2": _shape("gpt2", "768 12 12 12 64 3072 50257 1024", 124_439_808, 0.55),
    r"EleutherAI/pythia-70m-deduped": _shape(
        "gpt_neox", "512 6 8 8 64 2048 50304 2048", 70_426_624, 0.17, ties=False
    ),
    r"google/gemma-2b(-it)?": _shape("gemma", "2048 18 8 1 256 16384 256000 8192", 2_506_172_416, 5.0),
    r"google/gemma-2-2b": _shape("gemma2", "2304 26 8 4 256 9216 256000 8192", 2_614_341_888, 10.5),
    r"google/gemma-2-2b-it": _shape("gemma2", "2304 26 8 4 256 9216 256000 8192", 2_614_341_888, 5.2),
    r"google/gemma-2-9b": _shape("gemma2", "3584 42 16 8 256 14336 256000 8192", 9_241_705_984, 37.0),
    r"google/gemma-2-9b-it": _shape("gemma2", "3584 42 16 8 256 14336 256000 8192", 9_241_705_984, 18.5),
    r"google/gemma-2-27b": _shape("gemma2", "4608 46 32 16 128 36864 256000 8192", 27_227_128_320, 108.9),
    r"google/gemma-3-270m(-it|-pt)?": _shape("gemma3_text", "640 18 4 1 256 2048 262144 32768", 268_098_176, 0.54),
    r"google/gemma-3-1b(-it|-pt)": _shape("gemma3_text", "1152 26 4 1 256 6912 262144 32768", 999_885_952, 2.0),
    r"google/gemma-3-4b(-it|-pt)": _shape("gemma3_text", "2560 34 8 4 256 10240 262208 131072", 3_880_263_168, 8.6),
    r"google/gemma-3-12b(-it|-pt)": _shape("gemma3_text", "3840 48 16 8 256 15360 262208 131072", 11_766_034_176, 24.4),
    r"google/gemma-3-27b(-it|-pt)": _shape(
        "gemma3_text", "5376 62 32 16 128 21504 262208 131072", 27_009_346_304, 54.9
    ),
    r"mistralai/Mistral-7B-v0\.1": _shape(
        "mistral", "4096 32 32 8 128 14336 32000 32768", 7_241_732_096, 14.5, ties=False
    ),
    r"(meta-llama/(Meta-)?Llama-3(\.1)?|deepseek-ai/DeepSeek-R1-Distill-Llama)-8B(-Instruct)?": _LLAMA_8B,
    r"Qwen/Qwen2\.5-7B-Instruct": _shape(
        "qwen2", "3584 28 28 4 128 18944 152064 32768", 7_615_616_512, 15.2, ties=False
    ),
    r"Qwen/Qwen3-0\.6B(-Base)?": _shape("qwen3", "1024 28 16 8 128 3072 151936 40960", 596_049_920, 1.5),
    r"Qwen/Qwen3-1\.7B(-Base)?": _shape("qwen3", "2048 28 16 8 128 6144 151936 40960", 1_720_574_976, 4.1),
    r"Qwen/Qwen3-4B(-Base)?": _shape("qwen3", "2560 36 32 8 128 9728 151936 40960", 4_022_468_096, 8.0),
    r"Qwen/Qwen3-8B(-Base)?": _shape("qwen3", "4096 36 32 8 128 12288 151936 40960", 8_190_735_360, 16.4, ties=False),
    r"Qwen/Qwen3-14B(-Base)?": _shape(
        "qwen3", "5120 40 40 8 128 17408 151936 40960", 14_768_307_200, 29.5, ties=False
    ),
}  # fmt: skip
"""By the pattern of Hugging Face ids."""


def shape_of(model: str) -> ModelShape | None:
    """Of a model of the registry, by its id or the registry's name for it; None: not known."""
    named = hub_id(model)
    return next((found for pattern, found in SHAPES.items() if re.fullmatch(pattern, named)), None)


def width_at(model: str, hook_name: str) -> int:
    """Numbers per token at a hook of a published model; 0 if not known."""
    shape = shape_of(model)
    if shape is None:
        return 0
    return shape.d_heads if hook_name.endswith("hook_z") else shape.d_model


def expected_model(name: str, cache_dir: str | None = None) -> ModelFiles:
    """The files of a model, or what stands for them where they are not here: its published sizes.

    Raises:
        TargetError: it is neither here nor known.
    """
    try:
        return find_model(name, cache_dir)
    except TargetError as error:
        shape = shape_of(name)
        if shape is None and weights_of(name) is not None:  # it is here, and the error says what makes it readable
            raise
        if shape is None:
            raise TargetError(
                f"{str(error).partition('. ')[0]}, and what it is made of is not known without its files. "
                "Fetch it first with `hf download ORGANISATION/NAME`, or plan for a model of a directory."
            ) from error
        return ModelFiles(
            name=name, directory=Path(name), config=shape.config(), weights=(), expected=shape.n_parameters
        )
