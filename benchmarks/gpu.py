"""A sweep at a real model's size on a GPU: random weights made on the device, so that nothing has to be carried there.

python -m benchmarks.gpu [--shape gemma-2-9b|small] [--contexts 300] [--device cuda] [--out benchmarks/gpu.md]

Measured in one process: `norm-prediction` over all SAEs of one hook, and beside it the matrix products that cannot be
avoided (the layers up to the hook, each SAE's encoder, the scatter of x and of x with every error). Peak memory is the
allocator's own count, held against the plan that the program makes before it loads.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from inspector.engine.plan import make_plan
from inspector.options import width_label
from inspector.runner import run
from inspector.sources.contexts import Contexts
from inspector.sources.memory_plan import Sizes, plan_memory
from inspector.sources.model import LanguageModel
from inspector.sources.model_files import find_model
from inspector.sources.sae import LoadedSae
from inspector.sources.target import Loaded
from inspector.sources.tokenizer import Tokenizer, load_tokenizer
from inspector.spec import RunSpec, SaeRef, TargetSpec, hook_name_of
from tests.toy import write_toy_model

T = TypeVar("T")
L0 = 60
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Gemma 2 model and of the SAEs on it."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    layer: int
    widths: tuple[int, ...]
    length: int
    """Tokens per context."""


SHAPES = {
    "gemma-2-9b": Shape(
        d_model=3584, n_layers=42, n_heads=16, n_kv_heads=8, head_dim=256, d_ff=14336, vocab_size=256_000, layer=20,
        widths=tuple(2**power for power in range(14, 21)), length=1024,
    ),
    "small": Shape(
        d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=128, vocab_size=300, layer=1,
        widths=(256, 512), length=64,
    ),
}  # fmt: skip


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="gemma-2-9b")
    parser.add_argument("--contexts", type=int, default=300)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="append the lines to this file as Markdown")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; nothing was measured", file=sys.stderr)
        return 3
    measured = measure(SHAPES[asked.shape], asked.contexts, device)
    print(json.dumps(measured, indent=1))
    if asked.out is not None:
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(as_markdown(asked.shape, measured))
    return 0


def measure(shape: Shape, n_contexts: int, device: torch.device) -> dict[str, Any]:
    """Load, sweep, and time the bare products; plain numbers."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = made(shape, n_contexts, device, Path(folder))
        held = _allocated(device)
        plan = plan_memory(_sizes(shape, loaded, device), 1 << 50, device=str(device))
        spec = RunSpec(target=loaded.target, experiments=("norm-prediction",), batch_size=BATCH)
        _reset_peak(device)
        began = _now(device)
        (result,) = _finish(run(spec, loaded))
        sweep = _now(device) - began
        peak = _peak(device)
        bare = _bare(loaded, device)
    n_tokens = int(loaded.contexts.token_ids.numel())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "n_tokens": n_tokens,
        "widths": list(shape.widths),
        "l0": [round(row["l0"], 1) for row in result["saes"]],
        "sweep_seconds": sweep,
        "tokens_per_second": n_tokens / sweep,
        "bare_seconds": bare,
        "ratio": sweep / bare,
        "loaded_bytes": held,
        "peak_bytes": peak,
        "planned_bytes": plan.needed,
        "peak_of_plan": peak / plan.needed if peak else None,
    }


def made(shape: Shape, n_contexts: int, device: torch.device, folder: Path) -> Loaded:
    """A target of this shape with random weights on the device."""
    model = _model(shape, device, folder)
    hook_name = hook_name_of("resid", shape.layer)
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(3, 259, (n_contexts, shape.length), generator=generator)
    token_ids[:, 0] = 1
    target = TargetSpec(
        model=model.name, layers=(shape.layer,), contexts=n_contexts, context_length=shape.length,
        positions=(min(200, shape.length // 4), None), device=str(device), dtype="bfloat16",
    )  # fmt: skip
    sample = model.activations(token_ids[:1], hook_name)[0, shape.length // 4 :]
    return Loaded(
        target=target,
        model=model,
        hook_name=hook_name,
        layer=shape.layer,
        saes=tuple(_sae(width, sample, hook_name, device) for width in shape.widths),
        contexts=Contexts(
            token_ids=token_ids,
            names=("random",) * n_contexts,
            sha256="random",
            documents=tuple(range(n_contexts)),
        ),
        plan=make_plan(token_ids, model.special_ids, target.positions or (0, None), None, "context", 0),
        warnings=(),
    )


def _model(shape: Shape, device: torch.device, folder: Path) -> LanguageModel:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import Gemma2Config, Gemma2ForCausalLM

    write_toy_model(folder, "gemma2", n_layers=shape.n_layers, context=shape.length)
    config = Gemma2Config(
        vocab_size=shape.vocab_size, hidden_size=shape.d_model, intermediate_size=shape.d_ff,
        num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.head_dim, query_pre_attn_scalar=shape.head_dim, max_position_embeddings=8192,
        attn_implementation="eager",
    )  # fmt: skip
    config.save_pretrained(folder)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            hf_model = Gemma2ForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    tokenizer = load_tokenizer(folder)
    bridge: Any = TransformerBridge  # untyped
    bridge = bridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=torch.bfloat16
    ).eval()
    return LanguageModel(bridge, Tokenizer(tokenizer), find_model(str(folder), None))


@torch.inference_mode()
def _sae(width: int, x: torch.Tensor, hook_name: str, device: torch.device) -> LoadedSae:
    """A random JumpReLU SAE whose thresholds leave about L0 latents active."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d = x.shape[1]
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=width, device=str(device)))
    torch.manual_seed(width)
    sae.W_enc.data.normal_(std=d**-0.5)
    sae.W_dec.data.normal_(std=d**-0.5)
    before = x[:64] @ sae.W_enc + sae.b_enc
    threshold = before.topk(min(L0 + 1, width), dim=1).values[:, -1].median()
    sae.threshold.data.fill_(float(threshold))
    sae.requires_grad_(False)
    ref = SaeRef(
        sae_id=f"random/width_{width_label(width)}", release="random", layer=None, hook_name=hook_name, d_in=d,
        d_sae=width, nominal_l0=float(L0),
    )  # fmt: skip
    return LoadedSae(ref, sae)


def _sizes(shape: Shape, loaded: Loaded, device: torch.device) -> Sizes:
    parameters: Any = loaded.model._bridge.original_model.parameters()
    return Sizes(
        n_parameters=sum(each.numel() for each in parameters),
        dtype_bytes=2,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        d_ff=shape.d_ff,
        vocab_size=shape.vocab_size,
        saes=tuple(sae.ref for sae in loaded.saes),
        d_in=shape.d_model,
        n_contexts=len(loaded.contexts.token_ids),
        length=shape.length,
        on_host=device.type == "cpu",
    )


@torch.inference_mode()
def _bare(loaded: Loaded, device: torch.device) -> float:
    """Seconds of the products alone, over as many tokens as the sweep sees: each once."""
    layer, tokens = loaded.layer or 0, loaded.contexts.token_ids
    body = copy.copy(loaded.model._bridge.original_model.model)
    body._modules = {**body._modules, "layers": body.layers[: layer + 1], "norm": torch.nn.Identity()}
    saes = [sae._sae for sae in loaded.saes]
    d = loaded.model.d_model
    xx = torch.zeros(d, d, dtype=torch.float64, device=device)
    xy = torch.zeros_like(xx)
    seconds = 0.0
    for row in tokens:
        began = _now(device)
        ids = row[None].to(device)
        x = body(ids, use_cache=False).last_hidden_state[0].float()
        for sae in saes:
            for part in torch.split(x, loaded.saes[0].chunk_tokens):
                torch.relu(part @ sae.W_enc)
        wide = x.double()
        xx += wide.T @ wide
        for _ in saes:
            xy += wide.T @ wide
        seconds += _now(device) - began
    return seconds


def as_markdown(shape: str, m: dict[str, Any]) -> str:
    """The lines for gpu.md."""
    gib = 2**30
    peak = "not counted on this device" if not m["peak_bytes"] else f"{m['peak_bytes'] / gib:.1f} GiB"
    share = "" if m["peak_of_plan"] is None else f", {m['peak_of_plan']:.2f} of the plan"
    return (
        f"\n## {m['date']}: {shape} on {m['device']}, torch {m['torch']}\n\n"
        f"- `norm-prediction`, {m['n_tokens']:,} tokens, {len(m['widths'])} SAEs of {m['widths'][0]:,} to "
        f"{m['widths'][-1]:,} latents: {m['sweep_seconds']:.0f} s, {m['tokens_per_second']:,.0f} tokens per second\n"
        f"- bare matrix products: {m['bare_seconds']:.0f} s; ratio {m['ratio']:.2f}\n"
        f"- memory: {peak} at the peak{share} ({m['planned_bytes'] / gib:.1f} GiB planned)\n"
    )


def _finish(work: Generator[Any, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: T = stop.value
            return value


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _allocated(device: torch.device) -> int:
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


if __name__ == "__main__":
    sys.exit(main())
