"""A stored result of worst-tokens as rows to sort, filter and group: the same for the command and the screen.

Plain Python over the result's columns: no torch, no numpy, and no copy of the ten thousand rows but the order of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.drawing.figures import Column
from inspector.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.experiment import ResultObject

ID = "worst-tokens"
GROUPS = ("place", "token", "class", "position", "outlier")
"""What a row is: a place in the text; a token id, a class or a range of positions, all its places together; an outlier,
which is in none of the others but the class of its name."""
VALUES = {
    "nonlinear": ("‖nonlinear‖", ""),
    "linear": ("‖linear‖", ""),
    "total": ("‖error‖", ""),
    "share": ("share", "%"),
    "fvu": ("fvu", "%"),
    "loss": ("loss", "nats"),
    "damage": ("damage", "nats"),
}
"""Heading and unit of each number of a token; `experiments.worst_tokens` has the same, in the same order."""
PERCENT = ("share", "fvu", "part")
_TABLES = {"place": "places", "token": "tokens", "class": "classes", "position": "positions", "outlier": "outliers"}
_FIRST = {
    "place": ("token", "class", "context", "position"),
    "outlier": ("token", "class", "context", "position", "x_norm"),
    "token": ("token", "class", "n", "part"),
    "class": ("class", "n", "part"),
    "position": ("first", "last", "n"),
}
_TEXT = ("token", "class")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Rows of one kind, of one SAE."""

    group: str
    columns: Mapping[str, Sequence[Any]]
    """By name, of equal length."""
    shown: tuple[str, ...]
    """Names of the columns that are shown, the words first."""
    by: str
    """The number by which the result chose its places."""

    def __len__(self) -> int:
        """Rows."""
        return len(self.columns[self.shown[0]])

    def row(self, number: int) -> dict[str, Any]:
        """One row, whole."""
        return {name: values[number] for name, values in self.columns.items()}

    def order(self, by: str, *, descending: bool = True, words: str = "") -> list[int]:
        """Numbers of the rows in an order; what is not known stands last, equals stay as they are.

        Args:
            by: a column.
            descending: the largest first.
            words: only rows whose token or class has this in it, capitals or not.
        """
        rows = self._with(words.lower()) if words else range(len(self))
        values = self.columns[by]
        known = [number for number in rows if values[number] is not None]
        known.sort(key=values.__getitem__, reverse=descending)
        return known + [number for number in rows if values[number] is None]

    def _with(self, words: str) -> list[int]:
        texts = [self.columns[name] for name in _TEXT if name in self.columns]
        return [number for number in range(len(self)) if any(words in text[number].lower() for text in texts)]

    def place(self, number: int) -> tuple[int, int] | None:
        """Context and position of a row, of its worst place where it has several; None: it has none."""
        if "context" not in self.columns:
            return None
        return self.columns["context"][number], self.columns["position"][number]


def listing(result: ResultObject, group: str) -> Listing:
    """The rows of a result.

    Args:
        result: of worst-tokens.
        group: of GROUPS.

    Raises:
        DataError: it has no such rows.
    """
    found = result["result"]
    try:
        columns: dict[str, Any] = dict(found[_TABLES[group]])
        if group == "class":
            own = [number for number, sae in enumerate(columns["sae"]) if sae == found["sae"]]
            columns = {name: [values[number] for number in own] for name, values in columns.items()}
        shown = (*_FIRST[group], *(name for name in VALUES if name in columns))
        if len({len(columns[name]) for name in (*shown, *columns)}) != 1:
            raise ValueError("its columns differ in length")
        return Listing(group=group, columns=columns, shown=shown, by=found["by"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The result has no rows by {group} ({type(error).__name__}: {error}). Measure it again: dm-inspect worst."
        ) from error


def first_column(group: str, by: str) -> str:
    """What rows are sorted by at first: positions by position, all else by the number that chose the places."""
    return {"position": "first", "outlier": "x_norm"}.get(group, by)


def is_of(result: Mapping[str, Any], model: str, text: str, n_contexts: int, context_length: int) -> bool:
    """Whether a result is of this model's text, so that its places are places there."""
    made = result["provenance"]
    found = (made.get("model"), made.get("text") or "", made.get("n_contexts"), made.get("context_length"))
    return found == (model, text, n_contexts, context_length)


def heading(name: str) -> str:
    """Of a column, as short as it is clear."""
    named = {"n": "seen", "part": "part", "x_norm": "‖x‖", "first": "from", "last": "to"}
    return VALUES[name][0] if name in VALUES else named.get(name, name)


def column(name: str) -> Column:
    """Of the figures' tables."""
    unit = "%" if name in PERCENT else VALUES.get(name, ("", ""))[1]
    return Column(title=heading(name), unit=unit, digits=3 if name == "part" else 1 if name in PERCENT else 2)


def shown_value(name: str, value: Any) -> Any:
    """As people read it: fractions in percent, contexts from 1, a token with marks around it.

    Without them a leading space, which most tokens have, could not be seen.
    """
    if name == "token":
        return f"'{value}'"
    if name == "context":
        return value + 1
    return 100.0 * value if name in PERCENT and value is not None else value


def said(result: ResultObject, shown: Listing) -> str:
    """Of which tokens these rows are, in one line."""
    found = result["result"]
    what = f"{found['n_tokens']:,} tokens"
    if shown.group == "place" and len(shown) < found["n_tokens"]:
        what = f"{len(shown):,} with the largest {heading(shown.by)} of {what}"
    what += f" · positions {found['first_position']} to {found['last_position']} · {found['n_contexts']:,} contexts"
    return what + (f" · {found['n_outliers']:,} outliers apart" if found["n_outliers"] else "")
