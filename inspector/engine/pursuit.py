"""Gradient pursuit: better codes for a fixed decoder, found at inference time.  Paper, Sec. 6.1.

Per token with target k: the residual rho = u - w D starts at u = x - b_dec; k times the latent with the largest signed
inner product with rho joins the active set, and w moves along the gradient g on that set by the step that is best for
that direction, eta = <g D, rho> / ‖g D‖², and is clamped at zero.

The active set is kept as indices and coefficients. A matrix of tokens by latents never exists: at 131,072 latents it
would be 134 MB for 256 tokens, and multiplying with it is two thirds of the work of a dense pursuit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inspector.engine.screening import Screen

Variant = Literal["careful", "paper-code", "refit"]
VARIANTS: tuple[Variant, ...] = ("careful", "paper-code", "refit")
ATOM_BYTES = 256 << 20
"""Decoder rows of the active sets held at once; decides how many tokens go through together."""
UNIT_WITHIN = 1e-3
"""Rows stored in half precision have length 1 to 5e-4; scaling them would only undo some of that rounding."""
REFIT_SWEEPS = 1000
REFIT_TOLERANCE = 1e-7
"""Coordinate descent ends when no coefficient moves by more than this share of the token's largest one."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Sparse codes of n tokens."""

    indices: Tensor
    """[n, k] int64 latents; -1 where a token uses fewer."""
    coefficients: Tensor
    """[n, k] float32 on the decoder rows as they are; 0 where a token uses fewer. NaN only from 'paper-code'."""

    @property
    def l0(self) -> Tensor:
        """[n] int32, latents with a coefficient above zero."""
        return (self.coefficients > 0).sum(dim=1, dtype=torch.int32)

    @property
    def undefined(self) -> Tensor:
        """[n] bool: the published algorithm divided zero by zero here (D-17)."""
        return self.coefficients.isnan().any(dim=1)


class Pursuit:
    """A decoder, ready to be pursued with.

    Args:
        decoder: [m, d] float32, one row per latent.
        bias: [d].
        variant: 'careful' picks among the latents that are not active, lets a latent that was clamped to zero come
            back, guards zero denominators, and works on rows scaled to unit length, because the pick depends on their
            length. 'paper-code' picks among all latents, so that a step may add nothing, takes the rows as they are
            and has no guard (D-17). 'refit' is 'careful' followed by non-negative least squares on the support.
        integers: see `Screen`. Changes speed alone.
    """

    def __init__(self, decoder: Tensor, bias: Tensor, *, variant: Variant = "careful", integers: bool = True) -> None:
        self._bias = bias
        self.variant = variant
        norms = decoder.norm(dim=1)
        self.unit_norm = bool(((norms - 1).abs() < UNIT_WITHIN).all())
        self._length: Tensor | None = None
        if variant != "paper-code" and not self.unit_norm:
            # A row of zeros reconstructs nothing: its inner products are zero, so it is never worth a step.
            self._length = torch.where(norms > 0, norms, torch.ones_like(norms))
            decoder = decoder / self._length[:, None]
        self._screen = Screen(decoder, integers=integers)

    @torch.inference_mode()
    def encode(self, x: Tensor, targets: Tensor) -> Codes:
        """Codes of tokens x [n, d] with at most `targets` [n] latents each.

        A token with target 0 gets the zero code, which decodes to the bias.
        """
        k = int(targets.max()) if len(targets) else 0
        indices = torch.full((len(x), k), -1, dtype=torch.int64, device=x.device)
        coefficients = torch.zeros(len(x), k, device=x.device)
        # Tokens of like targets together: a group takes as many steps as its largest target.
        order = targets.argsort(descending=True)
        if k == 0:
            return Codes(indices=indices, coefficients=coefficients)
        together = max(1, ATOM_BYTES // (4 * x.shape[1] * k))
        for start in range(0, len(order), together):
            group = order[start : start + together]
            found, weights = self._pursue(x[group].float() - self._bias, targets[group].to(x.device))
            indices[group, : found.shape[1]] = found
            coefficients[group, : found.shape[1]] = weights
        if self._length is not None:
            coefficients = coefficients / self._length[indices.clamp_min(0)]
        return Codes(indices=indices, coefficients=coefficients)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """[n, d] reconstructions."""
        x_hat = self._bias.expand(len(codes.indices), -1).clone()
        rows = self._screen.rows
        for slot in range(codes.indices.shape[1]):
            place = codes.indices[:, slot].clamp_min(0)
            weight = codes.coefficients[:, slot]
            if self._length is not None:
                weight = weight * self._length[place]
            x_hat += weight[:, None] * rows[place]
        return x_hat

    def _pursue(self, u: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and coefficients [n, k] of residuals u [n, d]; slots are filled in the order of the steps."""
        careful = self.variant != "paper-code"
        n, k = len(u), int(targets.max())
        rows = self._screen.rows
        indices = torch.full((n, k), -1, dtype=torch.int64, device=u.device)
        weights = torch.zeros(n, k, device=u.device)
        atoms = torch.zeros(n, k, u.shape[1], device=u.device)
        # Inner products among a token's atoms and with u: then no step needs more than two passes over the atoms.
        gram, products = torch.zeros(n, k, k, device=u.device), torch.zeros(n, k, device=u.device)
        nothing = torch.full((n, 1), -1, dtype=torch.int64, device=u.device)
        for step in range(k):
            going = int((targets > step).sum())  # sorted: the first tokens have the largest targets
            active, now = weights[:going, : step + 1], atoms[:going, : step + 1]
            rest = u[:going] - _combine(active, now) if step else u[:going]
            used = torch.where(active > 0, indices[:going, : step + 1], -1)
            bad = active.isnan().any(dim=1)
            picked = self._screen.largest(torch.where(bad[:, None], 0.0, rest), used if careful else nothing[:going])
            # A latent that is active already is not a new one; only the published variant can pick such.
            new = ~(used == picked[:, None]).any(dim=1)
            indices[:going, step] = torch.where(new, picked, -1)
            atom = rows[picked] * new[:, None]
            atoms[:going, step] = atom
            overlaps = torch.bmm(now, atom[:, :, None])[:, :, 0]
            gram[:going, step, : step + 1] = overlaps
            gram[:going, : step + 1, step] = overlaps
            products[:going, step] = (atom * u[:going]).sum(dim=1)
            among = gram[:going, : step + 1, : step + 1]
            in_set = active > 0
            in_set[:, step] = new
            gradient = (products[:going, : step + 1] - _combine(active, among)) * in_set
            # <g D, rho> = ‖g‖² on the active set, and ‖g D‖² = g' G g.
            numerator, denominator = gradient.square().sum(dim=1), (_combine(gradient, among) * gradient).sum(dim=1)
            rate = numerator / denominator
            if careful:
                rate = torch.where(denominator > 0, rate, torch.zeros_like(rate))
            moved = active + rate[:, None] * gradient
            weights[:going, : step + 1] = torch.where(moved < 0, torch.zeros_like(moved), moved)  # NaN stays NaN
        if self.variant == "refit":
            weights = non_negative_least_squares(atoms, u, weights)
        indices = torch.where((weights > 0) | weights.isnan(), indices, -1)
        return indices, weights


def non_negative_least_squares(atoms: Tensor, u: Tensor, start: Tensor) -> Tensor:
    """[n, k] coefficients w >= 0 that minimise ‖u - w atoms‖² on the support of `start`, by coordinate descent.

    Args:
        atoms: [n, k, d] rows of each token's support.
        u: [n, d].
        start: [n, k] first guess; what is zero there stays zero.
    """
    wide = atoms.double() * (start > 0)[:, :, None]
    gram = wide @ wide.transpose(1, 2)
    products = (wide @ u.double()[:, :, None])[:, :, 0]
    squares = gram.diagonal(dim1=1, dim2=2)
    usable = squares > 0
    weights = start.double() * usable
    for _ in range(REFIT_SWEEPS):
        before = weights.clone()
        for slot in range(weights.shape[1]):
            slope = products[:, slot] - (gram[:, slot] * weights).sum(dim=1)
            moved = (weights[:, slot] + slope / squares[:, slot].clamp_min(1e-30)).clamp_min(0.0)
            weights[:, slot] = torch.where(usable[:, slot], moved, 0.0)
        moves = (weights - before).abs().amax(dim=1)
        if bool((moves <= REFIT_TOLERANCE * weights.amax(dim=1)).all()):
            break
    return weights.to(start)


def _combine(weights: Tensor, atoms: Tensor) -> Tensor:
    """[n, d] sums of atoms [n, s, d] with weights [n, s]."""
    return torch.bmm(weights[:, None, :], atoms)[:, 0]
