"""Where a GPU is at hand: the demo against the CPU, and a real model's size on cards of several sizes. Ten minutes.

python -m benchmarks.gpu [--shape gemma-2-9b|small] [--contexts 150] [--device cuda] [--memory 24,48,80,140]
                         [--out benchmarks/gpu.md]

Two parts, each written as soon as it is measured. The demo, and SmolLM2 if its package is there, on the device and on
the CPU: the largest difference of any number, and the time. Then a model of Gemma 2 9B's shape with random weights made
on the device, and seven SAEs of 16k to 1M latents, within so many GB as `--max-memory` allows, which the allocator is
held to: `norm-prediction` in tokens per second, what share of the measured ceiling of float32 products the SAEs reach,
the allocator's peak against the plan, and how long another width takes for a page.
"""

from __future__ import annotations

import argparse
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
from inspector.errors import InspectorError
from inspector.formats import Folds
from inspector.options import width_label
from inspector.runner import run
from inspector.sources.contexts import Contexts
from inspector.sources.forward import Native
from inspector.sources.memory_plan import MemoryPlan, plan_memory
from inspector.sources.memory_sums import Sizes
from inspector.sources.model import LanguageModel
from inspector.sources.model_files import find_model
from inspector.sources.sae import LoadedSae
from inspector.sources.sliced import SlicedSae
from inspector.sources.slices import Matrix, Slices
from inspector.sources.target import Loaded, open_target
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


COMPARED = ("norm-prediction", "error-vector", "fvu-nonlinear", "pursuit", "ce-splice")
"""Experiments of the demo that run on both."""
PIECE = 4096
"""Latents that are made on the device at once."""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="gemma-2-9b")
    parser.add_argument("--contexts", type=int, default=150)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--memory", default="24,48,80,140", help="GB, one after the other")
    parser.add_argument("--out", type=Path, help="append the lines to this file as Markdown")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; nothing was measured", file=sys.stderr)
        return 3

    def tell(lines: str) -> None:
        print(lines, flush=True)
        if asked.out is not None:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(lines)

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    tell(f"\n## {today}: {device_name(device)}, torch {torch.__version__}\n\n")
    for name in ("demo", "smollm2"):
        try:
            tell(compared(name, asked.device))
        except InspectorError as error:
            tell(f"- {name}: not compared ({error})\n")
    with tempfile.TemporaryDirectory() as folder:
        model = _model(SHAPES[asked.shape], device, Path(folder))
        for gigabytes in map(int, asked.memory.split(",")):
            try:
                measured = measure(SHAPES[asked.shape], asked.contexts, device, model, gigabytes * 10**9)
            except InspectorError as error:
                tell(f"- {asked.shape} within {gigabytes} GB: {error}\n")
                continue
            print(json.dumps(measured))
            tell(as_markdown(asked.shape, measured))
    return 0


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def compared(model: str, device: str) -> str:
    """The same experiments on the device and on the CPU: a line of the largest difference, and of the times."""
    rows: list[list[dict[str, Any]]] = []
    seconds = []
    for each in (device, "cpu"):
        loaded = _finish(open_target(TargetSpec(model=model, device=each, dtype="float32", contexts=100)))
        spec = RunSpec(target=loaded.target, experiments=COMPARED, params={"resamples": "0"})
        began = _now(loaded.model.device)
        results = _finish(run(spec, loaded))
        seconds.append(_now(loaded.model.device) - began)
        rows.append([row for result in results for row in result["saes"]])
    off = max(
        (abs(one[key] - other[key]) / max(abs(other[key]), 1e-3), f"{key} of {one['sae']}")
        for one, other in zip(*rows, strict=True)
        for key in one
        if isinstance(one[key], float) and isinstance(other[key], float)
    )
    took = f"{seconds[0]:.1f} s, {seconds[1]:.1f} s on the CPU"
    return (
        f"- {model}, {len(COMPARED)} experiments on 100 contexts: {took}; the largest relative difference of a number "
        f"is {off[0]:.1e} ({off[1]})\n"
    )


def measure(shape: Shape, n_contexts: int, device: torch.device, model: LanguageModel, budget: int) -> dict[str, Any]:
    """SAEs of the shape on the model within a budget, a sweep, and what stands beside it; plain numbers."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)
    loaded = made(shape, n_contexts, model, budget)
    memory = loaded.memory
    assert memory is not None
    spec = RunSpec(target=loaded.target, experiments=("norm-prediction",), batch_size=BATCH)
    _reset_peak(device)
    began = _now(device)
    (result,) = _finish(run(spec, loaded))
    sweep = _now(device) - began
    peak = _peak(device)
    x = model.activations(loaded.contexts.token_ids[:1], loaded.hook_name)[0]
    switches = [_seconds_of(sae, x, device) for sae in loaded.saes]
    flops = sum(2.0 * len(x) * sae.ref.d_in * sae.ref.d_sae for sae in loaded.saes)
    n_tokens = int(loaded.contexts.token_ids.numel())
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return {
        "device": device_name(device),
        "budget": budget,
        "n_tokens": n_tokens,
        "widths": list(shape.widths),
        "sliced": len(memory.sliced),
        "l0": [round(row["l0"], 1) for row in result["saes"]],
        "sweep_seconds": sweep,
        "tokens_per_second": n_tokens / sweep,
        "encode_share": flops / sum(switches) / _ceiling(shape.d_model, device),
        "switch_seconds": switches,
        "peak_bytes": peak,
        "planned_bytes": memory.needed,
        "peak_of_plan": peak / memory.needed if peak else None,
    }


def made(shape: Shape, n_contexts: int, model: LanguageModel, budget: int) -> Loaded:
    """A target of this shape, its SAEs of random weights where the plan puts them."""
    hook_name = hook_name_of("resid", shape.layer)
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(3, 259, (n_contexts, shape.length), generator=generator)
    token_ids[:, 0] = 1
    target = TargetSpec(
        model=model.name, layers=(shape.layer,), contexts=n_contexts, context_length=shape.length,
        positions=(min(200, shape.length // 4), None), device=str(model.device), dtype="bfloat16",
    )  # fmt: skip
    sample = model.activations(token_ids[:1], hook_name)[0, shape.length // 4 :]
    refs = tuple(
        SaeRef(
            sae_id=f"random/width_{width_label(width)}", release="random", layer=None, hook_name=hook_name,
            d_in=shape.d_model, d_sae=width, nominal_l0=float(L0), path=str(model.directory),
        )
        for width in shape.widths
    )  # fmt: skip
    memory = plan_memory(_sizes(shape, model, refs, n_contexts), budget, device=str(model.device), asked=budget)
    slices = Slices(model.device, memory.slice_bytes, spare=memory.budget - memory.needed)
    return Loaded(
        target=target,
        model=model,
        hook_name=hook_name,
        layer=shape.layer,
        saes=tuple(_sae(ref, sample, memory, slices) for ref in refs),
        contexts=Contexts(
            token_ids=token_ids,
            names=("random",) * n_contexts,
            sha256="random",
            documents=tuple(range(n_contexts)),
        ),
        plan=make_plan(token_ids, model.special_ids, target.positions or (0, None), None, "context", 0),
        warnings=(),
        memory=memory,
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
    native = Native(hf_model)  # as `loading.load_model` has it: before the bridge puts its own modules in
    bridge: Any = TransformerBridge  # untyped
    bridge = bridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=torch.bfloat16
    ).eval()
    return LanguageModel(bridge, Tokenizer(tokenizer), find_model(str(folder), None), native=native)


@torch.inference_mode()
def _sae(ref: SaeRef, x: torch.Tensor, memory: MemoryPlan, slices: Slices) -> LoadedSae:
    """A random JumpReLU SAE whose thresholds leave about L0 latents active, whole or in slices from the host."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d, width, device = ref.d_in, ref.d_sae, x.device
    sliced = ref.sae_id in memory.sliced
    where = torch.device("cpu") if sliced else device
    torch.manual_seed(width)
    encoder, decoder = torch.empty(d, width, device=where), torch.empty(width, d, device=where)
    before = []
    for start in range(0, width, PIECE):
        piece = torch.randn(d, min(PIECE, width - start), device=device) * d**-0.5
        encoder[:, start : start + PIECE] = piece.to(where)
        decoder[start : start + PIECE] = piece.T.to(where)
        before.append((x[:64] @ piece).topk(min(L0 + 1, piece.shape[1]), dim=1).values)
    threshold = float(torch.cat(before, dim=1).topk(L0 + 1, dim=1).values[:, -1].median())
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=1, device=str(device)))  # no room is taken for weights twice
    sae.requires_grad_(False)
    vectors = {"b_enc": torch.zeros(width, device=device), "threshold": torch.full((width,), threshold, device=device)}
    if not sliced:
        for name, value in {**vectors, "W_enc": encoder, "W_dec": decoder}.items():
            setattr(sae, name, torch.nn.Parameter(value, requires_grad=False))
        sae.cfg.d_sae = width
        return LoadedSae(ref, sae)
    found = SlicedSae(
        ref,
        sae,
        vectors=vectors,
        encoder=Matrix(ref, "W_enc", encoder, Folds()),
        decoder=Matrix(ref, "W_dec", decoder, Folds()),
        slices=slices,
    )
    del encoder, decoder  # what is held is a copy
    if device.type == "cuda":
        found.hold()
    return found


def _sizes(shape: Shape, model: LanguageModel, refs: tuple[SaeRef, ...], n_contexts: int) -> Sizes:
    from inspector.sources.memory_sizes import host_free

    parameters: Any = model._bridge.original_model.parameters()
    on_host = model.device.type == "cpu"
    return Sizes(
        n_parameters=sum(each.numel() for each in parameters),
        dtype_bytes=2,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        d_ff=shape.d_ff,
        vocab_size=shape.vocab_size,
        saes=refs,
        d_in=shape.d_model,
        n_contexts=n_contexts,
        length=shape.length,
        on_host=on_host,
        host_free=0 if on_host else host_free(),
    )


@torch.inference_mode()
def _seconds_of(sae: LoadedSae, x: torch.Tensor, device: torch.device) -> float:
    """Of a page through one SAE, the second time: what a view waits for when it switches to its width."""
    sae.reconstruct(x)
    began = _now(device)
    sae.reconstruct(x)
    return _now(device) - began


@torch.inference_mode()
def _ceiling(d: int, device: torch.device) -> float:
    """Operations per second of a large product in float32."""
    n = 4096 if device.type == "cuda" else 256
    left, right = torch.randn(n, d, device=device), torch.randn(d, 4 * n, device=device)
    took = []
    for _ in range(5):
        began = _now(device)
        torch.mm(left, right)
        took.append(_now(device) - began)
    return 2.0 * n * d * 4 * n / min(took)


def as_markdown(shape: str, m: dict[str, Any]) -> str:
    """The lines for gpu.md."""
    peak = "not counted on this device" if not m["peak_bytes"] else f"{m['peak_bytes'] / 1e9:.1f} GB at the peak"
    share = "" if m["peak_of_plan"] is None else f", {m['peak_of_plan']:.2f} of the plan"
    widths, switches = m["widths"], m["switch_seconds"]
    return (
        f"- {shape} within {m['budget'] / 1e9:.3g} GB, {m['sliced']} of {len(widths)} SAEs of {widths[0]:,} to "
        f"{widths[-1]:,} latents in slices: `norm-prediction` over {m['n_tokens']:,} tokens "
        f"{m['sweep_seconds']:.0f} s, {m['tokens_per_second']:,.0f} tokens per second; SAEs at "
        f"{m['encode_share']:.0%} of the ceiling of float32 products; a page at another width {min(switches):.2g} to "
        f"{max(switches):.2g} s; memory {peak}{share} ({m['planned_bytes'] / 1e9:.1f} GB planned)\n"
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


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


if __name__ == "__main__":
    sys.exit(main())
