"""What the registry lists and nothing here measures, each with its reason: a list says why it is not offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from inspector.formats.layout import CROSS_LAYER, TEMPORAL, TRANSCODER, Layout, Named, Refused

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.spec import SaeRef


def _kind(name: str, conversion: str, why: str) -> Layout:
    def read(ref: SaeRef, _folder: Path, _gate: str) -> NoReturn:
        raise Refused(f"SAE {ref.sae_id!r} is {why}. Choose an SAE of one hook.")

    return Layout(
        name=name,
        files=(),
        facts=None,
        read=read,
        conversions=(conversion,),
        named=lambda repo, path, sae_id, release: Named(refused=why),
    )


LAYOUTS = (
    _kind("gemma-scope-transcoder", "gemma_2_transcoder", TRANSCODER),
    _kind("mwhanna-transcoder", "mwhanna_transcoder", TRANSCODER),
    _kind("clt-layer", "mntss_clt_layer_transcoder", CROSS_LAYER),
    _kind("temporal", "temporal", TEMPORAL),
)
