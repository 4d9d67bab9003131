"""One document's tokens with their scores for every SAE, and what a token's colour can mean.

The columns are `array('f')`, as they come off the wire; NaN is missing. A document only grows (generation); scores that
changed come as a new document. A measure is one number per token. A mode shows one measure as size (lightness) or as
share (hue), or, `mixed`, one as each; a new mode is a new entry in MODES, and the token pane, its legend, the help and
the command line find it there. Nothing here draws, and nothing here imports numpy.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import NamedTuple

OUTLIER = "o"
LEFT_OUT = ("x", OUTLIER)
"""Letters of tokens that count in no fit and no scale."""


@dataclass(frozen=True, kw_only=True)
class SaeColumns:
    """Per-token scores of one SAE, one value per token."""

    l0: array[float]
    """Active latents; a count."""
    sae_error_norm: array[float]
    """L2 norm of x - x_hat."""
    linear_error_norm: array[float]
    """L2 norm of the affine prediction of the SAE error from x; all NaN until the first map."""
    nonlinear_error_norm: array[float]
    """L2 norm of what that prediction leaves; all NaN until the first map."""

    def columns(self) -> tuple[array[float], ...]:
        """The four columns in the order of their fields."""
        return (self.l0, self.sae_error_norm, self.linear_error_norm, self.nonlinear_error_norm)

    def extend(self, other: SaeColumns) -> None:
        """Append the scores of later tokens."""
        for mine, more in zip(self.columns(), other.columns(), strict=True):
            mine.extend(more)


class TokenScalars(NamedTuple):
    """What is known about one token under one SAE. A tuple and not a dataclass: each repaint makes a thousand."""

    loss: float
    x_norm: float
    l0: float
    sae_error_norm: float
    linear_error_norm: float
    nonlinear_error_norm: float

    @property
    def cosine(self) -> float:
        """Of the angle between linear and nonlinear error, from the three norms; NaN where one is nothing or unknown.

        Over many tokens the two are orthogonal, which is what least squares means; on one token they need not be.
        """
        both = 2 * self.linear_error_norm * self.nonlinear_error_norm
        if not both > 0:
            return nan
        rest = self.sae_error_norm**2 - self.linear_error_norm**2 - self.nonlinear_error_norm**2
        return min(max(rest / both, -1.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class TokenDocument:
    """Tokens of one context, prompt or generation with their scores. Frozen fields, growing columns: see `extend`."""

    source: str
    """'context', 'prompt' or 'generated'."""
    context: int = 0
    """Index among the contexts; 0 for a prompt."""
    epoch: int = 0
    """Number of the linear map's fit behind the scores; 0: none yet."""
    name: str = ""
    """Where the text is from."""
    token_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """Text of each token where it stands; any character at all. '': its character is whole on an earlier token."""
    split: list[str] = field(default_factory=list)
    """One letter per token: 't' train, 'h' held out, 'x' excluded (special token or outside the positions), 'o' an
    outlier, whose norm is many times the median: it counts in no fit and no scale."""
    loss: array[float] = field(default_factory=lambda: array("f"))
    """Nats to predict the NEXT token; NaN where not known."""
    x_norm: array[float] = field(default_factory=lambda: array("f"))
    """L2 norm of the activation."""
    saes: tuple[SaeColumns, ...] = ()
    """In the session's order of SAEs."""

    def __post_init__(self) -> None:
        """Refuse columns of different lengths: ValueError names the first that differs."""
        columns: list[tuple[str, int]] = [("tokens", len(self.tokens)), ("split", len(self.split))]
        columns += [("loss", len(self.loss)), ("x_norm", len(self.x_norm))]
        for index, sae in enumerate(self.saes):
            columns += [(f"SAE {index}, column {place}", len(column)) for place, column in enumerate(sae.columns())]
        for name, length in columns:
            if length != len(self.token_ids):
                raise ValueError(f"{name} has {length} values but there are {len(self.token_ids)} token_ids.")

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)

    def included(self) -> Iterator[int]:
        """Positions that count, in order."""
        return (position for position, letter in enumerate(self.split) if letter not in LEFT_OUT)

    def outliers(self) -> Iterator[int]:
        """Positions of the outliers, in order."""
        return (position for position, letter in enumerate(self.split) if letter == OUTLIER)

    def scalars(self, position: int, sae: int) -> TokenScalars:
        """Everything known about one token under one SAE (an index into `saes`)."""
        columns = self.saes[sae]
        return TokenScalars(
            loss=self.loss[position],
            x_norm=self.x_norm[position],
            l0=columns.l0[position],
            sae_error_norm=columns.sae_error_norm[position],
            linear_error_norm=columns.linear_error_norm[position],
            nonlinear_error_norm=columns.nonlinear_error_norm[position],
        )

    def extend(
        self,
        *,
        start: int,
        token_ids: Sequence[int],
        tokens: Sequence[str],
        split: Sequence[str],
        loss: array[float],
        x_norm: array[float],
        saes: Sequence[SaeColumns],
        loss_before: float | None = None,
    ) -> None:
        """Append generated tokens, in place.

        Args:
            start: Position of the first new token; must be the present length.
            token_ids: One per new token; the other columns likewise.
            tokens: Decoded texts.
            split: Letters, see the field.
            loss: NaN for a token whose successor is not sampled yet.
            x_norm: Norms of the activations.
            saes: One per SAE of the document. An empty document takes them as its own only through the constructor.
            loss_before: Loss of the token at start - 1, if it has become known since.
        """
        if start != len(self) or len(saes) != len(self.saes):
            raise ValueError(
                f"Tokens for {len(saes)} SAEs start at {start}, but {len(self)} tokens for {len(self.saes)} are there."
            )
        if loss_before is not None and start > 0:
            self.loss[start - 1] = loss_before
        self.token_ids.extend(token_ids)
        self.tokens.extend(tokens)
        self.split.extend(split)
        self.loss.extend(loss)
        self.x_norm.extend(x_norm)
        for mine, more in zip(self.saes, saes, strict=True):
            mine.extend(more)
        self.__post_init__()


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
    edges: Callable[[int], tuple[float, ...]] | None = None
    """Edges between so many levels that hold for every text; None: they depend on SAE and text."""

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


def _around_a_half(n_levels: int) -> tuple[float, ...]:
    """A diverging scale: steps of a fifth, the same number on either side of 50%."""
    return tuple(round(0.5 + 0.2 * (index - (n_levels - 2) / 2), 10) for index in range(n_levels - 1))


def _whole_nats(n_levels: int) -> tuple[float, ...]:
    return tuple(float(nats) for nats in range(1, n_levels))


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
    edges=_around_a_half,
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
    edges=_whole_nats,
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


def difference(measure: Measure, first: float, second: float) -> float:
    """How much larger the second value is, -1 to 1: of shares in points, of anything else in parts of the larger one.

    NaN where one is not known.
    """
    if measure.upper_limit is not None:
        return second - first
    larger = max(first, second)
    return (second - first) / larger if larger > 0 else second - first


def difference_mode(measure: Measure, first: str, second: str) -> TokenMode:
    """The mode in which the one SAE of `difference_document` is shown.

    Args:
        measure: what is compared.
        first: short name of an SAE.
        second: of the other.
    """
    parts = "points" if measure.upper_limit is not None else "parts of the larger one"
    return TokenMode(
        id="difference",
        title=f"{measure.title}: larger for {first} or for {second}",
        meaning=f"By how much the {measure.title} differs, in {parts}.",
        share=Measure(
            id="difference",
            title=f"{measure.title}: {first} is larger ◂ ▸ {second} is larger",
            unit="%",
            meaning=f"Negative where {first} has more, positive where {second} has.",
            value=lambda token: token.sae_error_norm,
            needs_map=measure.needs_map,
            upper_limit=1.0,
            edges=lambda _: (-0.3, -0.1, 0.1, 0.3),
        ),
    )


def difference_document(
    document: TokenDocument, measure: Measure, first: Sequence[float], second: Sequence[float]
) -> TokenDocument:
    """The same tokens with the difference of two SAEs' values in the place of an SAE's scores.

    Args:
        document: the tokens.
        measure: of which the values are.
        first: one value per token.
        second: likewise.
    """
    values = array("f", [difference(measure, a, b) for a, b in zip(first, second, strict=True)])
    column = SaeColumns(l0=values, sae_error_norm=values, linear_error_norm=values, nonlinear_error_norm=values)
    return replace(document, saes=(column,))


def next_mode(mode: TokenMode, step: int = 1) -> TokenMode:
    """The mode `step` places further, around the end."""
    return MODES[(MODES.index(mode) + step) % len(MODES)]
