"""Where the weights of SAEs in slices come from, and the room on the device that they come to.

From the files, with no more than a part of them in memory: read, not mapped, so that a file that was cut off is said
and not a crash, and what was read is not counted as this process' memory. Or from the host's memory beside a GPU, as
they are stored. The next slice is read, and on a GPU copied on a stream of its own, while the one before is computed
with.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inspector.disk.files import open_file
from inspector.errors import TargetError
from inspector.formats import Folds, Stored
from inspector.sources.memory_sums import latents_per_slice
from inspector.sources.sae import not_finite
from inspector.spec import SaeRef

_CHECKED = 1 << 20
"""Numbers that are looked at together."""


class Matrix:
    """W_enc or W_dec, of which some latents' weights can be had: [d_sae, d], one row per latent.

    Args:
        ref: of the SAE.
        name: W_enc or W_dec.
        stored: as the layout gives it: W_enc [d, d_sae] or W_dec [d_sae, d], in a file, mapped from one, or in memory.
        folds: see `Converted`.
    """

    def __init__(self, ref: SaeRef, name: str, stored: Stored | Tensor, folds: Folds) -> None:
        self.name, self._ref, self._folds, self._stored = name, ref, folds, stored
        self.d_sae, self.d = (int(size) for size in (stored.shape if name == "W_dec" else stored.shape[::-1]))
        # What lies one after the other in a file: a latent's numbers, or a dimension's.
        self._by_latent = isinstance(stored, Stored) and (name == "W_dec") != stored.transposed
        self._held: list[Tensor] = []

    @property
    def dtype(self) -> torch.dtype:
        """As it comes to the host."""
        return (self._held[0] if self._held else self._stored).dtype

    @property
    def arriving_bytes(self) -> int:
        """Per number while it comes: twice as it is stored, for the next comes meanwhile, and what is made of it."""
        stored = 2 * self.dtype.itemsize
        if self.name in self._folds:
            return stored + 16  # in float32 once more, folded, and both of them for two
        in_place = isinstance(self._stored, Stored) and self.dtype == torch.float32 and not self._by_latent
        return stored if in_place else stored + 4

    @property
    def picked_bytes(self) -> int:
        """Per number of picked latents: as it is stored, so many to choose from, and what is made of it."""
        return 2 * self.dtype.itemsize + (16 if self.name in self._folds else 4)

    def hold(self, n: int, *, pinned: bool) -> None:
        """Bring all of it into the host's memory, n latents after n."""
        held, room = [], torch.empty(8 * n * self.d, dtype=torch.uint8)
        for start in range(0, self.d_sae, n):
            part = self.read(start, min(start + n, self.d_sae), room)
            laid = part if self.name == "W_dec" else part.T
            own = torch.empty(laid.shape, dtype=part.dtype, pin_memory=pinned).copy_(laid)
            held.append(own if self.name == "W_dec" else own.T)
        self._held = held
        self._stored = torch.empty(0, device="meta")

    def read(self, start: int, stop: int, room: Tensor) -> Tensor:
        """Some latents [n, d] on the host, finite: as they are stored, or float32; in `room` or where they are."""
        place, n = self._stored, stop - start
        if self._held:
            return self._held[start // len(self._held[0])]
        if not isinstance(place, Stored):
            found = place[start:stop] if self.name == "W_dec" else place[:, start:stop].T
        elif self._by_latent:
            found = shaped(room, place.dtype, n, self.d)
            with open_file(place.path) as file:
                _read_into(found, file.fileno(), start * self.d, place)
        else:
            columns = shaped(room, place.dtype, self.d, n)
            with open_file(place.path) as file:
                for dimension in range(self.d):
                    _read_into(columns[dimension], file.fileno(), dimension * self.d_sae + start, place)
            found = columns.T
        return self._checked(found, slice(start, stop))

    def pick(self, latents: Tensor, room: Tensor, spare: Tensor) -> Tensor:
        """Latents [k, d] of ascending indices on the host, finite: as they are stored, or float32; in `room`."""
        place = self._stored
        if self._held:
            n, found = len(self._held[0]), shaped(room, self._held[0].dtype, len(latents), self.d)
            for number, begin, end in _within(latents, n):
                torch.index_select(self._held[number], 0, latents[begin:end] - number * n, out=found[begin:end])
            return found
        found = shaped(room, place.dtype, len(latents), self.d)
        if not isinstance(place, Stored):
            torch.index_select(place if self.name == "W_dec" else place.T, 0, latents, out=found)
        elif self._by_latent:
            with open_file(place.path) as file:
                for first, n, row in _runs(latents):
                    _read_into(found[row : row + n], file.fileno(), first * self.d, place)
        else:  # a latent's numbers lie far from each other, so all between are read
            columns = spare.nbytes // (place.dtype.itemsize * self.d)
            with open_file(place.path) as file:
                for number, begin, end in _within(latents, columns):
                    start, stop = number * columns, min(self.d_sae, (number + 1) * columns)
                    part = shaped(spare, place.dtype, self.d, stop - start)
                    for dimension in range(self.d):
                        _read_into(part[dimension], file.fileno(), dimension * self.d_sae + start, place)
                    found[begin:end] = part.T[latents[begin:end] - start]
        return self._checked(found, latents)

    def _checked(self, part: Tensor, at: slice | Tensor) -> Tensor:
        """Latents [n, d], folded, after a look at whether they are finite."""
        laid = part if part.is_contiguous() else part.T
        # Sums in float64, where none of finite float32 numbers is infinite; of a few rows, for it makes a copy of them.
        for rows in laid.split(max(1, _CHECKED // laid.shape[1])):
            if not math.isfinite(float(rows.sum(dtype=torch.float64))):
                raise not_finite(self._ref, self.name)
        if self.name not in self._folds:
            return part
        laid = self._folds.apply(self.name, (part if self.name == "W_dec" else part.T).float(), at)
        return laid if self.name == "W_dec" else laid.T


def shaped(room: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    """The beginning of a buffer of bytes as a tensor."""
    return room[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _runs(latents: Tensor) -> Iterator[tuple[int, int, int]]:
    """(first, how many, their place) of each run of consecutive indices."""
    if len(latents):
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), (latents.diff() != 1).nonzero()[:, 0] + 1])
        counts = torch.cat([starts[1:], torch.tensor([len(latents)])]) - starts
        yield from zip(latents[starts].tolist(), counts.tolist(), starts.tolist(), strict=True)


def _read_into(found: Tensor, file: int, first: int, place: Stored) -> None:
    """Fill a contiguous tensor with a file's numbers from the `first` on.

    Raises:
        TargetError: the file ends before.
    """
    raw = memoryview(found.view(torch.uint8).flatten().numpy())  # type: ignore[arg-type]
    at = place.offset + first * place.dtype.itemsize
    while raw:
        n = os.preadv(file, [raw], at)
        if n == 0:
            raise TargetError(f"{place.path} ends within its numbers. It was cut off; fetch it again.")
        raw, at = raw[n:], at + n


def _within(latents: Tensor, n: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of each n latents after n that hold some of these ascending ones, latents[begin:end]."""
    if len(latents):
        numbers, counts = torch.unique_consecutive(latents // n, return_counts=True)
        ends = counts.cumsum(0)
        yield from zip(numbers.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)


def laid_out(room: Tensor, part: Tensor) -> Tensor:
    """A copy of some latents [n, d] in a buffer, laid out as they are: row after row, or else column after column."""
    laid = part if part.is_contiguous() else part.T
    there = shaped(room, part.dtype, *laid.shape).copy_(laid, non_blocking=laid.is_pinned())
    return there if laid is part else there.T


class Slices:
    """The room that all sliced SAEs of a target compute in, made at first use and as large as two slices in float32.

    It holds the slice that is computed with and the next, and what is made of a slice that is stored in another way: of
    such a slice are fewer latents. Decoder rows come to the same room. Beside a GPU there is one more on the host, from
    which it copies.

    Args:
        device: where SAEs compute.
        n_bytes: of a slice in float32.
        spare: bytes of the device that nothing is planned for.
    """

    def __init__(self, device: torch.device, n_bytes: int, spare: int = 0) -> None:
        self.device, self.n_bytes, self.spare = device, n_bytes, spare

    @cached_property
    def room(self) -> Tensor:
        """Bytes on the device."""
        with torch.inference_mode(mode=False):
            return torch.empty(2 * self.n_bytes, dtype=torch.uint8, device=self.device)

    @cached_property
    def staged(self) -> Tensor:
        """Bytes on the host; beside the CPU there are no others."""
        if self.device.type == "cpu":
            return self.room
        with torch.inference_mode(mode=False):
            return torch.empty(2 * self.n_bytes, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def latents(self, matrix: Matrix, more: int = 0) -> int:
        """Of a slice of W_enc, with `more` bytes per number for what the SAE makes of it itself."""
        return self._fitting(matrix, matrix.arriving_bytes + more)

    def _fitting(self, matrix: Matrix, bytes_each: int) -> int:
        return latents_per_slice(matrix.d, 8 * self.n_bytes // bytes_each)

    def arriving(self, matrix: Matrix, n: int) -> Iterator[tuple[slice, Tensor]]:
        """All latents, n at a time, and their weights [n, d] on the device, float32, which are good until the next are
        asked for.
        """
        size = n * matrix.d * matrix.dtype.itemsize
        lanes = (_CudaLanes if self.device.type == "cuda" else _Lanes)(self, size)

        def bring(start: int) -> Tensor:
            """In a thread of its own, while the slice before is computed with."""
            with torch.inference_mode():
                return lanes.bring(matrix, start, min(start + n, matrix.d_sae), start // n % 2)

        with contextlib.closing(lanes), ThreadPoolExecutor(1, thread_name_prefix="slice") as reader:
            ahead = reader.submit(bring, 0)
            for start in range(0, matrix.d_sae, n):
                part = ahead.result()
                if start + n < matrix.d_sae:
                    ahead = reader.submit(bring, start + n)
                lanes.wait(start // n % 2)
                yield slice(start, min(start + n, matrix.d_sae)), _ready(matrix, part, self.room[2 * size :])
                lanes.leave(start // n % 2)

    def rows(self, matrix: Matrix, latents: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """W_dec's [k, d] float32 on the device of ascending latents, as many at a time as there is room for: which of
        them, and their rows, which are good until the next are asked for.
        """
        most = self._fitting(matrix, matrix.picked_bytes)
        size = most * matrix.d * matrix.dtype.itemsize
        for start in range(0, len(latents), most):
            some = latents[start : start + most]
            part = matrix.pick(some.cpu(), self.staged[:size], self.staged[size : 2 * size])
            if self.device.type != "cpu":
                part = laid_out(self.room[:size], part)
            yield slice(start, start + len(some)), _ready(matrix, part, self.room[2 * size :])


def _ready(matrix: Matrix, part: Tensor, room: Tensor) -> Tensor:
    """Latents [n, d] in float32; W_enc's in columns, one dimension after the other, as a whole one has them."""
    laid = part if matrix.name == "W_dec" else part.T
    if laid.dtype != torch.float32 or not laid.is_contiguous():
        laid = shaped(room, torch.float32, *laid.shape).copy_(laid)
    return laid if matrix.name == "W_dec" else laid.T


class _Lanes:
    """How slices get to the room: to two places in turn, of `size` bytes each."""

    def __init__(self, slices: Slices, size: int) -> None:
        self._rooms = slices.room[:size], slices.room[size : 2 * size]
        self._staged = slices.staged[:size], slices.staged[size : 2 * size]
        self._is_host = slices.device.type == "cpu"

    def bring(self, matrix: Matrix, start: int, stop: int, slot: int) -> Tensor:
        """A slice on the device, or on its way."""
        part = matrix.read(start, stop, self._staged[slot])
        return part if self._is_host else laid_out(self._rooms[slot], part)

    def wait(self, slot: int) -> None:
        """Before it is computed with."""

    def leave(self, slot: int) -> None:
        """After everything that computes with it was begun."""

    def close(self) -> None:
        """Nothing is on its way any more."""


class _CudaLanes(_Lanes):
    """The same on a stream of its own, so that copies and computing overlap."""

    def __init__(self, slices: Slices, size: int) -> None:
        super().__init__(slices, size)
        self._compute = torch.cuda.current_stream(slices.device)
        self._compute.synchronize()  # what was computed with the buffers before
        self._copies: Any = torch.cuda.Stream(slices.device)
        self._arrived = [torch.cuda.Event(), torch.cuda.Event()]
        self._used = [torch.cuda.Event(), torch.cuda.Event()]

    def bring(self, matrix: Matrix, start: int, stop: int, slot: int) -> Tensor:
        self._arrived[slot].synchronize()  # what was staged there has left
        part = matrix.read(start, stop, self._staged[slot])
        if not part.is_pinned():  # mapped
            part = laid_out(self._staged[slot], part)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used[slot])
            there = laid_out(self._rooms[slot], part)
            self._arrived[slot].record(self._copies)
        return there

    def wait(self, slot: int) -> None:
        self._compute.wait_event(self._arrived[slot])

    def leave(self, slot: int) -> None:
        self._used[slot].record(self._compute)

    def close(self) -> None:
        self._copies.synchronize()
