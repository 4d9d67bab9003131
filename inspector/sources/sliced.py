"""SAEs whose weights do not fit: evaluated a slice of latents at a time, with no more there than a slice.

What a latent does depends on its own weights, so ReLU, JumpReLU and gated SAEs are exact slice by slice. TopK keeps the
k largest so far and merges those of each slice into them; of equal pre-activations the lower index passes, as in a
whole SAE (`sae.largest`), so that the active latents are the same. Each slice goes through sae-lens' own code, as an
SAE of that many latents. The decoder is asked for the rows of active latents alone.

Numbers are those of the whole SAE but for the order in which float32 sums are taken, 1e-6 relative. A pre-activation
that is within that of its threshold may fall on the other side, as it may on another processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inspector.errors import ResourceError
from inspector.sources.memory_sums import CODE_BYTES, CODES_BYTES
from inspector.sources.model_files import require_same, state_of
from inspector.sources.sae import LoadedSae, Reconstruction, files_of, largest, ranks, weighted_rows
from inspector.sources.slices import Matrix, Slices
from inspector.spec import SaeRef


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Active latents of n tokens, those of a token one after the other, in ascending order."""

    n: int
    tokens: Tensor
    """[a] int64, ascending."""
    latents: Tensor
    """[a] int64."""
    values: Tensor
    """[a] float32, not zero."""

    def rows(self, start: int, stop: int) -> Codes:
        """Of some tokens."""
        ends = torch.tensor([start, stop], device=self.tokens.device)
        begin, end = torch.searchsorted(self.tokens, ends).tolist()
        return Codes(
            n=stop - start,
            tokens=self.tokens[begin:end] - start,
            latents=self.latents[begin:end],
            values=self.values[begin:end],
        )

    def strongest_first(self) -> list[tuple[int, float]]:
        """Of a single token: the positive ones, with their values."""
        found = zip(self.latents.tolist(), self.values.tolist(), strict=True)
        return sorted(((i, value) for i, value in found if value > 0), key=lambda each: -each[1])

    @property
    def n_bytes(self) -> int:
        """What it holds of the device's memory."""
        return self.tokens.nbytes + self.latents.nbytes + self.values.nbytes

    def dense(self, d_sae: int) -> Tensor:
        """[n, d_sae]."""
        latents = self.values.new_zeros(self.n, d_sae)
        latents[self.tokens, self.latents] = self.values
        return latents

    @classmethod
    def of(cls, latents: Tensor) -> Codes:
        """Of dense ones [n, d_sae]."""
        tokens, places = torch.nonzero(latents, as_tuple=True)
        return cls(n=len(latents), tokens=tokens, latents=places, values=latents[tokens, places])


class SlicedSae(LoadedSae):
    """An SAE of which no more than some latents are on the device. Asked for the same as one that stays.

    Args:
        ref: which one it is.
        sae: the sae-lens object of its first latents, on the device, whose weights are replaced by those of each slice.
        vectors: by name, weights with one number per latent, [d_sae] on the device.
        encoder, decoder: W_enc and W_dec.
        slices: the room to compute in, shared with others.
        notes, gate: as in LoadedSae.
    """

    comes_in_slices = True

    def __init__(
        self,
        ref: SaeRef,
        sae: Any,
        *,
        vectors: Mapping[str, Tensor],
        encoder: Matrix,
        decoder: Matrix,
        slices: Slices,
        notes: tuple[str, ...] = (),
        gate: str | None = None,
    ) -> None:
        super().__init__(ref, sae, notes, gate)
        self._vectors, self._encoder, self._decoder, self._slices = vectors, encoder, decoder, slices
        self._k: int | None = sae.cfg.k if sae.cfg.architecture() == "topk" else None
        # A gated encoder multiplies its matrix.
        self.latents_at_once = slices.latents(encoder, more=4 * ("r_mag" in vectors))
        self._files_before = state_of(files_of(ref))
        self._norms: Tensor | None = None
        """Of decoder rows, where TopK compares pre-activations times these, and divides by them at the end."""
        if self._k is not None:
            sae.activation_fn = torch.nn.Identity()  # sae-lens gives pre-activations then
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            sae.cfg.rescale_acts_by_decoder_norm = False
            self._norms = torch.cat([rows.norm(dim=-1) for rows in self.decoder_rows(slices.n_bytes)])

    def hold(self) -> None:
        """Keep all weights in the host's memory from now on."""
        pinned = self._device.type == "cuda"
        self._encoder.hold(self.latents_at_once, pinned=pinned)
        self._decoder.hold(self._slices.latents(self._decoder), pinned=False)

    # ---- what an SAE is asked ---------------------------------------------------------------------------------

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """See `LoadedSae.reconstruct`."""
        return self.reconstruct_with_codes(x)[0]

    @torch.inference_mode()
    def reconstruct_with_codes(self, x: Tensor) -> tuple[Reconstruction, Codes | None]:
        """As `reconstruct`, and the active latents; None: of so many tokens they were never there at once."""
        codes: Codes | None = None
        x_hat = torch.empty(x.shape, dtype=torch.float32, device=self._device)
        l0 = torch.empty(x.shape[0], dtype=torch.int32, device=self._device)
        for rows, codes in self._groups(x):
            l0[rows] = torch.bincount(codes.tokens, weights=(codes.values > 0), minlength=codes.n).to(torch.int32)
            self._sae.process_sae_in(x[rows].to(self._device, torch.float32))  # keeps the scales of these rows
            x_hat[rows] = self._finished(self._summed(codes))
        return Reconstruction(x_hat=x_hat, l0=l0), codes if codes is not None and codes.n == len(x) else None

    @torch.inference_mode()
    def active_latents(self, x: Tensor) -> list[tuple[int, float]]:
        """See `LoadedSae.active_latents`."""
        ((_, codes),) = self._groups(x.reshape(1, -1))
        return codes.strongest_first()

    @torch.inference_mode()
    def chunks(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """See `LoadedSae.chunks`."""
        for group, codes in self._groups(x):
            for start in range(group.start, group.stop, self.chunk_tokens):
                rows = slice(start, min(start + self.chunk_tokens, group.stop))
                part = x[rows].to(self._device, torch.float32)
                self._sae.process_sae_in(part)  # keeps the scales of these rows
                self._rows_encoded = len(part)
                yield rows, codes.rows(rows.start - group.start, rows.stop - group.start).dense(self.ref.d_sae)

    def _decoded(self, latents: Tensor, n: int) -> Tensor:
        summed = self._summed(Codes.of(latents))
        missing = 0 if self.is_plain else max(0, self._rows_encoded - len(latents))
        return self._finished(torch.nn.functional.pad(summed, (0, 0, 0, missing)))[:n]

    def whole_decoder(self) -> Tensor:
        """See `LoadedSae.whole_decoder`."""
        needed = 4 * self.ref.d_in * self.ref.d_sae
        if needed > self._slices.spare:
            raise ResourceError(
                f"The decoder of SAE {self.ref.sae_id} ({needed / 1e9:.1f} GB) has to be there whole for this, and "
                f"{max(0, self._slices.spare) / 1e9:.1f} GB are left beside what is planned. Choose narrower --widths, "
                "or allow more memory."
            )
        rows = torch.empty(self.ref.d_sae, self.ref.d_in, device=self._device)
        first = 0
        for part in self.decoder_rows(self._slices.n_bytes):
            rows[first : first + len(part)] = part
            first += len(part)
        return rows

    def rows_of(self, latents: Tensor) -> Tensor:
        """See `LoadedSae.rows_of`."""
        return torch.cat([rows.clone() for _, rows in self._rows(latents)])

    def decoder_rows(self, n_bytes: int) -> Iterator[Tensor]:
        """See `LoadedSae.decoder_rows`."""
        n = max(1, n_bytes // (4 * self.ref.d_in))
        for start in range(0, self.ref.d_sae, n):
            for _, rows in self._rows(torch.arange(start, min(start + n, self.ref.d_sae))):
                yield rows

    # ---- slice by slice ---------------------------------------------------------------------------------------

    def _groups(self, x: Tensor) -> Iterator[tuple[slice, Codes]]:
        """All rows of x [n, d], as many at a time as their active latents leave room for."""
        start, size = 0, len(x)
        while start < len(x):
            stop = min(start + size, len(x))
            if len(x) - stop == 1:  # a lone row would be encoded in another way
                stop += 1
            codes = self._codes(x[start:stop])
            if codes is None:
                size = max(self.chunk_tokens, (stop - start) // 2 // self.chunk_tokens * self.chunk_tokens)
                continue
            yield slice(start, stop), codes
            start = stop

    def _codes(self, x: Tensor) -> Codes | None:
        """Of x [n, d]; None: too many latents are active to be kept of so many tokens at once."""
        most = len(x) * self.ref.d_sae if len(x) <= self.chunk_tokens + 1 else CODES_BYTES // CODE_BYTES
        require_same(self._files_before)
        if self._k is not None:
            return None if len(x) * self._k > most else self._largest(x, self._k)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        n_active = 0
        for at in self._each_slice():
            for first, latents in self._encoded(x):
                own = Codes.of(latents[: len(x) - first])
                found.append((own.tokens + first, own.latents + at.start, own.values))
                n_active += len(own.values)
            if n_active > most:
                return None
        tokens, latents, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = tokens.argsort(stable=True)  # of a token's latents those of earlier slices come first
        return Codes(n=len(x), tokens=tokens[order], latents=latents[order], values=values[order])

    def _largest(self, x: Tensor, k: int) -> Codes:
        """Of TopK: the k largest so far, by value and then by latent."""
        best = torch.full((len(x), k), -torch.inf, device=self._device)
        places = torch.full((len(x), k), self.ref.d_sae, dtype=torch.int64, device=self._device)
        for at in self._each_slice():
            for first, pre in self._encoded(x):
                pre = pre if self._norms is None else pre * self._norms[at]
                rows = slice(first, min(first + self.chunk_tokens, len(x)))
                values, own = largest(pre[: rows.stop - rows.start], min(k, pre.shape[1]))
                both = torch.cat([best[rows], values], dim=1)
                where = torch.cat([places[rows], own + at.start], dim=1)
                kept = ranks(both, where).topk(k, dim=1).indices
                best[rows], places[rows] = both.gather(1, kept), where.gather(1, kept)
        places, order = places.sort(dim=1)
        best = best.gather(1, order)
        tokens, slots = torch.nonzero(best > 0, as_tuple=True)
        return Codes(n=len(x), tokens=tokens, latents=places[tokens, slots], values=best[tokens, slots])

    def _each_slice(self) -> Iterator[slice]:
        """The sae-lens object as an SAE of each slice in turn."""
        for at, part in self._slices.arriving(self._encoder, self.latents_at_once):
            with torch.inference_mode(mode=False):  # a parameter made in the other mode cannot be changed here
                self._sae.W_enc.data = part.T
                for name, vector in self._vectors.items():
                    getattr(self._sae, name).data = vector[at]
            if self.telling is not None:
                row = self.ref.d_in * self._encoder.dtype.itemsize
                self.telling(at.stop * row, self.ref.d_sae * row)
            yield at

    def _summed(self, codes: Codes) -> Tensor:
        """[n, d] decoder rows of active latents, weighted: as many rows at a time as there is room for."""
        summed = torch.zeros(codes.n, self.ref.d_in, device=self._device)
        values = codes.values if self._norms is None else codes.values * (1 / self._norms[codes.latents])
        wanted, places = torch.unique(codes.latents, return_inverse=True)
        for at, rows in self._rows(wanted):
            tokens, chosen, weights = codes.tokens, places, values
            if len(rows) < len(wanted):
                inside = ((places >= at.start) & (places < at.stop)).nonzero()[:, 0]
                tokens, chosen, weights = tokens[inside], places[inside] - at.start, values[inside]
            summed += weighted_rows(rows, tokens, chosen, weights, codes.n)
        return summed

    def _finished(self, summed: Tensor) -> Tensor:
        """x_hat of weighted rows; an SAE that scales its input wants it of all the rows that it scaled last."""
        x_hat: Tensor = self._sae.run_time_activation_norm_fn_out(summed + self.bias)
        return x_hat

    def _rows(self, latents: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Of the decoder, see `Slices.rows`."""
        require_same(self._files_before)
        return self._slices.rows(self._decoder, latents)
