"""Which SAEs the demo has, and their training on the demo's model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from inspector.demo.corpus import BOS_ID, EOS_ID, PAD_ID
from inspector.events import TrainProgress, Warned
from inspector.sources.activation_blocks import Ids
from inspector.sources.bridge_source import BridgeSource
from inspector.sources.suite_files import Quality, SaePlan, plan_suite
from inspector.sources.topk_learner import LearnerSettings
from inspector.sources.trainer import TrainSettings, train_suite
from inspector.spec import hook_name_of

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

LEARNER = LearnerSettings(selection_dtype="bfloat16")


def train_demo_suite(
    model_folder: Path, contexts: Ids, held_out: Ids, plans: tuple[SaePlan, ...], tokens: int, seed: int, out: Path
) -> Generator[TrainProgress | Warned, None, tuple[Quality, ...]]:
    """Train `plans` on the exported model in `model_folder`; see `train_suite`."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(str(model_folder))
    source = BridgeSource(bridge, [plan.hook_name for plan in plans])
    settings = TrainSettings(
        tokens=tokens, seed=seed, block_contexts=512, special_ids=(PAD_ID, BOS_ID, EOS_ID), learner=LEARNER
    )
    metadata = {
        "model_name": MODEL_NAME,
        "context_size": contexts.shape[1],
        "prepend_bos": True,
        "dataset": "installed Python, see CARD.md",
    }
    return (yield from train_suite(source, contexts, held_out, plans, settings, out, metadata))
