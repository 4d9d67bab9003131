"""Writes tiny GGUF files: whole models through the gguf package, and headers by hand, which no library would write."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

KINDS = {int: 10, float: 12, bool: 7, str: 8}
"""Of values, as they stand in a file."""


def write_gguf(folder: Path, path: Path, *, quantised: bool = False, **values: Any) -> Path:
    """Write a toy Llama of the Hugging Face layout as GGUF, as llama.cpp's converter does.

    Args:
        folder: of the model.
        path: of the file.
        quantised: matrices whose rows are whole blocks of 32 in Q8_0; else everything in float32.
        values: that replace what the header would say, by key with `__` for each dot.
    """
    import gguf

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    by_id = {i: token for token, i in vocabulary["model"]["vocab"].items()}
    tokens = [by_id[i] for i in range(len(by_id))]
    special = {each["id"] for each in vocabulary["added_tokens"]}
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    said: dict[str, Any] = {
        "general.name": "toy",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.rope.dimension_count": config["head_dim"],
        "llama.rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    } | {key.replace("__", "."): value for key, value in values.items()}
    for key, value in said.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["model"]["merges"]])
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    }  # fmt: skip
    for name, array in load_file(folder / "model.safetensors").items():
        short = name.replace("model.layers.", "blk.")
        for theirs, ours in names.items():
            short = short.replace(theirs, ours)
        for part, n_heads in (("attn_q", heads), ("attn_k", kv_heads)):
            if f".{part}." in short:  # llama.cpp turns pairs of neighbours, transformers halves of a head
                array = array.reshape(n_heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        array = np.ascontiguousarray(array.astype(np.float32))
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantised and array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(short, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def header_bytes(
    values: dict[str, Any] | None = None,
    tensors: list[tuple[str, list[int], int, int]] | None = None,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_values: int | None = None,
    n_tensors: int | None = None,
    data: bytes = b"",
) -> bytes:
    """A header, and `data` after it.

    Args:
        values: numbers, strings and lists of strings or whole numbers.
        tensors: name, shape, number of the type, offset.
        n_values, n_tensors: claimed instead of how many there are.
    """
    values, tensors = values or {}, tensors or []
    raw = magic + struct.pack("<IQQ", version, _or(n_tensors, len(tensors)), _or(n_values, len(values)))
    for key, value in values.items():
        raw += _text(key) + _value(value)
    for name, shape, kind, offset in tensors:
        raw += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return raw + bytes(-len(raw) % 32) + data


def _or(claimed: int | None, there: int) -> int:
    return there if claimed is None else claimed


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        is_text = bool(value) and isinstance(value[0], str)
        items = b"".join(_text(each) if is_text else struct.pack("<i", each) for each in value)
        return struct.pack("<IIQ", 9, 8 if is_text else 5, len(value)) + items
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    code = {10: "Q", 12: "d", 7: "?"}[KINDS[type(value)]]
    return struct.pack(f"<I{code}", KINDS[type(value)], value)
