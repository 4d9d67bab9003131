"""What `dm-inspect train` is to do, checked as far as it can be before anything heavy is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError, UsageError
from inspector.spec import hook_name_of

if TYPE_CHECKING:
    from inspector.sources.learning import Architecture
    from inspector.sources.model import LanguageModel
    from inspector.sources.suite_files import SaePlan
    from inspector.spec import TargetSpec

DEMO_LEARNING_RATE, DEMO_WIDTH = 2e-3, 128
"""Weights of unit rows are of the size 1 / sqrt(d_in), and Adam's steps of the size of the rate: the same share of a
weight everywhere if the rate falls like 1 / sqrt(d_in). Of 2304 dimensions 4.7e-4."""


def source_of(model: LanguageModel, hooks: Sequence[str]) -> Callable[[Any], dict[str, Any]]:
    """The model as the trainer wants it: token ids to activations by hook name."""
    return lambda ids: model.values(ids, hooks)


def default_rate(d_in: int) -> float:
    """The learning rate for activations of this width; see DEMO_LEARNING_RATE."""
    return DEMO_LEARNING_RATE * min(1.0, math.sqrt(DEMO_WIDTH / d_in))


def hook_names(target: TargetSpec, n_layers: int | None) -> list[str]:
    """The hooks to train on: the one named, those of the layers named, or that of the middle layer.

    Raises:
        TargetError: a layer the model does not have, or no way to know its middle.
    """
    if target.hook is not None:
        return [target.hook]
    layers = target.layers
    if target.layers_from is not None and n_layers is not None:
        layers = tuple(range(target.layers_from, max(n_layers, target.layers_from + 1)))
    if layers is None:
        if n_layers is None:
            raise TargetError(f"The number of layers of {target.model!r} is not known. Name one with --layer N.")
        layers = (n_layers // 2,)
    for layer in layers:
        if n_layers is not None and layer >= n_layers:
            raise TargetError(f"Model {target.model!r} has no layer {layer}. Its layers are 0 to {n_layers - 1}.")
    return [hook_name_of(target.site, layer) for layer in layers]


def check_text_of(target: TargetSpec) -> None:
    """Refuse a text that cannot be read before anything heavy is imported.

    Raises:
        UsageError: no text was named, and the model brings none.
        DataError: the file cannot be used.
    """
    from inspector.sources.readers import check_text

    if target.text is None and target.model != "demo":
        raise UsageError("There is no text to learn from. Give --text FILE, or --text demo for installed Python's.")
    check_text(target.text or "demo", target.text_field)


def plans_of(
    hooks: Sequence[str], widths: Sequence[int], l0s: Sequence[int], architecture: Architecture, out: Path
) -> tuple[SaePlan, ...]:
    """Every SAE to be trained.

    Raises:
        UsageError: none is possible, two would share a folder, or one is there already.
    """
    from inspector.sources import training_checkpoint
    from inspector.sources.suite_files import WEIGHTS_FILE, plan_suite

    plans = plan_suite(list(hooks), list(widths), list(l0s), architecture)
    if not plans:
        raise UsageError(f"Every L0 of {', '.join(map(str, l0s))} is larger than every width. Lower --l0.")
    folders = [plan.sae_id for plan in plans]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UsageError(f"Two of the widths have the same short name, so both would be {twice}. Leave one out.")
    for folder in folders:
        # With a checkpoint, a run was killed while it wrote them; whether it is this run is found out when it is read.
        if (out / folder / WEIGHTS_FILE).exists() and not training_checkpoint.exists(out):
            raise UsageError(f"{out / folder} holds an SAE already. Choose another --out, or remove that folder.")
    return plans
