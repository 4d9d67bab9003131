"""What is known of single tokens after a pass over them: sums and products of a few numbers per token, by SAE.

Seven experiments ask about the sizes of x, x_hat, sae_error and its two parts at each token. All they ask can be
answered from sums over groups of held-out contexts, so that is what is kept: a number per name and group, and for the
regressions of one size on others the products of any two. Nothing here has the size of the tokens.

No torch and no numpy when it is imported: experiments name these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from inspector.statistics.profiles import Protocol

    Array = npt.NDArray[np.float64]

ONE = "one"
"""The name of the constant, the first in every table of products."""
NORMS = ("x_hat", "sae_error", "linear_error", "nonlinear_error", "x_hat_plus_nonlinear")
"""Vectors of one SAE whose squared norms are predicted from x; `x` itself is one more. The last is x_hat +
nonlinear_error, which is x - linear_error and so affine in x (S-11)."""
SIZES = ("sae_error_sq", "sae_error")
"""The size of the error as a target: its squared norm, its norm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Sums over the tokens of each of g groups of held-out contexts."""

    names: tuple[str, ...]
    values: Array
    """[g, names]"""

    def of(self, name: str) -> Array:
        """[g] of one name."""
        column: Array = self.values[:, self.names.index(name)]
        return column


@dataclass(frozen=True, kw_only=True, eq=False)
class Products:
    """Sums over tokens of the products of any two named numbers; the first is 1, so plain sums are among them."""

    names: tuple[str, ...]
    train: Array
    """[names, names] over the training tokens; NaN where nobody needs it."""
    test: Array
    """[g, names, names] over the held-out tokens of each group."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SaeTokens:
    """One SAE."""

    sae: str
    d_sae: int
    nominal_l0: float | None
    sums: Sums
    """Held out. See `token_pass` for what each name is."""
    products: Products
    """Over one, x (its norm), loss, l0, and the SIZES."""
    train_r2: Mapping[str, float | None]
    """By name of NORMS: R-squared of its squared norm on x over the training tokens."""
    in_sample_token_r2: Mapping[str, float | None]
    """By name of SIZES: R-squared of token means over the very tokens they are means of, all there are (D-19)."""
    gaussian_r2: Mapping[str, float | None]
    """By name of NORMS: what R-squared would be, were x and the vector jointly Gaussian (S-20); empty: not asked."""
    scalar: float | None
    """The scalar times x, fitted to sae_error; None if x is constant."""
    squares: Mapping[str, Array]
    """[d] each, held out, by dimension: sums of squares of sae_error around its mean ('total') and of what 'scalar',
    'diagonal' and 'full' maps leave of it."""
    error_sum: Array
    """[g, d] of sae_error, around its training mean."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Some consecutive tokens of one context."""

    context: int
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    train: tuple[bool, ...]
    """Whether the maps were fitted on the token too."""
    x: tuple[float, ...]
    """Norm."""
    sae_error: Mapping[str, tuple[float, ...]]
    """Norms by sae_id."""
    linear_error: Mapping[str, tuple[float, ...]]
    nonlinear_error: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenNorms:
    """Everything the pass found."""

    protocol: Protocol
    intercept: bool
    """Of the maps from x."""
    n_train: int
    n_test: int
    n_contexts: int
    """Held out."""
    counts: Array
    """[1 + resamples, g] how often each group of contexts is drawn; row 0 is the data as they are."""
    n: Array
    """[g] held-out tokens of each group."""
    x: Sums
    """Of x itself: x, x_sq, and what its own regression leaves."""
    x_train_r2: float | None
    x_gaussian_r2: float | None
    saes: tuple[SaeTokens, ...]
    """All of the target."""
    series: tuple[str, ...]
    """One SAE per width, ascending."""
    squared: Products
    """Over one, x_sq and, for each SAE of the series, `error`, `linear`, `nonlinear` and `probe` of it: squared norms,
    and the prediction of the squared error norm from x, always with an intercept."""
    plain: Products
    """The same of norms, and the prediction of the norm."""
    trace: Trace | None
    """None: no context has so many tokens."""
    classes: int
    """Tokens that have a class of their own in what x adds to the token; all others share one."""

    def by_id(self) -> dict[str, SaeTokens]:
        """The SAEs by id."""
        return {each.sae: each for each in self.saes}


def column(what: str, sae_id: str) -> str:
    """Name of an SAE's number among the products of the series, e.g. 'error layer_3/...'."""
    return f"{what} {sae_id}"
