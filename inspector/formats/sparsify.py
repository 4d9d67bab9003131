"""sparsify: `cfg.json` and `sae.safetensors`, TopK; run in float32 whatever is stored.

The folder's name is the path of a module of the Hugging Face model, and the SAE reads that module's output. The folder
above may hold the run's `config.json`, which says what kind of dictionary was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.formats.hooks import hook_of_module, is_module
from inspector.formats.layout import TRANSCODER, Facts, Folder, Layout, NoHook, Refused, Settings
from inspector.formats.weights import Converted, Weights, config

if TYPE_CHECKING:
    from inspector.spec import SaeRef

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
RUN = "config.json"
"""Of the run, in the folder above; of a run with several seeds (`layers.2/seed0`) in the one above that."""
_SWITCHES = {
    "transcode": TRANSCODER,
    "skip_connection": "a skip transcoder: it adds a linear map of its input",
    "embed_skip": "given the token's embedding beside its input (embed_skip)",
    "gram_lookup": "given a look-up of the text beside its input (gram_lookup)",
    "signed": "made with signed latents, which are not known here",
}
"""Keys that, switched on, make another function of it."""
_KNOWN = frozenset(
    ("activation", "d_in", "expansion_factor", "k", "multi_topk", "normalize_decoder", "num_latents", *_SWITCHES)
)


def _about(folder: Path) -> Settings:
    """Its configuration, of an SAE that reconstructs what it reads from its k largest latents.

    Raises:
        Refused: it is another kind of dictionary, or asks for what is not done here.
    """
    about = Settings.read(folder / CONFIG)
    run = _run(folder)
    nested = run.get("sae")
    for where, found in ((CONFIG, about), (f"the run's {RUN}", run), (f"the run's {RUN}", nested)):
        if isinstance(found, Mapping):
            for key, what in _SWITCHES.items():
                if found.get(key):
                    raise Refused(f"{folder} is {what} ({key} in {where}). Choose an SAE.")
    if (mode := run.get("hook_mode") or "output") != "output":
        raise Refused(f"{folder} was trained with hook_mode {mode!r}, not on its module's output. Choose another SAE.")
    activation = about.get("activation") or "topk"
    if activation != "topk":
        raise Refused(f"{folder} uses the activation {activation!r}; only topk is known here. Choose a TopK SAE.")
    return about


def _facts(folder: Folder) -> Facts:
    about = _about(folder.path)
    d_in = about.whole("d_in")
    return Facts(
        d_in=d_in,
        d_sae=_latents(about, d_in),
        hook_name=_hook(folder),
        module=next((part for part in reversed(folder.parts) if is_module(part)), None),
        weights=folder.path / WEIGHTS,
        l0=float(about.whole("k")),
        model=_run(folder.path).text("model"),
        notes=about.unknown(_KNOWN),
    )


def _run(folder: Path) -> Settings:
    """The nearest configuration of a run; empty if there is none."""
    above = folder.resolve().parents
    found = next((path for path in (up / RUN for up in above[:2]) if path.is_file()), None)
    return Settings({}, folder) if found is None else Settings.read(found)


def _hook(folder: Folder) -> str | None:
    """Of the nearest folder whose name is a module path.

    Raises:
        NoHook: of a module that no hook here holds.
    """
    for part in reversed(folder.parts):
        if is_module(part):
            found = hook_of_module(part)
            if found is None:
                raise NoHook(f"{folder.path} reads the module {part!r}, which is no hook that is known here.")
            return found
    return None


def _latents(about: Settings, d_in: int) -> int:
    if about.get("num_latents"):
        return about.whole("num_latents")
    return d_in * about.whole("expansion_factor")


def _read(ref: SaeRef, folder: Path, _gate: str) -> Converted:
    import torch

    about = _about(folder)
    stored = Weights.of_safetensors(folder / WEIGHTS)
    if "W_skip" in stored:
        raise Refused(f"{folder} is {TRANSCODER} (it stores W_skip). Choose an SAE.")
    state = {
        "W_enc": stored.pick("encoder.weight").T,
        "W_dec": stored.pick("W_dec"),  # rows are latents, as sae-lens has them
        "b_enc": stored.get("encoder.bias", torch.zeros(ref.d_sae)),
        "b_dec": stored.pick("b_dec"),
    }
    return Converted(cfg=config("topk", ref, k=about.whole("k"), apply_b_dec_to_input=True), state=state, source=stored)


LAYOUTS = (Layout(name="sparsify", files=(CONFIG, WEIGHTS), facts=_facts, read=_read),)
