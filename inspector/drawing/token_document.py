"""One document's tokens and their scores for every SAE: what a token strip is coloured from.

The columns are `array('f')`, as they come off the wire; NaN is missing. A document only grows (generation); scores that
changed come as a new document. Nothing here draws, and nothing here imports numpy.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NAN = float("nan")
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
    """Decoded text of each token alone; any character at all."""
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

    def is_included(self, position: int) -> bool:
        """Whether the token counts in fits and scales."""
        return self.split[position] not in LEFT_OUT

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
