"""What both passes conclude, as plain numbers: the only thing an experiment computes from.

No tensors here, so that an experiment can be listed, tested and drawn without torch. Here too: intervals and slopes of
plain numbers, for experiments that keep their bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.spec import SaeRef
    from inspector.statistics.held_out import Weights


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one SAE over one set of tokens. Unitless; None: undefined, or not needed."""

    fvu: float | None = None
    fvu_nonlinear: float | None = None
    r2_norm: float | None = None
    r2_pooled: float | None = None
    r2_mean_dims: float | None = None


@dataclass(frozen=True, kw_only=True)
class SaeStatistics:
    """Everything measured about one SAE."""

    ref: SaeRef
    l0: float
    """Mean number of active latents per held-out token."""
    scores: Scores
    """On the tokens the profile scores: held out, except that paper-code takes fvu and fvu_nonlinear on all."""
    intervals: dict[str, tuple[float, float] | None]
    """By name of the score: 95% percentile interval over held-out contexts; None where there is none."""
    train: Scores
    """On the training tokens, in closed form from the moments."""
    switched: Scores
    """As `scores`, with the intercept the other way."""
    gaussian_r2_norm: float | None
    """r2_norm were x and sae_error jointly Gaussian with the same moments (S-20)."""
    undefined_dims: int
    """Dimensions of sae_error that are constant over the held-out tokens."""
    weights: Weights | None = None
    """How its squared error is spread over the held-out tokens; None: not known."""


@dataclass(frozen=True, kw_only=True)
class OutliersFound:
    """How many tokens outweigh all others, and what was done with them."""

    factor: float
    """In medians; see `engine.plan`."""
    median_norm: float
    n_train: int
    """Among the training tokens."""
    n_test: int
    """Among the held-out tokens."""
    left_out: bool
    """Of fit and scores."""

    @property
    def n(self) -> int:
        """All of them."""
        return self.n_train + self.n_test


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Everything measured at one hook."""

    d: int
    n_train: int
    n_test: int
    n_test_contexts: int
    intercept: bool
    """Whether the maps have one."""
    fvu_on: str
    """'held-out' or 'all': the tokens fvu and fvu_nonlinear are over."""
    effective_rank: int
    condition_number: float
    constant_share: float
    """q: share of the constant that x expresses without an intercept. 1: the intercept is in x already."""
    affine_fvu: float | None
    """FVU on the training tokens of the affine control map, a principal-component projection; None: not needed."""
    affine_fvu_nonlinear: float | None
    """Its fvu_nonlinear: 0 to 1e-10, or the regression is wrong (S-10)."""
    saes: tuple[SaeStatistics, ...]
    outliers: OutliersFound | None = None
    """The tokens that outweigh all others; None: not looked for."""
    all_tokens: Statistics | None = None
    """The same with outliers fitted and scored like the others; None: they are here already, or not looked for."""
    own: Mapping[str, object] = field(default_factory=dict)
    """By experiment id: what its own measurement returned."""

    @property
    def shuffled_r2(self) -> float:
        """The held-out R-squared to expect of shuffled targets: -p / n_train (S-06)."""
        return -(self.effective_rank + int(self.intercept)) / self.n_train


LEVEL = 0.95
NORMAL = 1.959964
"""The normal distribution's two-sided 95% quantile."""


def interval(draws: Sequence[float | None]) -> tuple[float, float] | None:
    """Percentile interval of a score's bootstrap draws, the first entry being the score as measured.

    None without draws or if any is undefined, as everywhere: a percentile of the rest would be of other data.
    """
    values = [value for value in draws[1:] if value is not None and value == value]
    if len(values) < 2 or len(values) != len(draws) - 1:
        return None
    ordered = sorted(values)
    tail = (1.0 - LEVEL) / 2.0
    return _quantile(ordered, tail), _quantile(ordered, 1.0 - tail)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics, as numpy and torch do."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def slope_beside(
    x: Sequence[float], y: Sequence[float], covariate: Sequence[float]
) -> tuple[float, tuple[float, float]] | None:
    """Least-squares slope of y on x with a covariate and a constant, and its 95% interval; None if undetermined.

    Three columns are solved by hand (normal equations of centred data), because listing results loads no numpy.
    The interval is Student's, over the points: few SAEs make it wide.
    """
    n = len(x)
    cx, cy, cz = ([value - sum(values) / n for value in values] for values in (x, y, covariate)) if n else ([], [], [])
    xx, zz, xz = (sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((cx, cx), (cz, cz), (cx, cz)))
    xy, zy = (sum(a * b for a, b in zip(p, cy, strict=True)) for p in (cx, cz))
    fitted = 3
    if zz <= 1e-12 * max(xx, 1e-300):  # one value only: there is nothing to hold fixed
        zz, xz, zy, fitted = 1.0, 0.0, 0.0, 2
    determinant = xx * zz - xz * xz
    if n <= fitted or xx <= 0.0 or determinant <= 1e-9 * xx * zz:
        return None
    b = (zz * xy - xz * zy) / determinant
    c = (xx * zy - xz * xy) / determinant
    rest = sum((v - b * u - c * w) ** 2 for u, v, w in zip(cx, cy, cz, strict=True))
    half = student(n - fitted) * math.sqrt(max(rest, 0.0) / (n - fitted) * zz / determinant)
    return b, (b - half, b + half)


def student(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t: exact for 1 and 2, to 0.01 from 3 on (Cornish and Fisher's expansion)."""
    if freedom < 3:
        return {1: 12.706205, 2: 4.302653}[freedom]
    z, v = NORMAL, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4
