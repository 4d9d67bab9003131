"""sae-lens' own layout, read by sae-lens itself."""

from __future__ import annotations

from pathlib import Path

from inspector.errors import TargetError
from inspector.sources import layouts
from inspector.sources.loaders.converted import Converted
from inspector.spec import SaeRef

FILES = layouts.FILES["sae-lens"]


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder.

    Raises:
        TargetError: a tensor holds something else than floating-point numbers, which sae-lens would turn into such.
    """
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader
    from safetensors import safe_open

    with safe_open(folder / FILES[1], framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # not a dictionary
            kind = file.get_slice(name).get_dtype()
            if not kind.startswith(("F", "BF")):
                raise TargetError(f"SAE {ref.sae_id!r} stores {name} as {kind}, not as floating-point numbers.")
    cfg, state = sae_lens_disk_loader(folder, "cpu", {"dtype": "float32"})
    return Converted(cfg=cfg, state=state)
