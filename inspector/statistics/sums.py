"""What adds up: sums that merge, are stored and go on, and the place that keeps them while a pass is under way.

Sums are dataclasses, so that each has a name and a shape; nothing here has the size of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from inspector.engine.moments import copied

if TYPE_CHECKING:
    import pyarrow as pa

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and JSON data."""
LARGEST = {"largest": True}
"""Metadata of a field of `Sums` that is the largest of what came, and no sum."""
FIXED = {"fixed": True}
"""Metadata of a field of `Sums` that is the same whatever is added; it is neither merged nor stored."""


def shaped(*dimensions: str, dtype: torch.dtype = torch.float64) -> Any:
    """A field of `Sums` that is a tensor, and the names of its dimensions; `Sums.zeros` knows how large each is."""
    return field(metadata={"shape": dimensions, "dtype": dtype})


class Accumulator(Protocol):
    """What a walk feeds."""

    def merge(self, other: Self, /) -> None:
        """Add what another one has seen."""

    def state(self) -> State:
        """What `restore` of a new one needs; shares memory with this one, which may go on."""

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """Take over a state; this one must be new.

        Args:
            tensors: copied.
            facts: with them.
            device: where the batches to come will be.

        Raises:
            ValueError, KeyError, TypeError: it is of something else.
        """


class Sums:
    """Base of dataclasses whose fields are sums: how they are merged, stored and restored follows from the fields.

    A field is a tensor of its final shape, a number, an `Accumulator`, or a dictionary of tensors or accumulators.
    Tensors and numbers add, tensors of bool unite, a field with the metadata LARGEST keeps the larger number, and one
    with FIXED stays as it is.
    """

    @classmethod
    def zeros(cls, *, device: torch.device | None = None, **given: Any) -> Self:
        """Sums of nothing.

        Args:
            device: of the tensors; None: the CPU.
            given: sizes by the names of the dimensions, and every other field that has no default.
        """
        for each in fields(cast("Any", cls)):
            if "shape" in each.metadata:
                shape = [given[name] for name in each.metadata["shape"]]
                given[each.name] = torch.zeros(shape, dtype=each.metadata["dtype"], device=device)
        return cls(**{each.name: given[each.name] for each in fields(cast("Any", cls)) if each.name in given})

    def merge(self, other: Self, /) -> None:
        """See `Accumulator`."""
        for each in self._summed():
            largest = bool(each.metadata.get("largest"))
            setattr(self, each.name, _merged(getattr(self, each.name), getattr(other, each.name), largest))

    def state(self) -> State:
        """See `Accumulator`."""
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        for path, value in self._parts():
            if isinstance(value, Tensor):
                tensors[path] = value
            elif isinstance(value, int | float):
                facts[path] = value
            else:
                own, facts[path] = value.state()
                tensors |= {f"{path}/{name}": values for name, values in own.items()}
        return tensors, facts

    @torch.inference_mode()  # sums made in one mode cannot be added to in another: always this one
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device) -> None:
        """See `Accumulator`."""
        own_tensors, own_facts = self.state()
        if not set(own_tensors) <= set(tensors) or set(own_facts) != set(facts):
            raise ValueError("The stored sums are of another pass.")
        for path, value in self._parts():
            if isinstance(value, Tensor):
                copied(value, tensors[path])
            elif isinstance(value, int | float):
                setattr(self, path, facts[path])
            else:
                below = f"{path}/"
                own = {name.removeprefix(below): each for name, each in tensors.items() if name.startswith(below)}
                value.restore(own, facts[path], device)

    def _summed(self) -> list[Field[Any]]:
        return [each for each in fields(cast("Any", self)) if not each.metadata.get("fixed")]

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Every tensor, number and accumulator with where it is."""
        for each in self._summed():
            value = getattr(self, each.name)
            if isinstance(value, dict):
                yield from ((f"{each.name}/{key}", one) for key, one in value.items())
            else:
                yield each.name, value


A = TypeVar("A", bound=Accumulator)


@dataclass
class ByName(Sums, Generic[A]):
    """Sums of the same kind of several things, mostly of SAEs."""

    of: dict[str, A]


def _merged(mine: Any, theirs: Any, largest: bool) -> Any:
    """Both together; what can be changed in place is."""
    if isinstance(mine, dict):
        for key in mine:
            mine[key] = _merged(mine[key], theirs[key], largest)
    elif isinstance(mine, Tensor):
        mine = mine.logical_or_(theirs) if mine.dtype == torch.bool else mine.add_(theirs)
    elif isinstance(mine, int | float):
        return max(mine, theirs) if largest else mine + theirs
    else:
        mine.merge(theirs)
    return mine


# ---- where sums are kept --------------------------------------------------------------------------------------------


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


@runtime_checkable
class Together(Keeper, Protocol):
    """Deals out work among processes that all run the same program on the same target, step by step.

    Each does some pieces of a step and hands in what came of them; nobody goes on before all pieces of it are there and
    one has merged them. So all have the same sums after every pass, whoever added up what, and whoever died on the way.
    """

    def claim(self, step: str, n_pieces: int) -> int | None:
        """The next piece of a step that is this process's to do; None: all are done. Waits while others do the last."""

    def hand_in(self, step: str, piece: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """What came of a piece."""

    def give_up(self, step: str, piece: int) -> bool:
        """A piece failed here; whether somebody is to try it once more."""

    def whole(self, step: str) -> str:
        """The step, of one piece, in which one process merges those of a step; nobody asks for them after that."""

    def handed_in(self, step: str, n_pieces: int) -> Iterator[Kept]:
        """What came of every piece, in their order; all are done."""


def together(keeper: object) -> Together | None:
    """The keeper of sums, if it deals out work as well."""
    return keeper if isinstance(keeper, Together) else None


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
