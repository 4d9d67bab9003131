"""What a token's colour can mean: data shared by the token pane, its legend, the help and the command line.

A measure is one number per token. A mode shows one measure as size (lightness) or as share (hue), or, `mixed`, one as
each. A new mode is a new entry in MODES; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

from inspector.drawing.token_document import TokenDocument, TokenScalars
from inspector.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number per token and SAE."""

    id: str
    title: str
    unit: str
    """'' for norms (the model's own units), '%' for fractions drawn as percent, 'nats'."""
    meaning: str
    """One sentence."""
    value: Callable[[TokenScalars], float]
    """NaN where it cannot be known."""
    needs_map: bool
    """Whether it changes when the linear map is refitted."""
    per_sae: bool = True
    """False: the same for every SAE."""
    upper_limit: float | None = None
    """For a measure with two interesting ends: what it never exceeds."""

    @property
    def percent(self) -> bool:
        """Whether it is drawn multiplied by 100."""
        return self.unit == "%"

    def of(self, document: TokenDocument, sae: int, position: int) -> float:
        """The number for one token of a document."""
        return self.value(document.scalars(position, sae))


@dataclass(frozen=True, kw_only=True)
class TokenMode:
    """One way to colour tokens."""

    id: str
    title: str
    meaning: str
    """One or two sentences for legend, help and `--help`."""
    size: Measure | None = None
    """Drawn as lightness and as the height of the mark."""
    share: Measure | None = None
    """Drawn as hue from the linear to the nonlinear one."""
    ramp: str = "total"
    """Which hue a mode without share has: 'total', 'linear', 'nonlinear' or 'loss'."""


def _share(token: TokenScalars) -> float:
    linear_sq = token.linear_error_norm * token.linear_error_norm
    nonlinear_sq = token.nonlinear_error_norm * token.nonlinear_error_norm
    both = linear_sq + nonlinear_sq
    return nonlinear_sq / both if both > 0 else nan


def _nonlinear_fvu(token: TokenScalars) -> float:
    if not token.x_norm > 0:
        return nan
    return (token.nonlinear_error_norm / token.x_norm) ** 2


TOTAL = Measure(
    id="total",
    title="SAE error norm",
    unit="",
    meaning="L2 norm of sae_error = x - x_hat at this token, in the model's own units.",
    value=lambda token: token.sae_error_norm,
    needs_map=False,
)
LINEAR = Measure(
    id="linear",
    title="linear error norm",
    unit="",
    meaning="L2 norm of the part of sae_error that an affine map of x predicts.",
    value=lambda token: token.linear_error_norm,
    needs_map=True,
)
NONLINEAR = Measure(
    id="nonlinear",
    title="nonlinear error norm",
    unit="",
    meaning="L2 norm of the part of sae_error that no affine map of x predicts.",
    value=lambda token: token.nonlinear_error_norm,
    needs_map=True,
)
SHARE = Measure(
    id="share",
    title="share of nonlinear error",
    unit="%",
    meaning="‖nonlinear_error‖² / (‖linear_error‖² + ‖nonlinear_error‖²); 0 is all linear, 100 % is all nonlinear.",
    value=_share,
    needs_map=True,
    upper_limit=1.0,
)
FVU = Measure(
    id="fvu",
    title="nonlinear FVU of the token",
    unit="%",
    meaning="‖nonlinear_error‖² / ‖x‖² of this token alone. Not centred, so its mean is not fvu_nonlinear.",
    value=_nonlinear_fvu,
    needs_map=True,
)
LOSS = Measure(
    id="loss",
    title="loss",
    unit="nats",
    meaning="Nats the model needs for the NEXT token.",
    value=lambda token: token.loss,
    needs_map=False,
    per_sae=False,
)
MEASURES: tuple[Measure, ...] = (TOTAL, LINEAR, NONLINEAR, SHARE, FVU, LOSS)

MODES: tuple[TokenMode, ...] = (
    TokenMode(
        id="mixed",
        title="linear and nonlinear error",
        meaning="Strength is the SAE error norm; hue runs from all linear to all nonlinear error.",
        size=TOTAL,
        share=SHARE,
    ),
    TokenMode(id="total", title=TOTAL.title, meaning=TOTAL.meaning, size=TOTAL, ramp="total"),
    TokenMode(id="linear", title=LINEAR.title, meaning=LINEAR.meaning, size=LINEAR, ramp="linear"),
    TokenMode(id="nonlinear", title=NONLINEAR.title, meaning=NONLINEAR.meaning, size=NONLINEAR, ramp="nonlinear"),
    TokenMode(id="share", title=SHARE.title, meaning=SHARE.meaning, share=SHARE),
    TokenMode(id="fvu", title=FVU.title, meaning=FVU.meaning, size=FVU, ramp="nonlinear"),
    TokenMode(id="loss", title=LOSS.title, meaning=LOSS.meaning, size=LOSS, ramp="loss"),
)
DEFAULT_MODE = MODES[0]


def mode_named(mode_id: str) -> TokenMode:
    """The mode with this id; UsageError with the nearest ids otherwise."""
    for mode in MODES:
        if mode.id == mode_id:
            return mode
    known = [mode.id for mode in MODES]
    raise UsageError(f"There is no colour mode '{mode_id}'.{nearest(mode_id, known, n=len(known))}")


def next_mode(mode: TokenMode, step: int = 1) -> TokenMode:
    """The mode `step` places further, around the end."""
    return MODES[(MODES.index(mode) + step) % len(MODES)]
