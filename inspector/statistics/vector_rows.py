"""The vectors behind the per-token table: x, the SAE error and its two parts, handed on context by context.

They are `d` times the size of the table, so nobody here holds more than one context's; where they go is for the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from inspector.engine.decomposition import Decomposition
    from inspector.engine.regression import LinearMap
    from inspector.sources.activations import ActivationBatch

VectorKind = Literal["x", "error", "linear", "nonlinear"]
KINDS: tuple[VectorKind, ...] = get_args(VectorKind)
"""x; x - x_hat; what the map predicts of it; what is left. x = x_hat + linear + nonlinear."""


class VectorSink(Protocol):
    """Takes the vectors of every token in the order of the table, in which each token has a row per SAE."""

    def begin(self, n_tokens: int, maps: Mapping[str, LinearMap]) -> None:
        """So many tokens will come, and these maps are applied to them."""

    def tokens(self, batch: ActivationBatch, splits: Tensor) -> None:
        """The next tokens, with 0 for excluded, 1 for train, 2 for test; their SAEs follow."""

    def take(self, sae_id: str, parts: Decomposition) -> None:
        """One SAE's vectors of these tokens."""


def vectors_of(parts: Decomposition, kind: VectorKind) -> Tensor:
    """[n, d] of one kind."""
    match kind:
        case "x":
            return parts.x
        case "error":
            return parts.sae_error
        case "linear":
            return parts.linear_error
        case "nonlinear":
            return parts.nonlinear_error
