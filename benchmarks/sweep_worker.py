"""One process: load a target, do the unavoidable work alone and the sweep, print the seconds and the peak memory.

python -m benchmarks.sweep_worker --contexts 48 --repeats 2 [--model M] [--layer N] [--suite DIR] [--text FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM

from inspector.runner import run
from inspector.sources.dequantising import provide
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec

BATCH = 8
T = TypeVar("T")
EXPERIMENTS = ("norm-prediction", "error-vector", "fvu-nonlinear")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--contexts", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layer", type=int)
    parser.add_argument("--suite")
    parser.add_argument("--text")
    parser.add_argument("--accept-gate", action="store_true")
    parser.add_argument("--no-logits", action="store_true", help="leave out the bare pass that goes to the end")
    asked, _ = parser.parse_known_args()
    target = TargetSpec(
        model=asked.model,
        layers=None if asked.layer is None else (asked.layer,),
        suite=asked.suite,
        text=asked.text,
        contexts=asked.contexts,
        accept_gate=asked.accept_gate,
    )
    for _ in provide(asked.model):  # once for a model, and not what a sweep costs
        pass
    importlib.import_module("transformer_lens.model_bridge")
    _forget_peak()
    libraries_mib = _peak_mib()
    loaded = _finish(open_target(target))
    spec = RunSpec(target=target, experiments=EXPERIMENTS, batch_size=BATCH)
    while_loading = _peak_mib()
    _forget_peak()
    loaded_mib = _peak_mib()
    sweeps = [_seconds(lambda: _finish(run(spec, loaded)))]
    peak_mib = _peak_mib()  # before the yardstick holds a second copy of model and SAEs
    model, saes = _bare(loaded)
    forwards, stopped, encodes = [], [], []
    for _ in range(asked.repeats):
        if not asked.no_logits:
            forwards.append(_seconds(lambda: _forward(model, loaded)))
        seconds, encode = _unavoidable(model, saes, loaded)
        stopped.append(seconds)
        encodes.append(encode)
        sweeps.append(_seconds(lambda: _finish(run(spec, loaded))))
    measured = {
        "n_tokens": loaded.contexts.token_ids.numel(),
        "n_saes": len(saes),
        "forward": min(forwards, default=None),
        "forward_to_layer": min(stopped),
        "saes": min(encodes),
        "sweep": min(sweeps),
        "loaded_mib": loaded_mib,
        "peak_mib": peak_mib,
        "whole_peak_mib": max(while_loading, peak_mib) - libraries_mib,
        "planned_mib": 0.0 if loaded.memory is None else loaded.memory.needed / 2**20,
    }
    print(json.dumps(measured))


def _bare(loaded: Loaded) -> tuple[Any, list[Any]]:
    """The same weights through the libraries alone. `Any`: neither library types what it returns."""
    model = AutoModelForCausalLM.from_pretrained(
        loaded.model.directory, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    saes = [SAE.load_from_disk(Path(sae.ref.path or ""), dtype="float32") for sae in loaded.saes]
    return model, saes


@torch.inference_mode()
def _forward(model: Any, loaded: Loaded) -> None:
    """One bare forward pass over all tokens, to the logits."""
    for batch in torch.split(loaded.contexts.token_ids, BATCH):
        model(batch, use_cache=False)


@torch.inference_mode()
def _unavoidable(model: Any, saes: list[Any], loaded: Loaded) -> tuple[float, float]:
    """Seconds of one pass that stops after the layer, and of an encode and decode of its activations by every SAE."""
    forward = encode = 0.0
    body = copy.copy(model.model)
    body._modules = {**body._modules, "layers": body.layers[: (loaded.layer or 0) + 1], "norm": torch.nn.Identity()}
    for batch in torch.split(loaded.contexts.token_ids, BATCH):
        start = time.perf_counter()
        x = body(batch, use_cache=False).last_hidden_state
        forward += time.perf_counter() - start
        start = time.perf_counter()
        for sae in saes:
            sae.decode(sae.encode(x.flatten(0, 1)))
        encode += time.perf_counter() - start
    return forward, encode


def _finish(work: Generator[Any, None, T]) -> T:
    """Run a piece of work to its end and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _forget_peak() -> None:
    """Let the peak start again from what is held now: importing the libraries takes more than a small sweep."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mib() -> float:
    """Most memory this process has held since. Without /proc, since it began: in kilobytes, on macOS in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
