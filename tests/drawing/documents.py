"""Small token documents whose numbers can be checked in the head."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from inspector.drawing.tokens import MODES, SaeColumns, TokenDocument, TokenMode

NAN = float("nan")


def mode_named(mode_id: str) -> TokenMode:
    return next(mode for mode in MODES if mode.id == mode_id)


def floats(values: Sequence[float]) -> array[float]:
    return array("f", values)


def columns(n: int, *, linear: Sequence[float] | None = None, nonlinear: Sequence[float] | None = None) -> SaeColumns:
    """Total is 3-4-5 like: the root of the summed squares; without linear and nonlinear there is no map yet."""
    first = list(linear) if linear is not None else [NAN] * n
    second = list(nonlinear) if nonlinear is not None else [NAN] * n
    total = [(a * a + b * b) ** 0.5 if a == a else 5.0 for a, b in zip(first, second, strict=True)]
    return SaeColumns(
        l0=floats([16.0] * n),
        sae_error_norm=floats(total),
        linear_error_norm=floats(first),
        nonlinear_error_norm=floats(second),
    )


def document(
    tokens: Sequence[str],
    *,
    linear: Sequence[float] | None = None,
    nonlinear: Sequence[float] | None = None,
    excluded: int = 0,
    n_saes: int = 1,
    epoch: int = 1,
    source: str = "context",
    context: int = 0,
) -> TokenDocument:
    n = len(tokens)
    return TokenDocument(
        source=source,
        context=context,
        epoch=epoch,
        name="a test",
        token_ids=[index % 100 for index in range(n)],
        tokens=list(tokens),
        split=["x" if index < excluded else "h" for index in range(n)],
        loss=floats([1.5] * n),
        x_norm=floats([10.0] * n),
        saes=tuple(columns(n, linear=linear, nonlinear=nonlinear) for _ in range(n_saes)),
    )
