"""A trained suite: which SAEs it has, how it lies on disk as a tree of plain sae-lens folders, and how good they are.

    SUITE/layer_3/resid/width_1k/l0_16/cfg.json, sae_weights.safetensors, quality.json

An SAE's id is its path below SUITE. Any tree of sae-lens folders is a suite; only the training writes this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from inspector.disk.files import HALF, is_own_folder, remove_files, write_whole
from inspector.errors import ResourceError, UsageError
from inspector.formats import sae_lens
from inspector.options import width_label
from inspector.spec import SITE_HOOKS, hook_name_of
from inspector.training.blocks import ActivationSource, Ids, chosen_rows, is_ordinary
from inspector.training.learners import Architecture

CONFIG_FILE, WEIGHTS_FILE = sae_lens.CONFIG, sae_lens.WEIGHTS
QUALITY_FILE = "quality.json"
_HALF_WRITTEN = re.compile(rf"\.({CONFIG_FILE}|{WEIGHTS_FILE}|{QUALITY_FILE}){HALF}")

DiskType = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class SaePlan:
    """One SAE to be trained."""

    hook_name: str
    d_sae: int
    k: int
    """Active latents per token: of each token (TopK), on average (BatchTopK), aimed at (JumpReLU)."""
    architecture: Architecture = "topk"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise UsageError(
                f"L0 {self.k} is impossible with {self.d_sae} latents. Choose --l0 between 1 and the width."
            )

    @property
    def sae_id(self) -> str:
        """Path below the suite's root."""
        kind = "" if self.architecture == "topk" else f"-{self.architecture}"
        return f"{hook_folder(self.hook_name)}/width_{width_label(self.d_sae)}/l0_{self.k}{kind}"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What one SAE does on held-out text; written beside its weights."""

    sae_id: str
    d_sae: int
    nominal_l0: int
    n_tokens: int
    """Held-out tokens measured, special tokens excluded."""
    l0: float
    """Mean number of active latents per token."""
    fvu: float
    """Pooled over tokens and dimensions, centred. Unitless."""
    dead_latents: int
    """Latents not active on any of the `n_tokens`."""
    trained_tokens: int
    """Activations seen in training."""


def plan_suite(
    hook_names: list[str], widths: list[int], l0s: list[int], architecture: Architecture = "topk"
) -> tuple[SaePlan, ...]:
    """Every combination of hook, width and L0, without those that would need more active latents than there are."""
    return tuple(
        SaePlan(hook_name=hook, d_sae=width, k=l0, architecture=architecture)
        for hook in hook_names
        for width in widths
        for l0 in l0s
        if l0 <= width
    )


def hook_folder(hook_name: str) -> str:
    """`layer_3/resid` for the three named sites, the hook name itself for any other."""
    if layer := re.search(r"\.(\d+)\.", hook_name):
        for site in SITE_HOOKS:
            if hook_name_of(site, int(layer[1])) == hook_name:
                return f"layer_{layer[1]}/{site}"
    return hook_name


def save_sae(sae: Any, folder: Path, dtype: DiskType, metadata: dict[str, Any]) -> None:
    """Write a sae-lens training SAE as an inference SAE, as sae-lens' `save_inference_model` does, but in `dtype`.

    A reader never sees half an SAE: the weights appear whole, and the configuration, without which they are no SAE,
    after them.

    Args:
        sae: a `TrainingSAE` of sae-lens (untyped there).
        folder: is created.
        dtype: of the weights on disk. float16 halves the size; unit decoder rows and biases of ordinary activations
            lose about 3e-4 of themselves.
        metadata: joins `cfg.json`'s metadata: model_name, hook_name and whatever the reader should know.

    Raises:
        UsageError: if a weight exceeds float16's range, instead of writing an infinity.
        ResourceError: the disk is full or cannot be written to.
    """
    for key, value in metadata.items():
        sae.cfg.metadata[key] = value
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    weights = {name: tensor.detach().to(getattr(torch, dtype)).contiguous() for name, tensor in state.items()}
    wide = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wide:
        raise UsageError(f"{', '.join(wide)} of {folder} exceed what {dtype} can hold. Save the suite in float32.")
    config = sae.cfg.get_inference_sae_cfg_dict() | {"dtype": dtype, "device": "cpu"}
    try:
        write_whole(folder / WEIGHTS_FILE, save(weights))
        # sae-lens takes fields from a set, in another order in every process: sorted, the same SAE has the same bytes.
        write_json(folder / CONFIG_FILE, json.loads(json.dumps(config, sort_keys=True)))
    except ResourceError as error:
        why = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise ResourceError(
            f"{folder} could not be written: {why}. Make room there and give the command again."
        ) from error


def remove_halves(folder: Path) -> None:
    """Remove what a killed process has left of the files of an SAE; no other process may write there now."""
    if is_own_folder(folder):
        remove_files(folder, lambda name: _HALF_WRITTEN.fullmatch(name) is not None)


def save_quality(root: Path, quality: Quality) -> None:
    """Write `quality.json` beside the SAE's weights."""
    write_json(root / quality.sae_id / QUALITY_FILE, asdict(quality))


def save_measured_l0(root: Path, quality: Quality) -> None:
    """Put the measured L0 where the one aimed at stood: with a threshold, only measuring tells what came of the aim."""
    path = root / quality.sae_id / CONFIG_FILE
    config = json.loads(path.read_text())
    config["metadata"]["l0"] = quality.l0
    write_json(path, config)


def read_qualities(root: Path) -> list[Quality]:
    """The quality of every SAE below `root`, narrow to wide, in the order of their hooks."""
    found = [Quality(**json.loads(path.read_text())) for path in root.rglob(QUALITY_FILE)]
    return sorted(found, key=lambda quality: (quality.sae_id.split("/width_")[0], quality.d_sae, quality.nominal_l0))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


@torch.no_grad()
def measure(
    source: ActivationSource,
    held_out: Ids,
    root: Path,
    plans: Sequence[SaePlan],
    trained_tokens: int,
    special_ids: tuple[int, ...],
    model_batch: int = 16,
) -> tuple[Quality, ...]:
    """L0, FVU and dead latents of every SAE of `plans` below `root`.

    They are read back through plain sae-lens from the files just written, so that the numbers describe what a user will
    load: half precision, folded scales, sae-lens' own arithmetic.

    One pass over `held_out` [contexts, positions] serves all of them; `special_ids` are left out, as is what the source
    marks.
    """
    from sae_lens import SAE

    saes = {plan: SAE.load_from_disk(root / plan.sae_id, dtype="float32") for plan in plans}
    fired = {plan: torch.zeros(plan.d_sae, dtype=torch.int64) for plan in plans}
    error = dict.fromkeys(plans, 0.0)
    moments: dict[str, tuple[float, Tensor]] = {}
    n_tokens = 0
    for first in range(0, len(held_out), model_batch):
        ids = held_out[first : first + model_batch]
        ordinary = torch.from_numpy(is_ordinary(ids, special_ids))
        by_hook = {hook: x.cpu() for hook, x in chosen_rows(source(torch.from_numpy(ids)), ordinary)[0].items()}
        n_tokens += len(next(iter(by_hook.values())))
        for hook, x in by_hook.items():
            square, total = moments.get(hook, (0.0, torch.zeros(x.shape[1], dtype=torch.float64)))
            moments[hook] = square + float(x.double().square().sum()), total + x.double().sum(0)
        for plan, sae in saes.items():
            latents = sae.encode(by_hook[plan.hook_name])
            fired[plan] += (latents > 0).sum(0)
            error[plan] += float((by_hook[plan.hook_name] - sae.decode(latents)).double().square().sum())
    qualities = []
    for plan in plans:
        square, total = moments[plan.hook_name]
        variance = square - float(total.square().sum()) / n_tokens
        qualities.append(
            Quality(
                sae_id=plan.sae_id,
                d_sae=plan.d_sae,
                nominal_l0=plan.k,
                n_tokens=n_tokens,
                l0=float(fired[plan].sum()) / n_tokens,
                fvu=error[plan] / variance,
                dead_latents=int((fired[plan] == 0).sum()),
                trained_tokens=trained_tokens,
            )
        )
    return tuple(qualities)
