"""The held-out half of the pass over single tokens: what every map, mean and scalar leaves of the sizes of an error.

Names of the sums, per SAE, each over the tokens of a group:

- `<target> sum`, `<target> squares`: of each of TARGETS; `<target> rest on` and `rest off`: squared residuals of its
  regression on x with and without an intercept
- `<size> token`, `token position`, `class`, `within`: squared residuals of the mean of the token id, of that and the
  position, of the mean of the token's class, and of that and x (see `token_fits.Within`)
- `linear`, `nonlinear` and the same `switched`: norms of both parts, and with the map's intercept the other way
- `ratio`, `cosine` and the same `centred`: ‖x_hat‖ / ‖x‖, cosine of linear_error and x, and of both around their
  training means; `... defined`: tokens that have one
- `x norm`, `x_hat norm` and the same `centred`
- `total`: ‖sae_error - training mean‖²; `full`, `scalar on`, `scalar off`, `diagonal on`, `diagonal off`: ‖rest‖²
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inspector.engine.decomposition import Decomposition, squared_norm
from inspector.engine.moments import TargetMoments, to_float64
from inspector.statistics.first_pass import SaeMaps
from inspector.statistics.token_fits import TARGETS, Fits, X
from inspector.statistics.token_norms import ONE, SIZES, Products, column
from inspector.statistics.token_sums import GroupProducts


def sizes(parts: Decomposition) -> dict[str, Tensor]:
    """[n] float64 of everything in TARGETS."""
    vectors = {
        "x_hat_sq": parts.x_hat,
        "sae_error_sq": parts.sae_error,
        "linear_error_sq": parts.linear_error,
        "nonlinear_error_sq": parts.nonlinear_error,
        "x_hat_plus_nonlinear_sq": parts.x_hat + parts.nonlinear_error,
    }
    found = {name: to_float64(squared_norm(vector)) for name, vector in vectors.items()}
    return found | {"sae_error": found["sae_error_sq"].sqrt()}


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


def predictions(fits: Fits, name: str, wide: Tensor, *, intercept: bool) -> Tensor:
    """[n, targets] in float64; wide is x [n, d] around the mean of the fits."""
    fitted = (fits.on if intercept else fits.off)[name]
    weight = fitted.weight.to(wide)
    return wide @ weight.T + (fitted.bias.to(wide) + weight @ fits.centre.to(wide))


def regression_sums(fits: Fits, name: str, numbers: Mapping[str, Tensor], wide: Tensor) -> dict[str, Tensor]:
    """Sums, squares and residuals of the targets of X or an SAE."""
    found: dict[str, Tensor] = {}
    on, off = (predictions(fits, name, wide, intercept=intercept) for intercept in (True, False))
    for i, target in enumerate(("x_sq",) if name == X else TARGETS):
        y = numbers[target]
        found |= {
            f"{target} sum": y,
            f"{target} squares": y.square(),
            f"{target} rest on": (y - on[:, i]).square(),
            f"{target} rest off": (y - off[:, i]).square(),
        }
    return found


def token_sums(
    fits: Fits,
    place: int,
    numbers: Mapping[str, Tensor],
    by_id: Tensor,
    by_class: Tensor,
    position: Tensor,
    wide: Tensor,
) -> dict[str, Tensor]:
    """Residuals of what the token's identity predicts of the sizes of SAE number `place`."""
    found: dict[str, Tensor] = {}
    columns = slice(len(SIZES) * place, len(SIZES) * (place + 1))
    of_token = fits.token_mean[:, columns].to(wide)[by_id]
    moved = (position - fits.token_position.to(wide)[by_id])[:, None] * fits.position_slope[columns].to(wide)
    within = fits.within
    of_class = within.mean_y[:, columns].to(wide)[by_class]
    further = (wide - within.mean_x.to(wide)[by_class]) @ within.weight[:, columns].to(wide)
    for i, size in enumerate(SIZES):
        y = numbers[size]
        found |= {
            f"{size} token": (y - of_token[:, i]).square(),
            f"{size} token position": (y - of_token[:, i] - moved[:, i]).square(),
            f"{size} class": (y - of_class[:, i]).square(),
            f"{size} within": (y - of_class[:, i] - further[:, i]).square(),
        }
    return found


def shrinkage_sums(parts: Decomposition, maps: SaeMaps, centre: Tensor) -> dict[str, Tensor]:
    """How much shorter x_hat is than x, and how far linear_error points along x."""
    x, x_hat, linear = (to_float64(each) for each in (parts.x, parts.x_hat, parts.linear_error))
    mean_linear = (maps.error_map.bias + maps.error_map.weight @ maps.error_map.centre).to(x)
    found: dict[str, Tensor] = {}
    for kind, own_x, own_x_hat, own_linear in (
        ("", x, x_hat, linear),
        (" centred", x - centre, x_hat - centre, linear - mean_linear),
    ):
        long, short, along = own_x.norm(dim=1), own_x_hat.norm(dim=1), own_linear.norm(dim=1)
        has_ratio, has_cosine = long > 0, (long > 0) & (along > 0)
        cosine = (own_x * own_linear).sum(dim=1) / (long * along)
        found |= {
            f"ratio{kind}": torch.where(has_ratio, short / long, 0.0),
            f"ratio{kind} defined": to_float64(has_ratio),
            f"cosine{kind}": torch.where(has_cosine, cosine, 0.0),
            f"cosine{kind} defined": to_float64(has_cosine),
            f"x norm{kind}": long,
            f"x_hat norm{kind}": short,
        }
    return found


def part_sums(parts: Decomposition, maps: SaeMaps, h: Tensor) -> dict[str, Tensor]:
    """Norms of both parts, as they are and had the map its intercept the other way; h [n] is 1 - g x."""
    linear, nonlinear = to_float64(parts.linear_error), to_float64(parts.nonlinear_error)
    change = maps.error_switch.to(linear)
    moved = h.square() * change.square().sum()
    switched = {
        "linear": squared_norm(linear) + 2.0 * h * (linear @ change) + moved,
        "nonlinear": squared_norm(nonlinear) - 2.0 * h * (nonlinear @ change) + moved,
    }
    plain = {"linear": squared_norm(linear).sqrt(), "nonlinear": squared_norm(nonlinear).sqrt()}
    return plain | {f"{name} switched": value.clamp_min(0.0).sqrt() for name, value in switched.items()}


def scaling_rests(parts: Decomposition, mean_error: Tensor, on: Scalings, off: Scalings) -> dict[str, Tensor]:
    """[n, d] squares of what scalings leave of sae_error, and of it around its training mean."""
    x, error = to_float64(parts.x), to_float64(parts.sae_error)
    return {
        "total": (error - mean_error.to(error)).square(),
        "full": to_float64(parts.nonlinear_error).square(),
        "scalar on": (error - on.scalar * x - on.bias_scalar.to(error)).square(),
        "diagonal on": (error - on.diagonal.to(error) * x - on.bias_diagonal.to(error)).square(),
        "scalar off": (error - off.scalar * x).square(),
        "diagonal off": (error - off.diagonal.to(error) * x).square(),
    }


PARTS = {"error": "sae_error_sq", "linear": "linear_error_sq", "nonlinear": "nonlinear_error_sq"}
"""What is kept of each SAE of the series, and which of its numbers that is."""
KINDS = {"squared": SIZES[0], "plain": SIZES[1]}
"""Norms squared or not, and the size of the error that is meant."""


def compared(
    kind: str, numbers: Mapping[str, Mapping[str, Tensor]], series: Sequence[str], *, probes: bool = False
) -> dict[str, Tensor]:
    """‖x‖ and the norms of each SAE's error and its parts; with `probes` the predictions of the error's from x."""
    x_sq = numbers[X]["x_sq"]
    found = {X: x_sq if kind == "squared" else x_sq.sqrt()}
    for sae_id in series:
        for what, name in PARTS.items():
            value = numbers[sae_id][name]
            found[column(what, sae_id)] = value if kind == "squared" else value.sqrt()
    if probes:
        found |= {column("probe", sae_id): numbers[sae_id][f"probe {kind}"] for sae_id in series}
    return found


def products_of(kind: str, test: GroupProducts, trained: GroupProducts, series: Sequence[str], fits: Fits) -> Products:
    """The products of the series; over training tokens those of the probes with errors come in closed form.

    A probe is fitted from all training tokens, so that none of them could be asked for its prediction on the way.
    """
    own = trained.values[0]
    k = len(test.names)
    train = torch.full((k, k), torch.nan, dtype=torch.float64)
    train[: len(own), : len(own)] = own
    index = TARGETS.index(KINDS[kind])
    n, mean_x = fits.moments.n, fits.moments.mean_x
    one = test.names.index(ONE)
    for probed in series:
        i = test.names.index(column("probe", probed))
        weight, bias = fits.on[probed].weight[index], fits.on[probed].bias[index]
        mean = float(weight @ mean_x + bias)
        train[i, one] = train[one, i] = n * mean
        train[i, i] = float(weight @ fits.moments.s_xx @ weight) + n * mean**2
        for other in series:
            j = test.names.index(column("error", other))
            target = fits.moments.target(other)
            crossed = float(weight @ target.s_xy[:, index]) + n * mean * float(target.mean_y[index])
            train[i, j] = train[j, i] = crossed
    return Products(names=test.names, train=train.numpy(), test=test.values.numpy())
