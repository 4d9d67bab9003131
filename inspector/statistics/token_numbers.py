"""The numbers of a held-out token: what every map, mean and scalar leaves of the sizes of an error.

Each class says what its numbers are and how a batch's are made. The same class holds their sums over groups of
contexts, which experiments read: a number more is a field here with its formula, and the experiment that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import repeat
from typing import Any, Generic, TypeVar, cast, get_origin, get_type_hints

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, squared_norm
from inspector.engine.moments import TargetMoments, to_float64
from inspector.statistics.first_pass import SaeMaps
from inspector.statistics.token_fits import SIZES, TARGETS, Fits, Sizes

V = TypeVar("V")
"""[n] tensors of a batch's tokens, or [g] arrays of their sums."""
N = TypeVar("N")


@dataclass(frozen=True, kw_only=True, eq=False)
class Target(Generic[V]):
    """A number that is regressed on x."""

    total: V
    squares: V
    rest_on: V
    """Squared residuals of its regression on x with an intercept."""
    rest_off: V
    """Without."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Size(Target[V]):
    """The size of an error, which the token's identity may predict as well; squared residuals."""

    token: V
    """Of the mean of the token id."""
    token_position: V
    """Of that and the position."""
    by_class: V
    """Of the mean of the token's class."""
    within: V
    """Of that and x; see `token_fits.Within`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction(Generic[V]):
    """How much shorter x_hat is than x, and how far linear_error points along x."""

    ratio: V
    """‖x_hat‖ / ‖x‖, 0 where undefined."""
    ratio_defined: V
    """Tokens that have one."""
    cosine: V
    """Of linear_error and x, 0 where undefined."""
    cosine_defined: V
    x_norm: V
    x_hat_norm: V

    @classmethod
    def of(cls, x: Tensor, x_hat: Tensor, linear: Tensor) -> Direction[Tensor]:
        """Of vectors [n, d]."""
        long, short, along = x.norm(dim=1), x_hat.norm(dim=1), linear.norm(dim=1)
        has_ratio, has_cosine = long > 0, (long > 0) & (along > 0)
        cosine = (x * linear).sum(dim=1) / (long * along)
        return Direction(
            ratio=torch.where(has_ratio, short / long, 0.0),
            ratio_defined=to_float64(has_ratio),
            cosine=torch.where(has_cosine, cosine, 0.0),
            cosine_defined=to_float64(has_cosine),
            x_norm=long,
            x_hat_norm=short,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rests(Generic[V]):
    """Squares of what maps leave of sae_error."""

    total: V
    """Of it around its training mean."""
    full: V
    scalar_on: V
    """One number for all dimensions, with an intercept."""
    diagonal_on: V
    """One number for each."""
    scalar_off: V
    diagonal_off: V

    @classmethod
    def of(cls, parts: Decomposition, mean_error: Tensor, on: Scalings, off: Scalings) -> Rests[Tensor]:
        """[n, d] each."""
        x, error = to_float64(parts.x), to_float64(parts.sae_error)
        return Rests(
            total=(error - mean_error.to(error)).square(),
            full=to_float64(parts.nonlinear_error).square(),
            scalar_on=(error - on.scalar * x - on.bias_scalar.to(error)).square(),
            diagonal_on=(error - on.diagonal.to(error) * x - on.bias_diagonal.to(error)).square(),
            scalar_off=(error - off.scalar * x).square(),
            diagonal_off=(error - off.diagonal.to(error) * x).square(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SaeNumbers(Generic[V]):
    """Everything that is added up of one SAE."""

    x_hat_sq: Target[V]
    sae_error_sq: Size[V]
    linear_error_sq: Target[V]
    nonlinear_error_sq: Target[V]
    x_hat_plus_nonlinear_sq: Target[V]
    sae_error: Size[V]
    plain: Direction[V]
    centred: Direction[V]
    """Of vectors around their training means."""
    linear: V
    """Norm of linear_error."""
    nonlinear: V
    linear_switched: V
    """The same had the map its intercept the other way."""
    nonlinear_switched: V
    rests: Rests[V]
    """Over all dimensions."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is the same for all SAEs at some held-out tokens."""

    fits: Fits
    wide: Tensor
    """[n, d] float64 x around the mean of the fits."""
    by_id: Tensor
    """[n] class of the token."""
    by_class: Tensor
    position: Tensor


def numbers_of(
    held: Held,
    place: int,
    sae_id: str,
    maps: SaeMaps,
    parts: Decomposition,
    own: Sizes,
    tested: Sizes,
    rests: Rests[Tensor],
) -> SaeNumbers[Tensor]:
    """The numbers of some tokens [n].

    Args:
        held: of the tokens.
        place: of the SAE among all.
        sae_id: its name.
        maps: that split its errors.
        parts: the split errors.
        own: their sizes.
        tested: sizes that are regressed on x.
        rests: as of `Rests.of`.
    """
    targets = targets_of(held, sae_id, tested)
    residuals = _identity(held, place, own)
    centre = held.fits.centre.to(held.wide)
    x, x_hat, linear, nonlinear = (
        to_float64(each) for each in (parts.x, parts.x_hat, parts.linear_error, parts.nonlinear_error)
    )
    mean_linear = (maps.error_map.bias + maps.error_map.weight @ maps.error_map.centre).to(x)
    g = maps.constant_direction.to(held.wide)
    h = 1.0 - g @ centre - held.wide @ g
    change = maps.error_switch.to(linear)
    moved = h.square() * change.square().sum()
    switched = (
        squared_norm(linear) + 2.0 * h * (linear @ change) + moved,
        squared_norm(nonlinear) - 2.0 * h * (nonlinear @ change) + moved,
    )
    sizes = {size: Size(**vars(targets[size]), **residuals[size]) for size in SIZES}
    return SaeNumbers(
        **cast("dict[str, Any]", targets | sizes),
        plain=Direction.of(x, x_hat, linear),
        centred=Direction.of(x - centre, x_hat - centre, linear - mean_linear),
        linear=squared_norm(linear).sqrt(),
        nonlinear=squared_norm(nonlinear).sqrt(),
        linear_switched=switched[0].clamp_min(0.0).sqrt(),
        nonlinear_switched=switched[1].clamp_min(0.0).sqrt(),
        rests=Rests(**{name: values.sum(dim=1) for name, values in vars(rests).items()}),
    )


def targets_of(held: Held, name: str, numbers: Sizes | Tensor) -> dict[str, Target[Tensor]]:
    """By name: the TARGETS of an SAE, or x_sq for X, whose squared norms [n] are given alone."""
    on, off = (predictions(held.fits, name, held.wide, intercept=intercept) for intercept in (True, False))
    values = {"x_sq": numbers} if isinstance(numbers, Tensor) else {each: getattr(numbers, each) for each in TARGETS}
    return {
        target: Target(total=y, squares=y.square(), rest_on=(y - on[:, i]).square(), rest_off=(y - off[:, i]).square())
        for i, (target, y) in enumerate(values.items())
    }


def predictions(fits: Fits, name: str, wide: Tensor, *, intercept: bool) -> Tensor:
    """[n, targets] in float64; wide is x [n, d] around the mean of the fits."""
    fitted = (fits.on if intercept else fits.off)[name]
    weight = fitted.weight.to(wide)
    return wide @ weight.T + (fitted.bias.to(wide) + weight @ fits.centre.to(wide))


def _identity(held: Held, place: int, own: Sizes) -> dict[str, dict[str, Tensor]]:
    """By size: residuals of what the token's identity predicts of SAE number `place`."""
    fits, wide = held.fits, held.wide
    columns = slice(len(SIZES) * place, len(SIZES) * (place + 1))
    of_token = fits.token_mean[:, columns].to(wide)[held.by_id]
    away = held.position - fits.token_position.to(wide)[held.by_id]
    moved = away[:, None] * fits.position_slope[columns].to(wide)
    within = fits.within
    of_class = within.mean_y[:, columns].to(wide)[held.by_class]
    further = (wide - within.mean_x.to(wide)[held.by_class]) @ within.weight[:, columns].to(wide)
    found = {}
    for i, size in enumerate(SIZES):
        y = getattr(own, size)
        found[size] = {
            "token": (y - of_token[:, i]).square(),
            "token_position": (y - of_token[:, i] - moved[:, i]).square(),
            "by_class": (y - of_class[:, i]).square(),
            "within": (y - of_class[:, i] - further[:, i]).square(),
        }
    return found


@dataclass(frozen=True, kw_only=True)
class Scalings:
    """Maps from x to sae_error with one number for all dimensions, and with one for each; [d] weight and bias."""

    scalar: float
    diagonal: Tensor
    bias_scalar: Tensor
    bias_diagonal: Tensor

    @classmethod
    def fit(cls, target: TargetMoments, *, intercept: bool) -> Scalings:
        """Least squares from the moments of x and sae_error."""
        xx, xe = target.s_xx.diagonal().clone(), target.s_xy.diagonal().clone()
        if not intercept:
            xx, xe = xx + target.n * target.mean_x.square(), xe + target.n * target.mean_x * target.mean_y
        scalar = float(xe.sum() / xx.sum()) if float(xx.sum()) > 0.0 else 0.0
        diagonal = torch.where(xx > 0, xe / torch.where(xx > 0, xx, 1.0), 0.0)
        zero = torch.zeros_like(xx)
        return cls(
            scalar=scalar,
            diagonal=diagonal,
            bias_scalar=target.mean_y - scalar * target.mean_x if intercept else zero,
            bias_diagonal=target.mean_y - diagonal * target.mean_x if intercept else zero,
        )


# ---- as a table -----------------------------------------------------------------------------------------------------


def table_of(numbers: Any) -> Tensor:
    """[n, k] float64 on the CPU of numbers in one or more nested dataclasses, with one copy from the device."""
    return torch.stack([to_float64(each) for each in _leaves(numbers)], dim=1).cpu()


def width_of(kind: type[Any]) -> int:
    """K of its table."""
    return len(list(_leaves(from_table(kind, repeat(0)))))


def from_table(kind: type[N], columns: Iterator[Any]) -> N:
    """Numbers of a kind, from the columns of their table."""
    hints = get_type_hints(kind)
    made = {}
    for each in fields(cast("Any", kind)):
        below: Any = get_origin(hints[each.name]) or hints[each.name]
        made[each.name] = from_table(below, columns) if is_dataclass(cast("type", below)) else next(columns)
    return kind(**made)


def _leaves(numbers: Any) -> Iterator[Any]:
    for each in fields(numbers):
        value = getattr(numbers, each.name)
        if is_dataclass(value):
            yield from _leaves(value)
        else:
            yield value
