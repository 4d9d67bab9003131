"""Means and centred sums of squares and products, added up batch by batch.

Every regression of one hook has the same regressor `x`, so its scatter is kept once and each target adds only its own
products with it. Sums are float64 and centred all the way (Chan, Golub and LeVeque's pairwise update): raw sums of
squares would lose the variance of a dimension whose mean is a thousand times its standard deviation, and residual
streams have such dimensions. Never keep anything of the size of the tokens here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Targets = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]
"""Named targets of one batch, [n, q] or [n]. Pairs may be made one at a time, so that only one of them is alive."""


def to_float64(values: Tensor) -> Tensor:
    """The same numbers in float64, on their own device where it has float64 (Apple's has not: there on the CPU)."""
    return values.detach().cpu().double() if values.device.type == "mps" else values.detach().double()


def on_host(values: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers on the CPU. From a GPU they come in one copy: each is a wait for all that it has to do.

    Args:
        values: of any shapes; of one device, or of the CPU. float64 holds each of them.
    """
    there = [each for each in values if each.device.type == "cuda"]
    if not there:
        return [each.cpu() for each in values]
    together = torch.cat([each.flatten().double() for each in there]).cpu()
    parts = torch.split(together, [each.numel() for each in there])
    came = (part.view(each.shape).to(each.dtype) for part, each in zip(parts, there, strict=True))
    return [next(came) if each.device.type == "cuda" else each.cpu() for each in values]


def sums_device(device: torch.device) -> torch.device:
    """Where the sums of batches on a device are; see `to_float64`."""
    return torch.device("cpu") if device.type == "mps" else device


@dataclass(frozen=True, kw_only=True)
class TargetMoments:
    """Everything a linear regression of one target on x can need. float64; `s_` are centred sums, not means."""

    n: int
    """Tokens added."""
    mean_x: Tensor
    """[d]"""
    mean_y: Tensor
    """[q]"""
    s_xx: Tensor
    """[d, d] sum of (x - mean_x)(x - mean_x)'; one object shared by all targets."""
    s_xy: Tensor
    """[d, q]"""
    s_yy: Tensor
    """[q] diagonal of the target's own scatter."""
    s_yy_full: Tensor | None
    """[q, q] the whole of it, if it was asked for."""


class _Target:
    """Running sums of one target."""

    def __init__(self, d: int, q: int, full: bool, device: torch.device) -> None:
        self.mean = torch.zeros(q, dtype=torch.float64, device=device)
        self.s_xy = torch.zeros(d, q, dtype=torch.float64, device=device)
        self.s_yy = torch.zeros(q, dtype=torch.float64, device=device)
        self.s_yy_full = torch.zeros(q, q, dtype=torch.float64, device=device) if full else None


class Moments:
    """Accumulator of the moments of x and of named targets; order, size and sharding of batches do not matter (1e-9).

    Args:
        d: width of x.
        full: targets whose whole scatter [q, q] is kept, at the cost of one more product per batch.
    """

    def __init__(self, d: int, *, full: Iterable[str] = ()) -> None:
        self.d = d
        self.n = 0
        self.mean_x = torch.zeros(d, dtype=torch.float64)
        self.s_xx = torch.zeros(d, d, dtype=torch.float64)
        self._full = frozenset(full)
        self._targets: dict[str, _Target] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Targets seen so far, in the order they first came."""
        return tuple(self._targets)

    @torch.inference_mode()  # sums made in one mode cannot be added to in another: always this one
    def update(self, x: Tensor, targets: Targets = ()) -> None:
        """Add a batch: x [n, d] and, for every target of the first batch, y [n, q] or [n].

        Raises:
            ValueError: a shape is wrong, or the targets are not those of the first batch.
        """
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ValueError(f"x has shape {list(x.shape)}; expected [n, {self.d}].")
        n_new = x.shape[0]
        if n_new == 0:
            return
        centred = to_float64(x)
        self._move(centred.device)
        batch_mean = centred.mean(dim=0)
        centred = centred - batch_mean
        delta_x = batch_mean - self.mean_x
        share = n_new / (self.n + n_new)
        weight = self.n * share
        pairs = targets.items() if isinstance(targets, Mapping) else targets
        seen: set[str] = set()
        for name, y in pairs:
            seen.add(name)
            self._add_target(name, centred, y, delta_x, share, weight)
        if seen != set(self._targets):
            raise ValueError(f"Targets {sorted(seen)} differ from those before, {sorted(self._targets)}.")
        self.s_xx += centred.T @ centred + weight * torch.outer(delta_x, delta_x)
        self.mean_x += share * delta_x
        self.n += n_new

    @torch.inference_mode()
    def merge(self, other: Moments) -> None:
        """Add what another accumulator has seen, as if its batches had come here."""
        if other.d != self.d:
            raise ValueError(f"Moments of width {other.d} cannot join moments of width {self.d}.")
        if other.n == 0:
            return
        if self.n == 0:
            self._move(other.mean_x.device)
        elif set(other.names) != set(self.names):
            raise ValueError(f"Targets {sorted(other.names)} differ from {sorted(self.names)}.")
        device = self.mean_x.device
        share = other.n / (self.n + other.n)
        weight = self.n * share
        delta_x = other.mean_x.to(device) - self.mean_x
        for name, theirs in other._targets.items():
            mine = self._targets.setdefault(
                name, _Target(self.d, theirs.mean.shape[0], theirs.s_yy_full is not None, device)
            )
            delta_y = theirs.mean.to(device) - mine.mean
            mine.s_xy += theirs.s_xy.to(device) + weight * torch.outer(delta_x, delta_y)
            mine.s_yy += theirs.s_yy.to(device) + weight * delta_y.square()
            if mine.s_yy_full is not None and theirs.s_yy_full is not None:
                mine.s_yy_full += theirs.s_yy_full.to(device) + weight * torch.outer(delta_y, delta_y)
            mine.mean += share * delta_y
        self.s_xx += other.s_xx.to(device) + weight * torch.outer(delta_x, delta_x)
        self.mean_x += share * delta_x
        self.n += other.n

    def target(self, name: str) -> TargetMoments:
        """The moments of one target beside those of x; shares memory with the accumulator, which may go on."""
        sums = self._targets[name]
        return TargetMoments(
            n=self.n,
            mean_x=self.mean_x,
            mean_y=sums.mean,
            s_xx=self.s_xx,
            s_xy=sums.s_xy,
            s_yy=sums.s_yy,
            s_yy_full=sums.s_yy_full,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All sums by name, and how many tokens and targets they are of; shares memory."""
        found = {"mean_x": self.mean_x, "s_xx": self.s_xx}
        for place, sums in enumerate(self._targets.values()):
            found |= {f"{place} mean": sums.mean, f"{place} s_xy": sums.s_xy, f"{place} s_yy": sums.s_yy}
            if sums.s_yy_full is not None:
                found[f"{place} s_yy_full"] = sums.s_yy_full
        return found, {"n": self.n, "names": list(self.names)}

    @torch.inference_mode()
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """Take over the state of another accumulator; this one must be new.

        Args:
            tensors: of it; copied.
            facts: of it.
            device: where the batches to come will be.

        Raises:
            ValueError: a sum is missing or has a wrong shape.
        """
        if not {"mean_x", "s_xx"} <= set(tensors):
            raise ValueError("The stored sums are not those of moments.")
        for place, name in enumerate(facts["names"]):
            full = name in self._full
            wanted = ["mean", "s_xy", "s_yy", *(["s_yy_full"] if full else [])]
            if any(f"{place} {each}" not in tensors for each in wanted):
                raise ValueError(f"The stored sums of target '{name}' are not complete.")
            sums = _Target(self.d, tensors[f"{place} mean"].shape[0], full, device)
            for each in wanted:
                copied(getattr(sums, each), tensors[f"{place} {each}"])
            self._targets[name] = sums
        self.mean_x, self.s_xx = self.mean_x.to(device), self.s_xx.to(device)
        copied(self.mean_x, tensors["mean_x"])
        copied(self.s_xx, tensors["s_xx"])
        self.n = int(facts["n"])

    def _move(self, device: torch.device) -> None:
        """Sums live where the first batch lived."""
        if self.n == 0 and self.mean_x.device != device:
            self.mean_x, self.s_xx = self.mean_x.to(device), self.s_xx.to(device)

    def _add_target(
        self, name: str, centred_x: Tensor, y: Tensor, delta_x: Tensor, share: float, weight: float
    ) -> None:
        y = to_float64(y if y.ndim == 2 else y[:, None])
        if y.shape[0] != centred_x.shape[0]:
            raise ValueError(f"Target '{name}' has {y.shape[0]} rows, but x has {centred_x.shape[0]}.")
        if name not in self._targets:
            if self.n:
                raise ValueError(f"Target '{name}' was not in the first batch.")
            self._targets[name] = _Target(self.d, y.shape[1], name in self._full, centred_x.device)
        sums = self._targets[name]
        batch_mean = y.mean(dim=0)
        y = y - batch_mean
        delta_y = batch_mean - sums.mean
        sums.s_xy += centred_x.T @ y + weight * torch.outer(delta_x, delta_y)
        sums.s_yy += y.square().sum(dim=0) + weight * delta_y.square()
        if sums.s_yy_full is not None:
            sums.s_yy_full += y.T @ y + weight * torch.outer(delta_y, delta_y)
        sums.mean += share * delta_y


def copied(into: Tensor, values: Tensor) -> None:
    """Fill with stored values of the same shape.

    Raises:
        ValueError: they have another one.
    """
    if into.shape != values.shape or into.dtype != values.dtype:
        raise ValueError(f"A stored sum has shape {list(values.shape)}; expected {list(into.shape)}.")
    into.copy_(values)
