"""Loads SAEs from their files: sae-lens' object of what a layout read, checked, and what a user should know about it.

Some were trained on a model whose writing weights are centred, and run here on the model as it is published.
transformer-lens can take off every weight that writes to the residual stream its mean over dimensions. A model whose
norms are LayerNorms computes the same logits then, as these take that mean off anyway; only the stream and what is
added to it lose their mean over dimensions, one number per token. An SAE of such a stream reads x without that mean
here, and what it makes has it again: `sae_error` is exactly the error on the processed model, and a splice of x_hat
gives its logits. FVU is of x as published, mean included. Layer-normed SAEs of sae-lens do the same with that mean.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from inspector.errors import TargetError
from inspector.formats import Stored, layout_of
from inspector.sources import explained
from inspector.sources.model_files import state_of
from inspector.sources.sae import CENTRING, STREAM, LargestFirst, LoadedSae, files_of, is_centred, not_finite
from inspector.sources.sliced import SlicedSae
from inspector.sources.slices import Matrix, Slices
from inspector.sources.suites import mismatch
from inspector.spec import LlamaGate, SaeRef, hook_name_of

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.formats import Converted
    from inspector.sources.model import LanguageModel

SHAPES = {"W_enc": ("d_in", "d_sae"), "W_dec": ("d_sae", "d_in"), "b_enc": ("d_sae",), "b_dec": ("d_in",)}
PER_LATENT = ("threshold", "b_mag", "b_gate", "r_mag")
_ROWS_CHECKED = 256
_HARMLESS = frozenset(
    {"center_unembed", "n_devices", "dtype", "device", "torch_dtype", "trust_remote_code", "revision"}
)
"""Arguments of loading that change no activation, or none that is chosen here."""


def load_sae(
    ref: SaeRef,
    device: torch.device,
    d_in_expected: int,
    *,
    llama_gate: LlamaGate = "published",
    slices: Slices | None = None,
    hold: bool = False,
) -> LoadedSae:
    """Load one SAE from its folder.

    Args:
        ref: with `path` set.
        device: where it goes.
        d_in_expected: width of the activation it will read.
        llama_gate: of Llama Scope.
        slices: room on the device for a slice of it at a time, shared with others; None: it is there whole.
        hold: whether slices are kept in the host's memory; else they are read when it is their turn.

    Raises:
        TargetError: when d_in differs, files are broken, weights are not finite, or it needs something not done here.
        ResourceError: when it does not fit into memory.
    """
    if ref.path is None:
        raise TargetError(f"SAE {ref.sae_id!r} of {ref.release} is not on disk. Download it first, or give --sae DIR.")
    if ref.d_in != d_in_expected:
        raise mismatch(ref, d_in_expected)
    before = state_of(files_of(ref))
    with _explained(ref):
        if slices is None:
            sae, gate = _read(ref, device, llama_gate)
            found = LoadedSae(ref, sae, _noted(ref, sae, gate), gate)
        else:
            found = _sliced(ref, device, llama_gate, slices)
            if hold:
                found.hold()
    found.files = before
    return found


@contextlib.contextmanager
def _explained(ref: SaeRef) -> Iterator[None]:
    """Errors of libraries as those of `load_sae`, and none of their warnings, which become notes."""
    n_bytes = 4 * 2 * ref.d_in * ref.d_sae
    too_large = f"SAE {ref.sae_id!r} ({n_bytes / 1e9:.1f} GB in float32) does not fit into memory."
    with (
        warnings.catch_warnings(),
        explained(
            f"{too_large} Choose fewer --widths, or another --device.",
            lambda first: (
                f"SAE {ref.path} cannot be loaded: {first}. It was read as {ref.format}, see docs/suites.md; "
                "leave it out with --sae or --widths."
            ),
        ),
    ):
        warnings.simplefilter("ignore")
        yield


def _read(ref: SaeRef, device: torch.device, llama_gate: LlamaGate) -> tuple[Any, str | None]:
    """The sae-lens object, checked, and the name of its gate."""
    converted = _converted(ref, llama_gate)
    state = {name: converted.whole(name).to(device, torch.float32).contiguous() for name in converted.state}
    sae = _ready(ref, _built(ref, converted.cfg, state, device))
    for name, weight in sae.named_parameters():
        _require_finite(ref, name, weight)
    if sae.cfg.architecture() == "topk":
        sae.activation_fn = LargestFirst(sae.cfg.k)
    return sae, converted.gate


def _sliced(ref: SaeRef, device: torch.device, llama_gate: LlamaGate, slices: Slices) -> SlicedSae:
    """An SAE of which nothing but biases and thresholds is loaded."""
    converted = _converted(ref, llama_gate)
    matrices, first, vectors = {}, {}, {}
    for name, value in converted.state.items():
        if name in SHAPES and len(SHAPES[name]) == 2:
            source = None if isinstance(value, Stored) or converted.source is None else converted.source
            place = value if source is None else source.place_of(cast("Tensor", value)) or value
            matrices[name] = Matrix(ref, name, place, converted.folds)
            first[name] = torch.zeros(ref.d_in, 1) if name == "W_enc" else torch.zeros(1, ref.d_in)
        else:
            assert not isinstance(value, Stored), "only matrices are left in their files"
            first[name] = value.to(device, torch.float32).contiguous()
            if name != "b_dec" and tuple(value.shape) == (ref.d_sae,):
                vectors[name], first[name] = first[name], first[name][:1]
    sae = _ready(ref, _built(ref, {**converted.cfg, "d_sae": 1}, first, device))
    for name, value in {**vectors, "b_dec": sae.b_dec}.items():
        _require_finite(ref, name, value)
    return SlicedSae(
        ref,
        sae,
        vectors=vectors,
        encoder=matrices["W_enc"],
        decoder=matrices["W_dec"],
        slices=slices,
        notes=_noted(ref, sae, converted.gate),
        gate=converted.gate,
    )


def _ready(ref: SaeRef, sae: Any) -> Any:
    """The sae-lens object, checked and made to take what comes here."""
    architecture = sae.cfg.architecture()
    k = getattr(sae.cfg, "k", None)
    if architecture == "topk" and (type(k) is not int or not 1 <= k <= ref.d_sae):
        raise TargetError(
            f"SAE {ref.sae_id!r} keeps the {k!r} largest of {ref.d_sae:,} latents, which is no such number. "
            "Its configuration is damaged; fetch it again."
        )
    normalisation = sae.cfg.normalize_activations
    if normalisation not in ("none", "layer_norm", "constant_norm_rescale"):
        # sae-lens leaves both out at inference, with at most a warning: plausible numbers of another function.
        raise TargetError(
            f"SAE {ref.sae_id!r} was trained with normalize_activations={normalisation!r}, whose factor is not in the "
            "weights. Fold it with sae-lens before saving (fold_activation_norm_scaling_factor)."
        )
    if is_centred(ref.hook_name, sae.cfg.metadata.model_from_pretrained_kwargs):
        _centre(sae)
    sae.turn_off_forward_pass_hook_z_reshaping()  # heads come flattened
    return sae.eval().requires_grad_(False)


def _converted(ref: SaeRef, llama_gate: LlamaGate) -> Converted:
    """What its files hold, of the right shapes."""
    for path in files_of(ref):
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            raise TargetError(f"{path} is not a regular file. Put the SAE's own file in its place.")
    converted = layout_of(ref.format).read(ref, Path(ref.path or ""), llama_gate)
    _check_shapes(ref, converted.state)
    return converted


def _built(ref: SaeRef, cfg: Mapping[str, Any], state: dict[str, Tensor], device: torch.device) -> Any:
    """The sae-lens object of a configuration and float32 weights."""
    from sae_lens import SAE

    def converter(_path: Any, _device: str, cfg_overrides: Any = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {**cfg, **(cfg_overrides or {}), "device": _device}, state

    return SAE.load_from_disk(Path(ref.path or ""), device=str(device), dtype="float32", converter=converter)


def _check_shapes(ref: SaeRef, state: Mapping[str, Tensor | Stored]) -> None:
    """Refuse shapes that are not what the reference promises; swapped matrices are such, unless they are square."""
    sizes = {"d_in": ref.d_in, "d_sae": ref.d_sae}
    for name, value in state.items():
        expected = SHAPES.get(name, ("d_sae",) if name in PER_LATENT else None)
        if expected is not None and tuple(value.shape) != tuple(sizes[size] for size in expected):
            shape = [sizes[size] for size in expected]
            raise TargetError(
                f"SAE {ref.sae_id!r} has {name} of shape {list(value.shape)} instead of {shape}. "
                "Its files are of two SAEs, or damaged."
            )


def _require_finite(ref: SaeRef, name: str, weight: Tensor) -> None:
    """In parts: the copies that the test makes of a whole decoder would be as large as the decoder."""
    if not all(bool(torch.isfinite(part).all()) for part in weight.detach().split(_ROWS_CHECKED)):
        raise not_finite(ref, name)


def _noted(ref: SaeRef, sae: Any, gate: str | None) -> tuple[str, ...]:
    """What a user should know about an SAE."""
    kwargs, notes = sae.cfg.metadata.model_from_pretrained_kwargs, [*ref.notes]
    if is_centred(ref.hook_name, kwargs):
        notes.append(
            f"SAE {ref.sae_id} was trained on a stream without its mean over dimensions ({CENTRING}): it is taken off "
            "before the SAE and put back behind it, so that the error is that of training."
        )
    if other := processing(ref.hook_name, kwargs):
        notes.append(
            f"SAE {ref.sae_id} was trained on a processed model ({other}), but the model here is as published; "
            "its error may be too large."
        )
    if gate is not None:
        notes.append(f"Latents of {ref.sae_id} pass: {gate}.")
    return tuple(notes)


def processing(hook_name: str, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of `model_from_pretrained_kwargs`, what was done to the model in training and is not done here."""
    done = {CENTRING} if STREAM.match(hook_name) else set()
    return {key: value for key, value in (kwargs or {}).items() if value and key not in _HARMLESS and key not in done}


def _centre(sae: Any) -> None:
    """Let a sae-lens object take off each token's mean over dimensions before it encodes, and put it back.

    It keeps the last input's means in between, as its own normalisations keep their scales: decode after each encode.
    """
    inner_in, inner_out = sae.run_time_activation_norm_fn_in, sae.run_time_activation_norm_fn_out
    kept: list[Tensor] = []

    def without(x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        kept[:] = [mean]
        centred: Tensor = inner_in(x - mean)
        return centred

    def again(x_hat: Tensor) -> Tensor:
        whole: Tensor = inner_out(x_hat) + kept[0][: len(x_hat)]
        return whole

    sae.run_time_activation_norm_fn_in, sae.run_time_activation_norm_fn_out = without, again


Component = Literal["previous", "mlp", "attn"]
"""Residual stream one layer before, MLP output, attention heads before their projection."""


@dataclass(frozen=True, kw_only=True)
class ComponentSae:
    """An SAE of a component, in memory."""

    component: Component
    hook_name: str
    sae: LoadedSae


def load_component_saes(
    known: Sequence[SaeRef], model: LanguageModel, layer: int, component_layer: int, like: SaeRef
) -> list[ComponentSae]:
    """Per component the SAE on disk nearest in width to `like`, then in nominal L0; some components have none.

    Args:
        known: of the suite; see `suites.suite_of`.
        model: that they are of.
        layer: the residual stream is that before it.
        component_layer: of MLP and attention. The paper's text takes the layer before, its Eq. 16 and code the same
            layer (E-12, D-22).
        like: of the target.
    """
    hooks: dict[Component, str] = {
        "previous": hook_name_of("resid", layer - 1),
        "mlp": hook_name_of("mlp", component_layer),
        "attn": hook_name_of("attn", component_layer),
    }
    found = []
    for component, hook_name in hooks.items():
        here = [ref for ref in known if ref.hook_name == hook_name and ref.on_disk and ref.path is not None]
        if here:
            ref = min(
                here,
                key=lambda ref: (
                    abs(math.log(ref.d_sae / like.d_sae)),
                    abs((ref.nominal_l0 or math.inf) - (like.nominal_l0 or 0.0)),
                    ref.sae_id,
                ),
            )
            sae = load_sae(ref, model.device, model.check_hook(hook_name))
            found.append(ComponentSae(component=component, hook_name=hook_name, sae=sae))
    return found
