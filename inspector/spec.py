"""What was asked for: plain data that crosses the command line, the socket and the result file unchanged.

Nothing here loads, checks or computes anything; `None` always means "the default for this model", which
`inspector.sources` decides and every result records. No torch, no numpy: the process that paints imports this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Site = Literal["resid", "mlp", "attn"]
Split = Literal["context", "token"]
Profile = Literal["careful", "paper-text", "paper-code"]
Null = Literal["shuffle", "gaussian", "affine"]
LlamaGate = Literal["published", "topk"]

DEFAULT_TEXT = "hf:monology/pile-uncopyrighted"
SITE_HOOKS: dict[Site, str] = {
    "resid": "blocks.{layer}.hook_resid_post",
    "mlp": "blocks.{layer}.hook_mlp_out",
    "attn": "blocks.{layer}.attn.hook_z",
}
"""On Gemma 2 `hook_mlp_out` is after the post-norm, as Gemma Scope reads it; `hook_z` is before the projection."""


OTHER_HOOKS: dict[Site, tuple[str, ...]] = {"attn": ("blocks.{layer}.hook_attn_out",)}
"""Where a suite has SAEs of a site if not at its hook: Llama Scope reads what attention adds to the stream."""


def hook_name_of(site: Site, layer: int) -> str:
    """Full hook name of a site at a layer, e.g. blocks.20.hook_resid_post."""
    return SITE_HOOKS[site].format(layer=layer)


def hooks_of(site: Site, layer: int) -> tuple[str, ...]:
    """Every hook that counts as the site at a layer, the usual one first."""
    return tuple(hook.format(layer=layer) for hook in (SITE_HOOKS[site], *OTHER_HOOKS.get(site, ())))


def width_label(d_sae: int) -> str:
    """The field's short name of a width: 256, 1k, 16k, 131k, 1m."""
    if d_sae < 1000:
        return str(d_sae)
    return f"{d_sae // 1000}k" if d_sae < 1_000_000 else f"{d_sae // 1_000_000}m"


WIDTH_OF_LABEL = {width_label(2**n): 2**n for n in range(8, 24)}
"""The power of two that a label stands for, as suites name their widths."""


@dataclass(frozen=True, kw_only=True)
class SaeRef:
    """One SAE, known by name; loaded or not."""

    sae_id: str
    """Unique within the release; for a directory, the path below it."""
    release: str
    """Registry release, or the suite's directory."""
    layer: int | None
    """Layer index; None if the hook name has none."""
    hook_name: str
    d_in: int
    """Width of the activation it reads."""
    d_sae: int
    """Number of latents."""
    nominal_l0: float | None = None
    """As in the SAE's name or configuration; None is unknown, never 0."""
    n_bytes: int = 0
    """Size of the weights on disk or to download."""
    on_disk: bool = True
    path: str | None = None
    """Directory or file of the weights; None until downloaded."""
    format: str = "sae-lens"
    """Name of the layout of the files, which decides how they are read; see `inspector.formats`."""
    repo: str | None = None
    """Hugging Face repository it is published in; None if it is only on disk."""
    file: str | None = None
    """Its folder or file in that repository."""
    revision: str | None = None
    """Commit or branch of the repository; None: the newest."""
    model: str | None = None
    """Hugging Face id of the model it was trained on, where known."""
    neuronpedia: str | None = None
    """Id under which its latents are published, checked against layer and width; None: not, or not surely."""
    norm_factor: float | None = None
    """Factor of the data set's norm that the registry gives and the weights lack (Llama Scope)."""
    module: str | None = None
    """Path of the model's module whose output it reads, where its files say that and no hook; see `formats.hooks`."""
    overrides: str = ""
    """JSON object of configuration keys that the registry says otherwise than the files; empty: none."""
    notes: tuple[str, ...] = ()
    """What a user should know of it: what was assumed, which keys are not known, on what text it was trained."""

    @property
    def label(self) -> str:
        """Short name for a legend: width and nominal L0."""
        l0 = "?" if self.nominal_l0 is None else f"{self.nominal_l0:g}"
        return f"{width_label(self.d_sae)}/{l0}"


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """TARGET of the command line, field by field; see `dm-inspect run --help`."""

    model: str = "demo"
    layers: tuple[int, ...] | None = None
    """None: the demo's middle layer, or the only layer the suite has."""
    layers_from: int | None = None
    """In the place of `layers`: this layer and all later ones that have SAEs; see `sources.suites.layer_by_layer`."""
    site: Site = "resid"
    hook: str | None = None
    """A full hook name; overrides layers and site."""
    suite: str | None = None
    saes: tuple[str, ...] = ()
    """Exact SAE ids or directories; empty means all of the hook."""
    widths: tuple[int, ...] | None = None
    """Numbers of latents as labels denote them (16384 for 16k)."""
    l0: float | None = None
    """Per width, take the SAE with the nearest nominal L0; None takes all."""
    text: str | None = None
    text_field: str | None = None
    """Of records, the field that is read; None: see `sources.records.choose_field`."""
    contexts: int = 300
    context_length: int | None = None
    """Tokens per context, BOS included; None: 1024, or the model's limit if smaller."""
    positions: tuple[int, int | None] | None = None
    """Half-open range of positions that are fitted and scored; None: from 200, or an eighth of a short context."""
    train_tokens: int | None = None
    """None: the paper's 150,000, or its share of the tokens if there are fewer."""
    split: Split = "context"
    seed: int = 0
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    offline: bool = False
    cache_dir: str | None = None
    accept_gate: bool = False
    max_memory: int | None = None
    """Bytes of the device that may be used; None: what is free."""
    include_special: bool = False
    """Fit and score special tokens and the positions outside `positions` too, to see how much they change."""
    outliers: float | None = 4.0
    """Tokens whose activation is longer than so many times the median are fitted, scored and told apart; None: none."""
    llama_gate: LlamaGate = "published"
    """Llama Scope: thresholds as its authors' loader applies them, or the 50 largest latents."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One headless run: which experiments, on what, how."""

    target: TargetSpec
    experiments: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)
    """-p KEY=VALUE as typed; each experiment's Params takes those it knows."""
    profile: Profile = "careful"
    null: Null | None = None
    batch_size: int = 8
    """Contexts per forward pass. Changes speed and memory, not numbers."""
    shards: int = 1
    """Accumulate in this many separate parts and merge. Changes no number; there to prove it."""
