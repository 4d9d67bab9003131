"""What an SAE reads, and which latents that makes active: x itself, or one part of a base SAE's error.

The SAEs on the parts of an error are those that `run error-saes` trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose
from inspector.errors import TargetError, UsageError
from inspector.formats import layout_of, read_ref
from inspector.sources.sae_loading import load_sae
from inspector.training.error_saes import ErrorSaes, map_hash

if TYPE_CHECKING:
    from inspector.engine.regression import LinearMap
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

Part = Literal["x", "linear_error", "nonlinear_error"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """An SAE with what it reads."""

    name: str
    """Of the SAE in results."""
    sae: LoadedSae
    part: Part = "x"
    """x, or a part of what `base` leaves over."""
    base: LoadedSae | None = None
    error_map: LinearMap | None = None
    """From x to the error of `base`."""

    def active(self, x: Tensor, columns: Tensor) -> tuple[Tensor, int]:
        """What the latents do at tokens; each row depends on its token alone.

        Args:
            x: [n, d] activations.
            columns: [c] the latents that are wanted.

        Returns:
            [n, c] float32 on the CPU, and the number of positive latents of all, over all n tokens.
        """
        if self.part != "x":
            assert self.base is not None and self.error_map is not None, "it reads a part of an error"
            with torch.inference_mode():
                parts = decompose(x, self.base.reconstruct(x).x_hat, self.error_map)
            x = parts.linear_error if self.part == "linear_error" else parts.nonlinear_error
        chosen, n_active = [], 0
        for _, latents in self.sae.chunks(x):
            with torch.inference_mode():
                chosen.append(latents[:, columns.to(latents.device)].float().cpu())
                n_active += int((latents > 0).sum())
        return torch.cat(chosen), n_active


ERROR_PARTS: tuple[Part, ...] = ("linear_error", "nonlinear_error")


def with_base(target: TargetSpec, found: ErrorSaes) -> TargetSpec:
    """The target with the SAE whose error it is, where the user has chosen none."""
    if target.saes or target.widths or target.l0 is not None:
        return target
    hook = target.hook or found.base["hook_name"]
    if target.layers is not None:
        return replace(target, saes=(found.base["sae"],))
    return replace(target, saes=(found.base["sae"],), hook=hook)


def error_readers(found: ErrorSaes, loaded: Loaded) -> tuple[Sequence[Reader], dict[str, Any]]:
    """A reader for each part and seed, and what the numbers follow from beside the SAEs.

    Raises:
        TargetError: the target has not the SAE whose error it is, or another of that name, or an SAE cannot be loaded.
        UsageError: the folder has only one of the parts.
    """
    named = found.base["sae"]
    base = next((sae for sae in loaded.saes if sae.ref.sae_id == named), None)
    if base is None or loaded.hook_name != found.base["hook_name"]:
        raise TargetError(
            f"{found.folder} holds SAEs on the error of {named} at {found.base['hook_name']}, which this target does "
            "not have. Give the --model and --suite that they were trained with."
        )
    if base.weights_hash != found.base["weights_hash"]:
        raise TargetError(
            f"{found.folder} holds SAEs on the error of another {named} than the one loaded. Give the --suite that "
            "they were trained with."
        )
    readers = []
    for part in ERROR_PARTS:
        own = found.of_part(part)
        if not own:
            raise UsageError(
                f"{found.folder} has no SAE on {part}, so there is nothing to compare. Run error-saes again."
            )
        for each in own:
            name = f"{part}/seed_{each.seed}"
            ref = replace(read_ref(layout_of("sae-lens"), Path(each.folder), Path(found.folder)), sae_id=name)
            sae = load_sae(ref, loaded.model.device, base.ref.d_in)
            readers.append(Reader(name=name, sae=sae, part=part, base=base, error_map=found.linear_map))
    return readers, {"base_sae": {named: base.weights_hash}, "map_sha256": map_hash(found.linear_map)}
