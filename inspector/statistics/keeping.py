"""What a pass needs of a place where its sums are kept from time to time, so that a run that dies goes on from there.

`inspector.store.checkpoints` is such a place; nothing here knows of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Sums that were kept."""

    tensors: Mapping[str, Tensor]
    """By name, on the CPU, in memory of their own."""
    facts: Mapping[str, Any]
    """JSON data."""


class Keeper(Protocol):
    """Keeps the newest sums of each pass by the pass's name."""

    def due(self) -> bool:
        """Whether it is time to keep sums again."""

    def load(self, name: str) -> Kept | None:
        """What was kept last; None if nothing was, or it is damaged."""

    def store(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep these instead of what was kept before.

        Raises:
            ResourceError: there is no room; what was kept before is still there.
        """


class RowKeeper(Keeper, Protocol):
    """Keeps rows of a table as well, in the order they are made."""

    def rows(self) -> tuple[list[pa.Table], int]:
        """What was kept of them, as it was given, and how many contexts it is of."""

    def store_rows(self, tables: Sequence[pa.Table], stop: int) -> None:
        """Keep more rows.

        Args:
            tables: not kept before, in their order.
            stop: contexts that all rows together are of.

        Raises:
            ResourceError: there is no room; what was kept before is still there.
        """
