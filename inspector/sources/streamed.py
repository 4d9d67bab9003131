"""SAEs that do not fit on the device all at once: kept on the host, one on the device at a time.

The host is the machine's memory beside a GPU, or, where the device is the CPU already, the files themselves: they are
read again for each turn, which the system's file cache makes quick if there is room. Numbers are those of an SAE that
stays: the same weights go through the same code.

A pass asks every SAE for every batch, so each batch costs all streamed weights once over the bus: the larger the
batch, the less that weighs. Keeping the last one longer would not help, because they come in a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.errors import TargetError
from inspector.sources.sae import LoadedSae, files_of
from inspector.spec import SaeRef

Signature = tuple[tuple[int, int], ...]
"""Size and time of change of each file."""


class Stage:
    """The room on a device for one streamed SAE."""

    def __init__(self) -> None:
        self._on: StreamedSae | None = None
        self.n_turns = 0
        """How many times an SAE was brought in."""

    def bring(self, sae: StreamedSae) -> None:
        """Make room, and note who has it."""
        if self._on is not None:
            self._on.leave()
        self._on = sae
        self.n_turns += 1

    def clear(self) -> None:
        """Nobody is on it."""
        if self._on is not None:
            self._on.leave()
            self._on = None


class StreamedSae(LoadedSae):
    """An SAE whose weights come to the device when it is asked something, and leave when another one is.

    Args:
        ref: which one it is.
        sae: the sae-lens object, on the host.
        device: where it computes.
        stage: shared by all that take turns.
        read: reads the object again from its files; None: it is kept in the host's memory.
        notes, gate: as in LoadedSae.
    """

    def __init__(
        self,
        ref: SaeRef,
        sae: Any,
        *,
        device: torch.device,
        stage: Stage,
        read: Callable[[], Any] | None,
        notes: tuple[str, ...] = (),
        gate: str | None = None,
    ) -> None:
        super().__init__(ref, sae, notes, gate)
        self._device = device
        self._stage = stage
        self._read = read
        self._files = _signature(ref)
        self.is_here = False
        if read is not None:
            self._drop()
        else:
            self._host: dict[str, Tensor] = {name: weight.data for name, weight in sae.named_parameters()}

    @property
    def decoder(self) -> tuple[Tensor, Tensor]:
        """As LoadedSae.decoder; what is returned stays on the device for as long as the caller holds it."""
        sae = self._sae
        return sae.W_dec.data, sae.b_dec.data

    @property
    def _sae(self) -> Any:
        if not self.is_here:
            self._stage.bring(self)
            with torch.inference_mode(mode=False):  # a parameter made in the other mode cannot be changed here
                self._come()
            self.is_here = True
        return self._module

    def _come(self) -> None:
        if self._read is not None:
            if _signature(self.ref) != self._files:
                raise TargetError(f"The files of SAE {self.ref.sae_id!r} changed while they were in use. Start again.")
            self._module = self._read()
            return
        for name, weight in self._module.named_parameters():
            weight.data = self._host[name].to(self._device, non_blocking=True)

    def leave(self) -> None:
        """Give the room back."""
        self.is_here = False
        if self._read is not None:
            self._drop()
            return
        with torch.inference_mode(mode=False):
            for name, weight in self._module.named_parameters():
                weight.data = self._host[name]

    def _drop(self) -> None:
        """Forget the module and free its weights now: it refers to itself, so it would stay until a collection."""
        with torch.inference_mode(mode=False):
            for weight in self._module.parameters():
                weight.data = torch.empty(0)
        self._module = None


def _signature(ref: SaeRef) -> Signature:
    paths = files_of(ref)
    return tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file())
