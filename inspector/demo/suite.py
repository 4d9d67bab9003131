"""Which SAEs the demo has, and their training on the demo's model."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from inspector.demo.card import Predictability, predictability
from inspector.demo.corpus import BOS_ID, EOS_ID, PAD_ID
from inspector.events import Loading, TrainProgress, Warned
from inspector.spec import hook_name_of
from inspector.training.blocks import BridgeSource, Ids
from inspector.training.learners import LearnerSettings
from inspector.training.suite_files import CONFIG_FILE, Quality, SaePlan, plan_suite
from inspector.training.trainer import TrainSettings, train_suite

LAYER, N_LAYERS = 3, 6
MODEL_NAME = "dm-inspect-demo"

FULL = (
    *plan_suite([hook_name_of("resid", LAYER)], [256, 512, 1024, 2048, 4096], [8, 16, 32]),
    *plan_suite([hook_name_of("resid", layer) for layer in range(N_LAYERS) if layer != LAYER], [1024], [16]),
    *plan_suite([hook_name_of("mlp", LAYER), hook_name_of("attn", LAYER)], [1024], [16]),
)
"""The shipped suite: a grid of widths and L0s at the middle layer, one SAE at every other layer, one per site."""

SMALL = plan_suite([hook_name_of("resid", LAYER)], [256, 512, 1024, 2048, 4096], [16])
"""One L0 at the middle layer: enough to try things."""

SPECIAL_IDS = (PAD_ID, BOS_ID, EOS_ID)
LEARNER = LearnerSettings(selection_dtype="bfloat16")


def train_demo_suite(
    model_folder: Path,
    contexts: Ids,
    held_out: Ids,
    plans: tuple[SaePlan, ...],
    out: Path,
    *,
    tokens: int,
    minutes: float | None,
    seed: int,
) -> Generator[Loading | TrainProgress | Warned, None, tuple[Quality, ...]]:
    """Train `plans` on the exported model in `model_folder`; see `train_suite`."""
    source = _source(model_folder, [plan.hook_name for plan in plans])
    settings = TrainSettings(
        tokens=tokens,
        minutes=minutes,
        seed=seed,
        batch_tokens=1024,
        block_contexts=512,
        special_ids=SPECIAL_IDS,
        learner=LEARNER,
        steps_by="us",
    )
    metadata = {
        "model_name": MODEL_NAME,
        "context_size": contexts.shape[1],
        "prepend_bos": True,
        "dataset": "installed Python, see CARD.md",
    }
    return (yield from train_suite(source, contexts, held_out, plans, settings, out, metadata))


def predictabilities(
    model_folder: Path, suite_folder: Path, qualities: Sequence[Quality], held_out: Ids
) -> dict[str, Predictability]:
    """What an affine map predicts of each SAE's error, by SAE id; see `card.predictability`."""
    by_hook: dict[str, list[str]] = {}
    for quality in qualities:
        config = json.loads((suite_folder / quality.sae_id / CONFIG_FILE).read_text())
        by_hook.setdefault(config["metadata"]["hook_name"], []).append(quality.sae_id)
    found: dict[str, Predictability] = {}
    for hook, sae_ids in by_hook.items():
        source = _source(model_folder, [hook])
        found |= predictability(source, held_out, suite_folder, hook, sae_ids, SPECIAL_IDS)
    return found


def _source(model_folder: Path, hook_names: list[str]) -> BridgeSource:
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(str(model_folder))
    return BridgeSource(bridge, hook_names)
