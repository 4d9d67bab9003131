"""A toy target with companions, and everything about it recomputed from its files without the program."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file

from inspector.events import Event
from inspector.options import width_label
from inspector.runner import run
from inspector.sources.target import Loaded, open_target
from inspector.spec import RunSpec, TargetSpec
from tests.toy import HEAD_DIM, HEADS, remember_passes, write_toy_model, write_toy_suite

T = TypeVar("T")
Array = npt.NDArray[np.float64]
D, LAYER = 16, 1


def finish(work: Generator[Event, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: T = stop.value
            return value


def write_files(root: Path) -> TargetSpec:
    write_toy_model(root / "model", "gemma2")
    suite = root / "suite"
    write_toy_suite(suite, layers=(LAYER,), widths=(32, 64, 128), l0s=(4,))
    write_toy_suite(suite, layers=(LAYER - 1,), widths=(64,), l0s=(4,), seed=20)
    write_toy_suite(suite, layers=(LAYER - 1, LAYER), site="mlp", widths=(64,), l0s=(4,), seed=30)
    write_toy_suite(suite, d_in=HEADS * HEAD_DIM, layers=(LAYER,), site="attn", widths=(64,), l0s=(4,), seed=40)
    words = np.random.default_rng(0).integers(97, 123, size=(4000, 6), dtype=np.uint8)
    (root / "text.txt").write_text(" ".join(bytes(word).decode() for word in words))
    return TargetSpec(
        model=str(root / "model"),
        layers=(LAYER,),
        suite=str(suite),
        text=str(root / "text.txt"),
        contexts=40,
        context_length=48,
        positions=(6, None),
        train_tokens=900,
        device="cpu",
        accept_gate=True,  # random SAEs explain nothing
    )


@dataclass
class Toy:
    """The target, and what plain transformers and numpy say about it."""

    root: Path
    loaded: Loaded
    layer: int = LAYER
    widths: tuple[int, ...] = (32, 64, 128)
    companion: int = 64
    """Width of the SAEs of other components."""
    l0: int = 4

    def run(self, *experiments: str, profile: str = "careful", **params: str) -> list[dict[str, Any]]:
        spec = RunSpec(
            target=self.loaded.target,
            experiments=experiments,
            params={"resamples": "40", **params},
            profile=profile,  # type: ignore[arg-type]
        )
        return finish(run(spec, self.loaded))

    def one(self, experiment: str, **changes: Any) -> dict[str, Any]:
        return self.run(experiment, **changes)[0]

    @cached_property
    def model(self) -> Any:
        from transformers import Gemma2ForCausalLM

        found: Any = Gemma2ForCausalLM.from_pretrained(
            self.root / "model", attn_implementation="eager", dtype=torch.float32
        )
        return found.eval()

    @cached_property
    def raw(self) -> dict[str, Array]:
        """[c, t, d] by site: 'resid', 'previous', 'mlp', 'mlp previous' and 'attn' of the layer."""
        taken: dict[str, torch.Tensor] = {}
        layers, handles = self.model.model.layers, []

        def keep(name: str, first: bool = False) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                value = inputs[0] if first else output
                taken[name] = (value[0] if isinstance(value, tuple) else value).detach()

            return hook

        handles.append(layers[self.layer].register_forward_hook(keep("resid")))
        handles.append(layers[self.layer - 1].register_forward_hook(keep("previous")))
        handles.append(layers[self.layer].post_feedforward_layernorm.register_forward_hook(keep("mlp")))
        handles.append(layers[self.layer - 1].post_feedforward_layernorm.register_forward_hook(keep("mlp previous")))
        handles.append(layers[self.layer].self_attn.o_proj.register_forward_hook(keep("attn", first=True)))
        with torch.no_grad():
            self.model(self.loaded.contexts.token_ids)
        for handle in handles:
            handle.remove()
        return {name: value.double().numpy() for name, value in taken.items()}

    @property
    def train(self) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.loaded.plan.train.numpy()
        return found

    @property
    def test(self) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.loaded.plan.test.numpy()
        return found

    def folder(self, layer: int, site: str, width: int) -> Path:
        return self.root / "suite" / f"layer_{layer}" / site / f"width_{width_label(width)}" / f"l0_{self.l0}"


def weights(folder: Path) -> dict[str, Array]:
    return {name: value.astype(np.float64) for name, value in load_file(folder / "sae_weights.safetensors").items()}


def hidden(folder: Path, x: Array) -> Array:
    """[n, m] latents of a toy TopK SAE, from the paper's equations."""
    w = weights(folder)
    k = json.loads((folder / "cfg.json").read_text())["k"]
    z = np.maximum((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    kth = np.sort(z, axis=-1)[..., -k][..., None]
    return np.where(z >= kth, z, 0)


def decoded(folder: Path, codes: Array) -> Array:
    w = weights(folder)
    out: Array = codes @ w["W_dec"] + w["b_dec"]
    return out


def opened(root: Path) -> Toy:
    torch.set_num_threads(1)
    target = write_files(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sae-lens imports a deprecated module of transformer-lens
        loaded = finish(open_target(target))
    remember_passes(loaded.model)
    return Toy(root, loaded)
