"""How FVU falls with width: F(W) = c + A W^-m with c, A, m >= 0.  Paper, Sec. 4.3, Fig. 1.

For a given m the rest is linear, so the fit is a one-dimensional search over m with non-negative least squares in
closed form at each point: nothing to start from, nothing to get stuck in. Its floor c is what the paper reads off, and
seven points determine it badly; `power_law_interval` says how badly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LOWEST_M, HIGHEST_M = 1e-3, 8.0
"""Below, the law is a straight line in log W and c is not a floor; above, it is a step between two widths."""
GRID = 240
REFINEMENTS = 40
ADAM_STEPS, ADAM_RATE = 50_000, 1e-4
"""Of the published fit (D-07)."""
LEVEL = 0.95
"""Share of the draws inside the floor's interval."""
IDENTIFIED_BELOW = 0.5
"""A floor whose interval is wider than this share of the FVU at the largest width is called not identified."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """c + A (W / scale)^-m."""

    floor: float
    """c, FVU at infinite width. Unitless."""
    amplitude: float
    """A at W = scale. Unitless."""
    exponent: float
    """m."""
    scale: float
    """Smallest width of the fit; W enters divided by it."""
    rest: float
    """Root mean squared residual of the points. Unitless."""

    def at(self, width: float) -> float:
        """Fitted FVU at a width."""
        return float(self.floor + self.amplitude * (width / self.scale) ** -self.exponent)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The floor's interval."""

    low: float
    high: float
    identified: bool
    """Whether the points say where the floor is."""
    why: str
    """Empty if it is identified."""
    draws: tuple[float, ...] = ()
    """The floors of all draws."""


def fit_power_law(widths: Array, values: Array) -> PowerLaw:
    """Least squares over c, A, m >= 0, in FVU and not in its logarithm.

    Args:
        widths: [k] at least three different ones.
        values: [k] FVU.

    Raises:
        ValueError: fewer than three widths.
    """
    widths, values = np.asarray(widths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(np.unique(widths)) < 3:
        raise ValueError(f"A power law with a floor needs three widths, not {len(np.unique(widths))}.")
    scale = float(widths.min())
    logs = np.log(widths / scale)
    grid = np.geomspace(LOWEST_M, HIGHEST_M, GRID)
    _, _, rest = _linear_part(logs, values, grid)
    best = int(rest.argmin())
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(REFINEMENTS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        _, _, both = _linear_part(logs, values, np.array([left, right]))
        low, high = (low, right) if both[0] <= both[1] else (left, high)
    m = np.array([(low + high) / 2.0])
    c, a, rest = _linear_part(logs, values, m)
    return PowerLaw(
        floor=float(c[0]),
        amplitude=float(a[0]),
        exponent=float(m[0]),
        scale=scale,
        rest=float(np.sqrt(rest[0] / len(values))),
    )


def fit_power_law_adam(widths: Array, values: Array, *, seed: int, steps: int = ADAM_STEPS) -> PowerLaw:
    """As the paper's code: Adam from one normal draw, absolute values for signs, raw widths, mean squared error (D-07).

    The published run had no seed; on exact data one start in twelve ends more than 0.01 from the floor.
    """
    widths, values = np.asarray(widths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    logs = np.log(widths)
    theta = np.random.default_rng(seed).standard_normal(3)  # c, A, m before the absolute value
    first, second = np.zeros(3), np.zeros(3)
    for step in range(1, steps + 1):
        c, a, m = np.abs(theta)
        power = np.exp(-m * logs)
        rest = 2.0 * (c + a * power - values) / len(values)
        gradient = np.sign(theta) * np.array([rest.sum(), rest @ power, -(rest * a * power) @ logs])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        theta -= ADAM_RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    c, a, m = (float(value) for value in np.abs(theta))
    scale = float(widths.min())
    fitted = c + a * np.exp(-m * logs)
    return PowerLaw(
        floor=c,
        amplitude=a * scale**-m,
        exponent=m,
        scale=scale,
        rest=float(np.sqrt(np.mean((fitted - values) ** 2))),
    )


def power_law_interval(widths: Array, draws: Array, fitted: PowerLaw, *, seed: int) -> Floor:
    """Where the floor may be, given other draws of the text and of the scatter of the SAEs around the law.

    Each draw is one row of `draws` (the points on resampled contexts) plus normal noise of the size of the fit's own
    residuals: the first is the text's share of the uncertainty, the second that of training other SAEs. Percentiles of
    the refitted floors.

    Args:
        widths: [k].
        draws: [r, k] FVU on resampled contexts.
        fitted: to the points as they are.
        seed: of the noise.
    """
    widths = np.asarray(widths, dtype=np.float64)
    logs = np.log(widths / fitted.scale)
    law = np.array([fitted.at(width) for width in widths])
    rng = np.random.default_rng(seed)
    # Three parameters fitted them, which makes residuals smaller than the scatter is.
    spread = fitted.rest * np.sqrt(len(widths) / max(len(widths) - 3, 1))
    floors, exponents = [], []
    grid = np.geomspace(LOWEST_M, HIGHEST_M, GRID)
    for row in np.asarray(draws, dtype=np.float64):
        points = row + spread * rng.standard_normal(len(law))
        c, _, rest = _linear_part(logs, points, grid)
        best = int(rest.argmin())
        floors.append(float(c[best]))
        exponents.append(float(grid[best]))
    tail = 100.0 * (1.0 - LEVEL) / 2.0
    low, high = (float(value) for value in np.percentile(floors, [tail, 100.0 - tail]))
    largest = fitted.at(float(widths.max()))
    why = ""
    if low <= 0.0:
        why = "draws reach 0, where the law has no floor"
    elif high - low > IDENTIFIED_BELOW * largest:
        why = f"the interval is wider than {IDENTIFIED_BELOW:.0%} of the FVU at the largest width"
    elif np.mean(np.asarray(exponents) <= LOWEST_M * 1.001) > 1.0 - LEVEL:
        why = "draws are straight lines in log width, which have no floor"
    return Floor(low=low, high=high, identified=not why, why=why, draws=tuple(floors))


def _linear_part(logs: Array, values: Array, exponents: Array) -> tuple[Array, Array, Array]:
    """For each exponent the best c, A >= 0 and the sum of squared residuals; all [g]."""
    power = np.exp(-exponents[:, None] * logs[None, :])
    mean_p, mean_v = power.mean(axis=1), float(values.mean())
    centred = power - mean_p[:, None]
    a = (centred @ (values - mean_v)) / np.maximum((centred**2).sum(axis=1), 1e-300)
    c = mean_v - a * mean_p
    # Outside the quarter plane the best point is on its edge: A = 0, or c = 0; of both, the better.
    flat_c, flat_a = np.full_like(a, max(mean_v, 0.0)), np.zeros_like(a)
    bare_c, bare_a = np.zeros_like(a), np.maximum((power @ values) / (power**2).sum(axis=1), 0.0)
    options = [(c, a), (flat_c, flat_a), (bare_c, bare_a)]
    rests = np.stack([((cc[:, None] + aa[:, None] * power - values) ** 2).sum(axis=1) for cc, aa in options])
    rests[0][(a < 0) | (c < 0)] = np.inf
    chosen, each = rests.argmin(axis=0), np.arange(len(exponents))
    cs, amplitudes = (np.stack([option[i] for option in options])[chosen, each] for i in (0, 1))
    return cs, amplitudes, rests[chosen, each]
