"""Which SAEs the demo has, their training on the demo's model, and its model card.

The card is made from what the runs left behind, so that no number in it is typed by hand.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from inspector.demo.corpus import BOS_ID, EOS_ID, PAD_ID
from inspector.engine.moments import Moments
from inspector.engine.regression import Factorisation
from inspector.engine.scores import fvu_nonlinear, r2_pooled, r2_scalar
from inspector.sources.loading import load_model
from inspector.spec import SITE_HOOKS, TargetSpec, hook_name_of
from inspector.training.blocks import ActivationSource, Ids, chosen_rows, is_ordinary, source_of
from inspector.training.learners import LearnerSettings
from inspector.training.suite_files import CONFIG_FILE, Quality, plan_suite

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
        source = source_on(model_folder, [hook])
        found |= predictability(source, held_out, suite_folder, hook, sae_ids, SPECIAL_IDS)
    return found


PACKAGES = ("torch", "transformers", "tokenizers", "transformer-lens", "sae-lens", "numpy", "safetensors")
TEMPLATE = Path(__file__).with_name("card_template.md")


@dataclass(frozen=True, kw_only=True)
class Predictability:
    """How much of one SAE's error an affine map of x predicts, on held-out text; the map saw other held-out text."""

    r2_norm: float | None
    """Of the squared norm of sae_error. Unitless."""
    r2_pooled: float | None
    """Of sae_error, variance-weighted over dimensions. Unitless."""
    fvu_nonlinear: float | None
    """FVU that is left when the predicted part of the error is given back. Unitless."""


@torch.no_grad()
def predictability(
    source: ActivationSource,
    held_out: Ids,
    root: Path,
    hook_name: str,
    sae_ids: Sequence[str],
    special_ids: tuple[int, ...],
) -> dict[str, Predictability]:
    """Scores of one hook's SAEs: fitted on the first half of `held_out` [contexts, positions], taken on the rest."""
    from sae_lens import SAE

    half = len(held_out) // 2
    train_x, test_x = (
        chosen_rows(source(torch.from_numpy(part)), torch.from_numpy(is_ordinary(part, special_ids)))[0][hook_name]
        for part in (held_out[:half], held_out[half:])
    )
    scores = {}
    for sae_id in sae_ids:
        sae = SAE.load_from_disk(root / sae_id, dtype="float32")
        moments = Moments(train_x.shape[1])
        for x in train_x.split(4096):
            error = x - sae(x)
            moments.update(x, {"error": error, "norm_sq": error.square().sum(1)})
        factorisation = Factorisation(moments)
        error_map, norm_map = factorisation.fit("error"), factorisation.fit("norm_sq")
        x_hat = torch.cat([sae(x) for x in test_x.split(4096)])
        error, linear = test_x - x_hat, error_map.predict(test_x)
        scores[sae_id] = Predictability(
            r2_norm=r2_scalar(error.square().sum(1), norm_map.predict(test_x)[:, 0]),
            r2_pooled=r2_pooled(error, linear),
            fvu_nonlinear=fvu_nonlinear(test_x, x_hat, linear),
        )
    return scores


def at_hook(model: Any, name: str, see: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Have `see` called with the value at a hook [contexts, positions, d_in]; what it returns takes its place."""
    at = int(name.split(".")[1])
    layer = model.layers[at]

    def seen(value: Any) -> Any:
        new = see(value[0] if isinstance(value, tuple) else value)
        return (new, *value[1:]) if new is not None and isinstance(value, tuple) else new

    if name == SITE_HOOKS["attn"].format(layer=at):
        handle = layer.self_attn.o_proj.register_forward_pre_hook(lambda _, values: seen(values))
    else:
        part = layer.mlp if name == SITE_HOOKS["mlp"].format(layer=at) else layer
        handle = part.register_forward_hook(lambda *values: seen(values[-1]))
    found: RemovableHandle = handle
    return found


@torch.inference_mode()
def splice_losses(
    model: Any, windows: Ids, saes_at: Mapping[str, Mapping[str, Any]], special_ids: tuple[int, ...], outliers: float
) -> dict[str, dict[str, float]]:
    """Cross-entropy in nats per token with an SAE at work, beside that without it and that with zeros in its place.

    Replaced and scored are tokens that are not special and whose norm is at most `outliers` times the windows' median;
    the last of a window has no next one.

    Args:
        model: a language model of transformers.
        windows: [windows, positions] token ids.
        saes_at: what makes x_hat of x, by hook and SAE.
        special_ids: tokens that stay as they are.
        outliers: see above.

    Returns:
        By SAE: n, loss, loss_original, loss_zero.
    """
    ids = torch.from_numpy(windows)
    found: dict[str, dict[str, float]] = {}
    for hook, saes in saes_at.items():
        kept: list[Tensor] = []
        handle = at_hook(model.model, hook, partial(_kept, kept))
        plain = torch.cat([_losses(model, row) for row in ids])
        handle.remove()
        norms = torch.cat(kept).norm(dim=-1)
        counted = torch.from_numpy(is_ordinary(windows, special_ids))
        counted &= norms <= outliers * norms[counted].median()
        scored = counted[:, :-1]
        at_work = {"zero": torch.zeros_like, **saes}
        losses = {}
        for name, make in at_work.items():
            rows = []
            for row, here in zip(ids, counted, strict=True):
                handle = at_hook(model.model, hook, partial(_replaced, make, here))
                rows.append(_losses(model, row))
                handle.remove()
            losses[name] = float(torch.cat(rows)[scored].mean())
        told = {"n": int(scored.sum()), "loss_original": float(plain[scored].mean()), "loss_zero": losses.pop("zero")}
        found |= {sae_id: {**told, "loss": loss} for sae_id, loss in losses.items()}
    return found


def _kept(into: list[Tensor], x: Tensor) -> None:
    into.append(x.clone())


def _replaced(make: Callable[[Tensor], Tensor], here: Tensor, x: Tensor) -> Tensor:
    return torch.where(here[None, :, None], make(x), x)


def _losses(model: Any, row: Tensor) -> Tensor:
    """[1, positions - 1] of one window, in nats."""
    logits = model(row[None], use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, row[1:], reduction="none")[None]


def loss_table(losses: Mapping[str, Mapping[str, float]]) -> str:
    """One Markdown row per SAE."""
    lines = ["| SAE | loss with it | added | recovered of what zeros cost |", "| --- | ---: | ---: | ---: |"]
    for sae_id, own in losses.items():
        added, zeros = own["loss"] - own["loss_original"], own["loss_zero"] - own["loss_original"]
        lines.append(f"| {sae_id} | {own['loss']:.3f} | {added:+.3f} | {1 - added / zeros:.1%} |")
    return "\n".join(lines)


def table(qualities: Sequence[Quality], predicted: Mapping[str, Predictability]) -> str:
    """One Markdown row per SAE."""
    lines = [
        "| SAE | latents | nominal L0 | tokens trained | L0 | FVU | dead | R² norm | R² vector | FVU nonlinear |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for quality in qualities:
        other = predicted[quality.sae_id]
        lines.append(
            f"| {quality.sae_id} | {quality.d_sae} | {quality.nominal_l0} | {quality.trained_tokens:,} "
            f"| {quality.l0:.2f} | {quality.fvu:.4f} | {quality.dead_latents} "
            f"| {_number(other.r2_norm)} | {_number(other.r2_pooled)} | {_number(other.fvu_nonlinear, 4)} |"
        )
    return "\n".join(lines)


def write_card(out: Path, facts: Mapping[str, Any]) -> None:
    """Fill `card_template.md` with `facts`; a name without a fact raises KeyError."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    known = {"versions": versions, "python": platform.python_version(), **facts}
    out.write_text(Template(TEMPLATE.read_text()).substitute(known))


def _number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def source_on(model_folder: Path, hook_names: Sequence[str]) -> ActivationSource:
    """What the exported model in a folder gives at these hooks."""
    return source_of(load_model(TargetSpec(model=str(model_folder), device="cpu", offline=True)), hook_names)
