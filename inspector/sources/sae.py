"""One sparse autoencoder, through sae-lens: x to x_hat, l0, and the latents that are active.

Always float32: in half precision the SAE's own rounding would be counted as its error. Tokens go through in chunks of
one fixed size, the last one padded, so that a token's reconstruction does not depend on how many came with it.
Those whose weights do not fit are `sliced.SlicedSae`s, which answer the same questions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.formats import layout_of
from inspector.sources.memory_sums import chunk_tokens
from inspector.sources.model_files import FilesState, digest_files, require_same
from inspector.spec import SaeRef

CENTRING = "center_writing_weights"
STREAM = re.compile(r"(?:blocks\.\d+\.)?hook_(?:resid_pre|resid_mid|resid_post|mlp_out|attn_out|embed|pos_embed)$")
"""Hooks whose values weights write directly."""
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
    """An SAE in memory, or in slices. Made by `load_sae`.

    Args:
        ref: which one it is.
        sae: the sae-lens object, float32, on its device.
        notes: what a user should know about it.
    """

    comes_in_slices = False
    """Whether all its weights are moved each time that it is asked, however few tokens are asked about."""

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
        self._sae = sae
        self._device = torch.device(sae.b_dec.device)
        self.chunk_tokens = chunk_tokens(ref.d_sae)
        self.is_centred = is_centred(ref.hook_name, sae.cfg.metadata.model_from_pretrained_kwargs)
        """Whether it reads the stream without its mean over dimensions; see `sae_loading`."""
        self.is_plain = not self.is_centred and _is_linear(sae)
        """Whether x_hat is the latents times the decoder's rows, plus its bias, and nothing else."""
        self.telling: Callable[[int, int], None] | None = None
        """Told of one in slices how many bytes of its encoder have come, and of how many."""
        self._decodes_sparsely = ref.d_sae >= SPARSE_FROM and self.is_plain
        self._rows_encoded = 0

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
    def bias(self) -> Tensor:
        """[d] float32: x_hat where no latent is active."""
        found: Tensor = self._sae.b_dec.detach()
        return found

    def whole_decoder(self) -> Tensor:
        """[d_sae, d] float32 on the device: with the bias, x_hat of latents is their product with these rows.

        Raises:
            ResourceError: of an SAE in slices whose decoder finds no room; `decoder_rows` needs none.
        """
        rows: Tensor = self._sae.W_dec.detach()
        return rows

    def rows_of(self, latents: Tensor) -> Tensor:
        """[k, d] of them, of latents in ascending order."""
        return self.whole_decoder()[latents]

    def decoder_rows(self, n_bytes: int) -> Iterator[Tensor]:
        """All of them, a part after the other, none larger; each is good until the SAE is asked again."""
        yield from self.whole_decoder().split(max(1, n_bytes // (4 * self.ref.d_in)))

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
        tokens, places = torch.nonzero(latents, as_tuple=True)
        summed = weighted_rows(self._sae.W_dec, tokens, places, latents[tokens, places], len(latents))
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


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row [n, m] and their places [n, k]; of equal ones that at the lower place.

    Libraries leave that open, and it decides which of two equal latents is active.
    """
    if values.device.type == "cpu" and k < values.shape[1]:  # where a look at the numbers waits for nothing
        found = values.topk(k + 1, dim=1)
        if not bool((found.values[:, k - 1] == found.values[:, k]).any()):
            return found.values[:, :k], found.indices[:, :k]
    indices = ranks(values, torch.arange(values.shape[1], device=values.device)).topk(k, dim=1).indices
    return values.gather(1, indices), indices


def ranks(values: Tensor, places: Tensor) -> Tensor:
    """int64 that are ordered as float32 values are, and for equal values the other way round than their places."""
    bits = (values + 0.0).view(torch.int32).long()  # 0.0 for -0.0
    return (torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits) << 32) - places


class LargestFirst(torch.nn.Module):
    """The activation function of a TopK SAE: ReLU of the k `largest`, and zero for all others."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        """Latents [n, d_sae] of pre-activations."""
        values, indices = largest(pre, self.k)
        return torch.zeros_like(pre).scatter_(1, indices, values.relu())


def weighted_rows(rows: Tensor, tokens: Tensor, places: Tensor, weights: Tensor, n: int) -> Tensor:
    """[n, d] sums of rows [m, d] at `places`, weighted, for each of n tokens; `tokens` ascend."""
    counts = torch.bincount(tokens, minlength=n)
    return torch.nn.functional.embedding_bag(
        places, rows, offsets=counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights
    )


def _is_linear(sae: Any) -> bool:
    """Whether decoding is W_dec and b_dec and nothing else."""
    plain = sae.cfg.normalize_activations == "none" and not getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    return plain and sae.cfg.architecture() in ("standard", "gated", "jumprelu", "topk")


def is_centred(hook_name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Whether an SAE with these `model_from_pretrained_kwargs` reads a stream without its mean over dimensions."""
    return bool((kwargs or {}).get(CENTRING)) and STREAM.match(hook_name) is not None


def not_finite(ref: SaeRef, name: str) -> TargetError:
    """What is said of an SAE with such weights."""
    return TargetError(
        f"SAE {ref.sae_id!r} has weights that are not finite, in {name}: its training diverged or its file is damaged. "
        "Leave it out with --sae or --widths."
    )


def files_of(ref: SaeRef) -> list[Path]:
    """Paths of an SAE that is on disk: small files first, weights last."""
    layout, path = layout_of(ref.format), Path(ref.path or "")
    return [Path(each) for each in layout.paths(str(path))]
