"""The SAEs that `run error-saes` trained on the two parts of an error, as readers of those parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError, UsageError
from inspector.formats import layout_of, read_ref
from inspector.interp.readers import ErrorReader, Part
from inspector.sources.error_sae_files import ErrorSaes, map_hash
from inspector.sources.sae import load_sae

if TYPE_CHECKING:
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

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
