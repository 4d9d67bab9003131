"""What an SAE reads, and which latents that makes active: x itself, or one part of a base SAE's error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
    from inspector.spec import SaeRef, TargetSpec

Part = Literal["linear_error", "nonlinear_error"]


@dataclass(frozen=True, kw_only=True)
class Active:
    """What some latents do at some tokens."""

    latents: Tensor
    """[n, c] float32 on the CPU, of the columns asked for."""
    n_active: int
    """Positive latents of all, over all n tokens."""


class Reader(Protocol):
    """An SAE with what it reads."""

    name: str
    """Of the SAE in results."""
    sae: LoadedSae

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """The latents `columns` at the tokens x [n, d]; each row depends on its token alone."""


class PlainReader:
    """An SAE that reads x."""

    def __init__(self, sae: LoadedSae) -> None:
        self.sae, self.name = sae, sae.ref.sae_id

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """See `Reader`."""
        return _active(self.sae, x, columns)


class ErrorReader:
    """An SAE that reads one part of what a base SAE leaves over.

    Args:
        name: of it in results.
        sae: trained on the part.
        base: whose error it is.
        error_map: from x to the base's error.
        part: which part.
    """

    def __init__(self, name: str, sae: LoadedSae, base: LoadedSae, error_map: LinearMap, part: Part) -> None:
        self.name, self.sae, self.part = name, sae, part
        self._base, self._map = base, error_map

    def active(self, x: Tensor, columns: Tensor) -> Active:
        """See `Reader`."""
        with torch.inference_mode():
            parts = decompose(x, self._base.reconstruct(x).x_hat, self._map)
        return _active(self.sae, parts.linear_error if self.part == "linear_error" else parts.nonlinear_error, columns)


def _active(sae: LoadedSae, x: Tensor, columns: Tensor) -> Active:
    chosen, n_active = [], 0
    for _, latents in sae.chunks(x):
        with torch.inference_mode():
            chosen.append(latents[:, columns.to(latents.device)].float().cpu())
            n_active += int((latents > 0).sum())
    return Active(latents=torch.cat(chosen), n_active=n_active)


def ref_of(reader: Reader) -> SaeRef:
    """The reference of its SAE."""
    return reader.sae.ref


PARTS: tuple[Part, ...] = ("linear_error", "nonlinear_error")


def with_base(target: TargetSpec, found: ErrorSaes) -> TargetSpec:
    """The target with the SAE whose error it is, where the user has chosen none."""
    if target.saes or target.widths or target.l0 is not None:
        return target
    hook = target.hook or found.base["hook_name"]
    if target.layers is not None:
        return replace(target, saes=(found.base["sae"],))
    return replace(target, saes=(found.base["sae"],), hook=hook)


def error_readers(found: ErrorSaes, loaded: Loaded) -> tuple[Sequence[ErrorReader], dict[str, Any]]:
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
    for part in PARTS:
        own = found.of_part(part)
        if not own:
            raise UsageError(
                f"{found.folder} has no SAE on {part}, so there is nothing to compare. Run error-saes again."
            )
        for each in own:
            name = f"{part}/seed_{each.seed}"
            ref = replace(read_ref(layout_of("sae-lens"), Path(each.folder), Path(found.folder)), sae_id=name)
            sae = load_sae(ref, loaded.model.device, base.ref.d_in)
            readers.append(ErrorReader(name, sae, base, found.linear_map, part))
    return readers, {"base_sae": {named: base.weights_hash}, "map_sha256": map_hash(found.linear_map)}
