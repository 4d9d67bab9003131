"""One sparse autoencoder, through sae-lens: x to x_hat, l0, and the latents that are active.

Always float32: in half precision the SAE's own rounding would be counted as its error. Tokens go through in chunks of
one fixed size, the last one padded, so that a token's reconstruction does not depend on how many came with it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.errors import ResourceError, TargetError
from inspector.formats import layout_of
from inspector.sources import centring
from inspector.sources.centring import is_centred
from inspector.sources.model_files import digest_files
from inspector.sources.suites import mismatch
from inspector.sources.unchanged import FilesState, require_same, state_of
from inspector.spec import LlamaGate, SaeRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.sources.streamed import Stage

SHAPES = {"W_enc": ("d_in", "d_sae"), "W_dec": ("d_sae", "d_in"), "b_enc": ("d_sae",), "b_dec": ("d_in",)}
PER_LATENT = ("threshold", "b_mag", "b_gate", "r_mag")

_CHUNK_BYTES = 1 << 30
"""Dense temporaries of one chunk: encode makes up to four of tokens x d_sae x 4 bytes. A million latents: 64 tokens."""
_MAX_CHUNK = 256
_ROWS_CHECKED = 256
_HOST_RESERVE = 4 << 30
"""Bytes of the host's memory that stay free; below, streamed SAEs are read from their files for each turn."""
SPARSE_FROM = 1 << 15
"""Latents from which decoding goes over the active ones only: a hundred of a million then, and not a million."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What an SAE makes of some tokens."""

    x_hat: Tensor
    """[n, d] float32."""
    l0: Tensor
    """[n] int32, strictly positive latents."""


class LoadedSae:
    """An SAE in memory. Made by `load_sae`.

    Args:
        ref: which one it is.
        sae: the sae-lens object, float32, on its device.
        notes: what a user should know about it.
    """

    def __init__(self, ref: SaeRef, sae: Any, notes: tuple[str, ...] = (), gate: str | None = None) -> None:
        self.ref = ref
        self.files: FilesState = ()
        """That it was loaded from, as they were then; set by `load_sae`."""
        self.notes = notes
        self.gate = gate
        """How latents are let through, where the published files leave a choice."""
        self.model_name: str | None = sae.cfg.metadata.model_name
        """As its files say."""
        size = getattr(sae.cfg.metadata, "context_size", None)
        self.context_size: int | None = size if type(size) is int and size > 0 else None
        """Tokens of the contexts that it was trained on, as its files say; None: they do not."""
        self.never_saw_special = bool(getattr(sae.cfg.metadata, "exclude_special_tokens", None))
        """Whether special tokens were left out of its training, as its files say."""
        self._module = sae
        self._device = torch.device(sae.W_dec.device)
        self.chunk_tokens = chunk_tokens(ref.d_sae)
        self.is_centred = is_centred(ref.hook_name, sae.cfg.metadata.model_from_pretrained_kwargs)
        """Whether it reads the stream without its mean over dimensions; see `centring`."""
        self.is_plain = not self.is_centred and _is_linear(sae)
        """Whether x_hat is the latents times the decoder's rows, plus its bias, and nothing else."""
        self._decodes_sparsely = ref.d_sae >= SPARSE_FROM and self.is_plain
        self._rows_encoded = 0

    @property
    def _sae(self) -> Any:
        """The sae-lens object, ready to compute; `StreamedSae` has to bring it first."""
        return self._module

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of configuration, weights and the registry's overrides; at first use, because it reads every byte.

        Raises:
            TargetError: the files are not those any more that were loaded.
        """
        found = digest_files([path for path in files_of(self.ref) if path.is_file()])
        require_same(self.files)
        if not self.ref.overrides:
            return found
        return hashlib.sha256(f"{found}\n{self.ref.overrides}".encode()).hexdigest()  # they change the function

    @torch.inference_mode()
    def reconstruct(self, x: Tensor) -> Reconstruction:
        """Reconstruct tokens x [n, d] float32, heads flattened. Each row's result depends on that row alone."""
        x_hat = torch.empty(x.shape, dtype=torch.float32, device=self._device)
        l0 = torch.empty(x.shape[0], dtype=torch.int32, device=self._device)
        for start, latents in self._encoded(x):
            stop = min(start + self.chunk_tokens, x.shape[0])
            l0[start:stop] = (latents > 0).sum(dim=-1, dtype=torch.int32)[: stop - start]
            # Decode after each encode: layer_norm and constant_norm_rescale keep the last input's scale in between.
            x_hat[start:stop] = self._decoded(latents, stop - start)
            del latents  # before the next chunk's are made
        return Reconstruction(x_hat=x_hat, l0=l0)

    @torch.inference_mode()
    def active_latents(self, x: Tensor) -> list[tuple[int, float]]:
        """Index and activation of the latents that are positive at one token x [d], strongest first."""
        ((_, latents),) = self._encoded(x.reshape(1, -1))
        row = latents[0].cpu()
        indices = torch.nonzero(row > 0)[:, 0]
        order = row[indices].argsort(descending=True, stable=True)
        return [(int(i), float(row[i])) for i in indices[order]]

    @property
    def decoder(self) -> tuple[Tensor, Tensor]:
        """Rows [d_sae, d] and bias [d], float32: x_hat is the latents times the rows, plus the bias."""
        return self._sae.W_dec.detach(), self._sae.b_dec.detach()

    @torch.inference_mode()
    def chunks(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their latents [rows, d_sae] of x [n, d], a chunk at a time; `decode` each before the next."""
        for start, latents in self._encoded(x):
            rows = slice(start, min(start + self.chunk_tokens, x.shape[0]))
            yield rows, latents[: rows.stop - start]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """[n, d] reconstructions from latents [n, d_sae] that `chunks` gave, changed or not."""
        return self._decoded(latents, len(latents))

    def _decoded(self, latents: Tensor, n: int) -> Tensor:
        """x_hat of the first n rows of dense latents [chunk, d_sae]."""
        if not self._decodes_sparsely:
            # Scales and means that the SAE keeps from encoding are of all rows of the chunk.
            missing = 0 if self.is_plain else self._rows_encoded - len(latents)
            decoded: Tensor = self._sae.decode(torch.nn.functional.pad(latents, (0, 0, 0, max(0, missing))))
            return decoded[:n]
        latents = latents[:n]
        places = torch.nonzero(latents)
        counts = torch.bincount(places[:, 0], minlength=len(latents))
        summed = torch.nn.functional.embedding_bag(
            places[:, 1],
            self._sae.W_dec,
            offsets=counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=latents[places[:, 0], places[:, 1]],
        )
        return summed + self._sae.b_dec

    def _encoded(self, x: Tensor) -> Any:
        """Yield (first row, latents [chunk, d_sae]); the last chunk is filled up with copies of its first row.

        A single token goes as it is: it is a step of live generation, where 256 times the work would be felt, and its
        last bits may differ (1e-6 relative).
        """
        if x.ndim != 2 or x.shape[1] != self.ref.d_in:
            raise TargetError(
                f"x has shape {list(x.shape)} but SAE {self.ref.sae_id} reads [n, {self.ref.d_in}]. "
                "Are model and SAE from the same family?"
            )
        for start in range(0, x.shape[0], self.chunk_tokens):
            part = x[start : start + self.chunk_tokens].to(self._device, torch.float32)
            if x.shape[0] > 1 and len(part) < self.chunk_tokens:
                part = torch.cat([part, part[:1].expand(self.chunk_tokens - len(part), -1)])
            self._rows_encoded = len(part)
            yield start, self._sae.encode(part)


def chunk_tokens(d_sae: int) -> int:
    """Tokens per chunk: 256, fewer only where the temporaries would pass 4 GB. A function of the width alone."""
    return max(1, min(_MAX_CHUNK, _CHUNK_BYTES // (16 * d_sae)))


def scratch_bytes(d_in: int, d_sae: int) -> int:
    """Bytes that `reconstruct` needs beside weights, x and x_hat, at most."""
    return chunk_tokens(d_sae) * (16 * d_sae + 12 * d_in)


def _is_linear(sae: Any) -> bool:
    """Whether decoding is W_dec and b_dec and nothing else."""
    plain = sae.cfg.normalize_activations == "none" and not getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    return plain and sae.cfg.architecture() in ("standard", "gated", "jumprelu", "topk")


def load_sae(
    ref: SaeRef,
    device: torch.device,
    d_in_expected: int,
    *,
    llama_gate: LlamaGate = "published",
    stage: Stage | None = None,
) -> LoadedSae:
    """Load one SAE from its folder.

    Args:
        ref: with `path` set.
        device: where it goes.
        d_in_expected: width of the activation it will read.
        llama_gate: of Llama Scope.
        stage: room on the device that it takes turns for with others; None: it stays there.

    Raises:
        TargetError: when d_in differs, files are broken, weights are not finite, or it needs something not done here.
        ResourceError: when it does not fit into memory.
    """
    if ref.path is None:
        raise TargetError(f"SAE {ref.sae_id!r} of {ref.release} is not on disk. Download it first, or give --sae DIR.")
    if ref.d_in != d_in_expected:
        raise mismatch(ref, d_in_expected)
    before = state_of(files_of(ref))
    found = _loaded(ref, device, llama_gate, stage)
    found.files = before
    return found


def _loaded(ref: SaeRef, device: torch.device, llama_gate: LlamaGate, stage: Stage | None) -> LoadedSae:
    if stage is not None:
        from inspector.sources.memory_sizes import host_free
        from inspector.sources.streamed import StreamedSae

        sae, gate = _read_or_explain(ref, torch.device("cpu"), llama_gate)
        in_files = device.type == "cpu" or host_free() < _HOST_RESERVE

        def again() -> Any:
            return _read_or_explain(ref, device, llama_gate)[0]

        read = again if in_files else None
        return StreamedSae(ref, sae, device=device, stage=stage, read=read, notes=_noted(ref, sae, gate), gate=gate)
    sae, gate = _read_or_explain(ref, device, llama_gate)
    return LoadedSae(ref, sae, _noted(ref, sae, gate), gate)


def files_of(ref: SaeRef) -> list[Path]:
    """Paths of an SAE that is on disk: small files first, weights last."""
    layout, path = layout_of(ref.format), Path(ref.path or "")
    return [Path(each) for each in layout.paths(str(path))]


def _read_or_explain(ref: SaeRef, device: torch.device, llama_gate: LlamaGate) -> tuple[Any, str | None]:
    """As `_read`, with the errors of `load_sae`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about model_from_pretrained_kwargs, which become notes
            return _read(ref, device, llama_gate)
    except TargetError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ResourceError(
            f"SAE {ref.sae_id!r} ({4 * 2 * ref.d_in * ref.d_sae / 1e9:.1f} GB in float32) does not fit into memory. "
            "Choose fewer --widths, or another --device."
        ) from error
    except Exception as error:  # safetensors, json, torch and sae-lens each raise their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise TargetError(
            f"SAE {ref.path} cannot be loaded: {first.rstrip('.')}. It was read as {ref.format}, see docs/suites.md; "
            "leave it out with --sae or --widths."
        ) from error


def _read(ref: SaeRef, device: torch.device, llama_gate: LlamaGate) -> tuple[Any, str | None]:
    """The sae-lens object, checked, and the name of its gate."""
    sae, gate = _built(ref, device, llama_gate)
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
    broken = [name for name, weight in sae.named_parameters() if not _is_finite(weight)]
    if broken:
        raise TargetError(
            f"SAE {ref.sae_id!r} has weights that are not finite, in {broken[0]}: its training diverged or its file is "
            "damaged. Leave it out with --sae or --widths."
        )
    if is_centred(ref.hook_name, sae.cfg.metadata.model_from_pretrained_kwargs):
        centring.centre(sae)
    sae.turn_off_forward_pass_hook_z_reshaping()  # heads come flattened
    return sae.eval().requires_grad_(False), gate


def _built(ref: SaeRef, device: torch.device | str, llama_gate: LlamaGate) -> tuple[Any, str | None]:
    """The sae-lens object in float32 on the device, and the name of its gate where a layout leaves a choice."""
    from sae_lens import SAE

    for path in files_of(ref):
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            raise TargetError(f"{path} is not a regular file. Put the SAE's own file in its place.")
    folder = Path(ref.path or "")
    converted = layout_of(ref.format).read(ref, folder, llama_gate)

    def converter(_path: Any, _device: str, cfg_overrides: Any = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state = {name: value.to(_device, torch.float32).contiguous() for name, value in converted.state.items()}
        return {**converted.cfg, **(cfg_overrides or {}), "device": _device}, state

    _check_shapes(ref, converted.state)
    return SAE.load_from_disk(folder, device=str(device), dtype="float32", converter=converter), converted.gate


def _check_shapes(ref: SaeRef, state: Mapping[str, Tensor]) -> None:
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


def _is_finite(weight: Tensor) -> bool:
    """In parts: the copies that the test makes of a whole decoder would be as large as the decoder."""
    return all(bool(torch.isfinite(part).all()) for part in weight.detach().split(_ROWS_CHECKED))


def _noted(ref: SaeRef, sae: Any, gate: str | None) -> tuple[str, ...]:
    notes = (*ref.notes, *_notes(ref, sae))
    return notes if gate is None else (*notes, f"Latents of {ref.sae_id} pass: {gate}.")


def _notes(ref: SaeRef, sae: Any) -> tuple[str, ...]:
    kwargs = sae.cfg.metadata.model_from_pretrained_kwargs
    notes = [centring.note(ref)] if is_centred(ref.hook_name, kwargs) else []
    if other := centring.processing(ref.hook_name, kwargs):
        notes.append(
            f"SAE {ref.sae_id} was trained on a processed model ({other}), but the model here is as published; "
            "its error may be too large."
        )
    return tuple(notes)
