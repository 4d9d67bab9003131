"""Gradient pursuit: better codes for a fixed decoder, found at inference time.  Paper, Sec. 6.1.

Per token with target k: the residual rho = u - w D starts at u = x - b_dec; k times the latent with the largest signed
inner product with rho joins the active set, and w moves along the gradient g on that set by the step that is best for
that direction, eta = <g D, rho> / ‖g D‖², and is clamped at zero.

The active set is kept as indices and coefficients. A matrix of tokens by latents never exists: at 131,072 latents it
would be 134 MB for 256 tokens, and multiplying with it is two thirds of the work of a dense pursuit. Of a narrow
decoder that matrix is small, and products with it are quicker than gathering rows for each token: there it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inspector.engine.screening import Screen

Variant = Literal["careful", "paper-code", "refit"]
VARIANTS: tuple[Variant, ...] = ("careful", "paper-code", "refit")
NARROW = 1024
"""Latents up to which weights are a matrix of tokens by latents. With 60 active latents both ways take as long there;
at 256 of 2304 dimensions that matrix is 15 times quicker, at 2048 the active sets are. By width alone: a rule that
looked at how many latents are active would let the batch decide the last digits."""
ATOM_BYTES = 256 << 20
"""Decoder rows of the active sets, or matrices of weights, held at once; decides how many tokens go through together.
"""
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
        integers: see `Screen`. Changes speed alone, and nothing of a narrow decoder.
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
        self._rows = decoder
        self._screen = Screen(decoder, integers=integers) if len(decoder) > NARROW else None
        self._span: tuple[Tensor, Tensor] | None = None
        if self._screen is None and len(decoder) < decoder.shape[1]:
            # What tokens have outside of what the rows span, no inner product sees: as many dimensions as rows will do.
            wide = decoder.T.double()
            basis = torch.linalg.qr(wide).Q
            # Not the other factor, in which a row of zeros would be one of 1e-17.
            self._span = basis.float(), (wide.T @ basis).float()

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
        m, d = self._rows.shape
        numbers = d * k if self._screen is not None or self.variant == "refit" else 5 * m + 3 * d
        together = max(1, ATOM_BYTES // (4 * numbers))
        for start in range(0, len(order), together):
            group = order[start : start + together]
            u = x[group].float() - self._bias
            steps = torch.arange(int(targets[group[0]]), device=targets.device)
            # Sorted: the first tokens have the largest targets.
            going = (targets[group] > steps[:, None]).sum(dim=1).tolist()
            found, weights = self._in_matrix(u, going) if self._screen is None else self._in_sets(u, going)
            indices[group, : found.shape[1]] = found
            coefficients[group, : found.shape[1]] = weights
        if self._length is not None:
            coefficients = coefficients / self._length[indices.clamp_min(0)]
        return Codes(indices=indices, coefficients=coefficients)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """[n, d] reconstructions."""
        place = codes.indices.clamp_min(0)
        weights = codes.coefficients if self._length is None else codes.coefficients * self._length[place]
        if self._screen is None:
            matrix = weights.new_zeros(len(weights), len(self._rows)).scatter_add_(1, place, weights)
            return torch.addmm(self._bias, matrix, self._rows)
        x_hat = self._bias.expand(len(place), -1).clone()
        for slot in range(place.shape[1]):
            x_hat += weights[:, slot, None] * self._rows[place[:, slot]]
        return x_hat

    def _in_matrix(self, u: Tensor, going: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Indices and coefficients [n, k] of residuals u [n, d], of whom `going` [k] take each step; largest first."""
        careful = self.variant != "paper-code"
        rows = self._rows
        if self._span is not None:
            basis, rows = self._span
            u = u @ basis
        weights, residuals = torch.zeros(len(u), len(rows), device=u.device), u.clone()
        for n in going:
            now, rest = weights[:n], residuals[:n]
            products = rest @ rows.T
            active = now > 0
            picked = (products.masked_fill(active, -torch.inf) if careful else products).argmax(dim=1, keepdim=True)
            gradient = products.mul_(active.scatter_(1, picked, True))
            move = gradient @ rows
            rate = _rate(gradient.square().sum(dim=1), move.square().sum(dim=1), careful)[:, None]
            now.addcmul_(gradient, rate)
            rest.addcmul_(move, rate, value=-1)
            clamped = (now.amin(dim=1) < 0).nonzero()[:, 0]
            if len(clamped):
                now.clamp_min_(0.0)  # NaN stays NaN
                rest[clamped] = u[clamped] - now[clamped] @ rows
        found, indices = weights.topk(min(len(going), len(rows)), dim=1)
        if self.variant == "refit":
            found = non_negative_least_squares(rows[indices], u, found)
        return torch.where((found > 0) | found.isnan(), indices, -1), found

    def _in_sets(self, u: Tensor, going_at: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As `_in_matrix`; slots are filled in the order of the steps."""
        assert self._screen is not None
        careful = self.variant != "paper-code"
        n, k = len(u), len(going_at)
        rows = self._rows
        indices = torch.full((n, k), -1, dtype=torch.int64, device=u.device)
        weights = torch.zeros(n, k, device=u.device)
        atoms = torch.zeros(n, k, u.shape[1], device=u.device)
        # Inner products among a token's atoms and with u: then no step needs more than two passes over the atoms.
        gram, products = torch.zeros(n, k, k, device=u.device), torch.zeros(n, k, device=u.device)
        nothing = torch.full((n, 1), -1, dtype=torch.int64, device=u.device)
        for step, going in enumerate(going_at):
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
            rate = _rate(numerator, denominator, careful)
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


def _rate(numerator: Tensor, denominator: Tensor, guarded: bool) -> Tensor:
    """[n] lengths of a step; guarded ones are 0 where the gradient is."""
    rate = numerator / denominator
    return torch.where(denominator > 0, rate, 0.0) if guarded else rate


def _combine(weights: Tensor, atoms: Tensor) -> Tensor:
    """[n, d] sums of atoms [n, s, d] with weights [n, s]."""
    return torch.bmm(weights[:, None, :], atoms)[:, 0]
