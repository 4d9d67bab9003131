"""sae-lens' own layout, read by sae-lens itself."""

from __future__ import annotations

from pathlib import Path

from inspector.sources.loaders.converted import Converted
from inspector.spec import SaeRef


def read(ref: SaeRef, folder: Path) -> Converted:
    """The SAE of a folder."""
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    cfg, state = sae_lens_disk_loader(folder, "cpu", {"dtype": "float32"})
    return Converted(cfg=cfg, state=state)
