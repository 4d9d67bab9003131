"""Sizes of contexts: the defaults, and what cannot be. Known before anything is loaded, so torch is not imported."""

from __future__ import annotations

from inspector.errors import UsageError

PAPER_CONTEXT_LENGTH = 1024
PAPER_FIRST_POSITION = 200


def default_context_length(n_ctx: int) -> int:
    """The paper's 1024, or the model's limit if that is smaller."""
    return min(PAPER_CONTEXT_LENGTH, n_ctx)


def default_positions(context_length: int) -> tuple[int, int | None]:
    """From 200 on as in the paper, or from an eighth of a context shorter than the paper's."""
    return (PAPER_FIRST_POSITION if context_length >= PAPER_CONTEXT_LENGTH else context_length // 8), None


def check_length(length: int, n_contexts: int, n_ctx: int | None) -> None:
    """Refuse context sizes that cannot be, as early as possible.

    Raises:
        UsageError: with the limit.
    """
    if n_contexts < 1:
        raise UsageError(f"--contexts {n_contexts} leaves nothing to look at. Use 1 or more.")
    if length < 3:
        raise UsageError(f"--context-length {length} leaves no token to predict. Use 3 or more.")
    if n_ctx is not None and length > n_ctx:
        raise UsageError(f"--context-length {length:,} is more than the model takes. Use {n_ctx:,} or less.")
